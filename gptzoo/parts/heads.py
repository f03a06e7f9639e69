"""The tied head: GPT-2's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.contracts import Dims


class Tied(nn.Module):
    """The token embedding, used once more to score the next token.

    Source: Using the Output Embedding to Improve Language Models, arXiv:1608.05859.
    """

    def __init__(self, dims: Dims, wte: nn.Embedding) -> None:
        super().__init__()
        self._wte = (wte,)  # in a tuple: the weight is the model's and appears once in its state

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, vocab_size)."""
        return F.linear(x, self._wte[0].weight)
