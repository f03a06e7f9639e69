"""Tests of the tokenizer `my_tokenizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_tokenizer.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 16}


def tokenizer(**options: object) -> Any:
    return load_plugins([PLUGIN]).zoo.get("tokenizer", "my_tokenizer").factory(**options)


MINE = tokenizer()
TEXTS = st.text() | st.text(alphabet=" \na")


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("tokenizer", "my_tokenizer").owner.plugin == "my_tokenizer"


@given(TEXTS)
@settings(deadline=None)
def test_every_text_comes_back(text: str) -> None:
    assert MINE.decode(MINE.encode(text)) == text


@given(TEXTS)
@settings(deadline=None)
def test_the_lengths_of_tokens_add_up_to_the_length_of_the_text(text: str) -> None:
    tokens = MINE.encode(text)
    assert all(0 <= token < MINE.vocab_size for token in tokens)
    assert MINE.byte_lengths()[tokens].sum() == len(text.encode())


def test_a_run_of_spaces_is_one_token() -> None:
    assert MINE.encode("     x") == [257, ord(" "), ord("x")]


def test_what_utf_8_cannot_hold_is_replaced() -> None:
    assert MINE.decode(MINE.encode("a\ud800b")) == "a?b"
    assert MINE.decode([0xFF, MINE.end]) == "\N{REPLACEMENT CHARACTER}"


def test_other_options_are_another_tokenizer() -> None:
    assert MINE.fingerprint() == tokenizer().fingerprint()
    assert MINE.fingerprint() != tokenizer(spaces=8).fingerprint()


def test_it_composes_and_decides_the_size_of_the_vocabulary() -> None:
    recipe = {"model": TINY, "data": {"name": "python_source", "tokenizer": "my_tokenizer"}}
    tokens = torch.tensor([MINE.encode("def f():\n    pass\n")])
    assert gptzoo.build(recipe, plugins=[PLUGIN])(tokens).shape == (*tokens.shape, 258)


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
