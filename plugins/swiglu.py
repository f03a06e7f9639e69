"""SwiGLU: a gated MLP with SiLU, Llama's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `swiglu`."""
    zoo.mlp("swiglu", SwiGLU)


class SwiGLU(gptzoo.GatedMLP):
    """down(silu(gate(x)) * up(x)): three matrices, as many parameters as a plain MLP of 4 * n_embd.

    Source: GLU Variants Improve Transformer, arXiv:2002.05202, equations 5 and 6.

    Args:
        hidden: Inner width; the multiple of 8 nearest to 8/3 * n_embd unless given.
    """

    def activate(self, gate: Tensor) -> Tensor:
        return F.silu(gate)
