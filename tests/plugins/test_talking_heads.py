"""Talking heads against loops over queries and heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.talking_heads import TalkingHeads
from tests.plugins.attention_cases import (
    DIMS,
    Everything,
    Places,
    Query,
    check_autocast,
    check_decoding,
    check_formula,
    inputs,
    normalised,
    projected,
    query_by_query,
    shaken,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 2}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6, "softcap": 1.5}]


def by_hand(attention: TalkingHeads, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def mixed(by_head: Tensor, mixture: Tensor) -> Tensor:
        return torch.stack([torch.stack([mixture[g, h] * by_head[g] for g in range(4)]).sum(0) for h in range(4)])

    def read(query: Query) -> Tensor:
        weights = normalised((mixed(query.scores, attention.mix_scores) + query.bias).exp())
        return query.reads(mixed(weights, attention.mix_weights))

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(TalkingHeads(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(TalkingHeads(DIMS, **options)), context, Everything(8))


def test_it_begins_as_multi_head_attention(context: MakeContext) -> None:
    attention, plain = TalkingHeads(DIMS), gptzoo.MultiHeadAttention(DIMS)
    plain.load_state_dict({name: t for name, t in attention.state_dict().items() if not name.startswith("mix")})
    x = inputs(dtype=torch.float32)
    assert torch.equal(attention(x, context(8)), plain(x, context(8)))


@pytest.mark.parametrize("mixture", ["mix_scores", "mix_weights"])
def test_a_head_hears_another_through_either_mixture(context: MakeContext, mixture: str) -> None:
    attention = TalkingHeads(DIMS)
    before = attention(inputs(dtype=torch.float32), context(8))
    with torch.no_grad():
        attention.get_parameter(mixture)[0, 1] = 0.5
    assert not torch.equal(attention(inputs(dtype=torch.float32), context(8)), before)


def test_mixtures_stay_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(TalkingHeads(DIMS), context)


def test_dropout_is_for_training_alone(context: MakeContext) -> None:
    attention = TalkingHeads(gptzoo.Dims(2, 4, 32, 8, 64, 11, dropout=0.5))
    attention.residual_dropout.p = 0.0
    x = inputs(dtype=torch.float32)
    assert not torch.equal(attention(x, context(8)), attention(x, context(8)))
    attention.eval()
    assert torch.equal(attention(x, context(8)), attention(x, context(8)))


def test_only_the_readable_kernel_lets_it_in() -> None:
    with pytest.raises(gptzoo.GPTZooError, match=r"attention 'talking_heads' runs with kernel naive only\. Use naive"):
        gptzoo.build("gpt2-tiny", overrides={"model.attention": "talking_heads", "model.kernel": "sdpa"})
