"""my_data: what it does, in one sentence. This one is an example: sums to learn, and every one of them is true."""

from __future__ import annotations

import random
from collections.abc import Iterator

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_data`."""
    zoo.data("my_data", MyData)


class MyData(gptzoo.TokenStream):
    """Lines like `17 + 25 = 42`, each a document.

    Args:
        lines: How many.
        largest: The largest summand.
        documents: Keep lines apart, rather than treat each row as one document.
        val_fraction: Share of the tokens, the last ones, that is kept for validation.
    """

    source = "the generated sums"

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        lines: int = 10_000,
        largest: int = 100,
        documents: bool = False,
        val_fraction: float = 0.1,
    ) -> None:
        self.lines, self.largest = lines, largest
        super().__init__(tokenizer, context_length, documents, val_fraction)

    def read_documents(self) -> Iterator[str]:
        """The same lines at each call: the generator is made here, and is nobody else's."""
        drawn = random.Random(0)
        for _ in range(self.lines):
            a, b = drawn.randint(0, self.largest), drawn.randint(0, self.largest)
            yield f"{a} + {b} = {a + b}\n"
