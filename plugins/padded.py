"""A head whose product is padded to a size that suits the hardware. No token is added to the vocabulary."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `padded`."""
    zoo.head("padded", Padded)


class Padded(gptzoo.Head):
    """The scores are computed with rows of zeros below the matrix, up to a multiple, and cut back to the vocabulary.

    Source: Megatron-LM, arXiv:1909.08053, section 5.1, which pads GPT-2's 50,257 tokens to a multiple of 128. There the
    padding has weights that are learned and a share of the probability. Here it has neither: the zeros are laid below
    the matrix anew in each forward, so that the weights, and a checkpoint, are those of `tied` or `untied`, and only
    the shape of the product differs.

    Args:
        multiple: The rows of the product are a multiple of this.
        tied: Whether the matrix is the token embedding.
        chunk: Tokens whose scores the loss has in memory at a time; all unless given.
    """

    examples = ({"multiple": 64}, {"multiple": 24, "tied": False})

    def __init__(
        self, dims: gptzoo.Dims, wte: nn.Embedding, multiple: int = 128, tied: bool = True, chunk: int | None = None
    ) -> None:
        super().__init__(dims, wte, tied, chunk)
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1, not {multiple}")
        self.vocab_size, self.rows = dims.vocab_size, -(-dims.vocab_size // multiple) * multiple

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., vocab_size)."""
        weight = F.pad(self.weight, (0, 0, 0, self.rows - self.vocab_size))
        return F.linear(x, weight)[..., : self.vocab_size]
