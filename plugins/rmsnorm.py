"""RMSNorm: LayerNorm without the mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `rmsnorm`."""
    zoo.norm("rmsnorm", RMSNorm)


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, and scale.

    Source: Root Mean Square Layer Normalization, arXiv:1910.07467, equation 4. Statistics are computed in float32 at
    least; the output has x's dtype.

    Args:
        eps: Added to the mean square, inside the root; 1e-5 as in Llama 2 and 3 (Llama 1 has 1e-6).
        weight: Whether there is a learned scale, 1 at first.
    """

    def __init__(self, size: int, eps: float = 1e-5, weight: bool = True) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"eps must not be negative, {eps} is")
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(size)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        # The kernel itself takes its statistics in float32; the weight is cast so that a bfloat16 stream stays one.
        weight = None if self.weight is None else self.weight.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, (self.size,), weight, self.eps)
