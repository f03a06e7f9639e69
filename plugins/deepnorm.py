"""DeepNorm: a post-norm block with a strengthened stream, and the smaller weights that it starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the block `deepnorm` and the init `deepnorm`."""
    zoo.block("deepnorm", DeepNorm)
    zoo.init("deepnorm", DeepNormInit)


class DeepNorm(nn.Module):
    """Post-norm with the stream multiplied by alpha before each sum: norm(alpha x + f(x)).

    Source: DeepNet, arXiv:2203.00555, section 4 and table 2 (decoder only): alpha = (2 n_layer)^(1/4). Its smaller
    weights are a part of their own, `init: deepnorm`. The model's last norm, which the paper has not, stays.

    Args:
        alpha: Factor of the stream; (2 n_layer)^(1/4) unless given.
    """

    identity_when_silent: ClassVar[bool] = False  # the stream itself is normed
    examples = ({}, {"alpha": 3.0})

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        if alpha is not None and alpha <= 0:
            raise ValueError(f"alpha must be above 0, {alpha} is not")
        self.alpha = (2 * dims.n_layer) ** 0.25 if alpha is None else alpha
        self.attention = attention
        self.norm_1 = norm(dims.n_embd)
        self.mlp = mlp
        self.norm_2 = norm(dims.n_embd)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.norm_1(self.alpha * x + self.attention(x, ctx))
        return self.norm_2(self.alpha * x + self.mlp(x, ctx))


class DeepNormInit:
    """Xavier's normal, with values, outputs and the MLP multiplied by beta, for the `deepnorm` block.

    Source: DeepNet, arXiv:2203.00555, section 4 and table 2 (decoder only): beta = (8 n_layer)^(-1/4) for v, o and the
    MLP's matrices, 1 for q and k. Embeddings are drawn as GPT-2's.

    Args:
        beta: Factor of those weights; (8 n_layer)^(-1/4) unless given.
        std: Standard deviation of all that is not a matrix of a layer.
    """

    def __init__(self, beta: float | None = None, std: float = 0.02) -> None:
        if beta is not None and beta < 0:
            raise ValueError(f"beta must not be negative, {beta} is")
        if std < 0:
            raise ValueError(f"std must not be negative, {std} is")
        self.beta, self.std = beta, std

    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path` in place."""
        tensor.normal_(0.0, self._std_of(path, tensor, dims), generator=generator)

    def _std_of(self, path: str, tensor: Tensor, dims: gptzoo.Dims) -> float:
        if not path.startswith("layers."):
            return self.std
        module = path.split(".")[-2]
        beta = (8 * dims.n_layer) ** -0.25 if self.beta is None else self.beta
        gain = beta if module in ("v", "o", "up", "gate", "down") else 1.0
        return gain * (2 / sum(tensor.shape[-2:])) ** 0.5
