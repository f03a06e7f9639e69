"""The linear schedule."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `linear`."""
    zoo.schedule("linear", Linear)


class Linear:
    """Linear warm-up, then a straight line down to a floor.

    Source: BERT, arXiv:1810.04805, appendix A.2; down to zero as in Straight to Zero, arXiv:2502.15938.

    Args:
        warmup: Steps of the warm-up, or below 1 a share of all steps.
        floor: The last factor, as a share of the peak.
    """

    def __init__(self, warmup: float = 0.02, floor: float = 0.0) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, {warmup} is")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], {floor} does not")
        self.warmup, self.floor = warmup, floor

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the update number `step`, 0 .. steps - 1."""
        warmup = gptzoo.warmup_steps(self.warmup, steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = (step - warmup) / max(1, steps - 1 - warmup)
        return 1 - (1 - self.floor) * min(1.0, share)
