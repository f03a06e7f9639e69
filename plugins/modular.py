"""Modular arithmetic: all pairs of numbers below p, of which training sees a share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("modular", Modular)


class Modular(gptzoo.Examples):
    """Sums, differences, products or quotients modulo p: `12 + 7 = 3`.

    For the tokenizer `symbols` each word is a token. All pairs of operands occur, none twice, and (b, a) is another
    pair than (a, b). Which are held out depends on the options alone. Quotients are by numbers other than 0 and need a
    prime p.

    Source: Grokking, arXiv:2201.02177, section 2 and appendix A.1.

    Args:
        modulus: p.
        operation: What to do with the two numbers.
        held_out: Share of all pairs of operands that training never sees.
        loss_on: What is to be predicted: all of an example, or the result alone.

    Raises:
        ValueError: An option is out of range.
    """

    needs_end: ClassVar[bool] = False
    examples = ({"modulus": 23}, {"modulus": 19, "operation": "/", "held_out": 0.3})

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        modulus: int = 97,
        operation: Literal["+", "-", "*", "/"] = "+",
        held_out: float = 0.5,
        loss_on: gptzoo.LossOn = "answer",
    ) -> None:
        super().__init__(tokenizer, context_length, loss_on)
        if not 2 <= modulus <= 1000:
            raise ValueError(f"modulus must be from 2 to 1000, not {modulus}")
        if operation == "/" and any(modulus % factor == 0 for factor in range(2, modulus)):
            raise ValueError(f"quotients need a prime modulus, not {modulus}")
        pairs = [(a, b) for a in range(modulus) for b in range(operation == "/", modulus)]
        kept = round(len(pairs) * held_out)
        if not 0 < kept < len(pairs):
            raise ValueError(f"held_out of {held_out} leaves training or validation without any of {len(pairs)} pairs")
        order = gptzoo.Draws("modular", modulus, operation).distinct(len(pairs), len(pairs))
        self.modulus, self.operation = modulus, operation
        self.pairs = {"val": [pairs[n] for n in order[:kept]], "train": [pairs[n] for n in order[kept:]]}
        self.pack()

    def read_examples(self, split: str) -> Iterator[gptzoo.Example]:
        for a, b in self.pairs[split]:
            yield f"{a} {self.operation} {b} = ", str(self.result(a, b))

    def result(self, a: int, b: int) -> int:
        """What it comes to."""
        values = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a * pow(b, -1, self.modulus)}
        return values[self.operation]() % self.modulus
