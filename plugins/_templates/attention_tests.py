"""Tests of the attention `my_attention`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_attention.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 32}
PART = {"name": "my_attention", "window": 5, "first": 1}


def build(**model: object) -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "attention": PART, **model}}, plugins=[PLUGIN])


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(256, (2, 32), generator=torch.Generator().manual_seed(0))


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("attention", "my_attention").owner.plugin == "my_attention"


@pytest.mark.parametrize("kernel", ["naive", "sdpa"])
def test_it_composes_with_kernels_and_gives_finite_logits(tokens: Tensor, kernel: str) -> None:
    logits = build(n_layer=2, kernel=kernel)(tokens)
    assert logits.shape == (2, 32, 257)
    assert logits.isfinite().all()


def test_future_tokens_do_not_change_the_past(tokens: Tensor) -> None:
    model, changed = build(), tokens.clone()
    changed[:, 20] += 1
    assert torch.equal(model(changed)[:, :20], model(tokens)[:, :20])


def test_a_token_sees_its_window_and_the_first_one(tokens: Tensor) -> None:
    model = build()
    changes = []
    for place in range(32):
        changed = tokens.clone()
        changed[:, place] += 1
        changes.append(not torch.equal(model(changed)[:, 20], model(tokens)[:, 20]))
    assert [place for place in range(32) if changes[place]] == [0, 16, 17, 18, 19, 20]


def test_decoding_with_a_cache_gives_the_same(tokens: Tensor) -> None:
    model = build(n_layer=2)
    cache = model.new_cache(2, 32)
    with torch.no_grad():
        steps = [model(tokens[:, i : i + 1], cache=cache) for i in range(32)]
        torch.testing.assert_close(torch.cat(steps, 1), model(tokens))


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError, match="window must be at least 1, not 0"):
        build(attention={"name": "my_attention", "window": 0})


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
