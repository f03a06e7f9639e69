"""Forgetting attention: every token makes the past fade by a factor of its own."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `forgetting`."""
    zoo.attention("forgetting", Forgetting, aliases=["fox"])


class Forgetting(gptzoo.MultiHeadAttention):
    """Causal attention whose scores lose the logs of the forget gates between key and query.

    Source: Forgetting Transformer (FoX), arXiv:2503.02130, section 3: f = sigmoid(W x + b), one per head
    and token, and score (i, j) gains the sum of log f over the tokens j + 1 to i. Sums restart at each document and are
    taken in float64, since differences of them are what counts. The gate has a bias even if the model's layers have
    none.

    Args:
        n_kv_head: Key/value heads; `n_head` unless given. Gates are one per query head.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before they decay.
    """

    order_free = False  # what is further back is forgotten
    unit_scores = False  # forgetting is part of a score

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        self.gate = nn.Linear(dims.n_embd, self.n_head)

    def needs(self) -> gptzoo.Needs:
        return replace(super().needs(), ready_bias=True, bias_grad=True)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        q, k = ctx.position.rotate(self.q_norm(q), self.k_norm(k), ctx.pos)
        gate = rearrange(self.gate(x), "b t h -> b h t 1")  # what is cached: its logarithm would not survive bfloat16
        visible, where = ctx.remember(k=k, v=v, gate=gate)
        bias = decay(visible["gate"][..., 0], where)
        if ctx.position.bias is not None:
            bias = bias + where.dense_bias(ctx.position.bias, self.n_head)
        y = self.mix_with(bias, q, visible["k"], visible["v"], ctx, where)  # (B, H, T, D)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def mix_with(
        self, bias: Tensor, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where
    ) -> Tensor:
        """Run the kernel: (B, H, Tq, Tk), (B, H, Tq, D), (B, G, Tk, D) twice -> (B, H, Tq, D)."""
        assert ctx.kernel is not None, "resolve gives every attention with kernels one"
        out = ctx.kernel(
            q,
            k,
            v,
            where=where,
            mask=self.visible,
            bias=bias,
            scale=self.scale / ctx.position.temperature,
            softcap=self.softcap,
            dropout=self.dropout if self.training else 0.0,
        )
        assert isinstance(out, Tensor)
        return out


def decay(gate: Tensor, where: gptzoo.Where) -> Tensor:
    """What the scores lose, from gates before the sigmoid: (B, H, Tk) -> (B, H, Tq, Tk)."""
    dtype = torch.float64 if gate.dtype == torch.float64 else torch.float32
    total = sum_within_documents(F.logsigmoid(gate.to(dtype)).double(), where)
    return (at_queries(total, where)[..., :, None] - total[..., None, :]).to(dtype)


def at_queries(x: Tensor, where: gptzoo.Where) -> Tensor:
    """What the keys have where the queries stand, whatever the order of the keys: (B, H, Tk) -> (B, H, Tq)."""
    if where.q_pos is where.k_pos:
        return x
    same = (where.q_pos[..., None] == where.k_pos[:, None]) & (where.q_doc[..., None] == where.k_doc[:, None])
    own = same.int().argmax(dim=-1)  # (B, Tq)
    return x.gather(-1, own[:, None].expand(x.shape[0], x.shape[1], -1))


def sum_within_documents(x: Tensor, where: gptzoo.Where) -> Tensor:
    """Sum over the tokens of the same document up to each one's position: (B, H, Tk) -> (B, H, Tk)."""
    if where.plain:
        return x.cumsum(-1)
    by_pos = where.k_pos.argsort(dim=-1, stable=True)
    order = by_pos.gather(-1, where.k_doc.gather(-1, by_pos).argsort(dim=-1, stable=True))
    there, back = (index[:, None].expand_as(x) for index in (order, order.argsort(dim=-1)))
    return _scan(x.gather(-1, there), where.k_doc.gather(-1, order)[:, None]).gather(-1, back)


def _scan(x: Tensor, doc: Tensor) -> Tensor:
    """Running sums that restart where `doc` changes, by doubling: no bit of one document gets into another."""
    step = 1
    while step < x.shape[-1]:
        before = x[..., :-step].masked_fill(doc[..., :-step] != doc[..., step:], 0.0)
        x = x + F.pad(before, (step, 0))
        step *= 2
    return x
