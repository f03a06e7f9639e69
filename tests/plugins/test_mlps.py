"""Gated and plain MLPs against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.geglu import GEGLU
from gptzoo_plugins.relu import Relu
from gptzoo_plugins.relu_squared import ReluSquared
from gptzoo_plugins.swiglu import SwiGLU

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def agree(mlp: nn.Module, expected: Callable[[Tensor], Tensor], ctx: gptzoo.Context) -> None:
    """Equal outputs and equal gradients of input and parameters, in float64."""
    x = torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 5, 32, dtype=torch.float64)
    leaves = [x, *mlp.parameters()]
    out, reference = mlp(x, ctx), expected(x)
    torch.testing.assert_close(out, reference, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("make", "activate"),
    [
        (SwiGLU, silu),
        (GEGLU, gelu_tanh),
        (lambda dims: GEGLU(dims, approximate="none"), gelu),
    ],
    ids=["swiglu", "geglu", "geglu-exact"],
)
def test_gated_mlps_are_their_formula(
    dims: MakeDims, context: MakeContext, make: Callable, activate: Callable, bias: bool
) -> None:
    mlp = make(dims(bias=bias)).double()
    assert sorted(name for name, _ in mlp.named_parameters() if "weight" in name) == [
        "down.weight",
        "gate.weight",
        "up.weight",
    ]

    def linear(layer: nn.Linear, x: Tensor) -> Tensor:
        y = torch.einsum("btc,hc->bth", x, layer.weight)
        return y + layer.bias if bias else y

    agree(mlp, lambda x: linear(mlp.down, activate(linear(mlp.gate, x)) * linear(mlp.up, x)), context(5))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("make", "activate"),
    [
        (gptzoo.Gelu, gelu_tanh),
        (lambda dims: gptzoo.Gelu(dims, approximate="none"), gelu),
        (Relu, lambda x: torch.where(x > 0, x, 0)),
        (ReluSquared, lambda x: torch.where(x > 0, x**2, 0)),
    ],
    ids=["gelu", "gelu-exact", "relu", "relu_squared"],
)
def test_plain_mlps_are_their_formula(
    dims: MakeDims, context: MakeContext, make: Callable, activate: Callable, bias: bool
) -> None:
    mlp = make(dims(bias=bias)).double()
    assert mlp.up.weight.shape == (128, 32)
    assert (mlp.up.bias is not None) is bias

    def reference(x: Tensor) -> Tensor:
        inner = x @ mlp.up.weight.T + (mlp.up.bias if bias else 0)
        return activate(inner) @ mlp.down.weight.T + (mlp.down.bias if bias else 0)

    agree(mlp, reference, context(5))


@pytest.mark.parametrize("make", [SwiGLU, GEGLU])
@pytest.mark.parametrize(("n_embd", "hidden"), [(768, 2048), (1024, 2728), (512, 1368), (32, 88), (1, 8)])
def test_gated_mlps_are_as_large_as_a_plain_one(dims: MakeDims, make: type, n_embd: int, hidden: int) -> None:
    mlp = make(dims(n_embd=n_embd, bias=False))
    assert mlp.hidden == hidden
    if n_embd >= 32:
        assert sum(p.numel() for p in mlp.parameters()) == pytest.approx(8 * n_embd**2, rel=0.04)


@pytest.mark.parametrize("make", [SwiGLU, GEGLU, gptzoo.Gelu, Relu, ReluSquared])
def test_hidden_can_be_chosen_and_has_to_be_positive(dims: MakeDims, make: type) -> None:
    assert make(dims(), hidden=12).down.weight.shape == (32, 12)
    with pytest.raises(ValueError, match=r"^hidden must be at least 1, not 0$"):
        make(dims(), hidden=0)


@pytest.mark.parametrize("make", [SwiGLU, GEGLU, gptzoo.Gelu, Relu, ReluSquared])
def test_dropout_acts_in_training_alone(dims: MakeDims, context: MakeContext, make: type) -> None:
    mlp, x = make(dims(dropout=0.5)), torch.randn(4, 8, 32)
    dropped = mlp(x, context(8)) == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert not (mlp.eval()(x, context(8)) == 0).any()


def test_an_unknown_approximation_is_refused(dims: MakeDims) -> None:
    with pytest.raises(ValueError, match=r"^approximate must be tanh or none, not 'erf'$"):
        GEGLU(dims(), approximate="erf")  # type: ignore[arg-type]


@pytest.mark.parametrize("base", [gptzoo.GatedMLP, gptzoo.PlainMLP])
def test_an_mlp_without_an_activation_says_so(dims: MakeDims, context: MakeContext, base: type) -> None:
    with pytest.raises(TypeError, match=rf"^{base.__name__} defines no activate$"):
        base(dims())(torch.randn(1, 2, 32), context(2))
