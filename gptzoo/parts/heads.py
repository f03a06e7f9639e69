"""Heads score the next token; the tied one is GPT-2's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gptzoo.contracts import Dims
from gptzoo.model import cross_entropy


class Head(nn.Module):
    """The base of heads: a matrix with a row per token of the vocabulary, and the loss, in pieces where wanted.

    A subclass overrides `forward`, and the loss follows.

    Source: Using the Output Embedding to Improve Language Models, arXiv:1608.05859. The loss in pieces: after Cut Your
    Losses, arXiv:2411.09009, section 3, without its kernel: scores are computed anew in the backward pass, not kept.

    Args:
        tied: Whether the matrix is the token embedding.
        chunk: Tokens whose scores the loss has in memory at a time; all unless given. Less memory for one more product
            with the matrix; the loss is the same up to the order of summation.
    """

    def __init__(self, dims: Dims, wte: nn.Embedding, tied: bool = True, chunk: int | None = None) -> None:
        super().__init__()
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        self._wte = (wte,)  # in a tuple: the weight is the model's and appears once in its state
        self.lm_head = None if tied else nn.Linear(dims.n_embd, dims.vocab_size, bias=False)
        self.chunk = chunk

    @property
    def weight(self) -> Tensor:
        """(vocab_size, C)."""
        return self._wte[0].weight if self.lm_head is None else self.lm_head.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., vocab_size)."""
        return F.linear(x, self.weight)

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """The sum of the token losses, nats: (B, T, C), (B, T); -100 = no loss."""
        if self.chunk is None:
            return cross_entropy(self(x), targets)
        pieces = zip(x.flatten(0, 1).split(self.chunk), targets.flatten().split(self.chunk), strict=True)
        return torch.stack([self._loss_anew(*piece) for piece in pieces]).sum()

    def _loss_anew(self, x: Tensor, targets: Tensor) -> Tensor:
        loss = checkpoint(self._loss, x, targets, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(loss, Tensor)
        return loss

    def _loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self(x), targets)


class Tied(Head):
    """The token embedding, used once more to score the next token.

    Source: Using the Output Embedding to Improve Language Models, arXiv:1608.05859.

    Args:
        chunk: Tokens whose scores the loss has in memory at a time; all unless given.
    """

    def __init__(self, dims: Dims, wte: nn.Embedding, chunk: int | None = None) -> None:
        super().__init__(dims, wte, tied=True, chunk=chunk)
