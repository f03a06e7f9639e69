"""A head whose logits cannot grow without bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `softcap`."""
    zoo.head("softcap", Softcap)


class Softcap(gptzoo.Head):
    """Logits pass through cap * tanh(logits / cap), so that none is larger than the cap.

    Source: Gemma 2, arXiv:2408.00118, section 2, "logit soft-capping"; the tanh is taken in float32.

    Args:
        cap: Logits stay below this, in size.
        tied: Whether the matrix is the token embedding.
        chunk: Tokens whose scores the loss has in memory at a time; all unless given.
    """

    def __init__(
        self, dims: gptzoo.Dims, wte: nn.Embedding, cap: float = 30.0, tied: bool = True, chunk: int | None = None
    ) -> None:
        super().__init__(dims, wte, tied, chunk)
        if cap <= 0:
            raise ValueError(f"cap must be above 0, not {cap}")
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., vocab_size)."""
        logits = super().forward(x)
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (self.cap * torch.tanh(precise / self.cap)).to(logits.dtype)
