"""Grouped-query attention against multi-head attention with repeated keys and values."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from einops import rearrange, repeat

import gptzoo
from gptzoo_plugins.grouped_query import GroupedQuery, MultiQuery
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.sliding_window import SlidingWindow

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]


def with_repeated_heads(grouped: gptzoo.MultiHeadAttention, dims: gptzoo.Dims) -> gptzoo.MultiHeadAttention:
    """Multi-head attention in which each group's key/value head is written out for all its query heads."""
    full = gptzoo.MultiHeadAttention(dims).double()
    times = grouped.n_head // grouped.n_kv_head
    state = {}
    for name, tensor in grouped.state_dict().items():
        if name.split(".")[0] in ("k", "v"):
            heads = rearrange(tensor, "(g d) ... -> g d ...", g=grouped.n_kv_head)
            tensor = repeat(heads, "g d ... -> (g r d) ...", r=times)
        state[name] = tensor
    full.load_state_dict(state)
    return full


@pytest.mark.parametrize("kernel", [gptzoo.Naive(), gptzoo.Sdpa()], ids=["naive", "sdpa"])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_it_is_multi_head_attention_with_repeated_keys_and_values(
    dims: MakeDims, context: MakeContext, kernel: gptzoo.Kernel, n_kv_head: int
) -> None:
    grouped = GroupedQuery(dims(), n_kv_head).double()
    full = with_repeated_heads(grouped, dims())
    x = torch.randn(2, 7, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 7, 32, dtype=torch.float64)
    ctx = context(7, Rope(dims(), 8), kernel)
    out, expected = grouped(x, ctx), full(x, ctx)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = (
        torch.autograd.grad((y * direction).sum(), [x, m.k.weight]) for y, m in ((out, grouped), (expected, full))
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
    summed = rearrange(theirs[1], "(g r d) c -> g r d c", g=n_kv_head, d=8).sum(1)
    torch.testing.assert_close(ours[1], rearrange(summed, "g d c -> (g d) c"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kernel", [gptzoo.Naive(), gptzoo.Sdpa()], ids=["naive", "sdpa"])
def test_neighbouring_query_heads_share_a_key_value_head(
    dims: MakeDims, context: MakeContext, kernel: gptzoo.Kernel
) -> None:
    attention = GroupedQuery(dims(bias=False), 2)
    with torch.no_grad():
        attention.v.weight[8:] = 0  # the second key/value head says nothing
        attention.o.weight.copy_(torch.eye(32))
    out = attention(torch.randn(1, 5, 32), context(5, kernel=kernel))
    assert (out[..., :16] != 0).all()
    assert torch.equal(out[..., 16:], torch.zeros(1, 5, 16))


def test_one_head_per_query_head_is_multi_head_attention(dims: MakeDims, context: MakeContext) -> None:
    grouped, full = GroupedQuery(dims(), 4), gptzoo.MultiHeadAttention(dims())
    full.load_state_dict(grouped.state_dict())
    x = torch.randn(2, 7, 32)
    assert torch.equal(grouped(x, context(7)), full(x, context(7)))


def test_multi_query_is_grouped_query_with_one_head(dims: MakeDims, context: MakeContext) -> None:
    multi, grouped = MultiQuery(dims()), GroupedQuery(dims(), 1)
    grouped.load_state_dict(multi.state_dict())
    x = torch.randn(2, 7, 32)
    assert torch.equal(multi(x, context(7)), grouped(x, context(7)))
    assert multi.needs() == grouped.needs() == gptzoo.Needs(gqa=True, head_dim=8)


def test_the_cache_holds_the_shared_heads_alone(dims: MakeDims, context: MakeContext) -> None:
    attention = GroupedQuery(dims(), 2)
    cache = attention.new_cache(1, 9, torch.float32, "cpu")
    attention(torch.randn(1, 5, 32), context(5, cache=cache))
    assert {name: tuple(t.shape) for name, t in cache.tensors.items()} == {"k": (1, 2, 9, 8), "v": (1, 2, 9, 8)}


MAKES = [lambda d, **o: GroupedQuery(d, 2, **o), MultiQuery, SlidingWindow, gptzoo.MultiHeadAttention]


@pytest.mark.parametrize("make", MAKES, ids=["gqa", "mqa", "swa", "mha"])
def test_the_options_of_its_base_reach_it(dims: MakeDims, context: MakeContext, make: Callable) -> None:
    attention = make(dims(), qk_norm=gptzoo.LayerNorm, scale=0.5, softcap=3.0)
    assert (attention.scale, attention.softcap) == (0.5, 3.0)
    assert isinstance(attention.q_norm, gptzoo.LayerNorm)
    assert isinstance(attention.k_norm, gptzoo.LayerNorm)
    assert attention(torch.randn(1, 4, 32), context(4)).isfinite().all()


@pytest.mark.parametrize("make", MAKES, ids=["gqa", "mqa", "swa", "mha"])
@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize(
    ("bias", "biased"),
    [(None, None), (True, "qkvo"), ("qkv", "qkv"), (False, "")],
    ids=["model's", "all", "qkv", "none"],
)
def test_the_bias_is_the_models_unless_the_attention_says_otherwise(
    dims: MakeDims, make: Callable, model: bool, bias: bool | str | None, biased: str | None
) -> None:
    attention = make(dims(bias=model), bias=bias)
    expected = ("qkvo" if model else "") if biased is None else biased
    assert "".join(name for name in "qkvo" if getattr(attention, name).bias is not None) == expected


@pytest.mark.parametrize("n_kv_head", [0, 3, 8])
def test_a_number_that_does_not_divide_the_heads_is_refused(dims: MakeDims, n_kv_head: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"n_kv_head must divide n_head = 4, {n_kv_head} does not")):
        GroupedQuery(dims(), n_kv_head)


def test_n_kv_head_has_to_be_said(dims: MakeDims) -> None:
    with pytest.raises(TypeError, match="n_kv_head"):
        GroupedQuery(dims())  # type: ignore[call-arg]
