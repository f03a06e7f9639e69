"""ReLU: the Transformer's first MLP."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `relu`."""
    zoo.mlp("relu", Relu)


class Relu(gptzoo.PlainMLP):
    """Two linear layers with a ReLU between them.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.3, equation 2.

    Args:
        hidden: Inner width; 4 * n_embd unless given.
    """

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x)
