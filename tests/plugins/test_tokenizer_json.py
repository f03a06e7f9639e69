"""Tokenizers of Hugging Face, and ours in their form: the same numbers, and the text back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo.interop.tokenizers import write_tokenizer
from gptzoo_plugins.bpe import Bpe
from gptzoo_plugins.tokenizer_json import TokenizerJson
from tests import parity

CORPUS = [
    "the quick brown fox jumps over the lazy dog 1234 5678, isn't it?\n\n\tyes  no",
    "aaa aa aaaa abab ababab naïve",
]
any_text = st.text(st.characters(exclude_categories=[]))  # lone surrogates, too
tricky = st.text("ab 'st1\n\t.,é<|>")


def trained(split: str) -> Bpe:
    made = Bpe(vocab_size=330, split=split)  # type: ignore[arg-type]
    made.fit(CORPUS * 3)
    return made


@pytest.fixture(scope="module", params=["gpt2", "gpt4", "byte"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[gptzoo.Tokenizer, TokenizerJson]:
    """One of ours, and the same by way of its JSON."""
    ours = gptzoo.Byte() if request.param == "byte" else trained(request.param)
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(ours, folder, context_length=64)
    return ours, TokenizerJson(str(folder), end="<|endoftext|>")


@settings(deadline=None)
@given(st.one_of(any_text, tricky))
def test_ours_in_their_form_give_the_same_numbers_and_the_text_back(
    pair: tuple[gptzoo.Tokenizer, TokenizerJson], text: str
) -> None:
    ours, theirs = pair
    tokens = theirs.encode(text)
    assert tokens == ours.encode(text)
    plain = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert theirs.decode(tokens) == plain
    assert theirs.byte_lengths()[tokens].sum() == len(plain.encode())


def test_sizes_ends_and_lengths_are_the_same(pair: tuple[gptzoo.Tokenizer, TokenizerJson]) -> None:
    ours, theirs = pair
    assert (theirs.vocab_size, theirs.end) == (ours.vocab_size, ours.end)
    assert theirs.byte_lengths().tolist() == ours.byte_lengths().tolist()
    assert theirs.decode([*theirs.encode("ab"), theirs.end or 0]) == "ab"


def test_transformers_reads_it(pair: tuple[gptzoo.Tokenizer, TokenizerJson]) -> None:
    ours, theirs = pair
    loaded = parity.quiet_transformers().AutoTokenizer.from_pretrained(theirs.path)
    for text in CORPUS:
        assert loaded.encode(text) == ours.encode(text)
        assert loaded.decode(ours.encode(text)) == text
    assert (loaded.eos_token_id, loaded.bos_token_id) == (ours.end, ours.end)


def test_special_tokens_in_a_text_are_ordinary_unless_asked_for(pair: tuple[gptzoo.Tokenizer, TokenizerJson]) -> None:
    _, theirs = pair
    text = "a<|endoftext|>b"
    assert theirs.end not in theirs.encode(text)
    assert theirs.decode(theirs.encode(text)) == text
    assert theirs.end in TokenizerJson(theirs.path, end="<|endoftext|>", special=True).encode(text)


def test_its_file_goes_with_the_run(pair: tuple[gptzoo.Tokenizer, TokenizerJson], tmp_path: Path) -> None:
    _, theirs = pair
    theirs.save(tmp_path)
    again = TokenizerJson("no/longer/there", end="<|endoftext|>")
    again.load(tmp_path)
    assert again.encode(CORPUS[0]) == theirs.encode(CORPUS[0])
    assert again.fingerprint() == theirs.fingerprint() != TokenizerJson(theirs.path).fingerprint()


def test_a_file_that_is_missing_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        TokenizerJson("no/such.json").encode("x")
    assert str(refused.value) == "no/such.json: there is no such file. Name a tokenizer.json."


def test_without_a_file_it_is_the_bytes() -> None:
    assert TokenizerJson().encode("é ") == [195, 169, 32]


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"model": {"type": "BPE"}}), "\0"])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        TokenizerJson(str(tmp_path)).encode("x")
    assert str(refused.value).startswith(f"{tmp_path / 'tokenizer.json'}: this is no tokenizer that can be read: ")
    assert "\n" not in str(refused.value)


def test_an_end_that_it_has_not_is_refused(pair: tuple[gptzoo.Tokenizer, TokenizerJson]) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        TokenizerJson(pair[1].path, end="</s>").encode("x")
    assert str(refused.value) == "data.tokenizer.end: it has no token '</s>'. Name one that it has, or null."
