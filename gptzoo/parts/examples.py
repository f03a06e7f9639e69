"""Data of questions and answers: examples stay whole, several share a row, and the loss is on what is asked."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import ClassVar, Literal

import numpy as np
import torch

from gptzoo.contracts import Batch, Data, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.seeds import stable_seed

Example = Sequence[str]
"""Pieces of text that are given and asked in turn: a prompt, its answer, and so on; the last one may be given, too."""

LossOn = Literal["all", "answer"]

_FORMAT = 2  # raised whenever equal options would give other rows or batches
_SHOWN = 80  # characters of an example in a message


class Examples(Data):
    """Data of prompts and answers; a subclass supplies only `read_examples` and calls `pack`.

    Each example is a document: its pieces, tokenized apart as in generation, and the end token. A row holds as many
    whole examples as fit, isolated from each other, and is filled up with places that hold no token. Rows are packed
    once; training takes them in an order that is drawn anew for each epoch.

    Args:
        tokenizer: A learned one that has no `vocab_size` yet is fitted on the examples.
        context_length: Tokens in a row.
        loss_on: What is to be predicted: all of an example, or the answers alone, an end included.

    Attributes:
        needs_end: Only an end token tells where an answer ends. Where it does not, tokenizers without one will do, and
            as many tokens are read as the answer has.
    """

    needs_end: ClassVar[bool] = True

    def __init__(self, tokenizer: Tokenizer, context_length: int, loss_on: LossOn = "answer") -> None:
        self.tokenizer, self.context_length = tokenizer, context_length
        self.loss_on: LossOn = loss_on

    def read_examples(self, split: str) -> Iterator[Example]:
        """The examples of a split: the same ones in the same order at each call."""
        raise TypeError(f"{type(self).__name__} defines no read_examples")

    def pack(self) -> None:
        """Tokenize the examples and lay them into rows.

        Raises:
            GPTZooError: An example does not fit into a row, or the tokenizer has no end token and one is needed.
        """
        self.fit("".join(example) for split in ("train", "val") for example in self.read_examples(split))
        self._rows = {split: self.lay(self.read_examples(split)) for split in ("train", "val")}
        self._epoch: tuple[object, np.ndarray] = (None, np.zeros(0, np.int64))

    def fit(self, texts: Iterable[str]) -> None:
        """Let a learned tokenizer learn.

        Raises:
            GPTZooError: It has no end token, and one is needed.
        """
        if self.tokenizer.learned and not hasattr(self.tokenizer, "vocab_size"):
            self.tokenizer.fit(texts)
        if self.needs_end and self.tokenizer.end is None:
            name = type(self.tokenizer).__name__
            what = f"tokenizer {name} has no end token, and answers must end. Use byte, char, bpe or gpt2."
            raise GPTZooError(what, "data.tokenizer")

    def lay(self, examples: Iterable[Example], places: int | None = None) -> Rows:
        """Tokenize examples into rows, as many examples as fill so many places; all unless given.

        Raises:
            GPTZooError: An example does not fit into a row.
        """
        laid, too_long = _Laid(), (self.context_length, "")
        for example in examples:
            tokens, asked, need = self._tokens(example)
            if need > too_long[0]:
                too_long = need, "".join(example)
            laid.add(tokens, asked)
            if places is not None and laid.inputs >= places:
                break
        if too_long[1]:
            need, text = too_long
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
            what = f"{self.context_length} is too short for {shown!r}. Give at least {need}."
            raise GPTZooError(what, "model.context_length")
        return laid.rows(self.context_length)

    @property
    def key(self) -> str:
        """Changes with the examples, the tokenizer and `loss_on`; not with `context_length`."""
        digest = hashlib.sha256(json.dumps([_FORMAT, self.tokenizer.fingerprint(), self.loss_on]).encode())
        for split in ("train", "val"):
            digest.update(self._rows[split].digest())
        return digest.hexdigest()

    @property
    def documents(self) -> bool:
        return True

    def sequences(self, split: str) -> int:
        return len(self._rows[split].first) - 1

    def problems(self, split: str, count: int) -> list[tuple[str, str]]:
        """One problem for each example, the first ones of the split. Of several answers in an example one is asked:
        each in turn, or the last where only the end of the example says where an answer ends."""
        return [self._problem(*each) for each in islice(enumerate(self.read_examples(split)), count)]

    def batch(self, split: str, seed: int, step: int, size: int) -> Batch:
        """Rows `step * size` to `(step + 1) * size - 1`; in `val`, fewer where these are the last ones."""
        assert step >= 0 < size, (step, size)
        if split == "train":
            return self.training_batch(seed, step, size)
        rows = np.arange(step * size, min((step + 1) * size, self.sequences(split)))
        assert len(rows), f"val has {self.sequences('val')} rows, none from {step * size} on"
        return self._rows[split].batch(rows, self.loss_on)

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """The rows of a step, epoch after epoch."""
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), self.sequences("train"))
        numbers = zip(epochs.tolist(), places.tolist(), strict=True)
        rows = np.array([self._order(seed, epoch)[place] for epoch, place in numbers])
        return self._rows["train"].batch(rows, self.loss_on)

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        key, order = self._epoch  # one tuple, so that a second thread sees a key with its own order
        if key != (seed, epoch):
            bits = np.random.Philox(key=stable_seed(seed, "data", epoch)).random_raw(self.sequences("train"))
            order = np.argsort(bits, kind="stable")
            self._epoch = ((seed, epoch), order)
        return order

    def _tokens(self, example: Example) -> tuple[list[int], list[bool], int]:
        """Tokens, whether each is asked, and the places in a row that they and a problem made of them need."""
        pieces = [self.tokenizer.encode(piece) if piece else [] for piece in example]
        tokens = [token for piece in pieces for token in piece]
        asked = [bool(index % 2) for index, piece in enumerate(pieces) for _ in piece]
        if self.tokenizer.end is not None:
            tokens.append(self.tokenizer.end)
            asked.append(True)
        return tokens, asked, max(len(tokens) - 1, len(pieces[0]) + len(pieces[1]))

    def _problem(self, number: int, example: Example) -> tuple[str, str]:
        answers = range(1, len(example), 2)
        if self.tokenizer.end is None and len(answers) > 1:
            ends = list(accumulate(len(self.tokenizer.encode(piece)) if piece else 0 for piece in example))
            answers = [place for place in answers if ends[place] <= self.context_length]
        place = answers[-1 if self.tokenizer.end is not None else number % len(answers)]
        return "".join(example[:place]), example[place]


class _Laid:
    """Examples one after the other, while they are being tokenized."""

    def __init__(self) -> None:
        self.stream, self.asked, self.starts = array("I"), array("B"), array("q", [0])

    @property
    def inputs(self) -> int:
        """Places that the examples take: the last token of each is never an input."""
        return len(self.stream) - len(self.starts) + 1

    def add(self, tokens: list[int], asked: list[bool]) -> None:
        self.stream.extend(tokens)
        self.asked.extend(asked)
        self.starts.append(len(self.stream))

    def rows(self, context_length: int) -> Rows:
        starts = np.array(self.starts)
        inputs = starts - np.arange(len(starts))
        first = np.array(_packing(inputs.tolist(), context_length))
        return Rows(np.array(self.stream), np.array(self.asked, bool), starts, inputs, first, context_length)


@dataclass(frozen=True)
class Rows:
    """Examples, one after the other, and which of them share a row.

    Args:
        stream: uint32 (tokens,).
        asked: bool (tokens,): which of them are answers.
        starts: int64 (examples + 1,): where examples begin in the stream, and its length.
        inputs: int64 (examples + 1,): places in rows before each example.
        first: int64 (rows + 1,): the first example of each row, and their number.
        context_length: Places in a row.
    """

    stream: np.ndarray
    asked: np.ndarray
    starts: np.ndarray
    inputs: np.ndarray
    first: np.ndarray
    context_length: int

    def batch(self, rows: np.ndarray, loss_on: LossOn) -> Batch:
        """The rows with these numbers."""
        first = self.first[rows]
        places = self.inputs[first][:, None] + np.arange(self.context_length)  # (B, T), among all inputs
        empty = places >= self.inputs[self.first[rows + 1]][:, None]
        places[empty] = 0
        example = np.searchsorted(self.inputs, places, side="right") - 1
        at = places + example  # in the stream, where each example before has one token more
        silent = empty if loss_on == "all" else empty | ~self.asked[at + 1]
        return Batch(
            _filled(self.stream[at], empty, 0),
            _filled(self.stream[at + 1], silent, -100),
            _filled(places - self.inputs[example], empty, 0),
            _filled(example - first[:, None], empty, -1),
        )

    def digest(self) -> bytes:
        """sha256 over the examples."""
        digest = hashlib.sha256()
        for numbers in (self.stream, self.starts, self.asked):
            digest.update(numbers.tobytes())
        return digest.digest()


def _packing(inputs: list[int], context_length: int) -> list[int]:
    """The first example of each row, each row as full as its turn allows; last, the number of examples."""
    first = [0]
    while first[-1] < len(inputs) - 1:
        first.append(bisect_right(inputs, inputs[first[-1]] + context_length) - 1)
    return first


def _filled(numbers: np.ndarray, where: np.ndarray, number: int) -> torch.Tensor:
    return torch.from_numpy(np.where(where, number, numbers.astype(np.int64)))
