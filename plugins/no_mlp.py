"""No MLP: what is left is a model of attention alone."""

from __future__ import annotations

from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `none`."""
    zoo.mlp("none", NoMLP)


class NoMLP(nn.Module):
    """Nothing is added to the stream where the MLP would be, in any block.

    In a block with a norm before the MLP that norm is idle.

    Source: A Mathematical Framework for Transformer Circuits, 2021 (transformer-circuits.pub), attention-only models.
    """

    uses_input = False

    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__()

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> zeros (B, T, C), which take no memory."""
        return x.new_zeros(()).expand_as(x)
