"""Block-sparse attention: a token sees its own block, and of each earlier block the last few tokens."""

from __future__ import annotations

from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `block_sparse`."""
    zoo.attention("block_sparse", BlockSparse)


class BlockSparse(gptzoo.MultiHeadAttention):
    """Causal attention within blocks of positions, which the last tokens of earlier blocks sum up.

    Source: Generating Long Sequences with Sparse Transformers, arXiv:1904.10509, section 4.3, the `fixed` pattern with
    stride l = block and c = summary. Each head sees the union of the two sets (the paper's merged head). Blocks are
    counted from the document's first token. It is a mask: the time that it could save depends on the kernel.

    Args:
        block: Positions in a block.
        summary: How many positions at the end of an earlier block stay visible.
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
    """

    shift_invariant = False  # blocks begin at fixed positions

    examples = ({"block": 4, "summary": 1}, {"block": 5, "summary": 2})

    def __init__(
        self,
        dims: gptzoo.Dims,
        block: int = 128,
        summary: int = 8,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        if not 1 <= summary <= block:
            raise ValueError(f"summary must lie in [1, block = {block}], {summary} does not")
        self.block, self.summary = block, summary

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        own = q_pos // self.block == k_pos // self.block
        sums_up = k_pos % self.block >= self.block - self.summary
        return gptzoo.causal(q_pos, k_pos) & (own | sums_up)
