"""my_head: what it does, in one sentence. This one is an example: logits that cannot grow without bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_head`."""
    zoo.head("my_head", MyHead)


class MyHead(gptzoo.Tied):
    """The token embedding as head, with logits capped by tanh.

    Source: Gemma 2, arXiv:2408.00118, section 2.

    Args:
        softcap: Logits stay below this, in size.
    """

    def __init__(self, dims: gptzoo.Dims, wte: nn.Embedding, softcap: float = 30.0) -> None:
        super().__init__(dims, wte)
        if softcap <= 0:
            raise ValueError(f"softcap must be above 0, not {softcap}")
        self.softcap = softcap

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, vocab_size)."""
        return self.softcap * torch.tanh(super().forward(x) / self.softcap)
