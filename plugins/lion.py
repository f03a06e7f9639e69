"""Lion: steps of one size, along the sign of a momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `lion`."""
    zoo.optimizer("lion", Lion)


class Lion(torch.optim.Optimizer):
    """The sign of a mean of gradients, with decoupled weight decay; half the state of AdamW.

    Source: Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675, program 1 and algorithm 2. Every entry
    moves by the whole learning rate, so that it should be 3 to 10 times smaller than AdamW's, and the weight decay as
    many times larger (section 5).

    Args:
        beta1: Share of the old mean in the direction of the step.
        beta2: Decay of that mean.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.3,
    ) -> None:
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must lie in [0, 1), {beta} does not")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, {weight_decay} is")
        super().__init__(gptzoo.decay_groups(parameters, weight_decay), {"lr": learning_rate, "betas": (beta1, beta2)})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict) -> None:
        state, (beta1, beta2) = self.state[weight], group["betas"]
        if "mean" not in state:
            state["mean"] = torch.zeros_like(weight)
        direction = state["mean"].lerp(gradient, 1 - beta1).sign_()
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        state["mean"].lerp_(gradient, 1 - beta2)
