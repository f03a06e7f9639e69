"""Attention with a sink against loops in which the sink is one more key, without a value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.sink import Sink
from tests.plugins.attention_cases import (
    DIMS,
    PLACES,
    Everything,
    Places,
    Query,
    check_autocast,
    check_decoding,
    check_formula,
    gradients,
    inputs,
    normalised,
    projected,
    query_by_query,
    shaken,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 2}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6, "softcap": 1.5}]


def by_hand(attention: Sink, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def read(query: Query) -> Tensor:
        weights = normalised(torch.cat((query.scores + query.bias, attention.sink[:, None]), 1).exp())
        return query.reads(weights[:, :-1])

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Sink(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Sink(DIMS, **options)), context, Everything(8))


def test_a_sink_at_the_bottom_leaves_multi_head_attention(context: MakeContext) -> None:
    attention, plain = Sink(DIMS), gptzoo.MultiHeadAttention(DIMS)
    plain.load_state_dict({name: t for name, t in attention.state_dict().items() if name != "sink"})
    x = inputs(torch.float32)
    with torch.no_grad():
        attention.sink.fill_(-1e4)
        assert torch.equal(attention(x, context(8)), plain(x, context(8)))
        attention.sink.fill_(1e4)
        assert torch.equal(attention(x, context(8)), attention.o.bias.expand(3, 8, 32))


def test_a_place_without_a_token_gives_finite_gradients(context: MakeContext) -> None:
    attention, x = Sink(DIMS), inputs(torch.float32)
    out = attention(x, context(8, **PLACES["packed and padded"]))
    assert out.isfinite().all()
    found = gradients(out, [x, *attention.parameters()])
    assert all(g is not None and g.isfinite().all() for g in found)


def test_the_sink_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(Sink(DIMS), context)


def test_it_needs_the_log_sum_exp() -> None:
    assert Sink(DIMS, n_kv_head=2).needs() == gptzoo.Needs(gqa=True, lse=True, head_dim=8)
    with pytest.raises(gptzoo.GPTZooError, match="attention 'sink' reads the log-sum-exp, which kernel 'sdpa' on cpu"):
        gptzoo.build("gpt2-tiny", overrides={"model.attention": "sink", "model.kernel": "sdpa"})
