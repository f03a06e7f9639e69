"""KERPLE: every head learns how fast its price on distance grows, by a logarithm or by a power."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `kerple`."""
    zoo.position("kerple", Kerple)


class Kerple(gptzoo.Position):
    """Head h adds -a log(1 + b distance), or -a distance^b with b below 2; it learns a and b.

    Source: KERPLE, arXiv:2205.09921, section 4 (the logarithmic and the power variant, r_1 = a and r_2 = b there), and
    its released code for where they start: uniform, up to 2 for a factor or an exponent in front, up to 1 for the
    other, at least 0.01. There both are clamped after each step; here a and b are exponentials of what is learned
    (b = 2 sigmoid in the power variant), so that no gradient is lost at the clamp.

    Args:
        kind: `log` or `power`.
    """

    bias_has_weights: ClassVar[bool] = True
    examples = ({}, {"kind": "power"})

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int, kind: Literal["log", "power"] = "log") -> None:
        super().__init__(dims, rotate_dim)
        if kind not in ("log", "power"):
            raise ValueError(f"kind must be log or power, not {kind!r}")
        self.kind = kind
        self.raw_a = nn.Parameter(torch.zeros(dims.n_head))
        self.raw_b = nn.Parameter(torch.zeros(dims.n_head))

    def init(self, name: str, generator: torch.Generator) -> None:
        """Draw where the heads start."""
        raw = getattr(self, name)
        drawn = torch.rand(raw.shape, generator=generator).clamp(min=0.01)
        if self.kind == "power":
            raw.copy_(drawn.log() if name == "raw_a" else torch.logit(drawn.clamp(max=0.99)))
        else:
            raw.copy_(drawn.log() + (math.log(2) if name == "raw_a" else 0.0))

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """At least float32, broadcast over the arguments; 0 for keys in the future, which the mask hides."""
        dtype = torch.promote_types(self.raw_a.dtype, torch.float32)
        a, b = self.raw_a[head].to(dtype).exp(), self.raw_b[head].to(dtype)
        distance = (q_pos - k_pos).clamp(min=0).to(dtype)
        if self.kind == "log":
            return -a * torch.log1p(b.exp() * distance)
        power = torch.exp(2 * b.sigmoid() * torch.log(distance.clamp(min=1)))  # not 0^b, whose gradient is 0 * inf
        return -a * torch.where(distance > 0, power, 0.0)
