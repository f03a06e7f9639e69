"""Adafactor: Adam's second moment in a row and a column per matrix, and no first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `adafactor`."""
    zoo.optimizer("adafactor", Adafactor)


class Adafactor(torch.optim.Optimizer):
    """Steps by the root of a mean of squares that a matrix keeps per row and per column, not per entry.

    Source: Adafactor, arXiv:1804.04235, algorithms 4 and 5, without momentum; weight decay is decoupled. Unless
    `relative` is given, which the paper has at 1e-3, a step is as large as AdamW's, so that one learning rate does for
    both.

    Args:
        decay: At step t the mean of squares forgets by 1 - t ** -decay.
        threshold: A step whose root mean square, before the learning rate, is larger is scaled down to it.
        relative: If given, the learning rate is a share of each weight's root mean square, which counts as at least
            this, and is itself at most 1 / sqrt(t); it should be about 1e-2 then.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        decay: float = 0.8,
        threshold: float = 1.0,
        relative: float | None = None,
        weight_decay: float = 0.1,
    ) -> None:
        for name, value in (("decay", decay), ("relative", relative or 0.0), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, {value} is")
        if threshold <= 0:
            raise ValueError(f"threshold must be above 0, not {threshold}")
        options = {"decay": decay, "threshold": threshold, "relative": relative}
        super().__init__(gptzoo.decay_groups(parameters, weight_decay), {"lr": learning_rate, **options})

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

    def _update(self, weight: Tensor, gradient: Tensor, group: dict) -> None:
        state = self.state[weight]
        t = state["step"] = state.get("step", 0) + 1
        squares = _mean_of_squares(state, gradient.square() + 1e-30, 1 - t ** -group["decay"])
        update = gradient * squares.rsqrt()
        update /= (_rms(update) / group["threshold"]).clamp(min=1)
        rate = group["lr"]
        if group["relative"] is not None:
            update *= _rms(weight).clamp(min=group["relative"])
            rate = min(rate, 1 / math.sqrt(t))
        weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)


def _mean_of_squares(state: dict, squares: Tensor, keep: float) -> Tensor:
    """Take the squares into the state; the mean over time, of a matrix from its rows and columns."""
    if squares.ndim < 2:
        return _mean(state, "squares", squares, keep)
    rows = _mean(state, "rows", squares.mean(-1, keepdim=True), keep)
    columns = _mean(state, "columns", squares.mean(-2, keepdim=True), keep)
    return rows / rows.mean(-2, keepdim=True) * columns


def _mean(state: dict, name: str, now: Tensor, keep: float) -> Tensor:
    state[name] = now.clone() if name not in state else state[name].lerp_(now, 1 - keep)
    return state[name]


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()
