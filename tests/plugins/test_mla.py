"""Multi-head latent attention against loops over queries, heads and keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.mla import MultiHeadLatent
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
SMALL = {"kv_rank": 6, "rope_dim": 2, "nope_dim": 5, "v_dim": 3}
OPTIONS = [{}, SMALL, {**SMALL, "q_rank": 7}]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


def by_hand(a: MultiHeadLatent, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def times(weights: torch.nn.Module, y: Tensor) -> Tensor:
        return y @ weights.get_parameter("weight").T + weights.get_parameter("bias")

    def normed(weights: torch.nn.Module, y: Tensor) -> Tensor:
        return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights.get_parameter("weight")

    pos, width = spread(places)[0], a.nope_dim + a.rope_dim
    latent = normed(a.kv_norm, times(a.kv_latent, x))
    q = times(a.q, x if a.q_rank is None else normed(a.q_norm, times(a.q_latent, x))).unflatten(-1, (4, width))
    k, v = times(a.k, latent).unflatten(-1, (4, a.nope_dim)), times(a.v, latent).unflatten(-1, (4, a.v_dim))
    q_rope, k_rope = position.rotate(q[..., a.nope_dim :].transpose(1, 2), times(a.k_rope, x)[:, None], pos)

    def token(b: int, i: int, seen: list[int]) -> Tensor:
        read = []
        for h in range(4):
            content = torch.stack([(q[b, i, h, : a.nope_dim] * k[b, j, h]).sum() for j in seen])
            place = torch.stack([(q_rope[b, h, i] * k_rope[b, 0, j]).sum() for j in seen])
            s = (content + place) / width**0.5 / position.temperature
            weights = (s + bias_of(position, places, b, h, i, seen)).exp()
            read.append(sum(weights[n] * v[b, j, h] for n, j in enumerate(seen)) / weights.sum())
        return torch.cat(read)

    return a.o(loops(places, token, 4 * a.v_dim))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("everything", [False, True], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, everything: bool) -> None:
    attention = shaken(MultiHeadLatent(DIMS, **options))
    width = attention.rotate_dim
    position = Everything(width) if everything else gptzoo.Position(DIMS, width)
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position, KERNELS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    attention = shaken(MultiHeadLatent(DIMS, **options))
    check_decoding(attention, context, Everything(attention.rotate_dim), KERNELS)


def test_the_cache_holds_the_latent_and_one_key_per_token(context: MakeContext) -> None:
    attention = MultiHeadLatent(DIMS, **SMALL)
    cache = attention.new_cache(3, 9, torch.float32, "cpu")
    attention(inputs(torch.float32), context(8, cache=cache))
    assert {n: tuple(t.shape) for n, t in cache.tensors.items()} == {"latent": (3, 1, 9, 6), "k_rope": (3, 1, 9, 2)}


def test_widths_are_the_papers_unless_given() -> None:
    attention = MultiHeadLatent(DIMS)
    widths = {name: getattr(attention, name) for name in ("kv_rank", "q_rank", "rope_dim", "nope_dim", "v_dim")}
    assert widths == {"kv_rank": 32, "q_rank": None, "rope_dim": 4, "nope_dim": 8, "v_dim": 8}
    assert attention.rotate_dim == 4


def test_what_it_asks_of_its_kernel() -> None:
    assert MultiHeadLatent(DIMS).needs() == gptzoo.Needs(v_width=True, head_dim=12)
    assert MultiHeadLatent(DIMS, v_dim=12).needs() == gptzoo.Needs(head_dim=12)


def test_it_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(MultiHeadLatent(DIMS), context)


def test_linear_layers_have_a_bias_if_the_models_have() -> None:
    names = [name for name, _ in MultiHeadLatent(replace(DIMS, bias=False), q_rank=6).named_parameters()]
    assert [name for name in names if name.endswith("bias")] == []
    assert "o.weight" in names


def test_norms_of_latents_are_norms_to_the_optimizer() -> None:
    from gptzoo.model import named_parameters

    model = gptzoo.build("gpt2-tiny", overrides={"model.attention": "mla", "model.position": "rope"})
    roles = {p.name: p.role for p in named_parameters(model)}
    assert roles["layers.0.attention.kv_norm.weight"] == "norm"
    assert roles["layers.0.attention.kv_latent.weight"] == "matrix"


@pytest.mark.parametrize("name", ["kv_rank", "q_rank", "rope_dim", "nope_dim", "v_dim"])
def test_an_empty_part_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, not 0$"):
        MultiHeadLatent(DIMS, **{name: 0})
