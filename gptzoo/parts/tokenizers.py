"""The byte tokenizer: no vocabulary to learn, no text that it cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from gptzoo.contracts import Tokenizer
from gptzoo.parts.byte_level import byte_level_json

_PIECE = 1 << 20  # characters


class Byte(Tokenizer):
    """UTF-8 bytes as tokens, 0 to 255, and 256 between documents."""

    vocab_size = 257
    end = 256

    def encode(self, text: str) -> list[int]:
        return list(valid_unicode(text).encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token != self.end).decode(errors="replace")

    def byte_lengths(self) -> np.ndarray:
        return np.array([1] * 256 + [0], np.int64)

    def fingerprint(self) -> str:
        return "byte"

    def as_json(self) -> dict[str, object]:
        return byte_level_json([bytes([byte]) for byte in range(256)])

    def pieces(self, text: str) -> Iterator[str]:
        """Parts of a long text that may be encoded apart."""
        return slices(valid_unicode(text))


def valid_unicode(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which UTF-8 cannot hold; a pair of them is one character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


LONGEST_RUN = 100_000
"""Characters of whitespace; a few times more overflow the stack of the matchers that tiktoken and rustbpe use."""

_LONG_RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")


def short_runs(text: str) -> Iterator[str]:
    """A text in parts that pattern matchers can bear: cut within runs of whitespace of 100,000 characters and more."""
    text, start = valid_unicode(text), 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def slices(text: str) -> Iterator[str]:
    """A text in parts of a million characters."""
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))
