"""GEGLU: a gated MLP with GELU, Gemma's."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `geglu`."""
    zoo.mlp("geglu", GEGLU)


class GEGLU(gptzoo.GatedMLP):
    """down(gelu(gate(x)) * up(x)): three matrices, as many parameters as a plain MLP of 4 * n_embd.

    Source: GLU Variants Improve Transformer, arXiv:2002.05202, equations 5 and 6.

    Args:
        hidden: Inner width; the multiple of 8 nearest to 8/3 * n_embd unless given.
        approximate: `tanh`, as in GPT-2's GELU and Gemma's, or `none` for the exact one with erf.
    """

    def __init__(
        self, dims: gptzoo.Dims, hidden: int | None = None, approximate: Literal["tanh", "none"] = "tanh"
    ) -> None:
        super().__init__(dims, hidden)
        if approximate not in ("tanh", "none"):
            raise ValueError(f"approximate must be tanh or none, not {approximate!r}")
        self.approximate = approximate

    def activate(self, gate: Tensor) -> Tensor:
        return F.gelu(gate, approximate=self.approximate)
