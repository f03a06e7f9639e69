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
    bias_of,
    check_autocast,
    check_decoding,
    check_formula,
    inputs,
    loops,
    shaken,
    spread,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 1, "offset": 0.3}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6, "softcap": 1.5}]


def by_hand(attention: Sigmoid, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    q, k, v = attention.project(x)
    q, k = position.rotate(attention.q_norm(q), attention.k_norm(k), spread(places)[0])
    share, cap = 4 // attention.n_kv_head, attention.softcap

    def token(b: int, i: int, seen: list[int]) -> Tensor:
        read = []
        for h in range(4):
            bias = bias_of(position, places, b, h, i, seen)
            total = torch.zeros(8, dtype=torch.float64)
            for n, j in enumerate(seen):
                score = (q[b, h, i] * k[b, h // share, j]).sum() * attention.scale / position.temperature
                score = score if cap is None else cap * torch.tanh(score / cap)
                total = total + v[b, h // share, j] / (1 + (-(score + attention.offset + bias[n])).exp())
            read.append(total)
        return torch.cat(read)

    return attention.o(loops(places, token, 32))


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
