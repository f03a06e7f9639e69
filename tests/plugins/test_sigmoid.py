"""Sigmoid attention against loops over queries, heads and keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.sigmoid import Sigmoid
from tests.plugins.attention_cases import (
    DIMS,
    Everything,
    Places,
    Query,
    check_autocast,
    check_decoding,
    check_formula,
    inputs,
    projected,
    query_by_query,
    shaken,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 1, "offset": 0.3}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6, "softcap": 1.5}]


def by_hand(attention: Sigmoid, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def read(query: Query) -> Tensor:
        return query.reads(1 / (1 + (-(query.scores + attention.offset + query.bias)).exp()))

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Sigmoid(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Sigmoid(DIMS, **options)), context, Everything(8))


def test_the_offset_is_minus_the_log_of_the_context_length_unless_given() -> None:
    assert Sigmoid(DIMS).offset == -math.log(64)
    assert Sigmoid(replace(DIMS, context_length=9)).offset == -math.log(9)
    assert Sigmoid(DIMS, offset=0.0).offset == 0.0


def test_equal_keys_weigh_one_over_the_context_length_nearly(context: MakeContext) -> None:
    attention = Sigmoid(replace(DIMS, context_length=10_000)).double()
    with torch.no_grad():
        for name in ("q", "k"):
            attention.get_parameter(f"{name}.weight").zero_()
            attention.get_parameter(f"{name}.bias").zero_()
        attention.o.weight.copy_(torch.eye(32))
        attention.o.bias.zero_()
        x = inputs()
        _, _, v = attention.project(x)
        expected = v.cumsum(2).transpose(1, 2).reshape(3, 8, 32) / 10_001
        torch.testing.assert_close(attention(x, context(8)), expected, rtol=1e-10, atol=1e-16)


def test_weights_stay_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(Sigmoid(DIMS, offset=0.0), context)


def test_dropout_is_for_training_alone(context: MakeContext) -> None:
    attention, x = Sigmoid(replace(DIMS, dropout=0.5)), inputs(torch.float32)
    attention.residual_dropout.p = 0.0
    assert not torch.equal(attention(x, context(8)), attention(x, context(8)))
    attention.eval()
    assert torch.equal(attention(x, context(8)), attention(x, context(8)))
