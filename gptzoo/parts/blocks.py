"""The pre-norm block: GPT-2's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from gptzoo.contracts import Attention, Context, Dims


class Pre(nn.Module):
    """Norm before attention and before the MLP, each added to the stream.

    Source: Language Models are Unsupervised Multitask Learners (GPT-2), 2019, section 2.3; see arXiv:2002.04745.
    """

    def __init__(self, dims: Dims, attention: Attention, mlp: nn.Module, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm_1 = norm(dims.n_embd)
        self.attention = attention
        self.norm_2 = norm(dims.n_embd)
        self.mlp = mlp

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attention(self.norm_1(x), ctx)
        return x + self.mlp(self.norm_2(x), ctx)
