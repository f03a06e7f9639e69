"""my_optimizer: what it does, in one sentence. This one is an example: gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_optimizer`."""
    zoo.optimizer("my_optimizer", MyOptimizer)


class MyOptimizer(torch.optim.Optimizer):
    """Gradient descent with momentum and decoupled weight decay.

    Source: On the importance of initialization and momentum in deep learning, ICML 2013, equations 1 and 2.

    Args:
        momentum: Decay of the velocity.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(gptzoo.decay_groups(parameters, weight_decay), {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update; the schedule has set each group's `lr`."""
        for group in self.param_groups:
            for weight in (w for w in group["params"] if w.grad is not None):
                velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
                velocity.mul_(group["momentum"]).add_(weight.grad)
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(velocity, alpha=-group["lr"])
