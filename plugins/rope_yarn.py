"""YaRN: RoPE for longer contexts that leaves fast pairs alone, presses slow ones together, and sharpens the scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `rope_yarn`."""
    zoo.position("rope_yarn", RopeYarn, aliases=["yarn"])


class RopeYarn(gptzoo.Rotary):
    """RoPE interpolated by parts: pairs that turn often within the old context are kept, the others are slowed.

    Source: YaRN, arXiv:2309.00071, sections 3.2 and 3.4. Between the two kinds there is a ramp; it is linear in the
    index of the pair, as in the released code and in transformers, whereas the paper's is linear in the number of
    turns. All scores are divided by the temperature, also where only a fraction of the head is turned.

    Args:
        factor: How many times longer the context is than the one that the model was trained with; 1 = plain RoPE.
        original_length: The context, in tokens, that the model was trained with; context_length / factor unless given.
        beta_fast: Pairs with more turns than this in the original length are kept.
        beta_slow: Pairs with fewer turns than this are slowed by the whole factor.
        truncate: Whether the ramp begins and ends at a whole pair, as released.
        temperature: What scores are divided by; (0.1 ln(factor) + 1)^-2 unless given.
    """

    examples = (
        {"factor": 4.0, "original_length": 32, "beta_fast": 4.0, "beta_slow": 0.25},
        {"factor": 2.0, "pairing": "interleaved", "truncate": False, "temperature": 0.9},
    )

    def __init__(
        self,
        dims: gptzoo.Dims,
        rotate_dim: int,
        factor: float,
        original_length: int | None = None,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        truncate: bool = True,
        temperature: float | None = None,
        theta: float = 10000.0,
        pairing: gptzoo.Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim, theta, pairing, fraction)
        if factor < 1:
            raise ValueError(f"factor must be at least 1, {factor} is not")
        if theta <= 1:
            raise ValueError(f"theta must be above 1, {theta} is not")
        if not 0 < beta_slow < beta_fast:
            raise ValueError(f"beta_slow must lie between 0 and beta_fast = {beta_fast}, {beta_slow} does not")
        if original_length is not None and original_length < 1:
            raise ValueError(f"original_length must be at least 1, {original_length} is not")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature must be above 0, {temperature} is not")
        self.factor = factor
        self.original_length = dims.context_length / factor if original_length is None else original_length
        self.first, self.last = self._ramp(beta_fast, beta_slow, truncate)
        self.temperature = (0.1 * math.log(factor) + 1) ** -2 if temperature is None else temperature

    def frequencies(self, device: torch.device) -> Tensor:
        slowed = ((self.channels(device) / 2 - self.first) / (self.last - self.first)).clamp(0, 1)
        return super().frequencies(device) * (1 - slowed * (1 - 1 / self.factor))

    def _ramp(self, beta_fast: float, beta_slow: float, truncate: bool) -> tuple[float, float]:
        """The pairs at which slowing down begins and is complete."""
        first, last = self._pair_with(beta_fast), self._pair_with(beta_slow)
        if truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.width - 1)
        if first > last:
            raise ValueError(
                f"original_length must be such that some pair turns beta_slow = {beta_slow} times or more in it, and "
                f"some other less than beta_fast = {beta_fast} times, {self.original_length:g} is not"
            )
        return first, last + 0.001 if first == last else last

    def _pair_with(self, turns: float) -> float:
        """The index, a fraction, of the pair that turns so many times in the original length."""
        return self.width * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(self.theta))
