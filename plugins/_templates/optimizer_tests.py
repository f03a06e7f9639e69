"""Tests of the optimizer `my_optimizer`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.model import named_parameters
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_optimizer.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}


def optimizer(parameters: list[gptzoo.NamedParameter], learning_rate: float, **options: float) -> Any:
    return load_plugins([PLUGIN]).zoo.get("optimizer", "my_optimizer").factory(parameters, learning_rate, **options)


def point(*values: float) -> list[gptzoo.NamedParameter]:
    return [gptzoo.NamedParameter("x", "other", nn.Parameter(torch.tensor(values)))]


def steps(made: Any, weight: nn.Parameter, count: int) -> None:
    for _ in range(count):
        made.zero_grad()
        (weight * torch.tensor([1.0, 3.0]) * weight).sum().backward()
        made.step()


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("optimizer", "my_optimizer").owner.plugin == "my_optimizer"


def test_it_goes_down_a_quadratic() -> None:
    (x,) = parameters = point(3.0, -2.0)
    steps(optimizer(parameters, 0.05), x.tensor, 200)
    assert x.tensor.abs().max() < 1e-2


def test_it_is_torchs_sgd_with_momentum() -> None:
    (x,) = parameters = point(3.0, -2.0)
    reference = nn.Parameter(x.tensor.detach().clone())
    steps(optimizer(parameters, 0.05), x.tensor, 20)
    steps(torch.optim.SGD([reference], lr=0.05, momentum=0.9), reference, 20)
    torch.testing.assert_close(x.tensor, reference)


def test_a_saved_state_goes_on_as_if_never_stopped() -> None:
    (x,) = parameters = point(3.0, -2.0)
    made = optimizer(parameters, 0.05)
    steps(made, x.tensor, 5)
    (y,) = others = [gptzoo.NamedParameter("x", "other", nn.Parameter(x.tensor.detach().clone()))]
    resumed = optimizer(others, 0.05)
    resumed.load_state_dict(copy.deepcopy(made.state_dict()))
    steps(made, x.tensor, 5)
    steps(resumed, y.tensor, 5)
    assert torch.equal(x.tensor, y.tensor)


def test_it_composes_and_trains_a_model() -> None:
    recipe = {"model": TINY, "train": {"optimizer": "my_optimizer"}}
    model = gptzoo.build(recipe, plugins=[PLUGIN])
    made = optimizer(named_parameters(model), 0.1)
    tokens = torch.arange(17)[None]
    losses = []
    for _ in range(20):
        loss = model.loss(tokens[:, :8], tokens[:, 1:9])
        losses.append(loss.total.item())
        made.zero_grad()
        (loss.total / loss.tokens).backward()
        made.step()
    assert losses[-1] < 0.8 * losses[0]
    updated = {id(weight) for group in made.param_groups for weight in group["params"]}
    assert updated == {id(weight) for weight in model.parameters()}


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
