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
OPTIONS = [{}, {"n_kv_head": 2}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6, "softcap": 1.5}]


def by_hand(attention: TalkingHeads, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    q, k, v = attention.project(x)
    q, k = position.rotate(attention.q_norm(q), attention.k_norm(k), spread(places)[0])
    share = 4 // attention.n_kv_head

    def token(b: int, i: int, seen: list[int]) -> Tensor:
        scores = []
        for h in range(4):
            s = torch.stack([(q[b, h, i] * k[b, h // share, j]).sum() for j in seen])
            s = s * attention.scale / position.temperature
            cap = attention.softcap
            scores.append(s if cap is None else cap * torch.tanh(s / cap))
        weights = []
        for h in range(4):
            mixed = sum(attention.mix_scores[g, h] * scores[g] for g in range(4))
            e = (mixed + bias_of(position, places, b, h, i, seen)).exp()
            weights.append(e / e.sum())
        read = []
        for h in range(4):
            mixed = [sum(attention.mix_weights[g, h] * weights[g][n] for g in range(4)) for n in range(len(seen))]
            read.append(sum(mixed[n] * v[b, h // share, j] for n, j in enumerate(seen)))
        return torch.cat(read)

    return attention.o(loops(places, token, 32))


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
