"""AdamW with GPT-2's decay groups."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gptzoo.contracts import NamedParameter

DECAYED = ("matrix", "embedding", "head")


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay, on matrices and embeddings only.

    Source: Decoupled Weight Decay Regularization, arXiv:1711.05101, algorithm 2; betas and decay of GPT-3,
    arXiv:2005.14165, appendix B.

    Args:
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of its square.
        eps: Added to the root of the latter.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    def __init__(
        self,
        parameters: Iterable[NamedParameter],
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        groups = decay_groups(parameters, weight_decay)
        super().__init__(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, fused=True)


def decay_groups(parameters: Iterable[NamedParameter], weight_decay: float) -> list[dict]:
    """Two groups: matrices, embeddings and heads with weight decay, all else without."""
    decayed, others = [], []
    for parameter in parameters:
        (decayed if parameter.role in DECAYED else others).append(parameter.tensor)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
