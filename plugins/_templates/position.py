"""my_position: what it does, in one sentence. This one is an example: a price on distance, learned for each head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_position`."""
    zoo.position("my_position", MyPosition)


class MyPosition(gptzoo.Position):
    """Each head subtracts slope * log(1 + distance) from its scores, and learns its slope.

    Source: KERPLE, arXiv:2205.09921, equation 6, the logarithmic variant without its inner factor.

    Args:
        slope: Where each head starts.
    """

    bias_has_weights: ClassVar[bool] = True

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int, slope: float = 1.0) -> None:
        super().__init__(dims, rotate_dim)
        self.slope = nn.Parameter(torch.full((dims.n_head,), slope))

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Pointwise, broadcast over the arguments; finite for keys in the future too, which the mask hides."""
        distance = (q_pos - k_pos).clamp(min=0)
        return -self.slope[head] * torch.log1p(distance.to(self.slope.dtype))
