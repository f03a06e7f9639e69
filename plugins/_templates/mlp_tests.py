"""Tests of the MLP `my_mlp`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_mlp.py"))
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}


def build(mlp: object = "my_mlp") -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "mlp": mlp}}, plugins=[PLUGIN])


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("mlp", "my_mlp").owner.plugin == "my_mlp"


def test_it_composes_and_every_weight_learns() -> None:
    model = build()
    logits = model(torch.arange(16).reshape(2, 8))
    assert logits.shape == (2, 8, 257)
    logits.square().sum().backward()
    for name, weight in model.layers.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_it_works_on_each_token_alone() -> None:
    mlp = build().get_submodule("layers.0.mlp")
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mlp(x[:, order], None), mlp(x, None)[:, order])


def test_it_is_the_formula() -> None:
    mlp = build({"name": "my_mlp", "hidden": 24, "power": 3.0}).get_submodule("layers.0.mlp")
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    up, down = mlp.get_submodule("up"), mlp.get_submodule("down")
    assert up(x).shape == (2, 8, 24)
    torch.testing.assert_close(mlp(x, None), down(F.relu(up(x)) ** 3))


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError, match=r"power must be at least 1, not 0.5"):
        build({"name": "my_mlp", "power": 0.5})


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
