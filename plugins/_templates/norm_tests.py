"""Tests of the norm `my_norm`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_norm.py"))
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8, "norm": "my_norm"}


@pytest.fixture
def model() -> gptzoo.Model:
    return gptzoo.build({"model": TINY}, plugins=[PLUGIN])


@pytest.fixture
def norm(model: gptzoo.Model) -> nn.Module:
    return model.get_submodule("norm_f")


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("norm", "my_norm").owner.plugin == "my_norm"


def test_it_composes_and_gives_finite_logits(model: gptzoo.Model) -> None:
    logits = model(torch.arange(16).reshape(2, 8))
    assert logits.shape == (2, 8, 257)
    assert logits.isfinite().all()


def test_it_is_the_formula(norm: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(norm(x), x / (x.abs().mean(-1, keepdim=True) + 1e-4))


def test_the_scale_of_the_input_does_not_matter(norm: nn.Module, x: Tensor) -> None:
    torch.testing.assert_close(norm(1000 * x), norm(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_keeps_the_dtype_and_does_not_overflow(norm: nn.Module, dtype: torch.dtype) -> None:
    large = torch.full((1, 16), 6e4, dtype=dtype)
    assert norm(large).dtype == dtype
    torch.testing.assert_close(norm(large), torch.ones_like(large))


def test_zeros_give_finite_values_and_gradients(norm: nn.Module) -> None:
    x = torch.zeros(1, 16, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
