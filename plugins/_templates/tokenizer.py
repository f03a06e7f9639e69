"""my_tokenizer: what it does, in one sentence. This one is an example: bytes, and one token for an indentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import gptzoo

END, RUN = 256, 257


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_tokenizer`."""
    zoo.tokenizer("my_tokenizer", MyTokenizer)


class MyTokenizer(gptzoo.Tokenizer):
    """UTF-8 bytes as tokens, 256 between documents, and 257 for a run of spaces, as source code has them.

    Args:
        spaces: Length of the run.
    """

    vocab_size = 258
    end = END

    def __init__(self, spaces: int = 4) -> None:
        if spaces < 1:
            raise ValueError(f"spaces must be at least 1, not {spaces}")
        self.spaces = spaces

    def encode(self, text: str) -> list[int]:
        """Token numbers. What UTF-8 cannot hold, half a surrogate pair, becomes a question mark."""
        first, *others = text.encode(errors="replace").split(b" " * self.spaces)
        return [*first, *(token for part in others for token in (RUN, *part))]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text; bytes that are not UTF-8 become U+FFFD."""
        parts = (b" " * self.spaces if token == RUN else bytes([token]) for token in tokens if token != END)
        return b"".join(parts).decode(errors="replace")

    def byte_lengths(self) -> np.ndarray:
        """int64 (258,): UTF-8 bytes that each token stands for."""
        return np.array([1] * 256 + [0, self.spaces], np.int64)

    def fingerprint(self) -> str:
        """Changes whenever the same text may give other tokens."""
        return f"my_tokenizer {self.spaces}"
