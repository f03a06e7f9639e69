"""LayerNorm: GPT-2's norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Subtract the mean, divide by the standard deviation, scale and shift.

    Source: Layer Normalization, arXiv:1607.06450, equation 4. Statistics are computed in float32 at least.

    Args:
        eps: Added to the variance, inside the root.
        bias: Whether there is a shift.
    """

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        # The kernel itself takes its statistics in float32; weights are cast so that a bfloat16 stream stays one.
        bias = None if self.bias is None else self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return F.layer_norm(x, (self.size,), self.weight.to(x.dtype), bias, self.eps)
