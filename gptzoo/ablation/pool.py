"""A pool of worker processes: hands out jobs, hears how they go, and outlives a worker that does not."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from gptzoo.ablation.signals import Stop
from gptzoo.ablation.worker import Job

TRIES = 3
"""Workers that a cell may cost before it counts as failed: one may have been killed for another's sake."""

POLL = 0.1
"""Seconds between two looks at signals and clocks."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Audience(Protocol):
    """Who is told how the jobs go, by their index."""

    def started(self, job: int) -> None: ...
    def stepped(self, job: int, step: int, steps: int, loss: float) -> None: ...
    def again(self, job: int, why: str) -> None: ...
    def ended(self, job: int, status: str, reason: str) -> None: ...
    def tick(self) -> None: ...


@dataclass(frozen=True)
class PoolOutcome:
    """How the jobs ended.

    Args:
        statuses: `done`, `diverged` or `failed`, with the reason; jobs that did not end are not in it.
        signal: What stopped the pool, or None.
    """

    statuses: Mapping[int, tuple[str, str]]
    signal: int | None


def run_jobs(jobs: Sequence[Job], workers: int, audience: Audience, *, silence: float | None = None) -> PoolOutcome:
    """Run jobs on a number of workers of one thread each.

    SIGINT and SIGTERM are passed on, so that every cell is saved; a second one ends the workers at once.

    Args:
        jobs: Independent of each other.
        workers: How many at a time.
        audience: Told what happens.
        silence: Seconds without a step after which a cell's worker is killed and the cell has failed; None never.
    """
    pool = _Pool(jobs, audience, silence)
    with pool.asked.listening():
        try:
            pool.run(min(workers, len(jobs)))
        finally:
            pool.kill()
    return PoolOutcome(pool.statuses, pool.stop)


class _Worker:
    """One process, and the job that it has."""

    def __init__(self) -> None:
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gptzoo.ablation.worker", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            start_new_session=True,  # a Ctrl-C is the supervisor's to pass on
        )
        self.job: int | None = None
        self.dismissed = False
        self.heard = time.monotonic()
        self._rest = b""

    def give(self, index: int, job: Job) -> None:
        self.job, self.heard = index, time.monotonic()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died just now: its end is about to be heard
            self.process.stdin.write(f"{job.to_json()}\n".encode())
            self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, object]] | None:
        """What it has said since; None when it is gone."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65536)
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return (json.loads(line) for line in lines)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def close(self) -> None:
        """No more jobs: it leaves when it is done."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def forget(self) -> None:
        """Close what was open to it."""
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def last_words(self) -> str:
        """How it ended, and the last line of its errors."""
        code = self.process.wait()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"its worker {how}" + (f": {lines[-1][:200]}" if lines else "")


class _Pool:
    def __init__(self, jobs: Sequence[Job], audience: Audience, silence: float | None) -> None:
        self.jobs, self.audience, self.silence = jobs, audience, silence
        self.waiting = deque(range(len(jobs)))
        self.lost: dict[int, int] = {}  # job -> workers that it cost
        self.statuses: dict[int, tuple[str, str]] = {}
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.asked = Stop()

    @property
    def stop(self) -> int | None:
        return self.asked.number

    def run(self, count: int) -> None:
        passed_on = False
        while self.workers or (self.waiting and self.stop is None):
            while self.stop is None and len(self.workers) < count and len(self.workers) < self.unfinished:
                self.hire()
            for key, _ in self.selector.select(POLL):
                self.hear(key.data)
            if self.stop is not None and not passed_on:
                passed_on = True
                self.pass_on(self.stop)
            if self.asked.hurry:
                return
            self.check_clocks()
            self.audience.tick()

    @property
    def unfinished(self) -> int:
        return len(self.jobs) - len(self.statuses)

    def hire(self) -> None:
        worker = _Worker()
        assert worker.process.stdout is not None
        self.workers.append(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)

    def hear(self, worker: _Worker) -> None:
        messages = worker.messages()
        if messages is None:
            self.bury(worker)
            return
        for message in messages:
            self.take(worker, message)

    def take(self, worker: _Worker, message: Mapping[str, object]) -> None:
        event, job = message["event"], worker.job
        if event == "step" and job is not None:
            self.audience.stepped(job, int(message["step"]), int(message["steps"]), float(message["loss"]))  # type: ignore[call-overload]
        elif event == "ended" and job is not None:
            worker.job = None
            self.end(job, str(message["status"]), str(message["reason"]))
            self.assign(worker)
        elif event == "ready":
            self.assign(worker)

    def assign(self, worker: _Worker) -> None:
        if not self.waiting or self.stop is not None:
            worker.close()
            return
        job = self.waiting.popleft()
        worker.give(job, self.jobs[job])
        self.audience.started(job)

    def end(self, job: int, status: str, reason: str) -> None:
        self.statuses[job] = (status, reason)
        self.audience.ended(job, status, reason)

    def bury(self, worker: _Worker) -> None:
        """A worker is gone; what it was at goes to another one, which goes on where it was saved."""
        assert worker.process.stdout is not None
        self.selector.unregister(worker.process.stdout)
        self.workers.remove(worker)
        why, job = worker.last_words(), worker.job
        worker.forget()
        if job is None:
            if worker.process.returncode and self.stop is None and not worker.dismissed:
                self.fail_to_start(why)
            return
        if self.stop is not None:
            return
        self.lost[job] = self.lost.get(job, 0) + 1
        if self.lost[job] >= TRIES:
            self.end(job, "failed", f"{why}, for the {TRIES}rd time.")
        else:
            self.waiting.appendleft(job)
            self.audience.again(job, why)

    def fail_to_start(self, why: str) -> None:
        """A worker that dies before it has a job counts against the next one: else we would hire forever."""
        if not self.waiting:
            return
        job = self.waiting[0]
        self.lost[job] = self.lost.get(job, 0) + 1
        if self.lost[job] >= TRIES:
            self.end(self.waiting.popleft(), "failed", f"{why}, before it began.")

    def check_clocks(self) -> None:
        if self.silence is None:
            return
        for worker in self.workers:
            if worker.job is not None and time.monotonic() - worker.heard > self.silence:
                job, worker.job, worker.dismissed = worker.job, None, True
                worker.send(signal.SIGKILL)
                self.end(job, "failed", f"nothing was heard of it for {self.silence:g} s.")

    # -- stopping ----------------------------------------------------------------------------------------------------

    def pass_on(self, number: int) -> None:
        for worker in self.workers:
            worker.send(number) if worker.job is not None else worker.close()

    def kill(self) -> None:
        """End what is left at once, and wait for it: no worker outlives the pool."""
        for worker in self.workers:
            worker.send(signal.SIGKILL)
            worker.process.wait()
            worker.forget()
        self.selector.close()
