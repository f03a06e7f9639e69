"""What the tests of single parts share: sizes, and a context made by hand, without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo.loading import shipped_folder

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def dims() -> MakeDims:
    """Small sizes; any of them can be changed."""
    small = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
    return lambda **changes: replace(small, **changes)


@pytest.fixture
def context(dims: MakeDims) -> MakeContext:
    """A layer's context, as the skeleton makes it."""

    def make(
        length: int,
        position: gptzoo.Position | None = None,
        kernel: gptzoo.Kernel | None = None,
        pos: Tensor | None = None,
        doc: Tensor | None = None,
        cache: gptzoo.LayerCache | None = None,
    ) -> gptzoo.Context:
        plain = pos is None and doc is None and cache is None
        padded = doc is not None
        pos = torch.arange(length)[None] if pos is None else pos
        doc = torch.zeros_like(pos) if doc is None else doc
        where = gptzoo.Where(pos, pos, doc, doc, plain=plain, padded=padded)
        position = gptzoo.Position(dims(), 8) if position is None else position
        return gptzoo.Context(pos, doc, where, position, kernel or gptzoo.Naive(), cache)

    return make
