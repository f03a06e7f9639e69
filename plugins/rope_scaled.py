"""RoPE for longer contexts by one number: positions are pressed together, or theta is raised."""

from __future__ import annotations

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `rope_linear` and `rope_ntk`."""
    zoo.position("rope_linear", RopeLinear)
    zoo.position("rope_ntk", RopeNtk)


class RopeLinear(gptzoo.Rotary):
    """RoPE with position interpolation: every frequency is divided by the factor, as if tokens stood closer.

    Source: Extending Context Window of Large Language Models via Positional Interpolation, arXiv:2306.15595, equation
    4.

    Args:
        factor: How many times longer the context is than the one that the model was trained with; 1 = plain RoPE.
    """

    examples = ({"factor": 2.0}, {"factor": 4.0, "pairing": "interleaved", "fraction": 0.5})

    def __init__(
        self,
        dims: gptzoo.Dims,
        rotate_dim: int,
        factor: float,
        theta: float = 10000.0,
        pairing: gptzoo.Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim, theta, pairing, fraction)
        if factor < 1:
            raise ValueError(f"factor must be at least 1, {factor} is not")
        self.factor = factor

    def frequencies(self, device: torch.device) -> Tensor:
        return super().frequencies(device) / self.factor


class RopeNtk(gptzoo.Rotary):
    """RoPE with a raised theta (NTK-aware): the slowest pair is slowed by the factor, the fastest not at all.

    Source: YaRN, arXiv:2309.00071, section 3.1: theta * factor^(width / (width - 2)). Its dynamic form, where the
    factor grows with the text, would turn cached keys again and does not exist here.

    Args:
        factor: How many times longer the context is than the one that the model was trained with; 1 = plain RoPE.
    """

    examples = ({"factor": 2.0}, {"factor": 4.0, "pairing": "interleaved", "fraction": 0.5})

    def __init__(
        self,
        dims: gptzoo.Dims,
        rotate_dim: int,
        factor: float,
        theta: float = 10000.0,
        pairing: gptzoo.Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim, theta, pairing, fraction)
        if factor < 1:
            raise ValueError(f"factor must be at least 1, {factor} is not")
        if self.width == 2:
            raise ValueError(
                "fraction times the head's width must be above 2: a single pair is both fastest and slowest"
            )
        self.theta = theta * factor ** (self.width / (self.width - 2))
