"""muP: an init, a head and an optimizer that make one learning rate do for models of every width.

The rules stand in Tensor Programs V, arXiv:2203.03466, table 8, the form that allows tied embeddings. With r =
base_width / n_embd, and everything that grows with n_embd growing in proportion (`hidden` left to its default):

    weight                      first variance      learning rate      factor of the output
    embeddings                  1                   1                  1
    matrices in the layers      r                   r                  1
    head, tied or not           1                   1                  r
    scores of the attention                                            1 / head_dim

At n_embd = base_width nothing but the attention's scale differs from GPT-2 with AdamW: tune there, then widen. Each
part says that it `goes_with` the others: a recipe with some of muP is refused, and so are different base widths.
Whether it holds for other parts of a recipe, `python -m tests.coordinates` shows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

import gptzoo

SCALE = {"model.attention.scale": "1/head_dim"}
INIT, HEAD, OPTIMIZER = {"model.init": "mup"}, {"model.head": "mup"}, {"train.optimizer": "adamw_mup"}


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register init `mup`, head `mup` and optimizer `adamw_mup`."""
    zoo.init("mup", MupInit)
    zoo.head("mup", MupHead)
    zoo.optimizer("adamw_mup", AdamWMup)


class MupInit(gptzoo.Gpt2Init):
    """GPT-2's, with the variance of matrices in the layers times base_width / n_embd: 1 / fan_in, as muP has it.

    Source: Tensor Programs V, arXiv:2203.03466, table 8. Goes with the head and the optimizer of muP.

    Args:
        base_width: The n_embd at which the learning rate was tuned; there this init is GPT-2's.
        std: Standard deviation at that width.
        scale_residual: Whether the projections `o` and `down` are scaled down with depth.
    """

    examples = ({"base_width": 32},)
    goes_with = SCALE | HEAD | OPTIMIZER

    def __init__(self, base_width: int = 256, std: float = 0.02, scale_residual: bool = True) -> None:
        super().__init__(std, scale_residual)
        self.base_width = _checked(base_width)

    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        """Fill the weight called `path` in place."""
        super().__call__(path, tensor, dims, generator)
        if path.startswith("layers."):
            tensor *= (self.base_width / dims.n_embd) ** 0.5


class MupHead(gptzoo.Head):
    """Logits times base_width / n_embd.

    Source: Tensor Programs V, arXiv:2203.03466, table 8, output weights. Goes with the init and the optimizer of muP.

    Args:
        base_width: The n_embd at which the learning rate was tuned; there this head is GPT-2's.
        tied: Whether the matrix is the token embedding.
        chunk: Tokens whose scores the loss has in memory at a time; all unless given.
    """

    examples = ({"base_width": 32}, {"base_width": 32, "tied": False})
    goes_with = SCALE | INIT | OPTIMIZER

    def __init__(
        self, dims: gptzoo.Dims, wte: nn.Embedding, base_width: int = 256, tied: bool = True, chunk: int | None = None
    ) -> None:
        super().__init__(dims, wte, tied, chunk)
        self.factor = _checked(base_width) / dims.n_embd

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., vocab_size)."""
        return super().forward(self.factor * x)


class AdamWMup(torch.optim.AdamW):
    """AdamW whose learning rate for matrices in the layers is times base_width / n_embd.

    Source: Tensor Programs V, arXiv:2203.03466, table 8, Adam. Their weight decay is divided by the same, so that a
    step takes the same share of a weight at every width, as in the authors' package `mup`. Goes with the init and the
    head of muP. All matrices in the layers count as growing in both directions: a mixture's router, say, does not.

    Args:
        base_width: The n_embd at which the learning rate was tuned; there this is AdamW.
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of its square.
        eps: Added to the root of the latter.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    examples = ({"base_width": 32},)
    goes_with = SCALE | INIT | HEAD

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        base_width: int = 256,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        named = list(parameters)
        hidden = [p.tensor for p in named if p.role == "matrix"]
        groups = gptzoo.decay_groups([p for p in named if p.role != "matrix"], weight_decay)
        ratio = _checked(base_width) / next(p.tensor.shape[1] for p in named if p.name == "wte.weight")
        scaled = {"lr": learning_rate * ratio, "weight_decay": weight_decay / ratio}
        groups += [{"params": hidden, **scaled}] if hidden else []
        super().__init__(groups, learning_rate, (beta1, beta2), eps, fused=True)


def _checked(base_width: int) -> int:
    if base_width < 1:
        raise ValueError(f"base_width must be at least 1, not {base_width}")
    return base_width
