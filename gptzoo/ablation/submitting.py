"""Cells as jobs of Slurm, through submitit; its executors for this machine stand in for a cluster in tests.

The study's folder must lie on a file system that all machines share. Needs the extra `cluster`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gptzoo.ablation.pool import Audience, PoolOutcome
from gptzoo.ablation.remote import Lost, Task, run_remotely
from gptzoo.ablation.worker import Job
from gptzoo.errors import GPTZooError

if TYPE_CHECKING:
    import submitit

JOBS = "jobs"
"""The folder of a study that holds submitit's own files and logs; gone when all its cells have ended well."""

DEFAULTS: Mapping[str, object] = {"name": "gptzoo", "timeout_min": 240, "cpus_per_task": 1}
"""What a job asks for unless told otherwise; one that runs out of time is submitted again, up to three times."""


class Submitit:
    """A `Launcher` through submitit.

    Args:
        cluster: `slurm`, `local` or `debug`.
        options: submitit's parameters for each job.

    Raises:
        GPTZooError: submitit is not installed.
    """

    def __init__(self, cluster: str, options: Mapping[str, object]) -> None:
        self.cluster, self.options = cluster, {**DEFAULTS, **options}
        try:
            import submitit  # noqa: F401  # only whether it is there
        except ImportError:
            what = "submitit is not installed. Install it with: pip install 'gptzoo[cluster]'"
            raise GPTZooError(what, "--launcher submitit") from None

    def at_once(self, here: int, jobs: int) -> int:
        """All of them on Slurm, whose business the order is."""
        return jobs if self.cluster == "slurm" else here

    def run(
        self, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None, folder: Path
    ) -> PoolOutcome:
        """See `gptzoo.ablation.launching.Launcher`."""
        if not jobs:
            return PoolOutcome({}, None)
        own = Path(folder).absolute() / JOBS
        outcome = run_remotely(_Submitter(self.executor(own)), jobs, at_once, audience, silence=silence)
        if outcome.signal is None and all(status != "failed" for status, _ in outcome.statuses.values()):
            shutil.rmtree(own, ignore_errors=True)
        return outcome

    def executor(self, folder: Path) -> submitit.AutoExecutor:
        """The executor that submits.

        Raises:
            GPTZooError: There is no such cluster here, or it does not know a parameter.
        """
        import submitit

        try:
            made = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        except RuntimeError as error:
            what = f"there is no {self.cluster} here ({_line(error)}). Run it where sbatch is, or give --cluster local."
            raise GPTZooError(what, "--cluster") from None
        try:
            made.update_parameters(**self.options)
        except (NameError, TypeError, ValueError, AssertionError) as error:
            raise GPTZooError(f"submitit does not take this: {_line(error)}", "--job-options") from None
        return made


class _Submitter:
    """A `gptzoo.ablation.remote.Cluster`."""

    def __init__(self, executor: submitit.AutoExecutor) -> None:
        self.executor = executor

    def submit(self, tasks: Sequence[Task]) -> list[_Submitted]:
        """One array of jobs, where the cluster has such a thing.

        Raises:
            GPTZooError: The cluster does not take them.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with self.executor.batch():
                jobs = [self.executor.submit(task) for task in tasks]
        except (FailedJobError, FailedSubmissionError) as error:
            raise GPTZooError(f"the cluster does not take the jobs: {_last_line(error)}", "--job-options") from None
        return [_Submitted(job) for job in jobs]


class _Submitted:
    """A `gptzoo.ablation.remote.Handle`."""

    def __init__(self, job: submitit.Job[tuple[str, str]]) -> None:
        self.job, self.cancelled = job, False

    def done(self) -> bool:
        return (self.cancelled and not self.waits()) or self.job.done()

    def waits(self) -> bool:
        """Whether it runs elsewhere, and can be waited for once it is cancelled."""
        return not self.job.job_id.startswith("DEBUG")

    def result(self) -> tuple[str, str]:
        from submitit.core.utils import UncompletedJobError

        try:
            return self.job.result()
        except UncompletedJobError as error:  # the traceback of what failed, or that nothing came back
            raise Lost(f"job {self.job.job_id} was lost: {_last_line(error)}") from None

    def cancel(self) -> None:
        """A local job is ended by submitit after one second; it gets the time to save itself before that."""
        import submitit

        if isinstance(self.job, submitit.LocalJob) and not self.cancelled:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.job.job_id), signal.SIGTERM)
        else:
            self.job.cancel(check=False)
        self.cancelled = True


def _line(error: BaseException) -> str:
    """Its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _last_line(error: BaseException) -> str:
    """Its last line: that of a traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
