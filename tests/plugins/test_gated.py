"""Gated attention against loops over queries, heads and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.gated import Gated
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
    softmax,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [
    {},
    {"granularity": "headwise"},
    {"granularity": "headwise", "n_kv_head": 2, "qk_norm": gptzoo.LayerNorm, "scale": 0.6},
]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


def by_hand(attention: Gated, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def read(query: Query) -> Tensor:
        opened = 1 / (1 + (-attention.gate.weight @ x[query.row, query.place] - attention.gate.bias).exp())
        mine = opened.reshape(4, 8) if attention.granularity == "elementwise" else opened[:, None]
        return mine * softmax(query)

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Gated(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position, KERNELS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Gated(DIMS, **options)), context, Everything(8), KERNELS)


@pytest.mark.parametrize(("granularity", "gates"), [("elementwise", 32), ("headwise", 4)])
def test_an_open_gate_leaves_multi_head_attention(context: MakeContext, granularity: str, gates: int) -> None:
    attention, plain = Gated(DIMS, granularity), gptzoo.MultiHeadAttention(DIMS)  # type: ignore[arg-type]
    plain.load_state_dict({n: t for n, t in attention.state_dict().items() if not n.startswith("gate")})
    assert attention.gate.weight.shape == (gates, 32)
    x = inputs(torch.float32)
    with torch.no_grad():
        attention.gate.weight.zero_()
        attention.gate.bias.fill_(100.0)
        assert torch.equal(attention(x, context(8)), plain(x, context(8)))
        attention.gate.bias.fill_(-1000.0)
        assert torch.equal(attention(x, context(8)), attention.o.bias.expand(3, 8, 32))


def test_the_gate_has_a_bias_if_the_model_has() -> None:
    assert Gated(replace(DIMS, bias=False)).gate.bias is None


def test_it_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(Gated(DIMS), context)


def test_another_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^granularity must be elementwise or headwise, not 'rowwise'$"):
        Gated(DIMS, "rowwise")  # type: ignore[arg-type]
