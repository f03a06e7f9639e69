"""my_mlp: what it does, in one sentence. This one is an example: ReLU to a power."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_mlp`."""
    zoo.mlp("my_mlp", MyMlp)


class MyMlp(nn.Module):
    """Two linear layers with relu(x) ** power between them.

    Source: Primer, arXiv:2109.08668, section 3, where the power is 2.

    Args:
        hidden: Inner width; 4 * n_embd unless given.
        power: At least 1.
    """

    def __init__(self, dims: gptzoo.Dims, hidden: int | None = None, power: float = 2.0) -> None:
        super().__init__()
        if power < 1:
            raise ValueError(f"power must be at least 1, not {power}")
        self.power = power
        self.hidden = 4 * dims.n_embd if hidden is None else hidden
        self.up = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.down = nn.Linear(self.hidden, dims.n_embd, bias=dims.bias)  # init scales `down` by its name
        self.dropout = nn.Dropout(dims.dropout)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.dropout(self.down(F.relu(self.up(x)) ** self.power))
