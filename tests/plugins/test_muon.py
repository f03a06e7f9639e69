"""Muon: each parameter gets the update of its own algorithm, and the whole is one optimizer."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import gptzoo
from gptzoo_plugins.muon import Muon

ROLES = {
    "wte.weight": ("embedding", (7, 6)),
    "layers.0.mlp.up.weight": ("matrix", (8, 6)),
    "layers.0.mlp.up.bias": ("bias", (8,)),
    "layers.0.attention.o.weight": ("matrix", (6, 6)),
    "layers.0.conv": ("matrix", (2, 3, 4)),
    "layers.0.scale": ("other", (2, 3)),
    "norm_f.weight": ("norm", (6,)),
    "head.weight": ("head", (7, 6)),
}
MATRICES = ["layers.0.mlp.up.weight", "layers.0.attention.o.weight"]


def parameters(seed: int = 0) -> list[gptzoo.NamedParameter]:
    g = torch.Generator().manual_seed(seed)
    return [
        gptzoo.NamedParameter(name, role, nn.Parameter(torch.randn(shape, generator=g)))  # type: ignore[arg-type]
        for name, (role, shape) in ROLES.items()
    ]


def give_gradients(named: list[gptzoo.NamedParameter], step: int, factor: float = 1.0) -> None:
    g = torch.Generator().manual_seed(1000 + step)
    for each in named:
        each.tensor.grad = factor * torch.randn(each.tensor.shape, generator=g)


def train(named: list[gptzoo.NamedParameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        give_gradients(named, step)
        for group in optimizer.param_groups:  # as a schedule would
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / 20)
        optimizer.step()


def equal(ours: list[gptzoo.NamedParameter], theirs: list[gptzoo.NamedParameter]) -> bool:
    return all(torch.equal(a.tensor, b.tensor) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_get_muons_update_and_all_else_adamws(adjust: str, nesterov: bool) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = Muon(ours, 0.02, 0.9, nesterov, 3, adjust, 0.2, 0.003, 0.8, 0.99, 1e-6)  # type: ignore[arg-type]
    by_name = {p.name: p.tensor for p in theirs}
    decayed = [by_name[name] for name in ("wte.weight", "layers.0.conv", "head.weight")]
    plain = [by_name[name] for name in ("layers.0.mlp.up.bias", "layers.0.scale", "norm_f.weight")]
    alone = [
        torch.optim.Muon([by_name[n] for n in MATRICES], 0.02, 0.2, 0.9, nesterov, ns_steps=3, adjust_lr_fn=adjust),
        torch.optim.AdamW(decayed, 0.003, (0.8, 0.99), 1e-6, 0.2, fused=True),
        torch.optim.AdamW(plain, 0.003, (0.8, 0.99), 1e-6, 0.0, fused=True),
    ]
    for step in range(5):
        give_gradients(theirs, step)
        for each in alone:
            for group in each.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * (1 - step / 20)
            each.step()
    train(ours, optimizer, range(5))
    assert equal(ours, theirs)


def test_a_matrix_step_is_close_to_orthogonal_and_as_large_as_adamws() -> None:
    weight = nn.Parameter(torch.zeros(64, 32))
    weight.grad = torch.randn(64, 32)
    Muon([gptzoo.NamedParameter("up.weight", "matrix", weight)], 1.0).step()
    singular = torch.linalg.svdvals(weight.detach()) / (0.2 * 8)
    assert 0.6 < singular.min() < singular.max() < 1.3
    assert 0.15 < weight.square().mean().sqrt() < 0.25


def test_each_parameter_stands_in_exactly_one_group() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p.tensor) for p in named)
    assert {id(p.tensor) for p in named if p.name in MATRICES} == {id(p) for p in optimizer.param_groups[0]["params"]}


def test_every_group_has_a_rate_for_the_schedule() -> None:
    assert [group["lr"] for group in Muon(parameters(), 0.02).param_groups] == [0.02, 0.02, 0.02]
    assert [group["lr"] for group in Muon(parameters(), 0.02, adamw_learning_rate=0.001).param_groups] == [
        0.02,
        0.001,
        0.001,
    ]


@pytest.mark.parametrize("names", [MATRICES, ["norm_f.weight"]], ids=["matrices", "no-matrix"])
def test_a_model_of_one_kind_is_trained_as_well(names: list[str]) -> None:
    named = [p for p in parameters() if p.name in names]
    before = [p.tensor.detach().clone() for p in named]
    train(named, Muon(named, 0.02), range(1))
    assert not any(torch.equal(p.tensor, old) for p, old in zip(named, before, strict=True))


@pytest.mark.parametrize("through_json", [False, True])
def test_a_saved_state_goes_on_bit_for_bit(through_json: bool) -> None:
    walked, resumed = parameters(), parameters()
    optimizer = Muon(walked, 0.02)
    train(walked, optimizer, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    if through_json:
        saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
    for new, old in zip(resumed, walked, strict=True):
        new.tensor.data.copy_(old.tensor.data)
    loaded = Muon(resumed, 0.5)
    loaded.load_state_dict(saved)
    train(walked, optimizer, range(3, 6))
    train(resumed, loaded, range(3, 6))
    assert equal(walked, resumed)
    assert not equal(walked, parameters())


def test_after_loading_the_groups_still_steer_the_steps() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02)
    train(named, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    before = [p.tensor.detach().clone() for p in named]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    give_gradients(named, 1)
    optimizer.step()
    assert all(torch.equal(p.tensor, old) for p, old in zip(named, before, strict=True))


def test_its_state_holds_every_parameters() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02)
    train(named, optimizer, range(1))
    kinds = {p.name: set(optimizer.state[p.tensor]) for p in named}
    assert {name for name, kind in kinds.items() if kind == {"momentum_buffer"}} == set(MATRICES)
    assert all(kind == {"step", "exp_avg", "exp_avg_sq"} for name, kind in kinds.items() if name not in MATRICES)
    assert len(optimizer.state_dict()["state"]) == len(named)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02)
    before = [p.tensor.detach().clone() for p in named]
    optimizer.step()
    assert all(torch.equal(p.tensor, old) for p, old in zip(named, before, strict=True))


def test_zero_gradients_leave_finite_weights() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02, weight_decay=0.0)
    before = [p.tensor.detach().clone() for p in named]
    give_gradients(named, 0, factor=0.0)
    optimizer.step()
    assert all(torch.equal(p.tensor, old) for p, old in zip(named, before, strict=True))


def test_a_gradient_scaler_unscales_and_skips() -> None:
    ours, theirs = parameters(), parameters()
    scaled, plain = Muon(ours, 0.02), Muon(theirs, 0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # type: ignore[attr-defined]
    scaler.scale(torch.zeros(()))
    for step in range(3):
        give_gradients(ours, step, factor=1024.0)
        give_gradients(theirs, step)
        scaler.step(scaled)
        scaler.update(1024.0)
        plain.step()
    assert equal(ours, theirs)
    give_gradients(ours, 3, factor=float("inf"))
    scaler.step(scaled)
    assert equal(ours, theirs)


def test_a_deep_copy_trains_alone() -> None:
    named = parameters()
    optimizer = Muon(named, 0.02)
    train(named, optimizer, range(1))
    copied_named, copied = copy.deepcopy((named, optimizer))
    train(copied_named, copied, range(1, 3))
    assert not equal(named, copied_named)
    train(named, optimizer, range(1, 3))
    assert equal(named, copied_named)


def test_a_closure_is_called_with_gradients_enabled() -> None:
    named = parameters()
    asked: list[bool] = []

    def closure() -> float:
        asked.append(torch.is_grad_enabled())
        return 1.5

    assert Muon(named, 0.02).step(closure) == 1.5
    assert asked == [True]
