"""FIRE: a small MLP reads the distance as a share of the query's position, and gives each head its bias."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `fire`."""
    zoo.position("fire", Fire)


class Fire(gptzoo.Position):
    """Heads add MLP(psi(distance) / psi(max(q_pos, threshold))) to their scores, with psi(x) = log(|c| x + 1).

    Source: FIRE, arXiv:2310.04418, section 3 and appendix (code). The MLP has one hidden layer and ReLU, and starts as
    torch's linear layers do; its last bias is left out, since softmax does not see it. All layers share it, the paper's
    FIRE-S; `shared: false` gives each layer its own.

    Args:
        hidden: Width of the MLP.
        c: Where the learned factor in psi starts.
        threshold: Where the learned position starts, in tokens, up to which distances are not rescaled.
    """

    bias_has_weights: ClassVar[bool] = True
    shift_invariant: ClassVar[bool] = False
    examples = ({"hidden": 16, "threshold": 4.0}, {"c": 1.0})

    def __init__(
        self, dims: gptzoo.Dims, rotate_dim: int, hidden: int = 32, c: float = 0.1, threshold: float = 512.0
    ) -> None:
        super().__init__(dims, rotate_dim)
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {hidden}")
        if c <= 0:
            raise ValueError(f"c must be above 0, {c} is not")
        if threshold <= 0:
            raise ValueError(f"threshold must be above 0, {threshold} is not")
        self.threshold = threshold
        self.c = nn.Parameter(torch.tensor([c]))
        self.threshold_factor = nn.Parameter(torch.ones(1))
        self.inner_weight = nn.Parameter(torch.zeros(hidden))
        self.inner_bias = nn.Parameter(torch.zeros(hidden))
        self.outer_weight = nn.Parameter(torch.zeros(dims.n_head, hidden))

    def init(self, name: str, generator: torch.Generator) -> None:
        """Draw the MLP, uniformly within 1 / sqrt(inputs) of 0."""
        if name.startswith(("inner", "outer")):
            bound = 1.0 if name.startswith("inner") else self.inner_weight.numel() ** -0.5
            getattr(self, name).uniform_(-bound, bound, generator=generator)

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """At least float32, broadcast over the arguments; the MLP as a sum, so that it runs per element."""
        share = self.share(q_pos, k_pos)
        total = torch.zeros_like(share)
        for weight, bias, outer in zip(self.inner_weight, self.inner_bias, self.outer_weight.unbind(1), strict=True):
            total = total + outer[head].to(share.dtype) * torch.relu(
                weight.to(share.dtype) * share + bias.to(share.dtype)
            )
        return total

    def bias_all(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """(B|1, Tq), (B|1, Tk) -> (B|1, H, Tq, Tk): what `bias` gives, with the hidden layer computed once."""
        share = self.share(q_pos[:, :, None], k_pos[:, None])
        inner_weight, inner_bias, outer_weight = (
            each.to(share.dtype) for each in (self.inner_weight, self.inner_bias, self.outer_weight)
        )
        hidden = torch.relu(share[..., None] * inner_weight + inner_bias)  # (B|1, Tq, Tk, hidden)
        return F.linear(hidden, outer_weight).movedim(-1, 1)

    def share(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Distances as shares, 0 to 1, of the query's position; 0 for keys in the future."""
        dtype = torch.promote_types(self.c.dtype, torch.float32)
        c = self.c.to(dtype).abs()[0]
        threshold = self.threshold_factor.to(dtype).abs()[0] * self.threshold
        distance, longest = (q_pos - k_pos).clamp(min=0).to(dtype), torch.maximum(q_pos.to(dtype), threshold)
        return torch.log1p(c * distance) / (torch.log1p(c * longest) + 1e-6)
