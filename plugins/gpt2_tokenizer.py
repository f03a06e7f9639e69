"""GPT-2's tokenizer: byte pairs, by tiktoken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

import gptzoo

if TYPE_CHECKING:
    import tiktoken


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the tokenizer."""
    zoo.tokenizer("gpt2", Gpt2)


SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""What no token crosses."""


class Gpt2(gptzoo.Tokenizer):
    """GPT-2's 50,256 byte pairs, and <|endoftext|> between documents.

    Source: Language Models are Unsupervised Multitask Learners, section 2.2. `<|endoftext|>` in a text is ordinary. The
    vocabulary comes with the first use: from tiktoken's cache, or downloaded once by tiktoken.
    """

    vocab_size = 50257
    end = 50256

    def encode(self, text: str) -> list[int]:
        return [token for part in gptzoo.short_runs(text) for token in self._encoding.encode_ordinary(part)]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._encoding.decode([token for token in tokens if token != self.end])

    def byte_lengths(self) -> np.ndarray:
        return np.array([*map(len, self._token_bytes()), 0], np.int64)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for token in self._token_bytes():
            digest.update(len(token).to_bytes(4, "big") + token)
        return f"gpt2:{digest.hexdigest()}"

    def as_json(self) -> dict[str, object]:
        return gptzoo.byte_level_json([*self._token_bytes()], SPLIT)

    def _token_bytes(self) -> Iterator[bytes]:
        return map(self._encoding.decode_single_token_bytes, range(50256))

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken  # late: it costs time, and most runs do without

        try:
            return tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:  # no network, no permission, or a download that is something else
            raise gptzoo.GPTZooError(
                "GPT-2's vocabulary is not in tiktoken's cache and could not be downloaded. Connect to the internet "
                "for the first use, or set TIKTOKEN_CACHE_DIR to a folder that holds it.",
                "data.tokenizer",
            ) from error
