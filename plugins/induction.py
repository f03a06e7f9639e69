"""Induction: a random period goes round and round, and its next symbol is to be found by looking back."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("induction", Induction)


class Induction(gptzoo.SymbolTask):
    """Periods that repeat, `5 3 7 5 3 7 5 3`: whatever followed a symbol will follow it again.

    A period holds no symbol twice, so each answer is certain: that of a head that looks for the present symbol and
    copies the next, which takes two layers. The first symbol of the second round is not asked, as nothing tells that
    the period is over.

    Source: In-context Learning and Induction Heads, arXiv:2209.11895, which measures repeated random tokens likewise.

    Args:
        symbols: How many different ones there are.
        period: The shortest and the longest period.
        length: Symbols of an example; one more than `context_length` unless given, which fills a row.
        loss_on: What is to be predicted: all of an example, or what can be known, from the second symbol of the second
            round on.
        held_out: Share of all periods that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.
    """

    examples = ({"symbols": 6, "period": [3, 5], "length": 12, "val_examples": 20},)

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        symbols: int = 24,
        period: gptzoo.Range = (10, 20),
        length: int | None = None,
        loss_on: gptzoo.LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, symbols, loss_on, held_out, val_examples)
        self.period = gptzoo.checked_range("period", period, 2)
        self.length = context_length + 1 if length is None else length
        if period[1] > symbols:
            raise ValueError(f"a period of {period[1]} different symbols needs as many symbols, not {symbols}")
        if self.length < period[1] + 2:
            raise ValueError(f"length must be at least {period[1] + 2}, a period and what is asked, not {self.length}")
        self.pack()

    def draw(self, draws: gptzoo.Draws, split: str) -> gptzoo.Example:
        return self._example(draws.distinct(self.symbols, draws.between(*self.period)))

    def longest(self) -> gptzoo.Example:
        return self._example(list(range(self.symbols - self.period[1], self.symbols)))

    def _example(self, period: list[int]) -> gptzoo.Example:
        row = (period * (self.length // len(period) + 1))[: self.length]
        return self.asking(row, range(len(period) + 1, self.length))
