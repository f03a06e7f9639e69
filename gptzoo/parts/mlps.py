"""GELU: GPT-2's MLP."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.contracts import Context, Dims


class Gelu(nn.Module):
    """Two linear layers with a GELU between them.

    Source: Gaussian Error Linear Units, arXiv:1606.08415. GPT-2 uses the tanh approximation.

    Args:
        hidden: Inner width; 4 * n_embd unless given.
        approximate: `tanh`, as in GPT-2, or `none` for the exact one with erf.
    """

    def __init__(self, dims: Dims, hidden: int | None = None, approximate: Literal["tanh", "none"] = "tanh") -> None:
        super().__init__()
        self.hidden = 4 * dims.n_embd if hidden is None else hidden
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {self.hidden}")
        self.approximate = approximate
        self.up = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.down = nn.Linear(self.hidden, dims.n_embd, bias=dims.bias)
        self.dropout = nn.Dropout(dims.dropout)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.dropout(self.down(F.gelu(self.up(x), approximate=self.approximate)))
