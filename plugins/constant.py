"""The constant schedule, after a warm-up."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `constant`."""
    zoo.schedule("constant", Constant)


class Constant:
    """Linear warm-up, then the peak to the end.

    Source: Accurate, Large Minibatch SGD, arXiv:1706.02677, section 2.2 (the gradual warm-up).

    Args:
        warmup: Steps of the warm-up, or below 1 a share of all steps.
    """

    def __init__(self, warmup: float = 0.02) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, {warmup} is")
        self.warmup = warmup

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the update number `step`, 0 .. steps - 1."""
        return min(1.0, (step + 1) / (gptzoo.warmup_steps(self.warmup, steps) + 1))
