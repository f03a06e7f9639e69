"""Sliding-window attention: a token sees itself and the `window - 1` tokens before it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sliding_window`."""
    zoo.attention("sliding_window", SlidingWindow, aliases=["swa"])


class SlidingWindow(gptzoo.MultiHeadAttention):
    """Causal attention over a fixed window.

    Source: Longformer, arXiv:2004.05150, section 3.1; causal as in Mistral 7B, arXiv:2310.06825, section 2.

    Args:
        window: Keys that a token sees, itself included.
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
        bias: Whether q, k, v and o have a bias; `qkv` = all but o, as in Qwen2. The model's unless given.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        window: int = 256,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        bias: bool | Literal["qkv"] | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap, bias)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.window = window

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return gptzoo.causal(q_pos, k_pos) & (q_pos - k_pos < self.window)
