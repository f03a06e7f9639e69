"""No norm: for blocks that keep the stream in bounds by other means."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `none` among the norms."""
    zoo.norm("none", NoNorm, aliases=["identity"])


class NoNorm(nn.Module):
    """x stays as it is.

    Source: ReZero, arXiv:2003.04887, whose transformer has no norms; with other blocks it is the ablation of the norm.
    """

    scale_invariant: ClassVar[bool] = False

    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> the same."""
        return x
