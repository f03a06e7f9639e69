"""Sinusoidal positions: a fixed vector of sines and cosines per position, added to the token's embedding."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sinusoidal`."""
    zoo.position("sinusoidal", Sinusoidal)


class Sinusoidal(gptzoo.Position):
    """Sines and cosines of geometrically spaced frequencies, added to the embedding; any length.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.5: channel 2i is sin(pos * theta^(-2i / n_embd)),
    channel 2i + 1 its cosine. The paper also multiplies the embeddings by sqrt(n_embd) beforehand; here they stay
    as they are.

    Args:
        theta: The wavelengths run from 2 pi to 2 pi theta tokens.
    """

    shift_invariant: ClassVar[bool] = False

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int, theta: float = 10000.0) -> None:
        super().__init__(dims, rotate_dim)
        if theta <= 0:
            raise ValueError(f"theta must be above 0, {theta} is not")
        self.theta = theta

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """(B, T, C), (B|1, T) -> (B, T, C), of x's dtype."""
        return x + self._table(pos, x.shape[-1]).to(x.dtype)

    def _table(self, pos: Tensor, width: int) -> Tensor:
        """(B|1, T) -> float64 (B|1, T, width): computed anew, because a buffer would be cast along with the model."""
        channel = torch.arange(0, width, 2, dtype=torch.float64, device=pos.device)
        angle = pos[..., None] * self.theta ** (-channel / width)
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[..., :width]  # an odd width ends with a sine
