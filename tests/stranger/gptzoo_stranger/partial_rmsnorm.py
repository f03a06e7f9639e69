"""Partial RMSNorm: the root mean square is estimated from the first few features."""

import torch
from torch import nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.norm("partial_rmsnorm", PartialRMSNorm)


class PartialRMSNorm(nn.Module):
    """Divide by the root of the mean square of a share of the features, and scale.

    Source: Root Mean Square Layer Normalization, arXiv:1910.07467, section 3.2 (pRMSNorm).

    Args:
        share: Of the features, from the first on.
        eps: Added to the mean square, inside the root.
    """

    eps_inside_root = False  # it is, but of another mean square than that of all features

    def __init__(self, size: int, share: float = 0.25, eps: float = 1e-5):
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {share}")
        self.count, self.eps = max(1, round(share * size)), eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        square = wide[..., : self.count].square().mean(-1, keepdim=True)
        return (wide * torch.rsqrt(square + self.eps)).to(x.dtype) * self.weight.to(x.dtype)
