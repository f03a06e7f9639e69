"""Selective copying: the symbols among blanks are to be said again, without the blanks."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("selective_copy", SelectiveCopy)


class SelectiveCopy(gptzoo.SymbolTask):
    """A few symbols at random places among blanks, to say again in their order: `_ 5 _ _ 3 _ = 5 3`

    Source: Mamba, arXiv:2312.00752, sections 3.1 and 4.1.1, there with sequences of 4096. Here each answer is an input
    for the next.

    Args:
        symbols: How many different ones there are.
        content: Symbols among the blanks.
        length: Places for symbols and blanks.
        loss_on: What is to be predicted: all of an example, or the answer alone.
        held_out: Share of all questions that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.
    """

    examples = ({"content": 3, "length": 8, "val_examples": 20},)
    marks = ("=", "_")

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        symbols: int = 16,
        content: int = 16,
        length: int = 64,
        loss_on: gptzoo.LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, symbols, loss_on, held_out, val_examples)
        if not 1 <= content <= length:
            raise ValueError(f"content must be from 1 to length = {length}, not {content}")
        self.content, self.length = content, length
        self.pack()

    def draw(self, draws: gptzoo.Draws, split: str) -> gptzoo.Example:
        places = draws.distinct(self.length, self.content)
        return self._example(sorted(places), draws.below(self.symbols, self.content))

    def longest(self) -> gptzoo.Example:
        return self._example(list(range(self.content)), [self.symbols - 1] * self.content)

    def _example(self, places: list[int], content: list[int]) -> gptzoo.Example:
        words = ["_"] * self.length
        for place, symbol in zip(places, content, strict=True):
            words[place] = str(symbol)
        return f"{' '.join(words)} = ", self.text(content)
