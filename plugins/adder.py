"""The adder: sums of numbers with so many digits, written as characters."""

from __future__ import annotations

from typing import Literal

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("adder", Adder)


class Adder(gptzoo.FreshExamples):
    """Sums of two numbers, digit by digit and filled up with zeros: `085+005=090`, or the last digit first.

    a + b and b + a are one question. For the tokenizers byte and char each digit is a token.

    Source: minGPT's adder, with + and = between the numbers; the reversed answer is Teaching Arithmetic to Small
    Transformers, arXiv:2307.03381, section 3.

    Args:
        digits: Of each operand; the sum has one more.
        format: How sums are written: `plain`, or `reversed`, the last digit first.
        zeros: Fill operands and sums up with zeros.
        loss_on: What is to be predicted: all of an example, or the sum alone.
        held_out: Share of all pairs of operands that training never sees.
        val_examples: Examples to validate on.

    Raises:
        ValueError: An option is out of range.
    """

    examples = ({"digits": 2, "val_examples": 20}, {"format": "reversed", "zeros": False, "val_examples": 20})

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        digits: int = 3,
        format: Literal["plain", "reversed"] = "plain",
        zeros: bool = True,
        loss_on: gptzoo.LossOn = "answer",
        held_out: float = 0.1,
        val_examples: int = 1000,
    ) -> None:
        super().__init__(tokenizer, context_length, loss_on, held_out, val_examples)
        if not 1 <= digits <= 18:
            raise ValueError(f"digits must be from 1 to 18, not {digits}")
        self.digits, self.format, self.zeros = digits, format, zeros
        self.pack()

    @property
    def alphabet(self) -> str:
        return "0123456789+="

    def draw(self, draws: gptzoo.Draws, split: str) -> gptzoo.Example:
        a, b = draws.below(10**self.digits, 2)
        return self._example(a, b)

    def longest(self) -> gptzoo.Example:
        return self._example(10**self.digits - 1, 10**self.digits - 1)

    def question(self, example: gptzoo.Example) -> str:
        return "+".join(sorted(example[0].rstrip("=").split("+")))

    def _example(self, a: int, b: int) -> gptzoo.Example:
        width = self.digits if self.zeros else 0
        total = f"{a + b:0{width + 1 if width else 0}}"
        return f"{a:0{width}}+{b:0{width}}=", total if self.format == "plain" else total[::-1]
