"""Grouped-query and multi-query attention: several query heads share one head of keys and values."""

from __future__ import annotations

from typing import Literal

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `grouped_query` and `multi_query`."""
    zoo.attention("grouped_query", GroupedQuery, aliases=["gqa"])
    zoo.attention("multi_query", MultiQuery, aliases=["mqa"])


class GroupedQuery(gptzoo.MultiHeadAttention):
    """Causal attention whose query heads share key/value heads in groups of neighbours.

    Source: GQA, arXiv:2305.13245, section 2.2. Query head h reads key/value head h // (n_head // n_kv_head).

    Args:
        n_kv_head: Key/value heads; must divide n_head. The cache shrinks by n_head / n_kv_head.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
        bias: Whether q, k, v and o have a bias; `qkv` = all but o, as in Qwen2. The model's unless given.
    """

    examples = ({"n_kv_head": 2}, {"n_kv_head": 1, "qk_norm": "rmsnorm", "bias": "qkv"})

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_kv_head: int,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
        bias: bool | Literal["qkv"] | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap, bias)


class MultiQuery(gptzoo.MultiHeadAttention):
    """Causal attention whose query heads all share one head of keys and values.

    Source: Fast Transformer Decoding, arXiv:1911.02150, section 3.

    Args:
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
        bias: Whether q, k, v and o have a bias; `qkv` = all but o, as in Qwen2. The model's unless given.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
        bias: bool | Literal["qkv"] | None = None,
    ) -> None:
        super().__init__(dims, 1, qk_norm, scale, softcap, bias)
