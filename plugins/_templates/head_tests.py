"""Tests of the head `my_head`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_head.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}
TOKENS = torch.arange(16).reshape(2, 8)


def build(head: object) -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "head": head}}, plugins=[PLUGIN])


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("head", "my_head").owner.plugin == "my_head"


def test_it_composes_and_the_embedding_learns_through_it() -> None:
    model = build("my_head")
    logits = model(TOKENS)
    assert logits.shape == (2, 8, 257)
    logits.square().sum().backward()
    assert model.wte.weight.grad is not None
    assert (model.wte.weight.grad != 0).any(-1).all()


def test_it_adds_no_weights_to_the_tied_head() -> None:
    names = [[name for name, _ in build(head).named_parameters()] for head in ("my_head", "tied")]
    assert names[0] == names[1]


def test_logits_stay_below_the_cap() -> None:
    head = build({"name": "my_head", "softcap": 5.0}).get_submodule("head")
    x = 1e4 * torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    assert head(x).abs().max() <= 5


def test_small_logits_are_those_of_the_tied_head() -> None:
    torch.testing.assert_close(build("my_head")(TOKENS), build("tied")(TOKENS), rtol=1e-3, atol=1e-3)


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError, match=r"softcap must be above 0, not 0.0"):
        build({"name": "my_head", "softcap": 0.0})


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
