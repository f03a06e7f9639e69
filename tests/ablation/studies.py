"""Tiny studies: two layers of width 16, six steps."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from gptzoo.ablation.collecting import collect
from gptzoo.ablation.execution import StudyRun, run_study
from gptzoo.ablation.journal import Journal
from gptzoo.ablation.ledger import hash_of, read_cell, seals, study_at, write_cell
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.study import CellOutcome, StudyOutcome

SLOW = '''
"""A schedule that takes its time, and may fail."""

import time

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.schedule("slow", Slow)


class Slow:
    """Constant."""

    def __init__(self, seconds: float = 0.0, fail_at: int = -1):
        self.seconds, self.fail_at = seconds, fail_at

    def __call__(self, step: int, steps: int) -> float:
        if step == self.fail_at:
            raise RuntimeError("no luck")
        time.sleep(self.seconds)
        return 1.0
'''


@dataclass(frozen=True)
class Place:
    """Where tiny studies are run."""

    folder: Path

    @property
    def plugin(self) -> str:
        return str(self.folder / "slow.py")

    def plan(self, arms: dict, *, name: str = "tiny", seconds: float = 0.0, seeds: int = 2, **more: object) -> Path:
        """Write a plan."""
        base = {
            "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16},
            "data": {"name": "text", "path": str(self.folder / "text.txt"), "tokenizer": "byte"},
            "train": {
                **{"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu", "log_every": 1},
                **{"eval_every": 2, "eval_sequences": 4, "save_every": 2},
                "schedule": {"name": "slow", "seconds": seconds},
            },
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"base": base, "arms": arms, "seeds": seeds, **more}))
        return path

    def run(self, plan: Path, runs: str = "runs", workers: int = 1, **more: object) -> StudyRun:
        """Run a plan in this process."""
        console = Console(file=io.StringIO())
        where = self.folder / runs
        return run_study(read_plan(plan), runs=where, workers=workers, plugins=[self.plugin], console=console, **more)  # type: ignore[arg-type]

    def start(
        self, plan: Path, runs: str, workers: int = 1, *, more: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Run a plan from the command line."""
        command = [sys.executable, "-m", "gptzoo", "ablate", "run", str(plan), "-p", self.plugin]
        return subprocess.Popen(
            [*command, "--runs", str(self.folder / runs), "--workers", str(workers), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def study(self, runs: str = "runs", name: str = "tiny") -> Path:
        return self.folder / runs / name

    def outcome(self, runs: str = "runs", name: str = "tiny") -> StudyOutcome:
        """What came of it, without what no two runs share."""
        made = collect(self.study(runs, name))
        return replace(made, cells=tuple(timeless(cell) for cell in made.cells))

    def ended(self, runs: str, name: str = "tiny") -> list[Path]:
        """The records of the cells that have ended."""
        records = sorted(self.study(runs, name).glob("cells/*/cell.json"))
        return [path for path in records if (r := read_cell(path.parent)) and r.status in ("done", "diverged")]


def timeless(cell: CellOutcome) -> CellOutcome:
    """A cell without its times and its memory."""
    points = tuple(replace(point, seconds=0.0) for point in cell.curve)
    return replace(cell, seconds=0.0, peak_memory=0, curve=points)


def as_if_run(study: Path) -> None:
    """Seals and journal for what lies in a study's folder now, as if all of it had come out so."""
    cells = sorted(path.parent for path in study.glob("cells/*/cell.json"))
    for cell in cells:
        if record := read_cell(cell):
            write_cell(cell, replace(record, sealed=seals(cell)))
    Journal(study).path.unlink(missing_ok=True)
    journal = Journal(study)
    journal.has_plan(hash_of(study_at(study).plan))
    journal.found(cell.name for cell in cells)


def change(path: Path, **values: object) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


TWO_ARMS: dict = {"learned": {}, "none": {"model.position": "none"}}


def wait_until(true: Callable[[], object], seconds: float = 30.0) -> None:
    """Look again and again."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
