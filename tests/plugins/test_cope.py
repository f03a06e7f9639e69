"""Contextual position encoding against loops that count gate by gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.cope import Cope
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
    spread,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_positions": 2, "n_kv_head": 2}, {"n_positions": 3, "qk_norm": gptzoo.LayerNorm, "scale": 0.6}]


def by_hand(attention: Cope, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    q, pos = attention.q_norm(attention.project(x)[0]), spread(places)[0].tolist()  # counts are of no position

    def gates_between(query: Query, h: int, key: int) -> Tensor:
        gates = 1 / (1 + (-query.scores[h]).exp())
        at = pos[query.row]
        return torch.stack([gate for gate, j in zip(gates, query.seen, strict=True) if at[j] >= at[key]]).sum()

    def embedding(count: Tensor) -> Tensor:
        count = count.clamp(max=attention.n_positions - 1)
        low, high = math.floor(count.item()), math.ceil(count.item())
        return attention.counts[low] + (count - low) * (attention.counts[high] - attention.counts[low])

    def read(query: Query) -> Tensor:
        own = q[query.row, :, query.place] / position.temperature
        added = [own[h] @ embedding(gates_between(query, h, key)) for h in range(4) for key in query.seen]
        scores = query.scores + torch.stack(added).reshape(4, -1)
        return query.reads(normalised((scores + query.bias).exp()))

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Cope(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Cope(DIMS, **options)), context, Everything(8))


def test_it_begins_as_multi_head_attention(context: MakeContext) -> None:
    attention, plain = Cope(DIMS), gptzoo.MultiHeadAttention(DIMS)
    plain.load_state_dict({name: t for name, t in attention.state_dict().items() if name != "counts"})
    x = inputs(torch.float32)
    assert torch.equal(attention(x, context(8)), plain(x, context(8)))


def test_gates_that_are_open_count_tokens(context: MakeContext) -> None:
    attention = Cope(DIMS, n_positions=64)
    scores = torch.full((1, 4, 8, 8), 1e4)
    counts = attention.count(scores, context(8).where)
    place = torch.arange(8.0)
    distance = (place[:, None] - place + 1).tril()
    assert torch.equal(counts.tril(), distance.expand(1, 4, 8, 8))


def test_counts_end_at_the_last_embedding(context: MakeContext) -> None:
    attention = Cope(DIMS, n_positions=3)
    q, counts = torch.ones(1, 4, 1, 8), torch.tensor([0.0, 0.5, 1.75, 2.0, 7.3]).expand(1, 4, 1, 5)
    with torch.no_grad():
        attention.counts.copy_(torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 8))
        assert attention.read(q, counts)[0, 0, 0].tolist() == [8.0, 12.0, 28.0, 32.0, 32.0]


def test_it_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(shaken(Cope(DIMS), seed=1).float(), context)


def test_dropout_is_for_training_alone(context: MakeContext) -> None:
    attention, x = Cope(replace(DIMS, dropout=0.5)), inputs(torch.float32)
    attention.residual_dropout.p = 0.0
    assert not torch.equal(attention(x, context(8)), attention(x, context(8)))
    attention.eval()
    assert torch.equal(attention(x, context(8)), attention(x, context(8)))


def test_a_single_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^n_positions must be at least 2, not 1$"):
        Cope(DIMS, 1)
