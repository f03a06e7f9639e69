"""Multi-query associative recall: pairs of keys and values, and later each key again, asking for its value."""

from __future__ import annotations

from typing import Literal

import numpy as np

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("mqar", Mqar)


class Mqar(gptzoo.SymbolTask):
    """Keys with their values, then every key once more, which is to be answered with its value.

    An example begins with the pairs, `3 130 7 200`. Then come slots of two symbols, most of them filler: in a slot that
    is drawn for it each key stands again, `7 200`, and its value is asked. Keys are the symbols of the lower half but
    for 0, values those of the upper half; none of either occurs twice among the pairs.

    Source: Zoology, arXiv:2312.04927, the definition of MQAR and its experiments. There the input goes on with a random
    symbol where the value is asked, and may hold keys as filler; here with the value, and filler is never a key.

    Args:
        symbols: How many different ones there are.
        pairs: Fewest and most pairs of an example.
        length: Symbols of an example; one more than `context_length` unless given, which fills a row.
        power: The n-th slot is chosen in proportion to n ** (power - 1): 1 is evenly, less is rather soon.
        filler: `noise`, symbols that are values, or `none`, the symbol 0.
        loss_on: What is to be predicted: all of an example, or the values that are asked.
        held_out: Share of all sets of pairs that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.
    """

    examples = (
        {"symbols": 16, "pairs": [2, 3], "length": 16, "val_examples": 20},
        {"symbols": 16, "pairs": [2, 2], "length": 17, "power": 1.0, "filler": "none", "val_examples": 20},
    )

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        symbols: int = 256,
        pairs: gptzoo.Range = (8, 16),
        length: int | None = None,
        power: float = 0.01,
        filler: Literal["noise", "none"] = "noise",
        loss_on: gptzoo.LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, symbols, loss_on, held_out, val_examples)
        self.pairs = gptzoo.checked_range("pairs", pairs)
        self.length = context_length + 1 if length is None else length
        self.power, self.filler = power, filler
        self.keys, self.values = symbols // 2 - 1, symbols - symbols // 2
        if self.keys < pairs[1]:
            raise ValueError(f"{pairs[1]} pairs need at least {2 * pairs[1] + 2} symbols, not {symbols}")
        if self.length < 4 * pairs[1]:
            raise ValueError(f"{pairs[1]} pairs and their questions need a length of {4 * pairs[1]}, not {self.length}")
        self.pack()

    def draw(self, draws: gptzoo.Draws, split: str) -> gptzoo.Example:
        count = draws.between(*self.pairs)
        keys = [1 + number for number in draws.distinct(self.keys, count)]
        values = [self.symbols - 1 - number for number in draws.distinct(self.values, count)]
        slots = draws.weighted(np.arange(1, (self.length - 2 * count) // 2 + 1) ** (self.power - 1), count)
        noise = [self.symbols - 1 - number for number in draws.below(self.values, self.length - 2 * count)]
        return self._example(keys, values, slots, noise if self.filler == "noise" else [0] * len(noise))

    def longest(self) -> gptzoo.Example:
        keys, values = range(self.keys, 0, -1), range(self.symbols - 1, self.keys, -1)
        count = self.pairs[1]
        noise = [self.symbols - 1] * (self.length - 2 * count)
        return self._example(list(keys[:count]), list(values[:count]), list(range(count)), noise)

    def _example(self, keys: list[int], values: list[int], slots: list[int], rest: list[int]) -> gptzoo.Example:
        """Pairs, then the rest, where each key with its value takes its slot."""
        row = [symbol for pair in zip(keys, values, strict=True) for symbol in pair]
        places = [len(row) + 2 * slot for slot in slots]
        row += rest
        for place, key, value in zip(places, keys, values, strict=True):
            row[place : place + 2] = key, value
        return self.asking(row, sorted(place + 1 for place in places))
