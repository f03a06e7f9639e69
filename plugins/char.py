"""Character tokenizer: one token per character of the corpus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the tokenizer."""
    zoo.tokenizer("char", Char)


class Char(gptzoo.Tokenizer):
    """One token per character that the corpus holds, by code point, and one between documents.

    `vocab_size` and `end` exist once it has seen a corpus or was loaded.
    """

    any_text = False  # only characters of the corpus

    learned = True

    def fit(self, texts: Iterable[str]) -> None:
        self._set(sorted(set().union(*map(gptzoo.valid_unicode, texts))))

    def encode(self, text: str) -> list[int]:
        """Token numbers.

        Raises:
            GPTZooError: A character was not in the corpus.
        """
        try:
            return [self._number[char] for char in gptzoo.valid_unicode(text)]
        except KeyError as error:
            raise _unseen(error.args[0]) from error

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._chars[token] for token in tokens if token != self.end)

    def byte_lengths(self) -> np.ndarray:
        return np.array([*(len(char.encode()) for char in self._chars), 0], np.int64)

    def fingerprint(self) -> str:
        return "char:" + "".join(self._chars)

    def pieces(self, text: str) -> Iterator[str]:
        """Parts of a long text that may be encoded apart."""
        return gptzoo.slices(gptzoo.valid_unicode(text))

    def save(self, folder: str | os.PathLike[str]) -> None:
        Path(folder, "char.json").write_text(json.dumps({"chars": self._chars}), encoding="utf-8")

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read the characters.

        Raises:
            GPTZooError: The file is missing, or is not what `save` wrote.
        """
        file = Path(folder, "char.json")
        try:
            chars = json.loads(file.read_bytes())["chars"]
            if not _are_chars(chars):
                raise ValueError("not a sorted list of characters")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise gptzoo.GPTZooError(
                "this is not the file of a char tokenizer. Restore or learn it again.", str(file)
            ) from error
        self._set(chars)

    def _set(self, chars: list[str]) -> None:
        self._chars = chars
        self._number = {char: number for number, char in enumerate(chars)}
        self.end = len(chars)
        self.vocab_size = len(chars) + 1


def _are_chars(chars: object) -> bool:
    """A list of single characters, sorted, none twice."""
    if not isinstance(chars, list) or not all(isinstance(char, str) and len(char) == 1 for char in chars):
        return False
    return chars == sorted(set(chars)) and all(char == gptzoo.valid_unicode(char) for char in chars)


def _unseen(char: str) -> gptzoo.GPTZooError:
    return gptzoo.GPTZooError(
        f"the character {char!r} (U+{ord(char):04X}) was not in the corpus, so the char tokenizer has no token for it. "
        "Leave it out, or train on a corpus that holds it or with the tokenizer byte.",
        "data.tokenizer",
    )
