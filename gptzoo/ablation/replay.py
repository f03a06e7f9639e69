"""Trains a cell of a study again, apart, and says whether its numbers come out again: to the bit where they must."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptzoo.ablation.collecting import last_value
from gptzoo.ablation.ledger import CELL, CELLS, ENDED, CellRecord, broken_seals, read_cell
from gptzoo.ablation.pool import run_jobs
from gptzoo.ablation.remote import Nobody
from gptzoo.ablation.worker import Job
from gptzoo.environment import changes
from gptzoo.errors import GPTZooError, Interrupted, did_you_mean
from gptzoo.files import TEMPORARY
from gptzoo.recipe.compose import compose
from gptzoo.runs import Records, RunDirectory

TOLERANCE = 0.01
"""Share of its value that the metric at the end may differ by where bits cannot be equal.

Sums that are taken in another order part two runs slowly; at the end they are as far apart as two seeds at most, and
those of the pilot study spread by 0.7 % of the loss.
"""


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Args:
        cell: The folder that was replayed.
        reproduced: Whether it is the same result, by the measure that applies.
        exact: Whether that measure was equality of every bit.
        lines: What was compared, and what came out, for people.
    """

    cell: Path
    reproduced: bool
    exact: bool
    lines: tuple[str, ...]


def replay(
    cell: str,
    *,
    runs: str | os.PathLike[str] = "runs",
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    tolerance: float = TOLERANCE,
) -> Replay:
    """Train a cell again, in a process of one thread as in its study, and compare. The cell itself is only read.

    In the environment that it was made in, metrics and final weights must be equal bit for bit. Elsewhere, the
    metrics at the end must agree within the tolerance.

    Args:
        cell: The id of a run, `<arm>-<seed>`, `<study>/<arm>-<seed>`, or the folder.
        runs: Where studies stand.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        tolerance: Share of each metric that it may differ by, elsewhere.

    Raises:
        Interrupted: A signal came.
        GPTZooError: There is no such cell, or several, or it has not ended.
    """
    path = find_cell(cell, Path(runs))
    record = read_cell(path)
    if record is not None and record.status == "killed":
        raise GPTZooError(
            f"the cell was {record.reason}. It has no result to compare with; replay one that ended.", str(path)
        )
    if record is None or record.status not in ENDED:
        how = "has no record" if record is None else f"is {record.status}"
        raise GPTZooError(f"the cell {how}, so there is nothing to compare with. Run its study.", str(path))
    with tempfile.TemporaryDirectory(prefix="gptzoo-replay-") as folder:
        recipe = compose(path / "recipe.yaml").tree
        job = Job(str(Path(folder) / path.name), record.id, recipe, list(map(str, plugins)), list(map(str, folders)))
        outcome = run_jobs([job], 1, Nobody())
        if outcome.signal is not None:
            raise Interrupted("the replay was stopped; nothing was changed.", outcome.signal)
        status, reason = outcome.statuses[0]
        return _Comparison(path, record, Path(job.folder), tolerance).made(status, reason)


def find_cell(cell: str, runs: Path) -> Path:
    """The folder of a cell. Copies of it in other studies count as one.

    Raises:
        GPTZooError: There is none, or the word means several.
    """
    if (Path(cell) / CELL).is_file():
        return Path(cell)
    known = [path.parent for path in sorted(runs.glob(f"*/{CELLS}/*/{CELL}")) if TEMPORARY not in path.parent.name]
    records = {path: read_cell(path) for path in known}
    found = [path for path, record in records.items() if cell in _names(path, record)]
    ids = {record.id if (record := records[path]) else "" for path in found}
    if len(ids) > 1:
        which = ", ".join(_long(path) for path in found)
        raise GPTZooError(f"{cell} may mean {which}. Give one of these, or an id.", str(runs))
    if not found:
        names = [*(path.name for path in known), *map(_long, known)]
        hint = did_you_mean(cell, names) or " Give an id from results.csv, or --runs."
        raise GPTZooError(f"there is no cell {cell!r}.{hint}", str(runs))
    return min(found, key=lambda path: bool(record.copied_from) if (record := records[path]) else True)


def _names(path: Path, record: CellRecord | None) -> set[str]:
    return {path.name, _long(path), *({record.id} if record else ())}


def _long(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.name}"


class _Comparison:
    """A cell and its replay."""

    def __init__(self, cell: Path, record: CellRecord, again: Path, tolerance: float) -> None:
        self.cell, self.record, self.again, self.tolerance = cell, record, again, tolerance

    def made(self, status: str, reason: str) -> Replay:
        changed = broken_seals(self.cell, self.record)
        lines = [f"{name} of the cell was changed after the run" for name in changed]
        if status != self.record.status:
            lines.append(f"it ended as {self.record.status}, and now as {status}: {reason}")
            return Replay(self.cell, False, False, tuple(lines))
        elsewhere = self.elsewhere()
        exact = not elsewhere
        compared = self.bits() if exact else self.metrics()
        same = not changed and all(compared.values())
        if exact:
            lines.append("same environment: every bit must be equal")
        else:
            lines.append(f"another environment ({'; '.join(elsewhere)}): within {self.tolerance:g} of each value")
        return Replay(self.cell, same, exact, (*lines, *compared))

    def elsewhere(self) -> list[str]:
        """Why bits need not be equal; empty where they must."""
        then = RunDirectory.at(self.cell, lock=False).read_environment()
        now = RunDirectory.at(self.again, lock=False).read_environment()
        resumed: list[Mapping[str, object]] = then.get("changes", [])  # type: ignore[assignment]
        return changes(then, now) + ["the cell was resumed in another one" for each in resumed if "environment" in each]

    def bits(self) -> dict[str, bool]:
        """What must be equal, in words, and whether it is."""
        found = {}
        for name, read in {"metrics.jsonl": _metrics, "final weights": _weights}.items():
            before, now = read(self.cell), read(self.again)
            same = before is not None and before == now
            found[f"{name}: {'equal' if same else 'differ'}, sha256 {_short(before)} and {_short(now)}"] = same
        return found

    def metrics(self) -> dict[str, bool]:
        """The metrics at the end."""
        names = {key for record in Records.read(self.cell / "metrics.jsonl") for key in record if _is_metric(key)}
        found = {}
        for name in sorted(names):
            before, now = last_value(self.cell, name), last_value(self.again, name)
            same = before is not None and now is not None and self.near(before, now)
            found[f"{name}: {before} and {now}{'' if same else ', too far apart'}"] = same
        return found or {"it has no metrics to compare": False}

    def near(self, before: float, now: float) -> bool:
        return before == now or (math.isfinite(before) and abs(now - before) <= self.tolerance * abs(before))


def _is_metric(key: str) -> bool:
    return key == "exact_match" or key.startswith("val_")


def _metrics(folder: Path) -> str | None:
    return _sha256([folder / "metrics.jsonl"])


def _weights(folder: Path) -> str | None:
    """Of the newest checkpoint."""
    checkpoints = sorted(folder.glob("checkpoints/step-*/model.safetensors"))
    return _sha256(checkpoints[-1:])


def _sha256(paths: Sequence[Path]) -> str | None:
    if not paths or not paths[0].exists():
        return None
    return hashlib.sha256(paths[0].read_bytes()).hexdigest()


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
