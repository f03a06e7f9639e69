"""Tasks made of numbered symbols, and those from sequence to sequence: symbols in, `=`, symbols out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from gptzoo.contracts import Tokenizer
from gptzoo.parts.examples import Example, LossOn
from gptzoo.parts.fresh import Draws, FreshExamples

Range = tuple[int, int]
"""The least and the most, both included."""


class SymbolTask(FreshExamples):
    """Fresh examples of numbered symbols with blanks between, `12 7 3`; for the tokenizer `symbols` each is one token.

    Args:
        symbols: How many different ones there are.
        loss_on: What is to be predicted: all of an example, or the answers alone.
        held_out: Share of all questions that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.

    Attributes:
        marks: Words beside the numbers.
    """

    needs_end: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        tokenizer: Tokenizer,
        context_length: int,
        symbols: int = 24,
        loss_on: LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, loss_on, held_out, val_examples)
        if symbols < 1:
            raise ValueError(f"symbols must be at least 1, not {symbols}")
        self.symbols = symbols

    @property
    def alphabet(self) -> str:
        return " ".join([self.text(range(self.symbols)), *self.marks])

    @staticmethod
    def text(symbols: Iterable[int]) -> str:
        """Numbered symbols as they are written."""
        return " ".join(map(str, symbols))

    def asking(self, row: Sequence[int], asked: Iterable[int]) -> Example:
        """A row of symbols as an example that asks those at some places, in rising order; the first is given."""
        pieces, start = [], 0
        for place in asked:
            pieces += [self._between(row[start:place], start), str(row[place])]
            start = place + 1
        rest = self.text(row[start:])
        return (*pieces, f" {rest}") if rest else tuple(pieces)

    def _between(self, given: Sequence[int], start: int) -> str:
        return f"{' ' if start else ''}{self.text(given)}{' ' if given else ''}"


class SequenceTask(SymbolTask):
    """Symbols, `=`, and what is to be made of them; a subclass supplies only `answer`.

    An example reads `5 3 7 = 5 3 7 .`: the full stop is part of the answer, so that the model has to know where it
    ends. The sequence's length is drawn first, evenly, then its symbols.

    Args:
        length: Fewest and most symbols of a sequence.
        val_length: The same for validation, to see whether longer sequences are understood; `length` unless given.

    Raises:
        ValueError: An option is out of range.
        GPTZooError: There are not so many questions, or they do not fit into a row.
    """

    examples = ({"length": [1, 4]}, {"symbols": 3, "length": [2, 3], "val_length": [5, 6], "val_examples": 20})
    marks = ("=", ".")

    def __init__(
        self,
        tokenizer: Tokenizer,
        context_length: int,
        symbols: int = 24,
        length: Range = (1, 20),
        val_length: Range | None = None,
        loss_on: LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, symbols, loss_on, held_out, val_examples)
        self.length = checked_range("length", length)
        self.val_length = self.length if val_length is None else checked_range("val_length", val_length)
        self.pack()

    def answer(self, sequence: list[int]) -> list[int]:
        """What a sequence is to become."""
        raise TypeError(f"{type(self).__name__} defines no answer")

    def draw(self, draws: Draws, split: str) -> Example:
        length = draws.between(*(self.length if split == "train" else self.val_length))
        return self.example(draws.below(self.symbols, length))

    def longest(self) -> Example:
        return self.example([self.symbols - 1] * max(self.length[1], self.val_length[1]))

    def example(self, sequence: list[int]) -> Example:
        """A sequence with what it becomes."""
        return f"{self.text(sequence)} = ", f"{self.text(self.answer(sequence))} ."


def checked_range(option: str, given: Range, least: int = 1) -> Range:
    """A range that an option gives.

    Raises:
        ValueError: It is empty, or begins too low.
    """
    if not least <= given[0] <= given[1]:
        raise ValueError(f"{option} must be the least and the most, from {least} on, not {list(given)}")
    return given
