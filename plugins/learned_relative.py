"""Learned relative positions: a learned number per head and distance, up to a longest one."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `learned_relative`."""
    zoo.position("learned_relative", LearnedRelative)


class LearnedRelative(gptzoo.Position):
    """A learned bias per head and distance; distances beyond the longest share its number.

    Source: Self-Attention with Relative Position Representations, arXiv:1803.02155, section 3.2, for the clipped
    distances. There a distance has a vector that is added to the keys; here it has one number per head, as in T5,
    arXiv:1910.10683, section 2.1, without buckets. Weights are drawn by `init`.

    Args:
        max_distance: The longest distance, in tokens, with a number of its own.
    """

    bias_has_weights: ClassVar[bool] = True
    examples = ({"max_distance": 5}, {"max_distance": 9})

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int, max_distance: int = 64) -> None:
        super().__init__(dims, rotate_dim)
        if max_distance < 1:
            raise ValueError(f"max_distance must be at least 1, not {max_distance}")
        self.max_distance = max_distance
        self.table = nn.Embedding(max_distance + 1, dims.n_head)

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """At least float32, broadcast over the arguments; keys in the future count as distance 0."""
        weight = self.table.weight[(q_pos - k_pos).clamp(0, self.max_distance), head]
        return weight.to(torch.promote_types(weight.dtype, torch.float32))
