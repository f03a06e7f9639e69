"""Llama 3.1's RoPE: slow pairs are slowed further, for a context many times longer than the original."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `rope_llama3`."""
    zoo.position("rope_llama3", RopeLlama3)


class RopeLlama3(gptzoo.Rotary):
    """RoPE interpolated by the number of turns a pair makes within the original context; defaults of Llama 3.1.

    Source: The scaling of Llama 3.1 (The Llama 3 Herd of Models, arXiv:2407.21783, and its released code); it is the
    NTK-by-parts interpolation of YaRN, arXiv:2309.00071, section 3.2, without YaRN's temperature.

    Args:
        factor: By how much the slowest pairs are slowed; 1 = plain RoPE.
        original_length: The context, in tokens, that the model was trained with.
        low_turns: Pairs with fewer turns than this in the original length are slowed by the whole factor;
            `low_freq_factor` in Llama's configuration.
        high_turns: Pairs with more turns than this are kept; `high_freq_factor` there.
        theta: The longest wavelength, before scaling, is about 2 pi theta tokens.
    """

    examples = (
        {"original_length": 32, "theta": 100.0},
        {"factor": 2.0, "original_length": 16, "low_turns": 0.5, "high_turns": 2.0, "pairing": "interleaved"},
    )

    def __init__(
        self,
        dims: gptzoo.Dims,
        rotate_dim: int,
        factor: float = 8.0,
        original_length: int = 8192,
        low_turns: float = 1.0,
        high_turns: float = 4.0,
        theta: float = 500000.0,
        pairing: gptzoo.Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim, theta, pairing, fraction)
        if factor < 1:
            raise ValueError(f"factor must be at least 1, {factor} is not")
        if original_length < 1:
            raise ValueError(f"original_length must be at least 1, {original_length} is not")
        if not 0 <= low_turns < high_turns:
            raise ValueError(f"low_turns must be at least 0 and below high_turns = {high_turns}, {low_turns} is not")
        self.factor, self.original_length = factor, original_length
        self.low_turns, self.high_turns = low_turns, high_turns

    def frequencies(self, device: torch.device) -> Tensor:
        plain = super().frequencies(device)
        turns = self.original_length * plain / (2 * math.pi)
        kept = ((turns - self.low_turns) / (self.high_turns - self.low_turns)).clamp(0, 1)
        return plain * (1 - (1 - kept) * (1 - 1 / self.factor))
