"""Blocks that learn how much attention and MLP add to the stream: LayerScale per channel, ReZero by one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `layerscale` and `rezero`."""
    zoo.block("layerscale", LayerScale)
    zoo.block("rezero", ReZero)


class LayerScale(nn.Module):
    """Pre-norm with a learned gain per channel on what is added: x + gain * f(norm(x)).

    Source: Going Deeper with Image Transformers, arXiv:2103.17239, equation 4: the gain starts at 0.1 up to 18 layers,
    at 1e-5 up to 24, at 1e-6 beyond.

    Args:
        start: Where every gain starts.
    """

    examples = ({}, {"start": 0.5})

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        start: float = 0.1,
    ) -> None:
        super().__init__()
        self.norm_1 = norm(dims.n_embd)
        self.attention = attention
        self.gain_1 = nn.Parameter(torch.full((dims.n_embd,), start))
        self.norm_2 = norm(dims.n_embd)
        self.mlp = mlp
        self.gain_2 = nn.Parameter(torch.full((dims.n_embd,), start))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.gain_1 * self.attention(self.norm_1(x), ctx)
        return x + self.gain_2 * self.mlp(self.norm_2(x), ctx)


class ReZero(nn.Module):
    """One learned gain for attention and one for the MLP, 0 at first, so that each layer begins as the identity.

    Source: ReZero is All You Need, arXiv:2003.04887, section 3, x + gain f(x); there both share one gain. The paper
    has no norms: choose `norm: none` for it; any other norm stands before attention and MLP.

    Args:
        start: Where both gains start.
    """

    examples = ({"start": 0.3},)  # at 0 nothing before a token reaches it, which the laws would call dead

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        start: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_1 = norm(dims.n_embd)
        self.attention = attention
        self.gain_1 = nn.Parameter(torch.full((1,), start))
        self.norm_2 = norm(dims.n_embd)
        self.mlp = mlp
        self.gain_2 = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.gain_1 * self.attention(self.norm_1(x), ctx)
        return x + self.gain_2 * self.mlp(self.norm_2(x), ctx)
