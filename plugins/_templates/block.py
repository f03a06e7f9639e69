"""my_block: what it does, in one sentence. This one is an example: branches that start small and grow as they learn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_block`."""
    zoo.block("my_block", MyBlock)


class MyBlock(nn.Module):
    """GPT-2's block, with each branch scaled by a learned vector before it is added to the stream.

    Source: LayerScale, arXiv:2103.17239, equation 4.

    Args:
        start: What the vectors start from.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        start: float = 0.1,
    ) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norm(dims.n_embd), norm(dims.n_embd)
        self.attention, self.mlp = attention, mlp
        self.scale_1 = nn.Parameter(torch.full((dims.n_embd,), start))
        self.scale_2 = nn.Parameter(torch.full((dims.n_embd,), start))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.scale_1.to(x.dtype) * self.attention(self.norm_1(x), ctx)
        return x + self.scale_2.to(x.dtype) * self.mlp(self.norm_2(x), ctx)
