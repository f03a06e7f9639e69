"""The symbol tokenizer: one token per word, numbers in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo_plugins.symbols import Symbols

words = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1).filter(lambda word: word.split() == [word])


def fitted(*texts: str) -> Symbols:
    symbols = Symbols()
    symbols.fit(texts)
    return symbols


@settings(deadline=None)
@given(st.lists(words, min_size=1))
def test_words_come_back(listed: list[str]) -> None:
    text = " ".join(listed)
    symbols = fitted(text)
    assert symbols.decode(symbols.encode(text)) == text
    assert symbols.vocab_size == len(set(listed))


def test_a_number_is_its_own_token() -> None:
    symbols = fitted(" ".join(map(str, range(300))), "= .")
    assert symbols.encode("0 9 10 299 . =") == [0, 9, 10, 299, 300, 301]
    assert symbols.end is None


def test_a_word_that_was_not_in_the_data_is_refused_by_name() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        fitted("3 4 =").encode("3 5")
    assert str(refused.value) == "data.tokenizer: '5' is none of the 3 symbols of the data. Use 3, 4, =."
    with pytest.raises(gptzoo.GPTZooError) as refused:
        fitted(" ".join(map(str, range(20))) + " = .").encode("x")
    assert str(refused.value) == (
        "data.tokenizer: 'x' is none of the 22 symbols of the data. Use 0, 1, 2, ..., 18, 19, ., =."
    )


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    symbols, loaded = fitted("1 10 2 = é"), Symbols()
    symbols.save(tmp_path)
    loaded.load(tmp_path)
    assert loaded.encode("10 é") == symbols.encode("10 é")
    assert loaded.fingerprint() == symbols.fingerprint()
    assert loaded.fingerprint() != fitted("1 10 3 = é").fingerprint()


@pytest.mark.parametrize("text", ["", "{}", '{"words": ["a b"]}', '{"words": ["2", "1"]}', '{"words": ["1", "1"]}'])
def test_a_file_that_is_not_its_own_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "symbols.json"
    if text:
        file.write_text(text)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Symbols().load(tmp_path)
    assert str(refused.value) == f"{file}: this is not the file of a symbols tokenizer. Restore or learn it again."
