"""The base of plain MLPs, two linear layers: GELU, ReLU and their kin say only what stands between them."""

from __future__ import annotations

from torch import Tensor, nn

from gptzoo.contracts import Context, Dims


class PlainMLP(nn.Module):
    """down(activate(up(x))); a subclass says what `activate` is.

    Source: Attention Is All You Need, arXiv:1706.03762, equation 2.

    Args:
        hidden: Inner width; 4 * n_embd unless given.
    """

    def __init__(self, dims: Dims, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = 4 * dims.n_embd if hidden is None else hidden
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {self.hidden}")
        self.up = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.down = nn.Linear(self.hidden, dims.n_embd, bias=dims.bias)
        self.dropout = nn.Dropout(dims.dropout)

    def activate(self, x: Tensor) -> Tensor:
        """(B, T, hidden) -> (B, T, hidden), pointwise."""
        raise TypeError(f"{type(self).__name__} defines no activate")

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.dropout(self.down(self.activate(self.up(x))))
