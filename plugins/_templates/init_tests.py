"""Tests of the init `my_init`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_init.py"))
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 64, "context_length": 8, "init": {"name": "my_init", "gain": 1.0}}


def build(seed: int = 0) -> gptzoo.Model:
    return gptzoo.build({"seed": seed, "model": TINY}, plugins=[PLUGIN])


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("init", "my_init").owner.plugin == "my_init"


def test_it_composes_and_gives_finite_logits() -> None:
    logits = build()(torch.arange(16).reshape(2, 8))
    assert logits.shape == (2, 8, 257)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("path", "std"),
    [
        ("wte.weight", 64**-0.5),
        ("layers.0.attention.q.weight", 64**-0.5),
        ("layers.1.attention.o.weight", 64**-0.5 / 2),
        ("layers.1.mlp.down.weight", 256**-0.5 / 2),
    ],
)
def test_weights_have_the_declared_spread(path: str, std: float) -> None:
    weight = build().get_parameter(path).detach()
    assert abs(weight.mean()) < 5 * std / weight.numel() ** 0.5
    assert abs(weight.std() / std - 1) < 0.05


def test_a_seed_gives_the_same_weights_again_and_another_seed_others() -> None:
    first, again, other = (build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte.weight"], other["wte.weight"])


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
