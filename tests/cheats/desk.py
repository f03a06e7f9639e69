"""An honest study to cheat in, and the commands that a reader of it would ask.

The study: rotary positions, and an optimizer that diverges at one of three seeds, against no positions at all. Every
cheat has a copy of its own, and works in it as a person would: with an editor, `rm`, `cp` and the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from gptzoo.ablation.collecting import collect
from gptzoo.ablation.execution import run_study
from gptzoo.ablation.ledger import read_cell, write_cell
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.pool import Audience, PoolOutcome
from gptzoo.ablation.worker import Job, run_cell
from gptzoo.cli import run
from gptzoo.errors import Interrupted
from gptzoo.recipe.compose import compose

PLUGIN = '''
"""An optimizer that does not end well at one start in three."""

import hashlib

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.optimizer("touchy", Touchy)


class Touchy(torch.optim.SGD):
    """Gradient descent that loses its mind after two steps, if the initial weights are unlucky."""

    def __init__(self, parameters, learning_rate: float):
        tensors = {parameter.name: parameter.tensor for parameter in parameters}
        super().__init__(list(tensors.values()), lr=learning_rate)
        digest = hashlib.sha256(tensors["layers.0.attention.k.weight"].detach().numpy().tobytes()).digest()
        self.doomed, self.steps = digest[0] % 3 == 0, 0

    def step(self, closure=None):
        super().step(closure)
        self.steps += 1
        if self.doomed and self.steps == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))
'''

BASE = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16, "position": "none"},
    "data": {"name": "text", "path": "text.txt", "tokenizer": "byte"},
    "train": {
        **{"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu", "log_every": 1},
        **{"eval_every": 2, "eval_sequences": 4, "save_every": 6},
    },
}
ARMS = {"none": {}, "rope": {"model.position": "rope"}, "touchy": {"train.optimizer": "touchy"}}
PLAN = {
    **{"base": BASE, "baseline": "none", "arms": ARMS, "seeds": 3},
    **{"match": "tokens+params", "free": "model.mlp.hidden", "delta": 0.05},
}
NAME, TUNED = "tiny", "tuned"
TUNE = {"points": 3, "factor": 100, "share": 0.5}

STANDING = ("better", "worse", "equivalent", "undecided")
"""What a verdict says that nobody took away."""


@dataclass(frozen=True)
class Answer:
    """What a command says.

    Args:
        code: Its exit code.
        text: What it prints.
        stands: Whether it leaves the reader with a verdict that looks sound.
    """

    code: int
    text: str
    stands: bool


class Here:
    """Runs cells in this very process, which saves the start of one; a `gptzoo.ablation.launching.Launcher`.

    Args:
        most: After so many it acts as if somebody had pressed Ctrl-C.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    def at_once(self, here: int, jobs: int) -> int:
        return 1

    def run(
        self, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None, folder: Path
    ) -> PoolOutcome:
        statuses: dict[int, tuple[str, str]] = {}
        for index, job in enumerate(jobs[: self.most]):
            told: list[dict[str, object]] = []
            run_cell(job, told.append)
            statuses[index] = str(told[-1]["status"]), str(told[-1]["reason"])
            audience.ended(index, *statuses[index])
        return PoolOutcome(statuses, signal.SIGINT if len(statuses) < len(jobs) else None)


