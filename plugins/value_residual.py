"""Value residual: later layers mix the first layer's values into their own."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `value_residual`."""
    zoo.attention("value_residual", ValueResidual, aliases=["resformer"])


PUBLISHED = "value_residual.v"


class ValueResidual(gptzoo.MultiHeadAttention):
    """Causal attention whose values are a mixture of the layer's own and those of the first such layer.

    Source: Value Residual Learning (ResFormer), arXiv:2410.17897, section 3.2: v = lambda_1 v_first + lambda_2 v_own,
    before the cache. The first layer of a model has no lambda.

    Args:
        first: lambda_1, the weight of the first layer's values; lambda_2 is 1 - first.
        learned: Whether both are learned, for each layer, and begin there.
        n_kv_head: Key/value heads; `n_head` unless given. It must be the same in all layers that share values.
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
    """

    examples = ({}, {"first": 0.25, "learned": False})

    def __init__(
        self,
        dims: gptzoo.Dims,
        first: float = 0.5,
        learned: bool = True,
        n_kv_head: int | None = None,
        qk_norm: gptzoo.NormFactory | None = None,
        scale: gptzoo.Scale = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__(dims, n_kv_head, qk_norm, scale, softcap)
        self.layer, self.first, self.learned = dims.layer, first, learned
        if learned and dims.layer > 0:
            self.lambdas = nn.Parameter(torch.tensor([first, 1 - first]))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        q, k = ctx.position.rotate(self.q_norm(q), self.k_norm(k), ctx.pos)
        visible, where = ctx.remember(k=k, v=self.mixed(v, ctx.published))
        y = self.mix(q, visible["k"], visible["v"], ctx, where)  # (B, H, T, D)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def mixed(self, v: Tensor, published: dict[str, Tensor]) -> Tensor:
        """The new tokens' values with those of the first layer in them; the first layer publishes its own."""
        first = published.setdefault(PUBLISHED, v)
        if first.shape != v.shape:
            raise gptzoo.GPTZooError(
                f"layer {self.layer} has {v.shape[1]} key/value heads, and the first layer with values to share has "
                f"{first.shape[1]}. Give all value_residual layers the same n_kv_head.",
                "model.attention.n_kv_head",
            )
        if self.layer == 0:
            return v
        own, other = (1 - self.first, self.first)
        if self.learned:
            other, own = self.lambdas.to(v.dtype)
        return other * first + own * v
