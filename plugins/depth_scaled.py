"""Depth-scaled initialisation: the deeper a layer, the smaller its first weights."""

from __future__ import annotations

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `depth_scaled`."""
    zoo.init("depth_scaled", DepthScaled)


class DepthScaled:
    """Xavier's uniform, in layer l = 1, 2, ... divided by sqrt(l).

    Source: Improving Deep Transformer with Depth-Scaled Initialization, arXiv:1908.11365, DS-Init: U(-b, b) with
    b = alpha sqrt(6 / (fan_in + fan_out)) / sqrt(l). What is outside of the layers is normal.

    Args:
        alpha: Factor of the bound.
        std: Standard deviation outside of the layers.
    """

    def __init__(self, alpha: float = 1.0, std: float = 0.02) -> None:
        if alpha < 0 or std < 0:
            raise ValueError(f"alpha and std must not be negative, {min(alpha, std)} is")
        self.alpha, self.std = alpha, std

    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path` in place."""
        place = path.split(".")
        if place[0] != "layers":
            tensor.normal_(0.0, self.std, generator=generator)
            return
        bound = self.alpha * (6 / sum(tensor.shape) / (int(place[1]) + 1)) ** 0.5
        tensor.uniform_(-bound, bound, generator=generator)
