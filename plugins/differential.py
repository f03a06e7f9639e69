"""Differential attention: the difference of two softmax maps, in which what both attend to alike cancels out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `differential`."""
    zoo.attention("differential", Differential, aliases=["diff"])


class Differential(gptzoo.MultiHeadAttention):
    """Causal attention by softmax(q1 k1) - lambda softmax(q2 k2), each head normalised.

    Source: Differential Transformer, arXiv:2410.05258, equations 1-3. lambda = exp(lambda_q1 . lambda_k1) -
    exp(lambda_q2 . lambda_k2) + lambda_init is one number for all heads of a layer. The paper halves the number of
    heads; here a head keeps its width for v and halves q and k into two maps, so that the weights are as many as those
    of multi-head attention, apart from lambda and the norm.

    Args:
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each map's q and k, before they are rotated.
        lambda_init: Where lambda begins, and 1 minus the factor after the norm; 0.8 - 0.6 exp(-0.3 layer) unless given,
            with layers counted from 0, as in the paper.
    """

    unit_scores = False  # its weights are a difference of two softmaxes

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        lambda_init: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head)
        if self.head_dim % 2:
            raise ValueError(f"it halves heads, and head_dim = {self.head_dim} is odd")
        half = self.rotate_dim = self.head_dim // 2
        self.scale = half**-0.5
        self.q_norm = qk_norm(half) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(half) if qk_norm else nn.Identity()
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * dims.layer) if lambda_init is None else lambda_init
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.full((half,), 0.1)))
        self.head_norm = nn.Parameter(torch.ones(self.head_dim))

    lambda_q1: nn.Parameter
    lambda_k1: nn.Parameter
    lambda_q2: nn.Parameter
    lambda_k2: nn.Parameter

    def init(self, name: str, generator: torch.Generator) -> None:
        """The paper's code draws lambda's vectors with a deviation of 0.1."""
        if name.startswith("lambda"):
            vector = getattr(self, name)
            vector.copy_(torch.empty(vector.shape).normal_(0.0, 0.1, generator=generator))

    def needs(self) -> gptzoo.Needs:
        return gptzoo.Needs(gqa=self.n_kv_head != self.n_head, v_width=True, head_dim=self.rotate_dim)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        (q1, q2), (k1, k2) = q.chunk(2, dim=-1), k.chunk(2, dim=-1)  # (B, H, T, D / 2) and (B, G, T, D / 2) twice
        q1, k1 = ctx.position.rotate(self.q_norm(q1), self.k_norm(k1), ctx.pos)
        q2, k2 = ctx.position.rotate(self.q_norm(q2), self.k_norm(k2), ctx.pos)
        visible, where = ctx.remember(k1=k1, k2=k2, v=v)
        first = self.mix(q1, visible["k1"], visible["v"], ctx, where)  # (B, H, T, D)
        second = self.mix(q2, visible["k2"], visible["v"], ctx, where)
        y = self.normalise(first - self.lambda_().to(first.dtype) * second)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def lambda_(self) -> Tensor:
        """How much of the second map is taken away, at least float32: ()."""
        q1, k1, q2, k2 = (
            v if v.dtype == torch.float64 else v.float()
            for v in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2)
        )
        return (q1 * k1).sum().exp() - (q2 * k2).sum().exp() + self.lambda_init

    def normalise(self, y: Tensor) -> Tensor:
        """RMS norm of each head, times 1 - lambda_init, so that gradients are as large as without: (B, H, T, D)."""
        with torch.autocast(y.device.type, enabled=False):
            normed = F.rms_norm(y, (self.head_dim,), self.head_norm.to(y.dtype), eps=1e-5)
        return normed * (1 - self.lambda_init)
