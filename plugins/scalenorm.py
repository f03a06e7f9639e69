"""Norms to a fixed length: ScaleNorm learns that length, the L2 norm leaves it at 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `scalenorm` and `l2norm`."""
    zoo.norm("scalenorm", ScaleNorm)
    zoo.norm("l2norm", L2Norm)


class ScaleNorm(nn.Module):
    """Scale to one learned length, g x / |x|; g starts at the root of the size.

    Source: Transformers without Tears, arXiv:1910.05895, equation 4. Eps is added to the mean square, inside the root,
    where the released code clamps the length from below. Statistics are computed in float32 at least; the output has
    x's dtype.

    Args:
        eps: Added to the mean square, inside the root.
    """

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"eps must not be negative, {eps} is")
        self.size, self.eps = size, eps
        self.g = nn.Parameter(torch.full((1,), size**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        return (_of_mean_square_1(x, self.eps) * (self.g * self.size**-0.5)).to(x.dtype)


class L2Norm(nn.Module):
    """Scale to length 1, x / |x|, without a weight: as `qk_norm`, scores are cosines times the attention's `scale`.

    Source: Query-Key Normalization for Transformers, arXiv:2010.04245, section 3; its learned factor of the scores is
    left to the attention, whose default scale of 1 / sqrt(head_dim) is far too small for cosines. Statistics are
    computed in float32 at least; the output has x's dtype.

    Args:
        eps: Added to the mean square, inside the root.
    """

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        if eps < 0:
            raise ValueError(f"eps must not be negative, {eps} is")
        self.size, self.eps = size, eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        return _of_mean_square_1(x, self.eps) * self.size**-0.5


def _of_mean_square_1(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean square + eps); the kernel itself takes its statistics in float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, x.shape[-1:], None, eps)
