"""A worker of a study: a process of one thread that runs cells, one after the other, and dies with its supervisor.

`python -m gptzoo.ablation.worker PARENT` reads a job per line from standard input, JSON, and writes what happens to
standard output, JSON too. Whatever plugins print goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gptzoo.errors import GPTZooError, Interrupted, NotFinite, RunInUse
from gptzoo.files import canonical_json

if TYPE_CHECKING:
    from gptzoo.evaluation import Scores
    from gptzoo.generation import Generated
    from gptzoo.transfer import Transfer

Tell = Callable[[dict[str, object]], None]

SECONDS_BETWEEN = 0.25
"""Between two messages about steps."""

GRACE = 4.0
"""Seconds that a worker has left to save when its supervisor is gone."""

PATIENCE = 2 * GRACE
"""Seconds to wait for a cell that the worker of a killed supervisor is still saving."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """A cell to run.

    Args:
        folder: Where.
        id: The identity that it must have; empty for any.
        recipe: Resolved, plain.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        limits: The metric at a step beyond which the cell is killed there, by step.
        metric: The one that limits are of.
        read_at: How far its loss by position is read at the end, in times the context length; 0 for not at all.
    """

    folder: str
    id: str
    recipe: Mapping[str, object]
    plugins: Sequence[str] = ()
    folders: Sequence[str] = ()
    limits: Mapping[int, float] = field(default_factory=dict)
    metric: str = "val_loss"
    read_at: int = 0

    def to_json(self) -> str:
        """One line."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job of a line; JSON has words for keys, limits have steps."""
        kept = json.loads(line)
        return cls(**{**kept, "limits": {int(step): limit for step, limit in kept["limits"].items()}})


class Killed(Exception):
    """The cell is too far behind at a rung. Its text is the reason, one line."""


def run_cell(job: Job, tell: Tell) -> None:
    """Run a cell, or go on with it, and record how it ended in its folder; `tell` is told the same.

    Raises:
        Interrupted: A signal came; the run was saved.
    """
    from gptzoo.ablation.attention_logits import write_logits
    from gptzoo.ablation.ledger import seals, write_cell
    from gptzoo.ablation.reading import write_positions

    folder = Path(job.folder)
    try:
        record, made, data = _begun(job)
        status, reason = "done", ""
        try:
            record = _trained(job, record, tell)
            write_logits(folder, made, data)
            write_positions(folder, made, data, job.read_at)
        except NotFinite as error:
            status, reason = "diverged", str(error)
        except Killed as killed:
            status, reason = "killed", str(killed)
        record = replace(record, status=status, reason=reason, sealed=seals(folder))
        write_cell(folder, record)
    except Interrupted:
        raise
    except Exception as error:
        status, reason = "failed", _reason(error)
        _record_failure(folder, job, reason)
    tell({"event": "ended", "status": status, "reason": reason})


def _begun(job: Job):  # type: ignore[no-untyped-def]  # a CellRecord, a Plan and Data, imported late
    """The cell's record with all that is known before the first step, its recipe and its data.

    Raises:
        GPTZooError: Here the recipe makes another run than the planned one.
    """
    from gptzoo.ablation.fingerprints import data_order, initial_weights
    from gptzoo.ablation.ledger import CellRecord, write_cell
    from gptzoo.building import build_data, build_model, build_tokenizer, plan, with_vocab_size
    from gptzoo.files import make_folder
    from gptzoo.model import named_parameters
    from gptzoo.running import run_identity

    made = plan(job.recipe, plugins=job.plugins, folders=job.folders)
    tokenizer = build_tokenizer(made)
    data = build_data(made, tokenizer)
    made = with_vocab_size(made, tokenizer)
    id_ = run_identity(made, data.key)
    if job.id not in ("", id_):
        raise GPTZooError(
            f"its identity is {id_} here, not {job.id}: data or plugins have changed. Run the plan again."
        )
    model, train = build_model(made), made.recipe.train
    named = named_parameters(model)
    record = CellRecord(
        id=id_,
        seed=made.recipe.seed,
        parameters=sum(each.tensor.numel() for each in named),
        non_embedding=sum(each.tensor.numel() for each in named if each.role != "embedding"),
        init=initial_weights(model),
        data_hash=data_order(data, made.recipe.seed, train.steps, train.batch_size),
    )
    make_folder(Path(job.folder))
    write_cell(Path(job.folder), record)
    return record, made, data


