"""my_schedule: what it does, in one sentence. This one is an example: a rate that falls with the root of the step."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_schedule`."""
    zoo.schedule("my_schedule", MySchedule)


class MySchedule:
    """Linear warm-up, then the inverse square root of the step; the end need not be known.

    Source: Attention Is All You Need, arXiv:1706.03762, section 5.3, with the peak at 1.

    Args:
        warmup: Steps of the warm-up, or below 1 a share of all steps.
    """

    def __init__(self, warmup: float = 0.02) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, {warmup} is")
        self.warmup = warmup

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the update number `step`, 0 .. steps - 1."""
        warmup = max(1, gptzoo.warmup_steps(self.warmup, steps))
        return min((step + 1) / warmup, (warmup / (step + 1)) ** 0.5)
