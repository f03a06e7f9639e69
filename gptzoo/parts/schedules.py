"""The cosine schedule."""

from __future__ import annotations

import math


class Cosine:
    """Linear warm-up, then half a cosine down to a floor.

    Source: SGDR, arXiv:1608.03983, equation 5, one cycle, as GPT-3 uses it (arXiv:2005.14165, appendix B).

    Args:
        warmup: Steps of the warm-up, or below 1 a share of all steps.
        floor: The last factor, as a share of the peak.
    """

    def __init__(self, warmup: float = 0.02, floor: float = 0.1) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, {warmup} is")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], {floor} does not")
        self.warmup, self.floor = warmup, floor

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the update number `step`, 0 .. steps - 1."""
        warmup = warmup_steps(self.warmup, steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = (step - warmup) / max(1, steps - 1 - warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def warmup_steps(warmup: float, steps: int) -> int:
    """Steps of a warm-up that is given in steps, or below 1 as a share of all steps."""
    return round(warmup * steps) if warmup < 1 else min(int(warmup), steps)
