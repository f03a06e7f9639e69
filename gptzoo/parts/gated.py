"""The base of gated MLPs: SwiGLU, GEGLU and their kin say only how the gate is activated."""

from __future__ import annotations

from torch import Tensor, nn

from gptzoo.contracts import Context, Dims


class GatedMLP(nn.Module):
    """down(activate(gate(x)) * up(x)); a subclass says what `activate` is.

    Source: GLU Variants Improve Transformer, arXiv:2002.05202, equation 6.

    Args:
        hidden: Inner width. Unless given, the multiple of 8 nearest to 8/3 * n_embd: with three matrices, as many
            parameters as a plain MLP of 4 * n_embd.
    """

    def __init__(self, dims: Dims, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = max(8, 8 * round(dims.n_embd / 3)) if hidden is None else hidden
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {self.hidden}")
        self.gate = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.up = nn.Linear(dims.n_embd, self.hidden, bias=dims.bias)
        self.down = nn.Linear(self.hidden, dims.n_embd, bias=dims.bias)
        self.dropout = nn.Dropout(dims.dropout)

    def activate(self, gate: Tensor) -> Tensor:
        """(B, T, hidden) -> (B, T, hidden), pointwise."""
        raise TypeError(f"{type(self).__name__} defines no activate")

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.dropout(self.down(self.activate(self.gate(x)) * self.up(x)))
