"""Byte-pair encoding, learned from the corpus: trained by rustbpe, run by tiktoken."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

import gptzoo

if TYPE_CHECKING:
    import tiktoken

SPLITS: Mapping[str, str] = MappingProxyType(
    {
        "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
        "gpt4": (
            r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"""
            r"""\s*[\r\n]|\s+(?!\S)|\s+"""
        ),
    }
)
"""What no token crosses: the pattern that cuts a text into words, of GPT-2 and of GPT-4 (tiktoken's cl100k_base)."""


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the tokenizer."""
    zoo.tokenizer("bpe", Bpe)


class Bpe(gptzoo.Tokenizer):
    """Byte pairs of the corpus: the 256 bytes, the merges that shorten it most, and one token between documents.

    Source: Neural Machine Translation of Rare Words with Subword Units, arXiv:1508.07909, section 3.2; on bytes, as
    GPT-2 has it. The attribute `vocab_size` exists once it has seen a corpus or was loaded, and is smaller than asked
    for where the corpus has no more pairs.

    Args:
        vocab_size: Tokens, the one between documents included.
        split: What no token crosses: words as `gpt2` or `gpt4` cuts them. GPT-4's numbers have at most three digits.
    """

    learned = True

    def __init__(self, vocab_size: int = 1024, split: Literal["gpt2", "gpt4"] = "gpt4") -> None:
        if not 257 <= vocab_size <= 1_000_000:
            what = f"{vocab_size} is not between 257, the bytes and an end, and 1,000,000."
            raise gptzoo.GPTZooError(what, "data.tokenizer.vocab_size")
        self.wanted = vocab_size
        self.split: str = split

    def fit(self, texts: Iterable[str]) -> None:
        import rustbpe  # late: only training needs it

        trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]  # compiled, without type stubs
        parts = (part for text in texts for part in gptzoo.short_runs(text))
        trainer.train_from_iterator(parts, self.wanted - 1, pattern=SPLITS[self.split])
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
        self._set([bytes(token) for token, _ in ranked])

    def encode(self, text: str) -> list[int]:
        return [token for part in gptzoo.short_runs(text) for token in self._encoding.encode_ordinary(part)]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._encoding.decode([token for token in tokens if token != self.end])

    def byte_lengths(self) -> np.ndarray:
        return np.array([*map(len, self._tokens), 0], np.int64)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(SPLITS[self.split].encode())
        for token in self._tokens:
            digest.update(len(token).to_bytes(4, "big") + token)
        return f"bpe:{digest.hexdigest()}"

    def as_json(self) -> dict[str, object]:
        return gptzoo.byte_level_json(self._tokens, SPLITS[self.split])

    def save(self, folder: str | os.PathLike[str]) -> None:
        facts = {"split": SPLITS[self.split], "tokens": [token.hex() for token in self._tokens]}
        Path(folder, "bpe.json").write_text(json.dumps(facts), encoding="utf-8")

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read the split and the tokens.

        Raises:
            GPTZooError: The file is missing, or is not what `save` wrote.
        """
        file = Path(folder, "bpe.json")
        try:
            facts = json.loads(file.read_bytes())
            split = {pattern: name for name, pattern in SPLITS.items()}[facts["split"]]
            tokens = [bytes.fromhex(token) for token in facts["tokens"]]
            if not _are_tokens(tokens):
                raise ValueError("not the 256 bytes and what was merged from them")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise gptzoo.GPTZooError(
                "this is not the file of a bpe tokenizer. Restore or learn it again.", str(file)
            ) from error
        self.split = split
        self._set(tokens)

    def _set(self, tokens: list[bytes]) -> None:
        self._tokens = tokens
        self.end = len(tokens)
        self.vocab_size = len(tokens) + 1
        self.__dict__.pop("_encoding", None)

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken  # late: it costs time

        ranks = {token: rank for rank, token in enumerate(self._tokens)}
        return tiktoken.Encoding("bpe", pat_str=SPLITS[self.split], mergeable_ranks=ranks, special_tokens={})


def _are_tokens(tokens: list[bytes]) -> bool:
    """All bytes first, in order; then longer tokens, none twice."""
    whole = tokens[:256] == [bytes([byte]) for byte in range(256)]
    return whole and all(len(token) > 1 for token in tokens[256:]) and len(set(tokens)) == len(tokens)
