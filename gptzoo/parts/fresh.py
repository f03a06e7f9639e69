"""Examples without end: training draws new ones at every step, and never one that validation asks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice

import numpy as np
import torch

from gptzoo.contracts import Batch, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.files import canonical_json
from gptzoo.parts.examples import Example, Examples, LossOn, Rows
from gptzoo.seeds import stable_seed

_FORMAT = 1  # raised whenever equal options would give other examples
BLOCK = 64
"""Rows that are drawn together. An example that does not fit into a row goes to the next one of its block; only behind
the last row one is thrown away, so that long ones are as frequent as short ones."""

_PATIENCE = 50  # times the draws that are to be expected, before there are said to be too few questions


class Draws:
    """Random numbers that are the same on every machine: made from the raw bits of a counter-based generator.

    Args:
        purpose: What they are for; equal purposes give equal numbers.
    """

    def __init__(self, *purpose: object) -> None:
        self._bits = np.random.Philox(key=stable_seed(*purpose))

    def below(self, n: int, count: int) -> list[int]:
        """Numbers in [0, n)."""
        return [bits % n for bits in self._bits.random_raw(count).tolist()]

    def between(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        return low + self.below(high - low + 1, 1)[0]

    def distinct(self, n: int, count: int) -> list[int]:
        """Different numbers in [0, n), in random order."""
        moved: dict[int, int] = {}  # a shuffle of range(n), as far as it is needed
        taken = []
        for place, bits in enumerate(self._bits.random_raw(count).tolist()):
            other = place + bits % (n - place)
            taken.append(moved.get(other, other))
            moved[other] = moved.get(place, place)
        return taken

    def weighted(self, weights: np.ndarray, count: int) -> list[int]:
        """Different numbers in [0, len(weights)), one after the other, each in proportion to its weight."""
        uniform = ((self._bits.random_raw(len(weights)) >> np.uint64(11)) + 0.5) * 2.0**-53
        return np.argsort(-np.log(uniform) / weights, kind="stable")[:count].tolist()


class FreshExamples(Examples):
    """Examples that are drawn when they are needed; a subclass supplies `draw` and calls `pack`.

    The n-th row of a training is a pure function of (seed, n). A question is held out if a hash of it says so:
    validation asks only such questions, each once and the same in every training, and training none of them.

    Args:
        tokenizer: A learned one that has no `vocab_size` yet is fitted on `alphabet` and the validation examples.
        context_length: Tokens in a row.
        loss_on: What is to be predicted: all of an example, or the answers alone.
        held_out: Share of all questions that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        context_length: int,
        loss_on: LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, loss_on)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out must be above 0 and below 1, not {held_out}")
        if val_examples < 1:
            raise ValueError(f"val_examples must be at least 1, not {val_examples}")
        self.held_out, self.val_examples = held_out, val_examples

    @property
    def alphabet(self) -> str:
        """A text with all that examples are made of, for tokenizers that learn."""
        raise TypeError(f"{type(self).__name__} defines no alphabet")

    def draw(self, draws: Draws, split: str) -> Example:
        """An example of a split, held out or not."""
        raise TypeError(f"{type(self).__name__} defines no draw")

    def longest(self) -> Example:
        """An example that takes as much room as any."""
        raise TypeError(f"{type(self).__name__} defines no longest")

    def question(self, example: Example) -> str:
        """What decides whether an example is held out: its first piece."""
        return example[0]

    def pack(self) -> None:
        """Draw the validation examples and lay them into rows.

        Raises:
            GPTZooError: There are too few questions, or an example does not fit into a row.
        """
        self._val = self._validation()
        self.fit([self.alphabet, *map("".join, self._val)])
        self.lay([self.longest()])
        self._rows = {"val": self.lay(self._val)}
        self._block: tuple[object, Rows] = (None, self._rows["val"])

    def read_examples(self, split: str) -> Iterator[Example]:
        """The validation examples; or those with which a training of seed 0 begins, and on without end."""
        return iter(self._val) if split == "val" else self._training(Draws(0, "data", 0))

    @property
    def key(self) -> str:
        """Changes with the examples, the tokenizer, `loss_on` and `held_out`."""
        training = list(islice(self.read_examples("train"), 200))
        facts = [_FORMAT, self.tokenizer.fingerprint(), self.loss_on, self.held_out, self._val, training]
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()

    def sequences(self, split: str) -> int:
        """Rows of validation; of training, which has no end, as many."""
        return super().sequences("val")

    def training_batch(self, seed: int, step: int, size: int) -> Batch:
        """New rows."""
        numbers = np.arange(step * size, (step + 1) * size)
        parts = [
            self._rows_of(seed, block).batch(numbers[numbers // BLOCK == block] % BLOCK, self.loss_on)
            for block in range(int(numbers[0]) // BLOCK, int(numbers[-1]) // BLOCK + 1)
        ]
        return Batch(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(Batch)))

    def _rows_of(self, seed: int, block: int) -> Rows:
        key, rows = self._block  # one tuple, so that a second thread sees a key with its own rows
        if key != (seed, block):
            rows = self.lay(self._training(Draws(seed, "data", block)), BLOCK * self.context_length)
            self._block = ((seed, block), rows)
        return rows

    def is_held_out(self, example: Example) -> bool:
        """Whether an example is for validation alone."""
        digest = hashlib.blake2b(self.question(example).encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.held_out * 2**64

    def _training(self, draws: Draws) -> Iterator[Example]:
        missed = 0
        while missed < 2 * _PATIENCE / (1 - self.held_out):
            example = self.draw(draws, "train")
            missed = missed + 1 if self.is_held_out(example) else 0
            if not missed:
                yield example
        raise GPTZooError("nothing is left for training. Lower it, or allow more different questions.", "data.held_out")

    def _validation(self) -> list[Example]:
        draws, found = Draws("val"), {}
        for _ in range(int(_PATIENCE * self.val_examples / self.held_out)):
            example = self.draw(draws, "val")
            if self.is_held_out(example):
                found.setdefault(self.question(example), example)
            if len(found) == self.val_examples:
                return list(found.values())
        what = f"only {len(found)} different questions are held out, not {self.val_examples}."
        raise GPTZooError(f"{what} Ask for fewer, or allow longer or more varied questions.", "data.val_examples")
