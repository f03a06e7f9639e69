"""my_init: what it does, in one sentence. This one is an example: variances that follow the number of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_init`."""
    zoo.init("my_init", MyInit)


class MyInit:
    """Uniform, with a standard deviation of gain / sqrt(inputs); less by depth for what writes into the stream.

    Source: Delving Deep into Rectifiers, arXiv:1502.01852, equation 10, for the inputs; GPT-2 for the depth.

    Args:
        gain: Factor of the standard deviation.
    """

    starts_by_guessing = False  # embeddings of this size, read by a tied head, are not near zero

    def __init__(self, gain: float = 0.5) -> None:
        self.gain = gain

    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path`, of shape (outputs, inputs), in place; draw from the generator alone."""
        writes_into_the_stream = path.split(".")[-2] in ("o", "down")
        gain = self.gain / (2 * dims.n_layer) ** 0.5 if writes_into_the_stream else self.gain
        bound = gain * (3 / tensor.shape[-1]) ** 0.5
        tensor.uniform_(-bound, bound, generator=generator)
