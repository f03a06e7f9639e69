"""The sandwich block: a norm on both sides of attention and MLP, as in Gemma 2 and Peri-LN."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `sandwich`."""
    zoo.block("sandwich", Sandwich, aliases=["peri"])


class Sandwich(nn.Module):
    """Norm before attention and MLP and on what they give back: x + norm(f(norm(x))), four norms in all.

    Source: Peri-LN, arXiv:2502.02732, section 3, and Gemma 2, arXiv:2408.00118, section 2; first in CogView,
    arXiv:2105.13290, section 2.4. Peri-LN also norms the embedding, which is not done here.
    """

    identity_when_silent: ClassVar[bool] = False  # what a norm's bias says of nothing is added too

    def __init__(
        self, dims: gptzoo.Dims, attention: gptzoo.Attention, mlp: nn.Module, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.norm_1 = norm(dims.n_embd)
        self.attention = attention
        self.after_attention = norm(dims.n_embd)
        self.norm_2 = norm(dims.n_embd)
        self.mlp = mlp
        self.after_mlp = norm(dims.n_embd)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.after_attention(self.attention(self.norm_1(x), ctx))
        return x + self.after_mlp(self.mlp(self.norm_2(x), ctx))
