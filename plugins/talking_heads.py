"""Talking heads: heads exchange their scores before the softmax, and their weights after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `talking_heads`."""
    zoo.attention("talking_heads", TalkingHeads)


class TalkingHeads(gptzoo.MultiHeadAttention):
    """Causal attention with learned mixtures over the heads on both sides of the softmax.

    Source: Talking-Heads Attention, arXiv:2003.02436, section 3, with as many heads of keys, softmaxes and values
    (h_k = h = h_v there). Both mixtures start as the identity, so that it begins as multi-head attention. A position's
    score bias is added between the first mixture and the softmax; dropout comes right after the softmax.

    Args:
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before they are mixed.
    """

    kernels = ("naive",)

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        self.mix_scores = nn.Parameter(torch.eye(self.n_head))  # P_l: from head, to head
        self.mix_weights = nn.Parameter(torch.eye(self.n_head))  # P_w

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        """(B, H, Tq, D), (B, G, Tk, D) twice -> (B, H, Tq, D)."""
        position = ctx.position
        bias = None if position.bias is None else where.dense_bias(position.bias, self.n_head)
        scores = gptzoo.scores(q, k, self.scale / position.temperature, self.softcap)
        weights = gptzoo.weights(talk(scores, self.mix_scores), where.dense_mask(self.visible), bias)
        weights = F.dropout(weights, self.dropout, self.training)
        return gptzoo.combine(talk(weights, self.mix_weights), v)


def talk(x: Tensor, mixture: Tensor) -> Tensor:
    """Mix heads, in x's precision: (B, H, Tq, Tk), (H, G) -> (B, G, Tq, Tk)."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("bhqk,hg->bgqk", x, mixture.to(x.dtype))
