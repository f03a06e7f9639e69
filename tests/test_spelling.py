"""Stop strings and certain text, against the slow way: read the whole text after every token."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings

from gptzoo.contracts import Tokenizer
from gptzoo.parts.tokenizers import Byte
from gptzoo.spelling import Spelling

WORDS = ["a", "b", "ab", "ba", "c", "abc", "\n", "é"]


class Words(Tokenizer):
    """Token t is the word t, so that a text has many spellings and a stop string may begin or end within a token."""

    vocab_size = len(WORDS)

    def decode(self, tokens: object) -> str:
        return "".join(WORDS[token] for token in tokens)  # type: ignore[attr-defined]


def spell(tokenizer: Tokenizer, tokens: list[int], stop: list[str]) -> tuple[str, int, list[str]]:
    """The text, the tokens it is made of and the pieces handed on, as a continuation of these tokens would go."""
    spelling, new, pieces = Spelling(tokenizer, stop), [], []
    for count, token in enumerate(tokens, start=1):
        new.append(token)
        done = spelling.stops(new) or count == len(tokens)
        pieces.append(spelling.news(new, done))
        if done:
            break
    return spelling.text(new), spelling.kept(new), pieces


def slow(tokenizer: Tokenizer, tokens: list[int], stop: list[str]) -> str:
    """The text up to where a stop string was first complete."""
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count])
        starts = [text.index(each) for each in stop if each in text]
        if starts:
            return text[: min(starts)]
    return tokenizer.decode(tokens)


stops = st.lists(st.text("abcé\n", min_size=1, max_size=4), max_size=3)


@given(st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=12), stops)
@settings(deadline=None)
def test_a_text_is_cut_where_a_stop_string_begins_whatever_its_tokens(tokens: list[int], stop: list[str]) -> None:
    text, kept, pieces = spell(Words(), tokens, stop)
    assert text == slow(Words(), tokens, stop)
    assert "".join(pieces) == text
    assert Words().decode(tokens[:kept]).startswith(text)
    assert kept == 0 or not Words().decode(tokens[: kept - 1]).startswith(text)


@given(st.lists(st.integers(0, 256), min_size=1, max_size=20), stops)
@settings(deadline=None)
def test_a_text_of_any_bytes_is_handed_on_whole(tokens: list[int], stop: list[str]) -> None:
    text, _, pieces = spell(Byte(), tokens, stop)
    assert "".join(pieces) == text == slow(Byte(), tokens, stop)


@given(st.text("aé€😀\n", min_size=1, max_size=12), stops)
@settings(deadline=None)
def test_what_was_handed_on_is_never_taken_back(text: str, stop: list[str]) -> None:
    spelling, new, told = Spelling(Byte(), stop), [], ""
    for token in text.encode():
        new.append(token)
        if spelling.stops(new):
            break
        told += spelling.news(new, done=False)
        assert text.startswith(told)
        assert "\N{REPLACEMENT CHARACTER}" not in told
    assert spelling.text(new).startswith(told)


def test_what_may_begin_a_stop_string_is_held_back_until_it_does_not() -> None:
    spelling = Spelling(Byte(), ["END", "\n\n"])
    heard = [spelling.news(list(b"say EN, EEND"[:count]), done=False) for count in range(1, 12)]
    assert heard == ["s", "a", "y", " ", "", "", "EN,", " ", "", "E", ""]


def test_of_two_stop_strings_the_one_that_begins_first_cuts() -> None:
    spelling = Spelling(Words(), ["c", "bc"])
    assert spelling.stops([5])  # the token abc completes both
    assert spelling.text([5]) == "a"


def test_without_a_tokenizer_there_is_no_text() -> None:
    spelling = Spelling(None)
    assert (spelling.stops([1]), spelling.text([1]), spelling.kept([1]), spelling.news([1], True)) == (False, "", 1, "")
