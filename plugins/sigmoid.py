"""Sigmoid attention: every key is weighed on its own, without the competition of a softmax."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sigmoid`."""
    zoo.attention("sigmoid", Sigmoid)


class Sigmoid(gptzoo.MultiHeadAttention):
    """Causal attention with sigmoid(score + offset) for weights, which need not add up to 1.

    Source: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv:2409.04431, section 2, with its bias
    of -ln n. There n is the length of the sequence; here it is the context length whatever the row's, so that a token's
    output does not depend on how many follow it.

    Args:
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the offset.
        offset: Added to every score; -ln(context_length) unless given.
    """

    kernels = ("naive",)

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
        offset: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        self.offset = -math.log(dims.context_length) if offset is None else offset

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        """(B, H, Tq, D), (B, G, Tk, D) twice -> (B, H, Tq, D)."""
        position = ctx.position
        scores = gptzoo.scores(q, k, self.scale / position.temperature, self.softcap) + self.offset
        if position.bias is not None:
            scores = scores + where.dense_bias(position.bias, self.n_head)
        weights = scores.sigmoid().masked_fill(~where.dense_mask(self.visible), 0.0)
        return gptzoo.combine(F.dropout(weights, self.dropout, self.training), v)
