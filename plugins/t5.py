"""T5's relative bias: a learned number per head and bucket of distances; the buckets widen with the distance."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `t5`."""
    zoo.position("t5", T5)


class T5(gptzoo.Position):
    """A learned bias per head and bucket of distances: one bucket each for near ones, then logarithmic ones.

    Source: T5, arXiv:1910.10683, section 2.1; buckets as released, for text that is read in one direction. T5 itself
    does not divide scores by sqrt(head_dim); here the attention's `scale` says so. Weights are drawn by `init`.

    Args:
        buckets: How many there are; the first half of them holds one distance each.
        max_distance: From about this distance on, all tokens share the last bucket.
    """

    bias_has_weights: ClassVar[bool] = True
    examples = ({"buckets": 8, "max_distance": 16}, {"buckets": 5, "max_distance": 9})

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(dims, rotate_dim)
        if buckets < 2:
            raise ValueError(f"buckets must be at least 2, not {buckets}")
        self.exact = buckets // 2
        if max_distance <= self.exact:
            raise ValueError(f"max_distance must be above half of the buckets, {self.exact}, {max_distance} is not")
        self.edges = _edges(self.exact, buckets, max_distance)
        self.table = nn.Embedding(buckets, dims.n_head)

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """At least float32, broadcast over the arguments; keys in the future count as distance 0."""
        weight = self.table.weight[self.bucket(q_pos - k_pos), head]
        return weight.to(torch.promote_types(weight.dtype, torch.float32))

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance, by comparing whole numbers: logarithms would differ between devices."""
        bucket = distance.clamp(0, self.exact)
        for edge in self.edges:
            bucket = bucket + (distance >= edge)
        return bucket


def _edges(exact: int, buckets: int, max_distance: int) -> list[int]:
    """The smallest distance of each logarithmic bucket after the first: exact * (max_distance / exact)^(k / m)."""
    m = buckets - exact
    edges = []
    for k in range(1, m):
        edge = max(exact, int(exact * (max_distance / exact) ** (k / m)) - 1)
        while edge**m * exact**k < max_distance**k * exact**m:  # in whole numbers, which round nothing
            edge += 1
        edges.append(edge)
    return edges
