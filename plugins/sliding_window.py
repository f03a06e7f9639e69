"""Sliding-window attention: a token sees itself and the `window - 1` tokens before it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sliding_window`."""
    zoo.attention("sliding_window", SlidingWindow, aliases=["swa"])


class SlidingWindow(gptzoo.MultiHeadAttention):
    """Causal attention over a fixed window.

    Source: Longformer, arXiv:2004.05150, section 3.1; causal as in Mistral 7B, arXiv:2310.06825, section 2. Its cache
    holds what a later token can still see, and room for as much again.

    Args:
        window: Keys that a token sees, itself included.
        n_kv_head: Key/value heads; `n_head` unless given.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
        bias: Whether q, k, v and o have a bias; `qkv` = all but o, as in Qwen2. The model's unless given.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        window: int = 256,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
        bias: bool | Literal["qkv"] | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap, bias)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.window = window

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return gptzoo.causal(q_pos, k_pos) & (q_pos - k_pos < self.window)

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> WindowCache:
        return WindowCache(batch, size, dtype, device, self.window)


class WindowCache(gptzoo.LayerCache):
    """A cache that forgets what no later token of the same document can see.

    Tokens are appended. When there is no room left, those within a window of their document's newest token stay, and so
    eviction costs a copy of the window once in about `window` tokens. Per row and document it holds at most
    2 (window - 1) tokens between two calls, however many have passed. Rows evict by their own positions, padding goes
    first, and documents may take turns.

    Args:
        window: Keys that a token sees, itself included.

    Raises:
        GPTZooError: A token arrives whose document has gone past its position, so that what it sees may be gone.
    """

    def __init__(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str, window: int) -> None:
        super().__init__(batch, min(size, 2 * (window - 1)), dtype, device)
        self.window, self.most = window, size
        self.evicted = False
        self.ring = 0  # once it is fixed: its places

    @property
    def layout(self) -> object:
        return (type(self), self.most, self.window)

    def extend(self, pos: Tensor, doc: Tensor, **tensors: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return old and new tokens, then evict: what the last of the new ones no longer sees, the first still may."""
        if self.ring:
            return self._extend_ring(pos, doc, tensors)
        if self.evicted:
            self._refuse_the_late(pos, doc)
        if self.length + pos.shape[1] <= self.size:
            return super().extend(pos, doc, **tensors)
        k_pos = torch.cat((self.pos[:, : self.length], pos.expand(self.batch, -1)), dim=1)
        k_doc = torch.cat((self.doc[:, : self.length], doc.expand(self.batch, -1)), dim=1)
        visible = {name: self._with_old(name, new) for name, new in tensors.items()}
        self._keep(k_pos, k_doc, visible)
        return visible, k_pos, k_doc

    def fix(self) -> None:
        """Become a ring: a new token takes the place of the one that is just leaving its window.

        Raises:
            GPTZooError: A row holds several documents.
        """
        pos, doc = self.pos[:, : self.length], self.doc[:, : self.length]
        if any(len({*row} - {-1}) > 1 for row in doc.tolist()):
            raise gptzoo.GPTZooError("a ring holds one document per row. Decode documents in rows of their own.")
        self.ring = self.size = min(self.most, self.window)
        alive = (doc >= 0) & (newest(pos, doc) - pos < self.ring)
        place = torch.where(alive, pos % self.ring, self.ring)  # the dead share a place of their own, which is dropped
        self.pos, self.doc = (_laid(each[:, None, :, None], place, self.ring)[:, 0, :, 0] for each in (pos, doc))
        self.doc = self.doc.where(_laid(alive[:, None, :, None], place, self.ring)[:, 0, :, 0], -1)
        self.tensors = {name: _laid(x[:, :, : self.length], place, self.ring) for name, x in self.tensors.items()}

    def _extend_ring(
        self, pos: Tensor, doc: Tensor, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        place = (pos % self.ring).expand(self.batch, 1)
        self.pos.scatter_(1, place, pos.expand(self.batch, 1))
        self.doc.scatter_(1, place, doc.expand(self.batch, 1))
        for name, new in tensors.items():
            new = new.to(self.dtype)
            self._room(name, new).scatter_(2, place[:, None, :, None].expand_as(new), new)
        return {name: self.tensors[name] for name in tensors}, self.pos, self.doc

    def _with_old(self, name: str, new: Tensor) -> Tensor:
        """(B, heads, T, width), of the cache's dtype."""
        return torch.cat((self._room(name, new)[:, :, : self.length], new.to(self.dtype)), dim=2)

    def _keep(self, pos: Tensor, doc: Tensor, tensors: dict[str, Tensor]) -> None:
        """Begin anew with what a later token may see, in the order in which it came."""
        alive = (doc >= 0) & (newest(pos, doc) - pos < self.window - 1)
        count = int(alive.sum(dim=1).max())  # rows with fewer keep some dead ones, which no mask lets in
        index = (~alive).byte().argsort(dim=1, stable=True)[:, :count]
        self.size = min(self.most, 2 * max(self.window - 1, count))  # several documents in a row need more room
        self._clear()
        kept = {name: _at(index, tensor) for name, tensor in tensors.items()}
        super().extend(pos.gather(1, index), doc.gather(1, index), **kept)
        self.evicted = True

    def _clear(self) -> None:
        """New tensors in place of the old ones, which a caller may still hold."""
        self.length, self.tensors = 0, {}
        self.pos = self.pos.new_zeros(self.batch, self.size)
        self.doc = self.doc.new_full((self.batch, self.size), -1)

    def _refuse_the_late(self, pos: Tensor, doc: Tensor) -> None:
        old_pos, old_doc = self.pos[:, None, : self.length], self.doc[:, None, : self.length]
        late = (doc[..., None] == old_doc) & (old_doc >= 0) & (pos[..., None] <= old_pos)
        if bool(late.any()):
            raise gptzoo.GPTZooError(
                "a token comes after a later one of its document, and what it should see has left the window's cache. "
                "Decode each document in the order of its positions, or without a cache."
            )


def newest(pos: Tensor, doc: Tensor) -> Tensor:
    """The greatest position of each token's document, by sorting rather than by comparing all pairs: (B, T)."""
    by_pos = pos.argsort(dim=1)
    order = by_pos.gather(1, doc.gather(1, by_pos).argsort(dim=1, stable=True))
    last = torch.searchsorted(doc.gather(1, order), doc.contiguous(), right=True) - 1
    return pos.gather(1, order).gather(1, last)


def _at(index: Tensor, x: Tensor) -> Tensor:
    """(B, n), (B, heads, T, width) -> (B, heads, n, width)."""
    return x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))


def _laid(x: Tensor, place: Tensor, size: int) -> Tensor:
    """(B, heads, T, width) laid out by place (B, T), those at `size` left out: (B, heads, size, width)."""
    out = x.new_zeros(*x.shape[:2], size + 1, x.shape[3])
    return out.scatter_(2, place[:, None, :, None].expand_as(x), x)[:, :, :size].contiguous()
