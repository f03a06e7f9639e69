"""GELU: GPT-2's MLP."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from gptzoo.contracts import Dims
from gptzoo.parts.plain import PlainMLP


class Gelu(PlainMLP):
    """Two linear layers with a GELU between them.

    Source: Gaussian Error Linear Units, arXiv:1606.08415. GPT-2 uses the tanh approximation.

    Args:
        hidden: Inner width; 4 * n_embd unless given.
        approximate: `tanh`, as in GPT-2, or `none` for the exact one with erf.
    """

    def __init__(self, dims: Dims, hidden: int | None = None, approximate: Literal["tanh", "none"] = "tanh") -> None:
        super().__init__(dims, hidden)
        self.approximate = approximate

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)
