"""my_norm: what it does, in one sentence. This one is an example: RMSNorm with the mean of the sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_norm`."""
    zoo.norm("my_norm", MyNorm)


class MyNorm(nn.Module):
    """Divide by the mean absolute value, and scale.

    Source: as RMSNorm, arXiv:1910.07467, equation 4, with the 1-norm in place of the 2-norm.

    Args:
        eps: Added to the mean.
    """

    eps_inside_root = False  # there is no root

    def __init__(self, size: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype; half precision is raised for the statistics."""
        wide = x if x.dtype == torch.float64 else x.float()
        normed = wide / (wide.abs().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.weight.to(x.dtype)
