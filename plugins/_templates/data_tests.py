"""Tests of the data `my_data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_data.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 16}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path))


def data(**options: object) -> Any:
    return load_plugins([PLUGIN]).zoo.get("data", "my_data").factory(gptzoo.Byte(), 16, **{"lines": 200, **options})


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("data", "my_data").owner.plugin == "my_data"


def test_every_line_is_true() -> None:
    for line in data().read_documents():
        a, plus, b, equals, result = line.split()
        assert (plus, equals, int(a) + int(b)) == ("+", "=", int(result))


def test_targets_are_the_tokens_one_place_later() -> None:
    batch = data().batch("train", 0, 0, 4)
    assert batch.tokens.shape == batch.targets.shape == (4, 16)
    assert batch.tokens.dtype == torch.int64
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])


def test_a_batch_is_a_pure_function_of_its_arguments() -> None:
    one, other = data(), data()
    other.batch("train", 0, 3, 4)
    assert torch.equal(one.batch("train", 0, 1, 4).tokens, other.batch("train", 0, 1, 4).tokens)
    assert not torch.equal(one.batch("train", 0, 1, 4).tokens, one.batch("train", 1, 1, 4).tokens)
    assert torch.equal(one.batch("val", 0, 0, 4).tokens, one.batch("val", 1, 0, 4).tokens)


def test_the_key_follows_the_content() -> None:
    assert data().key == data().key
    assert len({data().key, data(lines=201).key, data(largest=50).key, data(documents=True).key}) == 4


def test_it_composes_and_gives_a_finite_loss() -> None:
    recipe = {"model": TINY, "data": {"name": "my_data", "lines": 200, "tokenizer": "byte"}}
    model = gptzoo.build(recipe, plugins=[PLUGIN])
    batch = data().batch("train", 0, 0, 4)
    assert model.loss(batch.tokens, batch.targets).total.isfinite()


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
