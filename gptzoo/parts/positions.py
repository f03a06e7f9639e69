"""Learned positions: GPT-2's."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from gptzoo.contracts import Dims, Position


class Learned(Position):
    """One learned vector per position, added to the token's embedding; ends at the context length.

    Source: Language Models are Unsupervised Multitask Learners (GPT-2), 2019; `wpe` there.
    """

    shift_invariant: ClassVar[bool] = False

    def __init__(self, dims: Dims, rotate_dim: int) -> None:
        super().__init__(dims, rotate_dim)
        self.max_length = dims.context_length
        self.wpe = nn.Embedding(dims.context_length, dims.n_embd)

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + self.wpe(pos)