class Desk:
    """Where somebody works on a study. Paths are relative, so that a copy is the same study.

    Args:
        folder: With the text, the plugin, the plans and `runs`.
        name: The study that is worked on: `tiny`, or `tuned`, which is the same without the touchy arm, and tunes.
    """

    def __init__(self, folder: Path, name: str = NAME) -> None:
        self.folder, self.name = folder, name

    @classmethod
    def laid(cls, folder: Path) -> Desk:
        """The honest studies, run."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "touchy.py").write_text(PLUGIN)
        (folder / "text.txt").write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
        desk = cls(folder)
        with desk.working():
            desk.plan()
            desk.run()
            desk.plan(TUNED, arms=desk.arms(), seeds=2, aa=False, tune=TUNE)
            desk.run(TUNED)
            ended = [cell.status for cell in collect(desk.study).cells if cell.arm == "touchy"]
            assert sorted(ended) == ["diverged", "done", "done"], f"choose another lot: {ended}"
        return desk

    def copied(self, folder: Path) -> Desk:
        """All of it once more, to be spoilt."""
        return Desk(Path(shutil.copytree(self.folder, folder)))

    @contextlib.contextmanager
    def working(self) -> Iterator[Desk]:
        """Within its folder, on one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with contextlib.chdir(self.folder):
                yield self
        finally:
            torch.set_num_threads(threads)

    # -- what lies on it ---------------------------------------------------------------------------------------------

    @property
    def study(self) -> Path:
        return Path("runs") / self.name

    def on(self, name: str) -> Desk:
        """At work on another study."""
        return Desk(self.folder, name)

    def cell(self, name: str) -> Path:
        return self.study / "cells" / name

    @property
    def diverged(self) -> str:
        """The folder of the cell that diverged."""
        return next(cell.path for cell in collect(self.study).cells if cell.status == "diverged").split("/")[1]

    def plan(self, name: str = NAME, **changes: object) -> Path:
        """Write the plan, with changes."""
        path = Path(f"{name}.yaml")
        path.write_text(json.dumps({**PLAN, **changes}))
        return path

    def arms(self, **changes: object) -> dict[str, object]:
        """The arms without the touchy one, rope with changes."""
        return {"none": {}, "rope": {"model.position": "rope", **changes}}

    # -- what can be done on it --------------------------------------------------------------------------------------

    def run(self, plan: str = NAME, runs: str = "runs", most: int | None = None) -> None:
        """`gptzoo ablate run`; stopped by hand after `most` cells."""
        console = Console(file=io.StringIO())
        with contextlib.suppress(Interrupted):
            run_study(read_plan(f"{plan}.yaml"), runs=runs, plugins=["touchy.py"], console=console, launcher=Here(most))

    def train(self, cell: str, folder: str, **changes: object) -> Path:
        """A run apart, of a cell's recipe with changes."""
        recipe = compose(self.cell(cell) / "recipe.yaml").tree
        job = Job(folder, "", compose(recipe, changes).tree, ["touchy.py"])
        told: list[dict[str, object]] = []
        run_cell(job, told.append)
        assert told[-1]["status"] == "done", told[-1]
        return Path(folder)

    def put(self, run: Path, cell: str, **record: object) -> None:
        """Put a run in a cell's place, and write what one likes into its record."""
        shutil.rmtree(self.cell(cell))
        shutil.copytree(run, self.cell(cell))
        found = read_cell(self.cell(cell))
        assert found is not None
        write_cell(self.cell(cell), replace(found, **record))  # type: ignore[arg-type]

    def edit(self, path: Path, old: str, new: str) -> None:
        """With an editor."""
        text = path.read_text()
        assert old in text, f"{path} has no {old}"
        path.write_text(text.replace(old, new))

    # -- what a reader asks ------------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> Answer:
        """A command of `gptzoo`; what it lets pass stands."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = run(list(arguments))
        return Answer(code, out.getvalue(), code == 0)

    def asked_to_run(self, plan: str = NAME) -> Answer:
        """`gptzoo ablate run` as the command line has it: for what is refused before anything runs."""
        return self.command("ablate", "run", f"{plan}.yaml", "-p", "touchy.py")

    def reported(self, study: Path | None = None) -> Answer:
        """`gptzoo ablate report`, and whether a verdict stands in it."""
        folder = study or self.study
        answer = self.command("ablate", "report", str(folder))
        return replace(answer, stands=answer.stands and bool(standing(folder)))

    def replayed(self, cell: str) -> Answer:
        """`gptzoo ablate replay`."""
        return self.command("ablate", "replay", f"{self.name}/{cell}", "-p", "touchy.py")


def standing(study: Path) -> dict[str, str]:
    """The verdicts of a report, by arm, that look sound."""
    said = json.loads((study / "summary.json").read_text())
    if said["exploratory"] or said["mismatches"]:
        return {}
    return {arm["arm"]: arm["verdict"] for arm in said["arms"] if arm["verdict"] in STANDING}
