"""What the cells of a study have brought so far. Planning goes on from there: each stage rests on the one before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptzoo.ablation.collecting import LAST, curve
from gptzoo.ablation.ledger import CELLS, OUTCOMES, read_cell
from gptzoo.ablation.study import Point
from gptzoo.ablation.verdicts import Cell
from gptzoo.runs import Records


@dataclass(frozen=True)
class Ended:
    """How a cell ended.

    Args:
        status: `done`, `diverged` or `killed`.
        value: The metric as verdicts use it; None unless done.
        curve: The metric over the training.
        step_seconds: Of training, one for each step that was timed.
    """

    status: str
    value: float | None
    curve: tuple[Point, ...]
    step_seconds: tuple[float, ...]

    def shares(self, steps: int) -> list[tuple[float, float]]:
        """The metric over the training: share of the steps and value."""
        return [(point.step / steps, point.value) for point in self.curve]

    def is_killed_beyond(self, limits: Mapping[int, float]) -> bool:
        """Whether it was killed at a step that has no limit any more: then it is to go on."""
        return self.status == "killed" and not (self.curve and self.curve[-1].step in limits)

    def result(self, arm: str, seed: int) -> Cell | None:
        """As verdicts see it; None if its evaluations lack the metric, which no verdict can do without."""
        if self.status == "done" and self.value is None:
            return None
        value = math.nan if self.value is None else self.value
        return Cell(arm, seed, value, killed=self.status == "killed")


class Past:
    """The ended cells of a study.

    Args:
        folder: The study's; None for a study of which nothing ran.
        metric: The plan's.
    """

    def __init__(self, folder: Path | None, metric: str) -> None:
        self.folder, self.metric = folder, metric
        self._known: dict[tuple[str, str], Ended] = {}

    def of(self, folder: str, id_: str) -> Ended | None:
        """How a cell ended, by its folder under `cells/` and its identity; None if it has not, or failed."""
        if self.folder is None:
            return None
        if (folder, id_) not in self._known:
            record = read_cell(self.folder / CELLS / folder)
            if record is None or record.id != id_ or record.status not in OUTCOMES:
                return None
            read = self._read(self.folder / CELLS / folder, record.status)
            if record.status == "killed":  # it may go on, where a plan drops its rungs
                return read
            self._known[folder, id_] = read
        return self._known[folder, id_]

    def _read(self, path: Path, status: str) -> Ended:
        points = tuple(curve(path, self.metric))
        value = statistics.fmean(p.value for p in points[-LAST:]) if points and status == "done" else None
        seconds = tuple(float(r["seconds"]) for r in Records.read(path / "timings.jsonl"))  # type: ignore[arg-type]
        return Ended(status, value, points, seconds)
