"""Squared ReLU: the plain MLP with relu(x)^2 in place of GELU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `relu_squared`."""
    zoo.mlp("relu_squared", ReluSquared, aliases=["relu2"])


class ReluSquared(gptzoo.PlainMLP):
    """Two linear layers with relu(x)^2 between them.

    Source: Primer, arXiv:2109.08668, section 3, "squared ReLU".

    Args:
        hidden: Inner width; 4 * n_embd unless given.
    """

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x).square()
