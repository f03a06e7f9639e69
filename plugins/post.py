"""The post-norm block: the first Transformer's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `post`."""
    zoo.block("post", Post)


class Post(nn.Module):
    """Norm after attention and MLP have been added to the stream, so that the stream itself is normed.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.1: LayerNorm(x + Sublayer(x)). The model's last norm,
    which the paper has not, stays.
    """

    identity_when_silent = False  # it norms the stream

    def __init__(
        self, dims: gptzoo.Dims, attention: gptzoo.Attention, mlp: nn.Module, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.attention = attention
        self.norm_1 = norm(dims.n_embd)
        self.mlp = mlp
        self.norm_2 = norm(dims.n_embd)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.norm_1(x + self.attention(x, ctx))
        return self.norm_2(x + self.mlp(x, ctx))
