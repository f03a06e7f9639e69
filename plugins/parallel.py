"""The parallel block: attention and MLP read the same stream and are added together, as in GPT-J and PaLM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `parallel`."""
    zoo.block("parallel", Parallel)


class Parallel(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)): the MLP does not wait for the attention.

    Source: PaLM, arXiv:2204.02311, section 2 (one norm, as in GPT-J, 2021); GPT-NeoX, arXiv:2204.06745, section 2.1.2
    (two).

    Args:
        norms: 1 = attention and MLP share a norm; 2 = each has its own.
    """

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        norms: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        if norms not in (1, 2):
            raise ValueError(f"norms must be 1 or 2, not {norms}")
        self.norm_1 = norm(dims.n_embd)
        self.attention = attention
        self.norm_2 = norm(dims.n_embd) if norms == 2 else None
        self.mlp = mlp

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        to_attention = self.norm_1(x)
        to_mlp = to_attention if self.norm_2 is None else self.norm_2(x)
        return x + self.attention(to_attention, ctx) + self.mlp(to_mlp, ctx)
