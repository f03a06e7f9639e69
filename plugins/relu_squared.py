"""Squared ReLU: the plain MLP with relu(x)^2 in place of GELU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `relu_squared`."""
    zoo.mlp("relu_squared", ReluSquared, aliases=["relu2"])


class ReluSquared(nn.Module):
    """Two linear layers with relu(x)^2 between them.

    Source: Primer, arXiv:2109.08668, section 3, "squared ReLU".

    Args:
        hidden: Inner width; 4 * n_embd unless given.
    """

    def __init__(self, dims: gptzoo.Dims, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = 4 * dims.n_embd if hidden is None else hidden
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {self.hidden}")
        self.up = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.down = nn.Linear(self.hidden, dims.n_embd, bias=dims.bias)
        self.dropout = nn.Dropout(dims.dropout)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.dropout(self.down(F.relu(self.up(x)).square()))
