"""The byte tokenizer holds every text."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from gptzoo import Byte
from gptzoo.parts.tokenizers import slices, valid_unicode

any_text = st.text(st.characters(exclude_categories=[]))  # lone surrogates, too


@settings(deadline=None)
@given(st.text())
def test_decoding_gives_the_text_back(text: str) -> None:
    byte = Byte()
    tokens = byte.encode(text)
    assert byte.decode(tokens) == text
    assert byte.decode([*tokens, 256, *tokens]) == text + text
    assert byte.byte_lengths()[tokens].sum() == len(text.encode())


@settings(deadline=None)
@given(any_text)
def test_lone_surrogates_become_replacement_characters(text: str) -> None:
    tokens = Byte().encode(text)
    assert max(tokens, default=0) < 256
    assert Byte().decode(tokens) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_one_surrogate_is_replaced_and_a_pair_is_a_character() -> None:
    assert valid_unicode("a\ud800b") == "a\ufffdb"
    assert valid_unicode("\ud83d\ude00") == "😀"


def test_bytes_that_are_not_text_are_replaced() -> None:
    assert Byte().decode([0xC3, 0x28]) == "\ufffd("


def test_the_end_token_is_the_last_one_and_stands_for_no_text() -> None:
    byte = Byte()
    assert byte.end == byte.vocab_size - 1 == 256
    assert byte.byte_lengths().tolist() == [1] * 256 + [0]


def test_encoding_pieces_is_encoding_the_whole() -> None:
    text = "añ😀" * 500_000
    assert [token for piece in Byte().pieces(text) for token in Byte().encode(piece)] == Byte().encode(text)
    assert max(map(len, slices(text))) == 1 << 20
