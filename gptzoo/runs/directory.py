"""The run directory: one training's folder, held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import re
import socket
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gptzoo.errors import CheckpointError, GPTZooError, RunInUse, did_you_mean
from gptzoo.files import (
    TEMPORARY,
    canonical_json,
    failpoint,
    make_folder,
    remove,
    sweep,
    sync_folder,
    temporary_name,
    write_atomically,
    writing,
)
from gptzoo.runs import manifest as manifests

if TYPE_CHECKING:
    from gptzoo.runs.checkpoint import Checkpoint

_PRUNED = "pruned-"


def identity(parts: Mapping[str, object]) -> str:
    """The id of a run: the first 12 hex digits of the sha256 over the canonical JSON of what makes it that run."""
    return hashlib.sha256(canonical_json(dict(parts)).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """A name as it stands in a folder's name: letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "run"


class RunDirectory:
    """A run's folder; see `open` and `at`.

    Args:
        path: The folder, which exists.
        lock: The lock on it; None for reading only.
        keep: How many of the newest checkpoints pruning leaves, besides the best.
    """

    def __init__(self, path: Path, lock: RunLock | None, keep: int = 2) -> None:
        assert keep >= 1
        self.path = path
        self.keep = keep
        self._lock = lock
        self._warned: set[str] = set()

    @classmethod
    def open(cls, root: Path, name: str, identity: str, *, keep: int = 2) -> RunDirectory:
        """Create `root/<name>-<identity>`, or open it again, and hold it until `close`.

        Raises:
            RunInUse: Another process holds it.
            GPTZooError: It cannot be created.
        """
        return cls.create(Path(root) / f"{slug(name)}-{identity}", keep=keep)

    @classmethod
    def create(cls, path: Path, *, keep: int = 2) -> RunDirectory:
        """Create the folder of a run under a name of one's own, or open it again, and hold it until `close`.

        Raises:
            RunInUse: Another process holds it.
            GPTZooError: It cannot be created.
        """
        make_folder(path)
        return cls._held(path, keep)

    @classmethod
    def at(cls, path: Path, *, lock: bool, keep: int = 2) -> RunDirectory:
        """The run that lies in a folder.

        Args:
            path: The folder of a run: it contains `recipe.yaml`.
            lock: Hold it until `close`, for writing; otherwise it is only read.
            keep: How many of the newest checkpoints pruning leaves, besides the best.

        Raises:
            RunInUse: Another process holds it, and `lock` is asked for.
            GPTZooError: No run lies there; runs of like name beside it are named.
        """
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            what = "has no recipe.yaml, so it is not a run" if path.exists() else "there is no such run"
            raise GPTZooError(f"{what}.{did_you_mean(path.name, _runs_in(path.parent))}", str(path))
        return cls._held(path, keep) if lock else cls(path, None, keep)

    @classmethod
    def _held(cls, path: Path, keep: int) -> RunDirectory:
        run = cls(path, RunLock(path), keep)
        run._sweep()
        return run

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment_path(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timings_path(self) -> Path:
        return self.path / "timings.jsonl"

    @property
    def samples_path(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def tokenizer_path(self) -> Path:
        return self.path / "tokenizer"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step stands, if there is one."""
        return self.checkpoints_path / manifests.folder_name(step)

    def write_recipe(self, text: str) -> None:
        """Write `recipe.yaml`: from now on this folder is a run."""
        self._assert_held()
        write_atomically(self.recipe_path, text.encode())

    def write_environment(self, mapping: Mapping[str, object]) -> None:
        """Write `environment.json`."""
        self._assert_held()
        canonical_json(dict(mapping))  # refuses numbers that are not finite
        write_atomically(self.environment_path, f"{json.dumps(mapping, indent=2, sort_keys=True)}\n".encode())

    def read_environment(self) -> dict[str, object]:
        """The content of `environment.json`; empty if there is none yet.

        Raises:
            GPTZooError: It is not a JSON object.
        """
        if not self.environment_path.exists():
            return {}
        try:
            environment = json.loads(self.environment_path.read_bytes())
        except (ValueError, RecursionError):
            environment = None
        if not isinstance(environment, dict):
            raise GPTZooError("not a JSON object. Restore the file, or start a new run.", str(self.environment_path))
        return environment

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, read it back, and only then remove the old ones but the newest `keep` and the best.

        Raises:
            NoSpace: The disk is full; the earlier checkpoints stand.
            CheckpointError: What was read back is not what was written; nothing is removed.
        """
        from gptzoo.runs.checkpoint import write_checkpoint

        self._assert_held()
        make_folder(self.checkpoints_path)
        folder = self.checkpoint_path(checkpoint.step)
        write_checkpoint(folder, checkpoint)
        manifests.verify(folder)
        failpoint("checkpoint.verified")
        self._prune(checkpoint.step)
        return folder

    def steps(self) -> list[int]:
        """The steps of the checkpoints that lie here, sound or not, ascending."""
        names = os.listdir(self.checkpoints_path) if self.checkpoints_path.is_dir() else []
        return sorted(step for name in names if (step := manifests.step_of(name)) is not None)

    def load(self, step: int) -> Checkpoint:
        """The checkpoint of a step.

        Raises:
            CheckpointError: There is none, or it is not sound.
        """
        from gptzoo.runs.checkpoint import read_checkpoint

        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"no checkpoint of step {step}. Steps here: {known}.", str(self.checkpoints_path))
        return read_checkpoint(self.checkpoint_path(step))

    def latest(self) -> Checkpoint | None:
        """The newest sound checkpoint; None if none was ever saved. Each one skipped is warned of.

        Raises:
            CheckpointError: There are checkpoints, and none is sound. Nothing is deleted.
        """
        return self._first_sound(lambda: self.steps()[::-1])

    def best(self) -> Checkpoint | None:
        """The sound checkpoint with the lowest `val_loss`, the earliest of equals; None if none has one.

        Raises:
            CheckpointError: There are such checkpoints, and none is sound. Nothing is deleted.
        """
        return self._first_sound(self._ranked)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _assert_held(self) -> None:
        assert self._lock is not None, f"{self.path} was opened for reading only"
        assert self._lock.held, f"{self.path} is held by the parent process"

    def _first_sound(self, candidates: Callable[[], Sequence[int]]) -> Checkpoint | None:
        """The first candidate that can be read. They are listed anew each time: the run may go on meanwhile."""
        skipped: dict[int, CheckpointError] = {}
        while remaining := [step for step in candidates() if step not in skipped]:
            try:
                return self.load(remaining[0])
            except CheckpointError as error:
                if self.checkpoint_path(remaining[0]).exists():  # else it was pruned while we read: not damaged
                    skipped[remaining[0]] = error
                    self._warn(error)
        if not skipped:
            return None
        reasons = "; ".join(str(error).rstrip(".") for error in skipped.values())
        raise CheckpointError(
            f"no sound checkpoint ({reasons}). Nothing was deleted: restore one, or remove the folder to start anew.",
            str(self.checkpoints_path),
        )

    def _ranked(self) -> list[int]:
        """Steps whose checkpoint has a `val_loss`, the lowest first."""
        losses = {step: state.get("val_loss") for step, state in self._states().items()}
        numbers = {step: loss for step, loss in losses.items() if isinstance(loss, int | float) and math.isfinite(loss)}
        return sorted(numbers, key=lambda step: (numbers[step], step))

    def _states(self) -> dict[int, dict[str, object]]:
        """The states of the checkpoints whose manifest, sizes and state are sound, by step."""
        states = {}
        for step in self.steps():
            try:
                states[step] = manifests.read_state(self.checkpoint_path(step))
            except CheckpointError as error:
                if self.checkpoint_path(step).exists():
                    self._warn(error)
        return states

    def _warn(self, error: CheckpointError) -> None:
        if str(error) not in self._warned:
            self._warned.add(str(error))
            warnings.warn(f"skipped an unsound checkpoint: {error}", stacklevel=3)

    def _prune(self, verified: int) -> None:
        """Remove all but the one just verified, the newest `keep` and the best."""
        kept = {verified, *sorted(self._states())[-self.keep :], *self._ranked()[:1]}
        for step in self.steps():
            if step not in kept:
                self._discard(self.checkpoint_path(step))

    def _discard(self, folder: Path) -> None:
        aside = temporary_name(folder, _PRUNED)  # a half removed checkpoint never bears a checkpoint's name
        with writing(folder):
            folder.rename(aside)
            failpoint("prune.renamed")
            remove(aside)
            failpoint("prune.removed")

    def _sweep(self) -> None:
        """Clear what a killed process left; a complete checkpoint that only lacked its name gets it."""
        for folder in (self.path, self.tokenizer_path):
            sweep(folder)
        for stale in sorted(self.checkpoints_path.glob(f"*{TEMPORARY}*")):
            name, _, kind = stale.name.partition(TEMPORARY)
            target = stale.with_name(name)
            if not kind.startswith(_PRUNED) and not target.exists() and _is_sound(stale):
                stale.rename(target)
                sync_folder(self.checkpoints_path)
        sweep(self.checkpoints_path)


class RunLock:
    """The lock on a run directory. It lives in the kernel, so it ends with the process, however that ends.

    Raises:
        RunInUse: Another process holds it; pid, host and start are named.
        GPTZooError: The folder cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = _lock(folder)
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "start": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{canonical_json(holder)}\n".encode(), 0)
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _drop(this()))

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def release(self) -> None:
        """Let go. In a forked child this leaves the parent's lock alone."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _drop(lock: RunLock | None) -> None:
    """In a forked child: a worker must not hold the run after its killed parent."""
    if lock is not None:
        lock.release()


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock on the folder's lock file as it is now, not on one since removed."""
    path = folder / ".lock"
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise GPTZooError(f"cannot be locked: {error.strerror}. Use a disk that can.", str(folder)) from error
            raise RunInUse(f"in use by {_holder(path)}. Wait for it, or stop it.", str(folder)) from None
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Who holds the lock. It writes its name just after taking it, so a dead or missing name is asked for again."""
    for _ in range(20):
        try:
            holder = json.loads(path.read_bytes())
            pid, host, start = int(holder["pid"]), ascii(holder["host"])[1:-1], ascii(holder["start"])[1:-1]
            if host != socket.gethostname() or Path(f"/proc/{pid}").exists() or not Path("/proc").exists():
                return f"process {pid} on {host} since {start}"
        except (OSError, ValueError, TypeError, KeyError):
            pass
        time.sleep(0.05)
    return "another process"


def _runs_in(folder: Path) -> list[str]:
    return sorted(recipe.parent.name for recipe in folder.glob("*/recipe.yaml"))


def _is_sound(folder: Path) -> bool:
    try:
        manifests.verify(folder)
    except CheckpointError:
        return False
    return True
