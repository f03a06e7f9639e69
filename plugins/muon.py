"""Muon: matrices take orthogonalised steps, everything else AdamW's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `muon`."""
    zoo.optimizer("muon", Muon)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iterations, for matrices; AdamW for all else.

    Source: Muon, https://kellerjordan.github.io/posts/muon, 2024; scaled for large models in arXiv:2502.16982, equation
    4. The iterations run in bfloat16. `torch.optim.Muon` and the fused `torch.optim.AdamW` do the work on this
    optimizer's own groups and state, so that a schedule, a gradient scaler and a checkpoint see one optimizer.

    Args:
        momentum: Decay of the mean of the gradient of matrices.
        nesterov: Whether a step looks ahead along that mean.
        ns_steps: Newton-Schulz iterations.
        adjust: Scale of a matrix' step: `match_rms_adamw` makes it as large as AdamW's, so that one learning rate does
            for all; `original` scales by sqrt(max(1, rows / columns)) and wants a learning rate about 0.02.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
        adamw_learning_rate: Peak rate of what is no matrix; `train.learning_rate` unless given.
        beta1: AdamW's decay of the mean of the gradient.
        beta2: AdamW's decay of the mean of its square.
        eps: AdamW's, added to the root of the latter.
    """

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        weight_decay: float = 0.1,
        adamw_learning_rate: float | None = None,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        parameters = list(parameters)
        matrices = [p.tensor for p in parameters if _is_matrix(p)]
        others = gptzoo.decay_groups([p for p in parameters if not _is_matrix(p)], weight_decay)
        groups: list[dict] = []
        if matrices:
            groups += torch.optim.Muon(
                matrices, learning_rate, weight_decay, momentum, nesterov, ns_steps=ns_steps, adjust_lr_fn=adjust
            ).param_groups
        if others:
            rate = learning_rate if adamw_learning_rate is None else adamw_learning_rate
            groups += torch.optim.AdamW(others, rate, (beta1, beta2), eps, fused=True).param_groups
        super().__init__(groups, {})
        self._share()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._share()  # loading and copying replace groups and state

    def _share(self) -> None:
        """Let one torch optimizer of each kind work on our groups and our state."""
        self._inner: list[torch.optim.Optimizer] = []
        for kind, groups in (
            (torch.optim.Muon, [g for g in self.param_groups if "ns_steps" in g]),
            (torch.optim.AdamW, [g for g in self.param_groups if "betas" in g]),
        ):
            if groups:
                inner = kind(groups, fused=True) if kind is torch.optim.AdamW else kind(groups)
                inner.param_groups, inner.state = groups, self.state
                self._inner.append(inner)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner in self._inner:
            inner.step()
        return loss


def _is_matrix(parameter: gptzoo.NamedParameter) -> bool:
    return parameter.role == "matrix" and parameter.tensor.ndim == 2
