"""Where the cells of a study run: in processes here, or on a cluster through submitit or Ray. The cells are equal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gptzoo.ablation.pool import Audience, PoolOutcome, run_jobs
from gptzoo.ablation.worker import Job
from gptzoo.errors import GPTZooError, did_you_mean

LAUNCHERS = ("pool", "submitit", "ray")

CLUSTERS = ("slurm", "local", "debug")
"""What submitit submits to: Slurm, processes of this machine, or this very process."""


class Launcher(Protocol):
    """Runs jobs somewhere, each as `gptzoo.ablation.worker` does."""

    def at_once(self, here: int, jobs: int) -> int:
        """How many cells run at a time unless the user says, where this machine would run `here` of `jobs`."""
        ...

    def run(
        self, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None, folder: Path
    ) -> PoolOutcome:
        """Run jobs, which are independent of each other, and tell an audience; `folder` is the study's.

        Raises:
            GPTZooError: There is nothing to run them on.
        """
        ...


class Pool:
    """Worker processes on this machine."""

    def at_once(self, here: int, jobs: int) -> int:
        """As many as suit this machine."""
        return here

    def run(
        self, jobs: Sequence[Job], at_once: int, audience: Audience, *, silence: float | None, folder: Path
    ) -> PoolOutcome:
        """See `Launcher`."""
        return run_jobs(jobs, at_once, audience, silence=silence)


def launcher(name: str, *, cluster: str | None = None, options: Mapping[str, object] | None = None) -> Launcher:
    """The launcher of a name.

    Args:
        name: `pool`, `submitit` or `ray`.
        cluster: What submitit submits to: `slurm`, which it is unless given, `local` or `debug`.
        options: What a job asks for: submitit's parameters (`timeout_min`, `slurm_partition`), or those of a Ray task
            (`num_cpus`, `num_gpus`).

    Raises:
        GPTZooError: A name is unknown, an option has no meaning there, or the package is not installed.
    """
    _check("--launcher", name, LAUNCHERS)
    _check("--cluster", cluster or CLUSTERS[0], CLUSTERS)
    if cluster and name != "submitit":
        raise GPTZooError(f"{name} has no kinds of cluster. Leave it out, or give --launcher submitit.", "--cluster")
    if name == "submitit":
        from gptzoo.ablation.submitting import Submitit

        return Submitit(cluster or CLUSTERS[0], options or {})
    if name == "ray":
        from gptzoo.ablation.ray_tasks import Ray

        return Ray(os.environ.get("RAY_ADDRESS", ""), options or {})
    if options:
        what = "the pool asks nobody for resources. Leave it out, or give --launcher submitit or ray."
        raise GPTZooError(what, "--job-options")
    return Pool()


def _check(where: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or f" Give one of {', '.join(known)}."
        raise GPTZooError(f"{name!r} is not known.{hint}", where)
