"""Symbol tokenizer: one token per word, for data made of symbols with blanks between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the tokenizer."""
    zoo.tokenizer("symbols", Symbols)


class Symbols(gptzoo.Tokenizer):
    """One token per word that the data holds: of `12 + 7 = 19` five. Numbers come first, by their value.

    The words are all that is kept of a text: decoding joins them with single blanks. There is no end token, and
    `vocab_size` exists once it has seen the data or was loaded.
    """

    learned = True
    any_text = False
    keeps_blanks = False

    def fit(self, texts: Iterable[str]) -> None:
        self._set(sorted({word for text in texts for word in text.split()}, key=_rank))

    def encode(self, text: str) -> list[int]:
        """Token numbers.

        Raises:
            GPTZooError: A word was not in the data.
        """
        try:
            return [self._number[word] for word in text.split()]
        except KeyError as error:
            what = f"{error.args[0]!r} is none of the {self.vocab_size} symbols of the data."
            raise gptzoo.GPTZooError(f"{what} Use {self._shown()}.", "data.tokenizer") from error

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self._words[token] for token in tokens)

    def fingerprint(self) -> str:
        return "symbols:" + " ".join(self._words)

    def save(self, folder: str | os.PathLike[str]) -> None:
        Path(folder, "symbols.json").write_text(json.dumps({"words": self._words}), encoding="utf-8")

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read the symbols.

        Raises:
            GPTZooError: The file is missing, or is not what `save` wrote.
        """
        file = Path(folder, "symbols.json")
        try:
            words = json.loads(file.read_bytes())["words"]
            if not _are_words(words):
                raise ValueError("not a list of different words in order")
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = "this is not the file of a symbols tokenizer. Restore or learn it again."
            raise gptzoo.GPTZooError(what, str(file)) from error
        self._set(words)

    def _set(self, words: list[str]) -> None:
        self._words = words
        self._number = {word: number for number, word in enumerate(words)}
        self.vocab_size = len(words)

    def _shown(self) -> str:
        words = self._words
        return ", ".join(words if len(words) <= 8 else [*words[:3], "...", *words[-4:]])


def _rank(word: str) -> tuple[bool, int, str]:
    number = word.isascii() and word.isdigit()
    return not number, int(word) if number else 0, word


def _are_words(words: object) -> bool:
    if not isinstance(words, list) or not all(isinstance(word, str) and word.split() == [word] for word in words):
        return False
    return len(set(words)) == len(words) and words == sorted(words, key=_rank)
