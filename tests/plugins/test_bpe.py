"""The learned byte pairs: text comes back, equal corpora give equal tokens, and the file is checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo_plugins.bpe import SPLITS, Bpe

CORPUS = ["low lower lowest, newer newest wider 12345 67890", "ünïcode — 😀 and\r\n  spaces\t" * 3, "it's they'll 2024"]
any_text = st.text(st.characters(exclude_categories=[]))  # lone surrogates, too


def fitted(vocab_size: int = 300, split: Any = "gpt4", corpus: list[str] = CORPUS) -> Bpe:
    bpe = Bpe(vocab_size, split)
    bpe.fit(iter(corpus))
    return bpe


@pytest.fixture(scope="module", params=SPLITS)
def bpe(request: pytest.FixtureRequest) -> Bpe:
    return fitted(split=request.param)


@settings(deadline=None)
@given(st.one_of(st.text(), st.sampled_from(CORPUS)))
def test_all_text_comes_back(bpe: Bpe, text: str) -> None:
    tokens = bpe.encode(text)
    assert bpe.decode([*tokens, bpe.vocab_size - 1]) == text
    assert bpe.byte_lengths()[tokens].sum() == len(text.encode())
    assert all(token < bpe.vocab_size - 1 for token in tokens)


@settings(deadline=None)
@given(any_text)
def test_lone_surrogates_do_not_stop_it(bpe: Bpe, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("text", [" ", "\n", "\t ", "a", "7", "!", "é", "\u2003", " a"])
def test_long_runs_are_no_trouble(bpe: Bpe, text: str) -> None:
    long = f"x{text * 300_000}y"
    assert bpe.decode(bpe.encode(long)) == long


def test_long_runs_are_no_trouble_in_training() -> None:
    assert fitted(262, corpus=["x" + " " * 300_000 + "y"]).vocab_size == 262


def test_the_size_is_as_asked_with_the_end_token_last() -> None:
    bpe = fitted(270)
    assert (bpe.vocab_size, bpe.end) == (270, 269)
    assert bpe.byte_lengths().shape == (270,)
    assert bpe.byte_lengths()[bpe.end] == 0
    assert sorted(bpe.byte_lengths())[:2] == [0, 1]


def test_each_merge_is_of_a_commonest_pair() -> None:
    text = "she sells sea shells by the sea shore so the shells she sells are sea shore shells"
    bpe = fitted(275, corpus=[text])
    words = [list(word) for word in re.findall(" ?[a-z]+", text)]
    for merged in map(bpe.decode, [[token] for token in range(256, 274)]):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        assert pairs[next(pair for pair in pairs if "".join(pair) == merged)] == max(pairs.values())
        words = [joined(word, merged) for word in words]
    assert [bpe.decode([token]) for token in bpe.encode(text)] == [piece for word in words for piece in word]


def joined(word: list[str], merged: str) -> list[str]:
    """A word in which neighbours that make up the merged token are one."""
    pieces: list[str] = []
    while word:
        count = 2 if "".join(word[:2]) == merged else 1
        pieces, word = [*pieces, "".join(word[:count])], word[count:]
    return pieces


def test_more_merges_shorten_the_corpus() -> None:
    lengths = [len(fitted(size).encode(CORPUS[0])) for size in (257, 265, 290)]
    assert lengths[0] == len(CORPUS[0].encode())
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 3


def test_a_small_corpus_gives_fewer_tokens_than_asked() -> None:
    assert fitted(1024, corpus=["aaaa"]).vocab_size < 262
    assert fitted(1024, corpus=[]).vocab_size == 257


def test_equal_corpora_give_equal_tokens() -> None:
    assert len({fitted(400).fingerprint() for _ in range(3)}) == 1
    others = [fitted(), fitted(299), fitted(split="gpt2"), fitted(corpus=[*CORPUS, "more more more"])]
    assert len({other.fingerprint() for other in others}) == 4


def test_numbers_are_cut_as_the_split_says() -> None:
    digits = ["1234567 " * 50]
    assert max(map(len, map(fitted(400, "gpt4", digits).decode, [[t] for t in range(256, 260)]))) <= 3
    assert len(fitted(400, "gpt2", digits).encode("1234567")) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_what_was_saved_is_loaded(tmp_path: Path, split: Any) -> None:
    bpe = fitted(split=split)
    bpe.save(tmp_path)
    loaded = Bpe(5000, "gpt2")
    loaded.load(tmp_path)
    assert loaded.fingerprint() == bpe.fingerprint()
    assert (loaded.vocab_size, loaded.end) == (bpe.vocab_size, bpe.end)
    assert [loaded.encode(text) for text in CORPUS] == [bpe.encode(text) for text in CORPUS]


@pytest.mark.parametrize(
    "change",
    [
        {"split": ".*"},
        {"tokens": ["61"]},
        {"tokens": "abc"},
        {"tokens": [f"{byte:02x}" for byte in range(256)] + ["6161", "6161"]},
        {"tokens": [f"{byte:02x}" for byte in range(256)] + ["xx"]},
    ],
)
def test_a_file_that_save_did_not_write_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    fitted().save(tmp_path)
    file = tmp_path / "bpe.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Bpe().load(tmp_path)
    assert str(refused.value) == f"{file}: this is not the file of a bpe tokenizer. Restore or learn it again."


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Bpe().load(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / 'bpe.json'}: this is not the file of a bpe tokenizer. Restore or learn it again."
    )


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Bpe(256)
    assert str(refused.value) == (
        "data.tokenizer.vocab_size: 256 is not between 257, the bytes and an end, and 1,000,000."
    )


def test_it_learns_from_the_corpus_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "corpus.txt").write_text("a stitch in time saves nine, as they say. " * 100)
    data = {"name": "text", "path": str(tmp_path / "corpus.txt"), "tokenizer": {"name": "bpe", "vocab_size": 280}}
    model = gptzoo.build({"model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}, "data": data})
    assert model.dims.vocab_size == 280
