"""Linear attention: without softmax, all past keys and values add up to one matrix, and a new token costs the same."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `linear`."""
    zoo.attention("linear", LinearAttention, aliases=["linear_attention"])


CHUNK = 64
"""Tokens that are computed at once. Memory grows with it, and the number of steps falls."""


class LinearAttention(gptzoo.Attention):
    """Causal attention whose weights are phi(q) . phi(k), normalised, with phi = elu + 1: a recurrence over one matrix.

    Source: Transformers are RNNs, arXiv:2006.16236, equations 9-12 and, for the recurrence, 18-20. A position that
    rotates turns phi(q) and phi(k) above the fraction and not below it, as in RoFormer, arXiv:2104.09864, equation 19.

    Row by row it needs a document's tokens side by side and in order. The state is float32 at least.
    """

    kernels: ClassVar[tuple[str, ...] | None] = ()
    abilities: ClassVar[gptzoo.Abilities] = gptzoo.Abilities(temperature=False, bias=frozenset(), any_order=False)
    unit_scores = False

    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__()
        self.n_head = dims.n_head
        self.rotate_dim = dims.head_dim
        width = dims.n_head * dims.head_dim
        self.q = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.k = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.v = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.o = nn.Linear(width, dims.n_embd, bias=dims.bias)
        self.residual_dropout = nn.Dropout(dims.dropout)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = (rearrange(f(x), "b t (h d) -> b h t d", h=self.n_head) for f in (self.q, self.k, self.v))
        with torch.autocast(x.device.type, enabled=False):
            y = self.mix(feature(q), feature(k), _at_least_float32(v), ctx).to(v.dtype)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context) -> Tensor:
        """Features of queries and keys, and values, (B, H, T, D) -> (B, H, T, D)."""
        turned_q, turned_k = ctx.position.rotate(q, k, ctx.pos)
        cache = ctx.cache
        assert cache is None or isinstance(cache, gptzoo.StateCache)
        document = gptzoo.documents_read(ctx.doc, ctx.doc.new_full((1, 1), -1) if cache is None else cache.document)
        kept = {} if cache is None else cache.tensors
        above = kept.get("above", v.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]))  # sum of phi(k) v^T
        below = kept.get("below", k.new_zeros(*k.shape[:2], k.shape[3], 1))  # sum of phi(k)
        out = []
        for chunk in gptzoo.in_chunks(ctx.doc, document, CHUNK):
            new = chunk.tokens
            total = _read(turned_q[:, :, new], turned_k[:, :, new], v[:, :, new], above, chunk)
            norm = _read(q[:, :, new], k[:, :, new], torch.ones_like(v[:, :, new, :1]), below, chunk)
            out.append(total / torch.where(norm > 0, norm, 1.0))
            above = above * chunk.survives + (turned_k[:, :, new] * chunk.remains).mT @ v[:, :, new]
            below = below * chunk.survives + (k[:, :, new] * chunk.remains).sum(2)[..., None]
        if cache is not None:
            cache.keep(document[:, -1:], above=above, below=below)
        return torch.cat(out, dim=2)

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> gptzoo.StateCache:
        """A state per head, whatever the number of tokens."""
        return gptzoo.StateCache(batch, size, dtype, device)


def feature(x: Tensor) -> Tensor:
    """elu(x) + 1, at least float32; positive even where adding 1 to elu(x) would give 0."""
    x = _at_least_float32(x)
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def _read(q: Tensor, k: Tensor, v: Tensor, state: Tensor, chunk: gptzoo.Chunk) -> Tensor:
    """What each query finds in the chunk up to itself, and in the state: (B, H, C, Dv)."""
    return (q @ k.mT * chunk.pairs) @ v + (q * chunk.continues) @ state


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
