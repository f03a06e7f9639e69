"""Positions without a rotation or a bias: sinusoidal and none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import gptzoo
from gptzoo_plugins.none import NoPosition
from gptzoo_plugins.sinusoidal import Sinusoidal

MakeDims = Callable[..., gptzoo.Dims]


@pytest.mark.parametrize("width", [1, 2, 7, 32])
@pytest.mark.parametrize("theta", [10000.0, 50.0])
def test_sinusoidal_is_the_papers_formula(dims: MakeDims, width: int, theta: float) -> None:
    pos = torch.tensor([[0, 1, 2, 63], [5, 64, 70_000, 0]])
    x = torch.randn(2, 4, width, dtype=torch.float64, requires_grad=True)
    out = Sinusoidal(dims(n_embd=width), 8, theta).embed(x, pos)
    for b in range(2):
        for t in range(4):
            for c in range(width):
                wave = math.cos if c % 2 else math.sin
                expected = x[b, t, c].item() + wave(pos[b, t].item() * theta ** (-(c - c % 2) / width))
                assert out[b, t, c].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], torch.ones_like(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sinusoidal_keeps_the_dtype_of_the_stream_and_rounds_the_table_once(dims: MakeDims, dtype: torch.dtype) -> None:
    pos = torch.arange(50)[None] + 100_000
    part = Sinusoidal(dims(), 8).to(dtype)
    out = part.embed(torch.zeros(1, 50, 32, dtype=dtype), pos)
    exact = part.embed(torch.zeros(1, 50, 32, dtype=torch.float64), pos)
    assert out.dtype == dtype
    assert torch.equal(out, exact.to(dtype))
    assert part.state_dict() == {}


def test_a_theta_of_zero_is_refused(dims: MakeDims) -> None:
    with pytest.raises(ValueError, match=r"^theta must be above 0, 0\.0 is not$"):
        Sinusoidal(dims(), 8, 0.0)


def test_none_changes_nothing(dims: MakeDims) -> None:
    part = NoPosition(dims(), 8)
    x, q, k = torch.randn(1, 3, 32), torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    pos = torch.arange(3)[None]
    assert part.embed(x, pos) is x
    assert part.rotate(q, k, pos) == (q, k)
    assert part.bias is None
    assert part.state_dict() == {}
