"""Parity: `1 0 1 1 = 1`."""

from __future__ import annotations

from itertools import accumulate
from operator import xor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("parity", Parity)


class Parity(gptzoo.SequenceTask):
    """Whether there is an odd number of ones among bits: `1 0 1 1 = 1 .`

    Source: What Algorithms can Transformers Learn?, arXiv:2310.16028, where it is the task that does not generalise to
    longer sequences unless it is worked out.

    Args:
        length: Fewest and most bits.
        val_length: The same for validation, to see whether longer sequences are understood; `length` unless given.
        worked_out: Ask for the parity after each bit, of which the last is the answer: `1 0 1 1 = 1 1 0 1 .`
        loss_on: What is to be predicted: all of an example, or the answer alone.
        held_out: Share of all questions that training never sees.
        val_examples: Examples to validate on.
    """

    examples = ({"length": [8, 10], "val_examples": 20}, {"length": [8, 9], "worked_out": True, "val_examples": 20})

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        length: gptzoo.Range = (1, 20),
        val_length: gptzoo.Range | None = None,
        worked_out: bool = False,
        loss_on: gptzoo.LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        self.worked_out = worked_out
        super().__init__(tokenizer, context_length, 2, length, val_length, loss_on, held_out, val_examples)

    def answer(self, sequence: list[int]) -> list[int]:
        after_each = list(accumulate(sequence, xor))
        return after_each if self.worked_out else after_each[-1:]
