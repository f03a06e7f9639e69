"""Adafactor: Adam's second moment in a row and a column, and steps relative to the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `adafactor`."""
    zoo.optimizer("adafactor", Adafactor)


class Adafactor(torch.optim.Adafactor):
    """A step is a share of the weight's own size; a matrix keeps sums of squares per row and column, not per entry.

    Source: Adafactor, arXiv:1804.04235, algorithms 4 and 5, without momentum; torch's implementation. `learning_rate`
    is the most that a matrix changes in a step, as a share of its root mean square, and never above 1 / sqrt(step):
    about 1e-2, not AdamW's 1e-3.

    Args:
        decay: The mean of squares forgets at step t by 1 - t ** -decay.
        floor: The least root mean square that a weight counts as having, so that one of zeros can move.
        threshold: A step whose root mean square, relative, is larger is scaled down to it.
        weight_decay: Per unit of learning rate; norms, biases and vectors have none.
    """

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        decay: float = 0.8,
        floor: float = 1e-3,
        threshold: float = 1.0,
        weight_decay: float = 0.1,
    ) -> None:
        if decay < 0:
            raise ValueError(f"decay must not be negative, {decay} is")
        if threshold < 1:
            raise ValueError(f"threshold must be at least 1, not {threshold}")
        groups = gptzoo.decay_groups(parameters, weight_decay)
        super().__init__(groups, lr=learning_rate, beta2_decay=-decay, eps=(None, floor), d=threshold)
