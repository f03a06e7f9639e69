"""GPT-2's initialisation."""

from __future__ import annotations

import torch
from torch import Tensor

from gptzoo.contracts import Dims


class Gpt2Init:
    """Normal with a standard deviation of 0.02; what writes into the stream is divided by sqrt(2 n_layer).

    Source: Language Models are Unsupervised Multitask Learners (GPT-2), 2019, section 2.3.

    Args:
        std: Standard deviation.
        scale_residual: Whether the projections `o` and `down` are scaled down with depth.
    """

    def __init__(self, std: float = 0.02, scale_residual: bool = True) -> None:
        if std < 0:
            raise ValueError(f"std must not be negative, {std} is")
        self.std = std
        self.scale_residual = scale_residual

    def __call__(self, path: str, tensor: Tensor, dims: Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path` in place."""
        residual = self.scale_residual and path.split(".")[-2] in ("o", "down")
        std = self.std / (2 * dims.n_layer) ** 0.5 if residual else self.std
        tensor.normal_(0.0, std, generator=generator)
