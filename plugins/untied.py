"""The untied head: a matrix of its own scores the next token."""

from __future__ import annotations

from torch import nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `untied`."""
    zoo.head("untied", Untied)


class Untied(gptzoo.Head):
    """A matrix of its own, so that reading and writing a token are learned apart.

    Source: A Neural Probabilistic Language Model, JMLR 3, 2003, equation 1; as in Llama, arXiv:2302.13971.

    Args:
        chunk: Tokens whose scores the loss has in memory at a time; all unless given.
    """

    def __init__(self, dims: gptzoo.Dims, wte: nn.Embedding, chunk: int | None = None) -> None:
        super().__init__(dims, wte, tied=False, chunk=chunk)
