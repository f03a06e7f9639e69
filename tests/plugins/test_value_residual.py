"""Value residual: two layers against loops, through a cache, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.value_residual import ValueResidual
from tests.plugins.attention_cases import (
    DIMS,
    Everything,
    Places,
    check_decoding,
    check_formula,
    inputs,
    projected,
    query_by_query,
    shaken,
    softmax,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"first": 0.25, "learned": False}, {"n_kv_head": 2, "qk_norm": gptzoo.LayerNorm, "scale": 0.6}]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


class Caches(gptzoo.LayerCache):
    """The first layer's cache, with the second one's in tow."""

    def __init__(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(batch, size, dtype, device)
        self.second = gptzoo.LayerCache(batch, size, dtype, device)

    def fix(self) -> None:
        super().fix()
        self.second.fix()


class Two(gptzoo.Attention):
    """Two layers one after the other, each with a cache of its own."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.rotate_dim = 8
        self.first = ValueResidual(DIMS.at(0), **options)  # type: ignore[arg-type]
        self.second = ValueResidual(DIMS.at(1), **options)  # type: ignore[arg-type]

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> gptzoo.LayerCache:
        return Caches(batch, size, dtype, device)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        x = x + self.first(x, ctx)
        ctx.cache = ctx.cache.second if isinstance(ctx.cache, Caches) else None
        return self.second(x, ctx)


def by_hand(two: Two, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    one = two.first
    v_first = one.project(x)[2]
    x = x + layer_by_hand(one, x, v_first, position, places)
    other = two.second
    v_own = other.project(x)[2]
    if other.learned:
        v = other.lambdas[0] * v_first + other.lambdas[1] * v_own
    else:
        v = 0.25 * v_first + 0.75 * v_own
    return layer_by_hand(other, x, v, position, places)


def layer_by_hand(layer: ValueResidual, x: Tensor, v: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    q, k, _ = projected(layer, x, position, places)

    return query_by_query(layer, (q, k, v), position, places, softmax)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict) -> None:
    two = shaken(Two(**options))
    check_formula(two, lambda x, *at: by_hand(two, x, *at), context, Everything(8), KERNELS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Two(**options)), context, Everything(8), KERNELS)


def test_the_first_layer_alone_is_multi_head_attention(context: MakeContext) -> None:
    attention, plain = ValueResidual(DIMS), gptzoo.MultiHeadAttention(DIMS)
    plain.load_state_dict(attention.state_dict())
    assert torch.equal(attention(inputs(torch.float32), context(8)), plain(inputs(torch.float32), context(8)))


def test_lambdas_begin_where_the_option_says_and_only_later_layers_have_them() -> None:
    assert ValueResidual(DIMS.at(1), first=0.25).lambdas.tolist() == [0.25, 0.75]
    assert isinstance(ValueResidual(DIMS.at(1)).lambdas, nn.Parameter)
    assert not hasattr(ValueResidual(DIMS.at(0)), "lambdas")
    assert not hasattr(ValueResidual(DIMS.at(1), learned=False), "lambdas")


def test_a_later_layer_alone_takes_its_own_values_for_the_firsts(context: MakeContext) -> None:
    attention, plain = ValueResidual(DIMS.at(3)), gptzoo.MultiHeadAttention(DIMS)
    state = attention.state_dict()
    del state["lambdas"]
    plain.load_state_dict(state)
    out, expected = (each(inputs(torch.float32), context(8)) for each in (attention, plain))
    torch.testing.assert_close(out, expected)


def test_layers_with_unequal_heads_are_refused() -> None:
    layers = [{"attention": {"name": "value_residual", "n_kv_head": n}} for n in (4, 2)]
    model = gptzoo.build("gpt2-tiny", overrides={"model.layers": layers})
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        model(torch.zeros(1, 3, dtype=torch.int64))
    assert str(refusal.value) == (
        "model.attention.n_kv_head: layer 1 has 2 key/value heads, and the first layer with values to share has 4. "
        "Give all value_residual layers the same n_kv_head."
    )
