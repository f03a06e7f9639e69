"""ScaleNorm, L2 norm, DyT and no norm against their formulas; what every norm must bear."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.dyt import DyT
from gptzoo_plugins.no_norm import NoNorm
from gptzoo_plugins.scalenorm import L2Norm, ScaleNorm

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "scalenorm": ScaleNorm,
    "l2norm": L2Norm,
    "dyt": DyT,
    "none": NoNorm,
}
FORMULAS: dict[str, Callable[[Tensor, dict[str, Tensor]], Tensor]] = {
    "scalenorm": lambda x, w: w["g"] * x / _length(x, 1e-5),
    "l2norm": lambda x, w: x / _length(x, 1e-6),
    "dyt": lambda x, w: w["weight"] * torch.tanh(w["alpha"] * x) + w["bias"],
    "none": lambda x, w: x,
}


def _length(x: Tensor, eps: float) -> Tensor:
    return (x.pow(2).sum(-1, keepdim=True) + eps * x.shape[-1]).sqrt()


def agree(out: Tensor, expected: Tensor, leaves: list[Tensor], direction: Tensor) -> None:
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(sorted(NORMS)), size=st.integers(1, 33), seed=st.integers(0, 2**20))
def test_it_is_the_formula_with_the_same_gradients(name: str, size: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    norm = NORMS[name](size).double()
    for parameter in norm.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=g))
    x = torch.randn(2, 3, size, dtype=torch.float64, generator=g, requires_grad=True)
    direction = torch.randn(2, 3, size, dtype=torch.float64, generator=g)
    weights: dict[str, Tensor] = dict(norm.named_parameters())
    agree(norm(x), FORMULAS[name](x, weights), [x, *weights.values()], direction)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cast", [True, False], ids=["half-model", "float32-weights"])
def test_half_precision_is_raised_and_comes_back(name: str, dtype: torch.dtype, cast: bool) -> None:
    norm = NORMS[name](48)
    norm = norm.to(dtype) if cast else norm
    exact = NORMS[name](48).double()
    exact.load_state_dict(norm.state_dict())
    x = (3 * torch.randn(5, 48)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), exact(x.double()), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize(("name", "expected"), [("scalenorm", 1.0), ("l2norm", 0.25), ("dyt", 1.0), ("none", 6e4)])
def test_large_half_precision_numbers_do_not_overflow(name: str, expected: float) -> None:
    x = torch.full((2, 16), 6e4, dtype=torch.float16)
    assert torch.equal(NORMS[name](16)(x), torch.full_like(x, expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", NORMS)
def test_zeros_stay_zeros_with_a_finite_gradient(name: str, dtype: torch.dtype) -> None:
    x = torch.zeros(2, 8, dtype=dtype, requires_grad=True)
    out = NORMS[name](8)(x)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(x))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_lengths_are_what_they_are_named_for() -> None:
    x = 7 * torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(L2Norm(16, 0.0)(x).norm(dim=-1), torch.ones(3, dtype=torch.float64))
    norm = ScaleNorm(16, 0.0).double()
    assert norm.g.item() == 4.0
    norm.g.data.fill_(2.5)
    torch.testing.assert_close(norm(x).norm(dim=-1), torch.full((3,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(norm(100 * x), norm(x), rtol=1e-12, atol=0)


def test_dyt_starts_at_the_alpha_it_is_given() -> None:
    assert [p.tolist() for p in DyT(2, 0.25).parameters()] == [[0.25], [1.0, 1.0], [0.0, 0.0]]
    assert DyT(1, 0.25)(torch.ones(1)).item() == pytest.approx(math.tanh(0.25))


def test_none_gives_back_the_very_tensor() -> None:
    x = torch.randn(2, 8)
    assert NoNorm(8)(x) is x
    assert list(NoNorm(8).parameters()) == []


def test_cosine_scores_are_a_matter_of_two_options() -> None:
    model = gptzoo.build(
        {"name": "tiny", "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8, "vocab_size": 300}},
        **{"model.attention": {"name": "multi_head", "qk_norm": "l2norm", "scale": 10.0}, "model.norm": "none"},
    )
    assert isinstance(next(model.attentions).q_norm, L2Norm)
    assert isinstance(model.norm_f, NoNorm)
    assert model(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaleNorm(8, -1e-5), r"^eps must not be negative, -1e-05 is$"),
        (lambda: L2Norm(8, -1e-5), r"^eps must not be negative, -1e-05 is$"),
        (lambda: DyT(8, 0.0), r"^alpha must be above 0, 0\.0 is not$"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
