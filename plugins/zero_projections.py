"""Zero projections: every block starts as the identity."""

from __future__ import annotations

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `zero_projections`."""
    zoo.init("zero_projections", ZeroProjections)


class ZeroProjections(gptzoo.Gpt2Init):
    """What writes into the stream, `o` and `down`, starts at zero; all else is GPT-2's.

    Source: Fixup Initialization, arXiv:1901.09321, section 3, rule 1, here beside norms. In the first step only these
    projections, embeddings and head learn; from the second on, everything does.

    Args:
        std: Standard deviation of the rest.
    """

    starts_by_guessing = False  # a tied head favours the token itself, and no block says anything yet

    def __init__(self, std: float = 0.02) -> None:
        super().__init__(std, scale_residual=False)

    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path` in place."""
        if path.split(".")[-2] in ("o", "down"):
            tensor.zero_()
        else:
            super().__call__(path, tensor, dims, generator)
