"""Cells on machines that are not ours to watch: submits them to a cluster, waits, and outlives those that get lost.

What runs there is a pool of one worker, so that a cell is the same process wherever it runs, and a crash is heard of.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gptzoo.ablation.pool import TRIES, Audience, PoolOutcome, run_jobs
from gptzoo.ablation.signals import Stop
from gptzoo.ablation.worker import Job

POLL = 0.2
"""Seconds between two looks at what was submitted."""

FOLLOW = 2.0
"""Seconds between two looks at how far a cell is."""

LEAVE = 60.0
"""Seconds that cancelled cells have left to save themselves."""

STOPPED = "stopped"
"""Status of a cell that was told to stop, and saved itself."""

_TAIL = 4096


@dataclass(frozen=True)
class Task:
    """What is sent to a cluster: a cell, and where it would have run here. Calling it runs the cell.

    Args:
        job: The cell; its folder is absolute, on a file system that all machines share.
        folder: The working directory that relative paths of the recipe are meant from.
        silence: Seconds without a step after which the cell has failed; None never.
    """

    job: Job
    folder: str
    silence: float | None

    def __call__(self) -> tuple[str, str]:
        """Status and reason of the cell."""
        with contextlib.chdir(self.folder):
            outcome = run_jobs([self.job], 1, Nobody(), silence=self.silence)
        return outcome.statuses.get(0, (STOPPED, "it was told to stop"))


class Nobody:
    """An audience that is not there."""

    def started(self, job: int) -> None: ...
    def stepped(self, job: int, step: int, steps: int, loss: float) -> None: ...
    def again(self, job: int, why: str) -> None: ...
    def ended(self, job: int, status: str, reason: str) -> None: ...
    def tick(self) -> None: ...


class Handle(Protocol):
    """A task that was submitted."""

    def done(self) -> bool:
        """Whether it is over, well or badly."""
        ...

    def result(self) -> tuple[str, str]:
        """What it returned.

        Raises:
            Lost: It returned nothing.
        """
        ...

    def cancel(self) -> None:
        """Have it save itself and stop; a second call does not wait for that."""
        ...


class Cluster(Protocol):
    """Where tasks can be submitted to."""

    def submit(self, tasks: Sequence[Task]) -> Sequence[Handle]:
        """Hand over some tasks at once."""
        ...


class Lost(Exception):
    """A task ended without an answer: killed, preempted, out of time or memory. Its text says how, in one line."""


def run_remotely(
    cluster: Cluster, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None = None
) -> PoolOutcome:
    """Run jobs on a cluster, at most `at_once` at a time; the counterpart of `gptzoo.ablation.pool.run_jobs`.

    SIGINT and SIGTERM cancel what was submitted, so that every cell is saved; a second one does not wait for that.
    """
    here = os.getcwd()
    apart = [replace(job, folder=os.path.abspath(job.folder)) for job in jobs]
    supervisor = _Supervisor(cluster, [Task(job, here, silence) for job in apart], audience)
    with supervisor.asked.listening():
        try:
            supervisor.run(at_once)
        finally:
            supervisor.cancel()
    return PoolOutcome(supervisor.statuses, supervisor.asked.number)


class _Supervisor:
    def __init__(self, cluster: Cluster, tasks: Sequence[Task], audience: Audience) -> None:
        self.cluster, self.tasks, self.audience = cluster, tasks, audience
        self.waiting = deque(range(len(tasks)))
        self.running: dict[int, Handle] = {}
        self.lost: dict[int, int] = {}  # task -> times
        self.statuses: dict[int, tuple[str, str]] = {}
        self.asked = Stop()
        self.followed = time.monotonic()

    def run(self, at_once: int) -> None:
        while self.running or self.waiting:
            self.submit(at_once - len(self.running))
            self.look()
            if self.asked.number is not None:
                return self.leave()
            self.follow()
            self.audience.tick()
            if self.running:
                time.sleep(POLL)
        return None

    def submit(self, most: int) -> None:
        chosen = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        if not chosen:
            return
        handles = self.cluster.submit([self.tasks[index] for index in chosen])
        for index, handle in zip(chosen, handles, strict=True):
            self.running[index] = handle
            self.audience.started(index)

    def look(self) -> None:
        """Hear of the tasks that are over. One that runs in this very process runs now."""
        for index, handle in list(self.running.items()):
            if self.asked.hurry or not handle.done():
                continue
            del self.running[index]
            try:
                status, reason = handle.result()
            except Lost as lost:
                self.again(index, str(lost))
                continue
            if status == STOPPED:
                self.again(index, reason)
            else:
                self.end(index, status, reason)
            if self.asked.number is not None:
                return

    def end(self, index: int, status: str, reason: str) -> None:
        self.statuses[index] = (status, reason)
        self.audience.ended(index, status, reason)

    def again(self, index: int, why: str) -> None:
        """A task got lost: another one goes on where the cell was saved."""
        if self.asked.number is not None:
            return
        self.lost[index] = self.lost.get(index, 0) + 1
        if self.lost[index] >= TRIES:
            self.end(index, "failed", f"{why}, for the {TRIES}rd time.")
        else:
            self.waiting.appendleft(index)
            self.audience.again(index, why)

    def follow(self) -> None:
        """How far the cells are, from what they write."""
        if time.monotonic() - self.followed < FOLLOW:
            return
        self.followed = time.monotonic()
        for index in self.running:
            job = self.tasks[index].job
            found = last_step(Path(job.folder) / "metrics.jsonl")
            train = job.recipe["train"]
            if found is not None and isinstance(train, dict):
                self.audience.stepped(index, found[0], int(train["steps"]), found[1])

    def leave(self) -> None:
        """Cancel what runs, and wait until it has saved itself."""
        running, end = dict(self.running), time.monotonic() + LEAVE
        self.cancel()
        self.running = running
        while self.running and not self.asked.hurry and time.monotonic() < end:
            time.sleep(POLL)
            self.look()
        self.cancel()

    def cancel(self) -> None:
        """Nothing that was submitted outlives its supervisor, if that can be helped."""
        for handle in self.running.values():
            handle.cancel()
        self.running.clear()


def last_step(metrics: Path) -> tuple[int, float] | None:
    """Step and loss of the last training record of a run; None before there is one."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
            return int(record["step"]), float(record["loss"])
        except (ValueError, TypeError, KeyError):
            continue
    return None
