"""Tests of the positional encoding `my_position`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_position.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 16}


def build(**model: object) -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "position": "my_position", **model}}, plugins=[PLUGIN])


@pytest.fixture
def tokens() -> Tensor:
    return torch.randperm(256, generator=torch.Generator().manual_seed(0))[:32].reshape(2, 16)


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("position", "my_position").owner.plugin == "my_position"


@pytest.mark.parametrize("kernel", ["naive", "sdpa"])
def test_it_composes_with_kernels_and_gives_finite_logits(tokens: Tensor, kernel: str) -> None:
    logits = build(n_layer=2, kernel=kernel)(tokens)
    assert logits.shape == (2, 16, 257)
    assert logits.isfinite().all()


def test_the_order_of_past_tokens_matters(tokens: Tensor) -> None:
    model, swapped = build(), tokens.clone()
    swapped[:, [2, 9]] = tokens[:, [9, 2]]
    assert not torch.allclose(model(swapped)[:, -1], model(tokens)[:, -1], rtol=0, atol=1e-7)


def test_only_distances_count(tokens: Tensor) -> None:
    model, pos = build(), torch.arange(16)[None]
    torch.testing.assert_close(model(tokens, pos=pos + 7), model(tokens, pos=pos))


def test_it_goes_beyond_the_context_length(tokens: Tensor) -> None:
    assert build()(tokens.reshape(1, 32)).isfinite().all()


def test_every_weight_learns(tokens: Tensor) -> None:
    model = build()
    model(tokens).square().sum().backward()
    for name, weight in model.positions.named_parameters():
        assert weight.grad is not None, name
        assert (weight.grad != 0).all(), name


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
