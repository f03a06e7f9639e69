"""Schedule-Free AdamW: an average of the weights takes the place of a falling learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `schedule_free`."""
    zoo.optimizer("schedule_free", ScheduleFree)


class ScheduleFree(torch.optim.Optimizer):
    """AdamW on a point between its own iterate and their average; the average is the model.

    Source: The Road Less Scheduled, arXiv:2405.15682, equations 2 to 4, by the authors' library `schedulefree`, which
    must be installed. The recipe's schedule has to be `constant`, whose warm-up also weighs the average. Gradients are
    taken at y; `eval()` puts the average x into the model, `train()` puts y back, to the bit, where the library would
    compute it anew from x. So evaluations and saves do not touch the training: what is saved as the model is x, and y
    goes with the optimizer's state.

    Args:
        beta1: Where between iterate (0) and average (1) gradients are taken.
        beta2: Decay of the mean of the gradient's square.
        eps: Added to the root of the latter.
        weight_decay: Per unit of learning rate, at y; norms, biases and vectors have none.
        power: Of the step's number, in its weight in the average.
    """

    goes_with = {"train.schedule": "constant"}  # noqa: RUF012
    libraries = ("schedulefree",)

    def __init__(
        self,
        parameters: Iterable[gptzoo.NamedParameter],
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        power: float = 0.0,
    ) -> None:
        if not 0 < beta1 < 1:
            raise ValueError(f"beta1 must lie between 0 and 1, {beta1} does not")
        groups = gptzoo.decay_groups(parameters, weight_decay)
        made = _library()(groups, lr=learning_rate, betas=(beta1, beta2), eps=eps, r=power)
        super().__init__(made.param_groups, {})
        self._share()
        self.train()

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._share()  # loading and copying replace groups and state

    def _share(self) -> None:
        """Let the library's optimizer work on our groups and our state."""
        self._inner = _library()(self.param_groups)
        self._inner.param_groups, self._inner.state = self.param_groups, self.state

    @property
    def training(self) -> bool:
        """Whether the model holds y, the point at which it is trained."""
        return self.param_groups[0]["train_mode"]

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average into the model and keep y."""
        if not self.training:
            return
        for weight in self._moved():
            self.state[weight]["y"] = weight.clone()
        self._inner.eval()  # type: ignore[attr-defined]  # the library's optimizers have one

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the model."""
        for weight in self._moved():
            if "y" in self.state[weight]:
                weight.copy_(self.state[weight].pop("y"))
        for group in self.param_groups:
            group["train_mode"] = True

    def _moved(self) -> list[torch.Tensor]:
        """Parameters that have been updated: the others are their own average."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        return [weight for weight in weights if "z" in self.state.get(weight, {})]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; gradients are used up."""
        return self._inner.step(closure)


def _library() -> Callable[..., torch.optim.Optimizer]:
    try:
        from schedulefree import AdamWScheduleFree  # late: it is an extra
    except ImportError as error:
        raise ValueError(
            "schedulefree is not installed. Install it with: pip install 'gptzoo[schedulefree]'"
        ) from error
    return AdamWScheduleFree
