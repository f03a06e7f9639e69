"""Tests of the block `my_block`."""

from __future__ import annotations

from pathlib import Path

import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_block.py"))
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}
TOKENS = torch.arange(16).reshape(2, 8)


def build(**model: object) -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "block": "my_block", **model}}, plugins=[PLUGIN])


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("block", "my_block").owner.plugin == "my_block"


def test_it_composes_and_every_weight_learns() -> None:
    model = build()
    logits = model(TOKENS)
    assert logits.shape == (2, 8, 257)
    logits.square().sum().backward()
    for name, weight in model.layers.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_it_composes_with_other_parts() -> None:
    assert build(norm="rmsnorm", mlp="swiglu", position="rope")(TOKENS).isfinite().all()


def test_future_tokens_do_not_change_the_past() -> None:
    model, changed = build(), TOKENS.clone()
    changed[:, 5] += 1
    assert torch.equal(model(changed)[:, :5], model(TOKENS)[:, :5])


def test_started_at_zero_it_hands_the_stream_through() -> None:
    none = build(block={"name": "my_block", "start": 0.0})(TOKENS)
    assert torch.equal(none, build(block={"name": "my_block", "start": 0.0}, n_layer=1)(TOKENS))
    assert not torch.equal(none, build()(TOKENS))


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
