"""Attention with a sink: a head may attend to nothing, by a learned logit that competes with its keys."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sink`."""
    zoo.attention("sink", Sink)


class Sink(gptzoo.MultiHeadAttention):
    """Causal attention whose softmax has one more term per head: exp(sink), which carries no value.

    Source: the learned softmax denominator of gpt-oss, arXiv:2508.10925, section 2.2; with the sink fixed at 0 it is
    SoftMax1 in StreamingLLM, arXiv:2309.17453, section 3.3. Computed from any kernel's log-sum-exp, as out *
    sigmoid(lse - sink). Sinks start at 0 (at random in gpt-oss).

    Args:
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias; the sink is not.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        self.sink = nn.Parameter(torch.zeros(self.n_head))

    def needs(self) -> gptzoo.Needs:
        return replace(super().needs(), lse=True)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        """(B, H, Tq, D), (B, G, Tk, D) twice -> (B, H, Tq, D)."""
        assert ctx.kernel is not None, "resolve gives every attention with kernels one"
        out, lse = ctx.kernel(
            q,
            k,
            v,
            where=where,
            mask=self.visible,
            bias=ctx.position.bias,
            scale=self.scale / ctx.position.temperature,
            softcap=self.softcap,
            dropout=self.dropout if self.training else 0.0,
            return_lse=True,
        )
        kept = torch.sigmoid(lse - self.sink[:, None])  # (B, H, Tq), what the sink leaves
        return (out * kept[..., None]).to(out.dtype)
