"""Differential attention against loops over queries, heads and keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.differential import Differential
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
    query_by_query,
    shaken,
    spread,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 2, "lambda_init": 0.3}, {"qk_norm": gptzoo.LayerNorm}]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


def by_hand(a: Differential, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    """The two maps as two sets of heads, of half the width each."""
    q, k, v = a.project(x)
    pos, halves = spread(places)[0], (slice(0, 4), slice(4, 8))
    maps = [position.rotate(a.q_norm(q[..., half]), a.k_norm(k[..., half]), pos) for half in halves]
    both = torch.cat([q for q, _ in maps], 1), torch.cat([k for _, k in maps], 1), torch.cat((v, v), 1)
    taken = (a.lambda_q1 @ a.lambda_k1).exp() - (a.lambda_q2 @ a.lambda_k2).exp() + a.lambda_init

    def read(query: Query) -> Tensor:
        first, second = query.reads(normalised((query.scores + query.bias).exp())).chunk(2)
        y = first - taken * second
        return y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * a.head_norm * (1 - a.lambda_init)

    return query_by_query(a, both, position, places, read, scale=4**-0.5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 4), Everything(4)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Differential(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position, KERNELS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Differential(DIMS, **options)), context, Everything(4), KERNELS)


def test_lambda_begins_as_in_the_paper_by_depth() -> None:
    inits = [Differential(DIMS.at(layer)).lambda_init for layer in range(3)]
    assert inits == pytest.approx([0.2, 0.8 - 0.6 * math.exp(-0.3), 0.8 - 0.6 * math.exp(-0.6)])
    assert Differential(DIMS).lambda_().item() == pytest.approx(0.2)


def test_its_weights_are_as_many_as_multi_head_attentions() -> None:
    count = sum(p.numel() for p in Differential(DIMS).parameters())
    plain = sum(p.numel() for p in gptzoo.MultiHeadAttention(DIMS).parameters())
    assert count == plain + 4 * 4 + 8  # lambda's four vectors of half a head, and the norm


def test_lambdas_vectors_are_drawn_by_the_models_seed() -> None:
    def lambdas(seed: int) -> Tensor:
        model = gptzoo.build("gpt2-tiny", overrides={"model.attention": "differential", "seed": seed})
        found = [p.data for name, p in model.named_parameters() if ".lambda_" in name]
        assert len(found) == 4 * 4
        return torch.stack(found)

    drawn = lambdas(0)
    assert torch.equal(drawn, lambdas(0))
    assert not torch.isclose(drawn, lambdas(1)).any()
    assert drawn.std().item() == pytest.approx(0.1, abs=0.02)


def test_equal_maps_cancel_as_far_as_lambda_says(context: MakeContext) -> None:
    attention = Differential(DIMS, lambda_init=1.0).double()
    with torch.no_grad():
        for name in ("q", "k"):
            for tensor in attention.get_submodule(name).parameters():
                maps = tensor.view(4, 2, 4, -1)
                maps[:, 1] = maps[:, 0]
        assert attention(inputs(), context(8)).sub(attention.o.bias).abs().max() < 1e-12


def test_it_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(Differential(DIMS), context)


def test_what_it_asks_of_its_kernel() -> None:
    assert Differential(DIMS).needs() == gptzoo.Needs(v_width=True, head_dim=4)
    assert Differential(DIMS, 2).needs() == gptzoo.Needs(gqa=True, v_width=True, head_dim=4)


def test_odd_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^it halves heads, and head_dim = 7 is odd$"):
        Differential(replace(DIMS, head_dim=7))
