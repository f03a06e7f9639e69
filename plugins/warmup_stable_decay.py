"""Warm-up, stable, decay: the peak is held until a short decay at the end."""

from __future__ import annotations

import math
from typing import Literal

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `warmup_stable_decay`."""
    zoo.schedule("warmup_stable_decay", WarmupStableDecay, aliases=["wsd"])


class WarmupStableDecay:
    """Linear warm-up, a long stay at the peak, then a decay to a floor over the last steps.

    Source: MiniCPM, arXiv:2404.06395, section 4.2; the shape 1 - sqrt from arXiv:2405.18392, section 3.

    Args:
        warmup: Steps of the warm-up, or below 1 a share of all steps.
        decay: Steps of the decay, or below 1 a share of all steps; a run too short for both gives up decay first.
        floor: The last factor, as a share of the peak.
        shape: How the decay falls: `linear`, or `1-sqrt`, steeply at first.
    """

    def __init__(
        self,
        warmup: float = 0.02,
        decay: float = 0.2,
        floor: float = 0.0,
        shape: Literal["linear", "1-sqrt"] = "linear",
    ) -> None:
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, {warmup} is")
        if decay < 0:
            raise ValueError(f"decay must not be negative, {decay} is")
        if not 0 <= floor <= 1:
            raise ValueError(f"floor must lie in [0, 1], {floor} does not")
        if shape not in ("linear", "1-sqrt"):
            raise ValueError(f"shape must be linear or 1-sqrt, not {shape!r}")
        self.warmup, self.decay, self.floor, self.shape = warmup, decay, floor, shape

    def __call__(self, step: int, steps: int) -> float:
        """The factor of the update number `step`, 0 .. steps - 1."""
        warmup = gptzoo.warmup_steps(self.warmup, steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        decay = min(gptzoo.warmup_steps(self.decay, steps), steps - 1 - warmup)
        peak = steps - 1 - decay  # the last step at the peak
        if step <= peak:
            return 1.0
        share = min(1.0, (step - peak) / max(1, decay))
        fallen = share if self.shape == "linear" else math.sqrt(share)
        return 1 - (1 - self.floor) * fallen
