"""ALiBi: every head pays a fixed price per token of distance; no embeddings, no rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `alibi`."""
    zoo.position("alibi", Alibi)


class Alibi(gptzoo.Position):
    """Attention with linear biases: head h adds -slope(h) * (q_pos - k_pos) to its scores.

    Source: Train Short, Test Long, arXiv:2108.12409, section 3. The slopes of n = 2^m heads are 2^(-8 (h + 1) / n);
    other numbers of heads follow the paper's released code: the slopes of the nearest smaller power of two, then every
    other one of the next greater.
    """

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int) -> None:
        super().__init__(dims, rotate_dim)
        self.n_head = dims.n_head
        self.whole = 2 ** math.floor(math.log2(dims.n_head))  # heads that have the slopes of a power of two

    def slopes(self) -> Tensor:
        """float32 (H,), each positive, on the CPU."""
        return self._slope(torch.arange(self.n_head))

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """float32, broadcast over the arguments; positive for keys in the future, which the mask hides."""
        return self._slope(head) * (k_pos - q_pos).to(torch.float32)

    def _slope(self, head: Tensor) -> Tensor:
        """By formula instead of by table, so that it runs per element inside FlexAttention."""
        first = 8.0 / self.whole * (head + 1).to(torch.float32)
        then = 4.0 / self.whole * (2 * (head - self.whole) + 1).to(torch.float32)
        return torch.exp2(-torch.where(head < self.whole, first, then))
