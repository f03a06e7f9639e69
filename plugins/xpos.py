"""xPos: RoPE whose scores also fade with the distance, fast pairs more than slow ones."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

import gptzoo

_LARGEST = 60.0
"""Most e-foldings that the fade may span: float32 and bfloat16 end at 88, and scores that a mask hides need room."""


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `xpos`."""
    zoo.position("xpos", Xpos)


class Xpos(gptzoo.Rotary):
    """RoPE with pair i of a score multiplied by zeta_i^(distance / scale_base); zeta_i is below 1, and rises with i.

    Source: A Length-Extrapolatable Transformer, arXiv:2212.10554, section 3 and algorithm 1; zeta_i = (2i / width + g)
    / (1 + g). Queries are multiplied by a power of zeta and keys by its inverse; the powers are counted from the middle
    of the context, so that neither grows large within it. The length ends where float32 nears its own: at 24,500 tokens
    with the default scale_base; float16 bears 2,000. The paper's blockwise attention at inference is not part of it.

    Args:
        scale_base: Tokens after which pair 0 has faded to zeta_0; larger fades less.
        gamma: g above; larger fades less.
    """

    norm_preserving: ClassVar[bool] = False
    examples = ({"scale_base": 64.0}, {"pairing": "interleaved", "fraction": 0.5, "gamma": 1.0})

    def __init__(
        self,
        dims: gptzoo.Dims,
        rotate_dim: int,
        scale_base: float = 512.0,
        gamma: float = 0.4,
        theta: float = 10000.0,
        pairing: gptzoo.Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim, theta, pairing, fraction)
        if scale_base <= 0:
            raise ValueError(f"scale_base must be above 0, {scale_base} is not")
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, {gamma} is not")
        self.scale_base, self.gamma = scale_base, gamma
        self.centre = dims.context_length // 2
        self.max_length = int(_LARGEST * scale_base / math.log((1 + gamma) / gamma))
        if dims.context_length > self.max_length:
            raise ValueError(
                f"scale_base must be larger for {dims.context_length} tokens: {scale_base} bears {self.max_length}"
            )

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, D), (B, G, T, D), (B|1, T) -> the same shapes and dtypes, turned and scaled."""
        with torch.autocast(q.device.type, enabled=False):
            angle, scale = self.angles(q_pos), self.scales(q_pos)
            cos, sin = angle.cos(), angle.sin()
            return self.turn(q, cos * scale, sin * scale), self.turn(k, cos / scale, sin / scale)

    def scales(self, pos: Tensor) -> Tensor:
        """(B|1, T) -> float64 (B|1, 1, T, width / 2): what a query is multiplied by, and a key divided by."""
        zeta = (self.channels(pos.device) / self.width + self.gamma) / (1 + self.gamma)
        return (zeta ** ((pos[..., None] - self.centre) / self.scale_base))[:, None]