def _trained(job: Job, record, tell: Tell):  # type: ignore[no-untyped-def]  # a CellRecord, imported late
    from gptzoo.ablation.fingerprints import PeakMemory
    from gptzoo.running import train

    memory, watcher, since = PeakMemory(), Teller(tell, job), time.monotonic()
    while True:
        try:
            train(job.recipe, directory=job.folder, plugins=job.plugins, folders=job.folders, watcher=watcher)
            return replace(record, peak_memory=memory.read())
        except RunInUse:
            if time.monotonic() - since > PATIENCE:
                raise
            time.sleep(0.2)


def _record_failure(folder: Path, job: Job, reason: str) -> None:
    from gptzoo.ablation.ledger import CellRecord, read_cell, write_cell

    try:
        before = read_cell(folder)
        mine = before if before and before.id == job.id else CellRecord(id=job.id, seed=int(str(job.recipe["seed"])))
        folder.mkdir(parents=True, exist_ok=True)
        write_cell(folder, replace(mine, status="failed", reason=reason))
    except (GPTZooError, OSError):
        pass  # the disk is full, or gone: the supervisor is told all the same


def _reason(error: Exception) -> str:
    if isinstance(error, GPTZooError):
        return " ".join(error.lines)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})".split())[:500]


class Teller:
    """Tells the supervisor how far the cell is, and stops it beyond a limit; a `gptzoo.trainer.Watcher`."""

    def __init__(self, tell: Tell, job: Job) -> None:
        self.tell, self.job = tell, job
        self.told = 0.0

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.told >= SECONDS_BETWEEN or step == steps:
            self.told = now
            self.tell({"event": "step", "step": step, "steps": steps, "loss": metrics["loss"]})

    def evaluated(self, step: int, scores: Scores) -> None:
        """Compare with the limit of this step, if it has one.

        Raises:
            Killed: The cell is beyond it.
        """
        from gptzoo.ablation.plan import HIGHER_IS_BETTER
        from gptzoo.ablation.stopping import is_beyond

        metric, limit = self.job.metric, self.job.limits.get(step)
        value = scores.loss if metric == "val_loss" else getattr(scores, metric)
        if limit is not None and value is not None and is_beyond(value, limit, HIGHER_IS_BETTER[metric]):
            train = self.job.recipe["train"]
            assert isinstance(train, Mapping)
            said = f"{metric} {value:.4f}, the limit was {limit:.4f}"
            raise Killed(f"killed after {step} of {train['steps']} steps: {said}")

    def sampled(self, step: int, samples: Sequence[Generated]) -> None:
        """Samples are the run's."""

    def took(self, transfer: Transfer) -> None:
        """Where weights come from stands in the cell's environment.json."""

    def saved(self, step: int, path: str) -> None:
        """Saving is silent."""


# -- the process -----------------------------------------------------------------------------------------------------


def main(parent: int) -> int:
    """Run jobs until standard input ends; returns the exit code."""
    _die_with(parent)
    out = _private_output()
    jobs = _Jobs()
    tell = _teller(out)
    _wake()
    tell({"event": "ready"})
    while (line := jobs.next()) is not None:
        jobs.busy = True
        try:
            run_cell(Job.from_json(line), tell)
        except Interrupted as stopped:
            tell({"event": "interrupted"})
            return stopped.exit_code
        jobs.busy = False
    return 0


def _wake() -> None:
    """Import what takes seconds before a job is given: they are not the job's silence."""
    import torch

    import gptzoo.running  # noqa: F401

    torch.set_num_threads(1)


def _die_with(parent: int) -> None:
    """Be told to save and stop when the supervisor dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we asked
        sys.exit(1)


def _private_output() -> TextIO:
    """Standard output for messages alone: what anything else prints goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def _teller(out: TextIO) -> Tell:
    def tell(message: dict[str, object]) -> None:
        try:
            out.write(f"{json.dumps(message)}\n")
            out.flush()
        except OSError:
            pass  # the supervisor is gone; the signal of that is on its way

    return tell


class _Jobs:
    """Standard input, read by a thread of its own, so that its end is seen while a cell runs."""

    def __init__(self) -> None:
        self.busy = False
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> str | None:
        """The next job, or None at the end."""
        return self._lines.get()

    def _read(self) -> None:
        rest = b""
        while more := os.read(0, 65536):  # not sys.stdin: its lock would be held when the process ends
            *lines, rest = (rest + more).split(b"\n")
            for line in lines:
                self._lines.put(line.decode())
        self._lines.put(None)
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)  # where the kernel does not tell us that the supervisor died
            time.sleep(GRACE)
            os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
