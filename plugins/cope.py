"""Contextual position encoding: distances count only the tokens that the query's gates let count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `cope`."""
    zoo.attention("cope", Cope)


class Cope(gptzoo.MultiHeadAttention):
    """Causal attention with learned positions that are sums of gates: each query decides what it counts.

    Source: Contextual Position Encoding, arXiv:2405.18719, section 4. Gates are the sigmoid of the
    scaled scores; a key's position is the sum of the gates from the key up to the query, both included, and counts at
    most n_positions - 1. Embeddings are shared by all heads, start at 0 and are read by q as it is before a position
    rotates it. Keys may come in any order.

    Args:
        n_positions: Embeddings, of the counts 0 to n_positions - 1; between them it interpolates.
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
    """

    order_free = False  # it counts the tokens between

    kernels = ("naive",)
    examples = ({"n_positions": 4}, {"n_positions": 64})

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_positions: int = 64,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale)
        if n_positions < 2:
            raise ValueError(f"n_positions must be at least 2, not {n_positions}")
        self.n_positions = n_positions
        self.counts = nn.Parameter(torch.zeros(n_positions, self.head_dim))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        q, k = self.q_norm(q), self.k_norm(k)
        rotated, k = ctx.position.rotate(q, k, ctx.pos)
        visible, where = ctx.remember(k=k, v=v)
        scores = gptzoo.scores(rotated, visible["k"], self.scale / ctx.position.temperature)
        scores = scores + self.read(q, self.count(scores, where)) / ctx.position.temperature
        bias = None if ctx.position.bias is None else where.dense_bias(ctx.position.bias, self.n_head)
        weights = gptzoo.weights(scores, where.dense_mask(self.visible), bias)
        y = gptzoo.combine(F.dropout(weights, self.dropout, self.training), visible["v"])
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def count(self, scores: Tensor, where: gptzoo.Where) -> Tensor:
        """Sums of the gates from each key up to the query, (B, H, Tq, Tk); keys that are not seen count 0."""
        gates = scores.sigmoid().masked_fill(~where.dense_mask(self.visible), 0.0)
        if where.plain:
            return _sum_from_the_end(gates)
        order = where.k_pos.argsort(dim=-1)
        there, back = (index[:, None, None].expand_as(gates) for index in (order, order.argsort(dim=-1)))
        return _sum_from_the_end(gates.gather(-1, there)).gather(-1, back)

    def read(self, q: Tensor, count: Tensor) -> Tensor:
        """q times the embedding of each count, interpolated: (B, H, Tq, D), (B, H, Tq, Tk) -> (B, H, Tq, Tk)."""
        with torch.autocast(q.device.type, enabled=False):
            whole = q.to(count.dtype) @ self.counts.to(count.dtype).T  # (B, H, Tq, n_positions)
        count = count.clamp(max=self.n_positions - 1)
        below, above = count.floor(), count.ceil()
        share = count - below
        return whole.gather(-1, below.long()) * (1 - share) + whole.gather(-1, above.long()) * share


def _sum_from_the_end(x: Tensor) -> Tensor:
    return x.flip(-1).cumsum(-1).flip(-1)
