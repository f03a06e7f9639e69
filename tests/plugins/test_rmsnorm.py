"""RMSNorm against its formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from gptzoo_plugins.rmsnorm import RMSNorm


def formula(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    y = x / (x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + eps).sqrt()
    return y if weight is None else y * weight


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(1, 33), eps=st.sampled_from([1e-5, 1e-6, 0.5]), weight=st.booleans(), seed=st.integers(0, 2**20)
)
def test_it_is_the_formula_with_the_same_gradients(size: int, eps: float, weight: bool, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    norm = RMSNorm(size, eps, weight).double()
    if norm.weight is not None:
        norm.weight.data.copy_(torch.randn(size, generator=g))
    x = torch.randn(2, 3, size, dtype=torch.float64, generator=g, requires_grad=True)
    direction = torch.randn(2, 3, size, dtype=torch.float64, generator=g)
    out, expected = norm(x), formula(x, norm.weight, eps)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    leaves = [x, *norm.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cast", [True, False], ids=["bfloat16-model", "float32-weights"])
def test_half_precision_is_raised_and_comes_back(dtype: torch.dtype, cast: bool) -> None:
    norm = RMSNorm(64).to(dtype) if cast else RMSNorm(64)
    x = (3 * torch.randn(5, 64)).to(dtype)
    out = norm(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), formula(x.double(), None, 1e-5), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_large_half_precision_numbers_do_not_overflow() -> None:
    assert torch.equal(RMSNorm(8)(torch.full((2, 8), 6e4, dtype=torch.float16)), torch.ones(2, 8, dtype=torch.float16))


def test_under_autocast_the_dtype_of_the_stream_stays() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            assert RMSNorm(8)(torch.randn(2, 8, dtype=dtype)).dtype == dtype


def test_zeros_stay_zeros_with_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = RMSNorm(8)(x)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 8))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_scale_of_its_input_does_not_matter_without_eps() -> None:
    norm, x = RMSNorm(16, eps=0.0).double(), torch.randn(3, 16, dtype=torch.float64)
    torch.testing.assert_close(norm(7.3 * x), norm(x), rtol=1e-12, atol=0)


def test_the_weight_starts_at_one_and_can_be_left_out() -> None:
    assert [p.tolist() for p in RMSNorm(3).parameters()] == [[1.0, 1.0, 1.0]]
    assert list(RMSNorm(3, weight=False).parameters()) == []


def test_a_negative_eps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^eps must not be negative, -1e-05 is$"):
        RMSNorm(8, eps=-1e-5)
