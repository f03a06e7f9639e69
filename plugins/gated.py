"""Gated attention: what the heads read is let through by gates that the token itself opens."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `gated`."""
    zoo.attention("gated", Gated)


class Gated(gptzoo.MultiHeadAttention):
    """Causal attention with a sigmoid gate on the heads' output, before it is projected.

    Source: Gated Attention for Large Language Models, arXiv:2505.06708, section 2.2, position G1: the gates
    are a projection of the layer's input, one per head or one per dimension.

    Args:
        granularity: `elementwise` has a gate for each dimension of each head, `headwise` one for each head.
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
    """

    examples = ({}, {"granularity": "headwise", "n_kv_head": 1})

    def __init__(
        self,
        dims: gptzoo.Dims,
        granularity: Literal["elementwise", "headwise"] = "elementwise",
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        if granularity not in ("elementwise", "headwise"):
            raise ValueError(f"granularity must be elementwise or headwise, not {granularity!r}")
        self.granularity = granularity
        gates = self.head_dim if granularity == "elementwise" else 1
        self.gate = nn.Linear(dims.n_embd, self.n_head * gates, bias=dims.bias)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        q, k = ctx.position.rotate(self.q_norm(q), self.k_norm(k), ctx.pos)
        visible, where = ctx.remember(k=k, v=v)
        y = self.mix(q, visible["k"], visible["v"], ctx, where)  # (B, H, T, D)
        gate = rearrange(self.gate(x).sigmoid(), "b t (h d) -> b h t d", h=self.n_head)  # d is 1 headwise
        return self.residual_dropout(self.o(rearrange(y * gate, "b h t d -> b t (h d)")))
