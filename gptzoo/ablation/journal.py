"""The journal of a study: which plans it had and how its cells ended, in their order. Lines are added, never changed.

Each line carries the sha256 of the one before, so that a line that is edited or taken out is missed by the next. What a
cell's folder holds is compared with how the cell ended: a run that is gone, was changed or was run once more is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptzoo.ablation.ledger import CELL, CELLS, OUTCOMES, CellRecord, hash_unmarked, read_cell
from gptzoo.files import append_line, canonical_json, sha256_of

if TYPE_CHECKING:
    from gptzoo.ablation.pool import Audience

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Ending:
    """How a cell ended.

    Args:
        folder: The cell's, under `cells/`.
        id: The run's identity.
        status: `done`, `diverged` or `killed`.
        metrics: sha256 of its metrics.jsonl.
        record: sha256 of its cell.json.
    """

    folder: str
    id: str
    status: str
    metrics: str
    record: str


class Journal:
    """A study's journal. A last line that was cut short by a crash counts as not written.

    Args:
        folder: The study's.

    Attributes:
        endings: By identity, in their order; a cell that was deleted and run again has two.
        plan: sha256 of the present plan.
        known: Identities that had ended when a plan was written, plan by plan.
        fault: What was done to the journal, one line; empty if nothing was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / JOURNAL
        self.endings: dict[str, list[Ending]] = {}
        self.known: list[frozenset[str]] = []
        self.plan = self.fault = self._last = ""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            if not self._take(line) and not self.fault:
                self.fault = f"{JOURNAL} was changed: line {number} does not follow from the one before"

    def _take(self, line: bytes) -> bool:
        """Read a line; whether it follows from the one before."""
        after, self._last = self._last, hashlib.sha256(line).hexdigest()
        try:
            entry = json.loads(line)
            follows = entry.pop("after") == after
            if entry.pop("event") == "plan":
                self.plan = str(entry["sha256"])
                self.known.append(frozenset(self.endings))
            else:
                ending = Ending(**entry)
                self.endings.setdefault(ending.id, []).append(ending)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return False
        return follows

    def _add(self, event: str, facts: Mapping[str, object]) -> None:
        line = canonical_json({"event": event, **facts, "after": self._last})
        append_line(self.path, line)
        self._take(line.encode())

    def has_plan(self, sha256: str) -> None:
        """Note the plan that the study has from now on.

        Raises:
            NoSpace: The disk is full.
            GPTZooError: The folder cannot be written.
        """
        if self.plan != sha256:
            self._add("plan", {"sha256": sha256})

    def ended(self, cell: str) -> None:
        """Note how a cell ended, if it has; `cell` is its folder's name. Raises as `has_plan` does."""
        path = self.folder / CELLS / cell
        record = read_cell(path)
        if record is not None and record.status in OUTCOMES:
            metrics = record.sealed.get("metrics.jsonl", "")
            self._add("ended", asdict(Ending(cell, record.id, record.status, metrics, sha256_of(path / CELL))))

    def found(self, cells: Iterable[str]) -> None:
        """Note cells that are there and have ended unnoticed: copied ones, and the last before a crash."""
        for cell in cells:
            record = read_cell(self.folder / CELLS / cell)
            if record is not None and record.id not in self.endings:
                self.ended(cell)

    def has_run(self, record: CellRecord) -> bool:
        """Whether a cell ended in this study, even if it was set aside and then copied back."""
        return any(ending.record == hash_unmarked(record) for ending in self.endings.get(record.id, ()))

    def faults(self, planned: Iterable[Mapping[str, object]]) -> Iterator[str]:
        """What was done to cells after they had ended, one line each; `planned` has their `folder` and `id`."""
        if self.fault:
            yield self.fault
        for cell in planned:
            path, id_ = self.folder / CELLS / str(cell["folder"]), str(cell["id"])
            if said := _fault(path, read_cell(path), id_, self.endings.get(id_, ())):
                yield f"{CELLS}/{path.name} {said}"


def _fault(path: Path, record: CellRecord | None, id_: str, endings: Sequence[Ending]) -> str:
    if record is not None and record.id != id_:
        return f"holds another run than the planned one: of seed {record.seed}, id {record.id} and not {id_}"
    if not endings:
        return ""
    first, last = endings[0], endings[-1]
    if record is None:
        return f"ended as {last.status} and is gone"
    if record.status != last.status:
        return "" if last.status == "killed" else f"ended as {last.status}, and now says that it is {record.status}"
    if last.record not in (sha256_of(path / CELL), hash_unmarked(record)):
        return f"has another {CELL} than the one it ended with"
    if first.metrics != last.metrics and first.status != "killed":
        return f"ended as {first.status} and was run once more, with other numbers; now it is {last.status}"
    return ""


class Following:
    """Keeps the journal while cells run, and passes everything on; a `gptzoo.ablation.pool.Audience`.

    Args:
        journal: The study's.
        cells: The folder of each job's cell.
        audience: Who else is told.
    """

    def __init__(self, journal: Journal, cells: Sequence[str], audience: Audience) -> None:
        self.journal, self.cells, self.audience = journal, cells, audience

    def started(self, job: int) -> None:
        self.audience.started(job)

    def stepped(self, job: int, step: int, steps: int, loss: float) -> None:
        self.audience.stepped(job, step, steps, loss)

    def again(self, job: int, why: str) -> None:
        self.audience.again(job, why)

    def ended(self, job: int, status: str, reason: str) -> None:
        self.journal.ended(self.cells[job])
        self.audience.ended(job, status, reason)

    def tick(self) -> None:
        self.audience.tick()
