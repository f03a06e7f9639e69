"""Cells as tasks of Ray: on the cluster that RAY_ADDRESS names, else on one started here and shut down afterwards.

The study's folder must lie on a file system that all machines share. Needs the extra `cluster`.
"""

# pyright: reportMissingImports=false
# An extra brings what is imported here.

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptzoo.ablation.pool import Audience, PoolOutcome
from gptzoo.ablation.remote import Lost, Task, run_remotely
from gptzoo.ablation.worker import Job
from gptzoo.errors import GPTZooError

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Nothing is reported to anybody, and a task that asks for no accelerator sees the machine as it is."""


class Ray:
    """A `Launcher` through Ray.

    Args:
        address: Of a running cluster; empty to start one here.
        options: What each task asks for: `num_cpus`, `num_gpus`, `resources`.

    Raises:
        GPTZooError: Ray is not installed.
    """

    def __init__(self, address: str, options: Mapping[str, object]) -> None:
        self.address, self.options = address, {"num_cpus": 1, **options, "max_retries": 0}
        try:
            import ray  # noqa: F401  # only whether it is there
        except ImportError:
            what = "ray is not installed. Install it with: pip install 'gptzoo[cluster]'"
            raise GPTZooError(what, "--launcher ray") from None

    def at_once(self, here: int, jobs: int) -> int:
        """All of them on a running cluster, whose business the order is."""
        return jobs if self.address else here

    def run(
        self, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None, folder: Path
    ) -> PoolOutcome:
        """See `gptzoo.ablation.launching.Launcher`."""
        if not jobs:
            return PoolOutcome({}, None)
        with self.connected(at_once) as ray:
            return run_remotely(_Ray(ray, self.function(ray)), jobs, at_once, audience, silence=silence)

    def function(self, ray: Any) -> Any:
        """The remote function.

        Raises:
            GPTZooError: Ray does not know an option.
        """
        try:
            return ray.remote(_call).options(**self.options)
        except (ValueError, TypeError) as error:
            raise GPTZooError(f"Ray does not take this: {_line(error)}", "--job-options") from None

    @contextlib.contextmanager
    def connected(self, at_once: int) -> Iterator[Any]:
        """Within this scope there is a cluster. One that was started for it is shut down.

        Raises:
            GPTZooError: There is none at the address.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        if ray.is_initialized():  # a notebook's own
            yield ray
            return
        where: dict[str, Any] = {"address": self.address or "local"}
        if not self.address:
            where |= {"num_cpus": at_once, "include_dashboard": False}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = f"no Ray cluster can be used there ({_line(error)}). Correct it, or unset it to start one here."
            raise GPTZooError(what, "RAY_ADDRESS" if self.address else "--launcher ray") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _call(task: Task) -> tuple[str, str]:
    return task()


class _Ray:
    """A `gptzoo.ablation.remote.Cluster`."""

    def __init__(self, ray: Any, function: Any) -> None:
        self.ray, self.function = ray, function

    def submit(self, tasks: Sequence[Task]) -> list[_Running]:
        return [_Running(self.ray, self.function.remote(task)) for task in tasks]


class _Running:
    """A `gptzoo.ablation.remote.Handle`."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference, self.cancelled = ray, reference, False

    def done(self) -> bool:
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def result(self) -> tuple[str, str]:
        try:
            status, reason = self.ray.get(self.reference)
        except self.ray.exceptions.RayError as error:
            raise Lost(f"its task was lost: {_line(error)}") from None
        return status, reason

    def cancel(self) -> None:
        """Ray interrupts the task, which passes that on to its worker."""
        self.ray.cancel(self.reference, force=self.cancelled)
        self.cancelled = True


def _line(error: BaseException) -> str:
    """Its last line: that of a traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
