"""Dynamic tanh: a saturating curve in place of a norm, which needs no statistics."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `dyt`."""
    zoo.norm("dyt", DyT)


class DyT(nn.Module):
    """weight * tanh(alpha x) + bias: one learned alpha for the layer, weight and bias per channel.

    Source: Transformers without Normalization, arXiv:2503.10622, equation 1; its appendix starts alpha lower in wide
    language models, and higher in front of attention than elsewhere. The curve is computed in float32 at least; the
    output has x's dtype. The paper's language models also multiply embeddings by a learned scalar that starts at
    sqrt(n_embd), without which they do not converge; GPT-2's skeleton has none. There, in the first version of the
    shipped plan `ablations/shakespeare`, every model with dyt ended at 3.31 nats, what the frequencies of bytes alone
    give, and with layernorm at 1.9 to 2.7: within 50 steps the stream grows, alike for all tokens, into the flat part
    of the curve (alpha x is 40 in front of the head), and gradients vanish. Neither alpha 20 nor a tenth of the rate
    helps.

    Args:
        alpha: Where alpha starts.
    """

    scale_invariant: ClassVar[bool] = False

    def __init__(self, size: int, alpha: float = 0.5) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, {alpha} is not")
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        alpha, weight, bias = (each.to(dtype) for each in (self.alpha, self.weight, self.bias))
        return (weight * torch.tanh(alpha * x.to(dtype)) + bias).to(x.dtype)
