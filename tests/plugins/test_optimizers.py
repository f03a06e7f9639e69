"""Optimizers against float64 loops of their papers, and what all of them promise about groups, decay and state."""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo.parts.optimizers import AdamW
from gptzoo.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from gptzoo_plugins.adafactor import Adafactor
from gptzoo_plugins.lion import Lion
from gptzoo_plugins.muon import Muon
from gptzoo_plugins.schedule_free import ScheduleFree

ROLES: Mapping[str, tuple[gptzoo.Role, tuple[int, ...]]] = {
    "wte.weight": ("embedding", (7, 6)),
    "layers.0.mlp.up.weight": ("matrix", (8, 6)),
    "layers.0.mlp.up.bias": ("bias", (8,)),
    "layers.0.attention.o.weight": ("matrix", (6, 6)),
    "layers.0.scale": ("other", (2, 3)),
    "norm_f.weight": ("norm", (6,)),
    "head.lm_head.weight": ("head", (7, 6)),
}
DECAYED = ("embedding", "matrix", "head")
RATE, STEPS = 0.02, 20

Make = Callable[[list[gptzoo.NamedParameter]], torch.optim.Optimizer]
OPTIMIZERS: Mapping[str, Make] = {
    "adamw": lambda named: AdamW(named, RATE),
    "muon": lambda named: Muon(named, RATE),
    "lion": lambda named: Lion(named, RATE),
    "adafactor": lambda named: Adafactor(named, RATE),
    "adafactor_relative": lambda named: Adafactor(named, RATE, relative=1e-3),
    "schedule_free": lambda named: ScheduleFree(named, RATE),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def parameters(dtype: torch.dtype = torch.float32) -> list[gptzoo.NamedParameter]:
    g = torch.Generator().manual_seed(0)
    return [
        gptzoo.NamedParameter(name, role, nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)))
        for name, (role, shape) in ROLES.items()
    ]


def gradient(name: str, step: int) -> Tensor:
    g = torch.Generator().manual_seed(1000 * step + list(ROLES).index(name))
    return torch.randn(ROLES[name][1], generator=g, dtype=torch.float64)


def rate(step: int) -> float:
    """The learning rate after a schedule: it changes from step to step."""
    return RATE * (1 - step / 40)


def train(named: list[gptzoo.NamedParameter], optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        for each in named:
            each.tensor.grad = gradient(each.name, step).to(each.tensor.dtype)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()


def values(named: list[gptzoo.NamedParameter]) -> list[Tensor]:
    return [each.tensor.detach().clone() for each in named]


def all_equal(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# -- the papers ------------------------------------------------------------------------------------------------------

Steps = Callable[[Tensor, list[Tensor], float], Tensor]


def adamw(w: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.95 ** (t + 1))
        w = w - rate(t) * decay * w - rate(t) * m_hat / (v_hat**0.5 + 1e-8)
    return w


def lion(w: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    m = torch.zeros_like(w)
    for t, g in enumerate(gradients):
        update = torch.sign(0.9 * m + (1 - 0.9) * g)
        m = 0.99 * m + (1 - 0.99) * g
        w = w - rate(t) * (update + decay * w)
    return w


def adafactor(w: Tensor, gradients: list[Tensor], decay: float, relative: bool = False) -> Tensor:
    rows, columns, squares = 0.0, 0.0, torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        scale = max(1e-3, w.square().mean().sqrt().item()) if relative else 1.0
        step = scale * (min(rate(t - 1), 1 / math.sqrt(t)) if relative else rate(t - 1))
        beta = 1 - t**-0.8
        if w.ndim == 2:
            rows = beta * rows + (1 - beta) * (g.square() + 1e-30).sum(1)
            columns = beta * columns + (1 - beta) * (g.square() + 1e-30).sum(0)
            v = rows[:, None] * columns[None] / rows.sum()
        else:
            v = squares = beta * squares + (1 - beta) * g.square()
        u = g / v.sqrt()
        u = u / max(1.0, u.square().mean().sqrt().item())
        w = w * (1 - rate(t - 1) * decay) - step * u
    return w


def adafactor_relative(w: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    return adafactor(w, gradients, decay, relative=True)


def schedule_free(w: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    x, z, v, weights, peak = w, w, torch.zeros_like(w), 0.0, 0.0
    for t, g in enumerate(gradients):
        y = 0.9 * x + 0.1 * z
        v = 0.95 * v + 0.05 * g * g
        d = g / ((v / (1 - 0.95 ** (t + 1))).sqrt() + 1e-8) + decay * y
        z = z - rate(t) * d
        peak = max(peak, rate(t))
        weights += peak**2
        x = x + peak**2 / weights * (z - x)
    return x


@pytest.mark.parametrize(
    ("name", "reference", "decay"),
    [
        ("adamw", adamw, 0.1),
        ("lion", lion, 0.3),
        ("adafactor", adafactor, 0.1),
        ("adafactor_relative", adafactor_relative, 0.1),
        ("schedule_free", schedule_free, 0.1),
    ],
)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_twenty_steps_are_the_papers(
    name: str, reference: Steps, decay: float, dtype: torch.dtype, rtol: float
) -> None:
    named = parameters(dtype)
    start = [each.double() for each in values(named)]
    optimizer = OPTIMIZERS[name](named)
    train(named, optimizer, range(STEPS))
    if isinstance(optimizer, gptzoo.TwoPoints):
        optimizer.eval()
    for each, first in zip(named, start, strict=True):
        gradients = [gradient(each.name, step).to(dtype).double() for step in range(STEPS)]
        expected = reference(first, gradients, decay if each.role in DECAYED else 0.0)
        torch.testing.assert_close(each.tensor.detach().double(), expected, rtol=rtol, atol=rtol * 0.1)


# -- what all promise ------------------------------------------------------------------------------------------------


@every_optimizer
def test_each_parameter_stands_in_exactly_one_group(make: Make) -> None:
    named = parameters()
    grouped = [id(p) for group in make(named).param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(each.tensor) for each in named)


@every_optimizer
def test_only_matrices_embeddings_and_heads_decay(make: Make) -> None:
    named = parameters()
    optimizer = make(named)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {each.role for each in named if decay[id(each.tensor)] > 0} == set(DECAYED)
    before = values(named)
    for each in named:
        each.tensor.grad = torch.zeros_like(each.tensor)
    optimizer.step()
    for each, old in zip(named, before, strict=True):
        if each.role in DECAYED:
            torch.testing.assert_close(each.tensor.detach(), old * (each.tensor.detach() / old)[0, 0])
            assert (each.tensor.detach().abs() < old.abs()).all()
        else:
            assert torch.equal(each.tensor, old)


@every_optimizer
def test_a_parameter_without_a_gradient_is_left_alone(make: Make) -> None:
    named = parameters()
    optimizer, before = make(named), values(named)
    for each in named[::2]:
        each.tensor.grad = gradient(each.name, 0).float()
    optimizer.step()
    moved = [not torch.equal(each.tensor, old) for each, old in zip(named, before, strict=True)]
    assert moved == [index % 2 == 0 for index in range(len(named))]


@every_optimizer
@pytest.mark.parametrize("seen", [0, 1, 3])
def test_a_checkpoint_goes_on_bit_for_bit(make: Make, seen: int, tmp_path: Path) -> None:
    walked = parameters()
    optimizer = make(walked)
    train(walked, optimizer, range(seen))
    if isinstance(optimizer, gptzoo.TwoPoints):
        optimizer.eval()
    model = {each.name: each.tensor.detach() for each in walked}
    write_checkpoint(tmp_path / "step", Checkpoint(seen, model, {}, optimizer.state_dict(), {}, {}))
    read = read_checkpoint(tmp_path / "step")
    resumed = parameters()
    for each in resumed:
        each.tensor.data.copy_(read.model[each.name])
    loaded = make(resumed)
    loaded.load_state_dict(read.optimizer)
    for named, each in ((walked, optimizer), (resumed, loaded)):
        if isinstance(each, gptzoo.TwoPoints):
            each.train()
        train(named, each, range(seen, seen + 3))
    assert all_equal(values(walked), values(resumed))
    assert not all_equal(values(walked), values(parameters()))


@every_optimizer
def test_a_gradient_scaler_unscales_and_skips(make: Make) -> None:
    ours, theirs = parameters(), parameters()
    scaled, plain = make(ours), make(theirs)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # type: ignore[attr-defined]
    scaler.scale(torch.zeros(()))
    for each in ours:
        each.tensor.grad = 1024.0 * gradient(each.name, 0).float()
    scaler.step(scaled)
    scaler.update(1024.0)
    for each in theirs:
        each.tensor.grad = gradient(each.name, 0).float()
    plain.step()
    assert all_equal(values(ours), values(theirs))
    for each in ours:
        each.tensor.grad = torch.full_like(each.tensor, math.inf)
    scaler.step(scaled)
    assert all_equal(values(ours), values(theirs))


@every_optimizer
def test_a_closure_is_called_with_gradients_enabled(make: Make) -> None:
    asked: list[bool] = []

    def closure() -> float:
        asked.append(torch.is_grad_enabled())
        return 1.5

    assert make(parameters()).step(closure) == 1.5  # type: ignore[arg-type]
    assert asked == [True]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Lion(parameters(), RATE, beta1=1.0), "beta1 must lie in [0, 1), 1.0 does not"),
        (lambda: Lion(parameters(), RATE, beta2=-0.1), "beta2 must lie in [0, 1), -0.1 does not"),
        (lambda: Lion(parameters(), RATE, weight_decay=-1), "weight_decay must not be negative, -1 is"),
        (lambda: Adafactor(parameters(), RATE, decay=-0.8), "decay must not be negative, -0.8 is"),
        (lambda: Adafactor(parameters(), RATE, relative=-1.0), "relative must not be negative, -1.0 is"),
        (lambda: Adafactor(parameters(), RATE, threshold=0.0), "threshold must be above 0, not 0.0"),
        (lambda: ScheduleFree(parameters(), RATE, beta1=0.0), "beta1 must lie between 0 and 1, 0.0 does not"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        make()
    assert str(refused.value) == said


# -- the two points of schedule_free ---------------------------------------------------------------------------------


def test_looking_at_the_average_does_not_touch_the_training() -> None:
    watched, alone = parameters(), parameters()
    looking, walking = ScheduleFree(watched, RATE), ScheduleFree(alone, RATE)
    for step in range(5):
        train(watched, looking, [step])
        train(alone, walking, [step])
        at_y = values(watched)
        for switch in (looking.train, looking.eval, looking.eval):
            switch()
        assert not all_equal(values(watched), at_y) or step == 0  # after one step, all points are one
        looking.train()
        assert all_equal(values(watched), at_y)
    assert all_equal(values(watched), values(alone))


def test_no_step_is_made_at_the_average() -> None:
    named = parameters()
    optimizer = ScheduleFree(named, RATE)
    optimizer.eval()
    with pytest.raises(Exception, match=r"not in train mode"):
        train(named, optimizer, [0])


def test_a_missing_library_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: object, **more: object) -> object:
        if name == "schedulefree":
            raise ImportError(name)
        return imported(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "schedulefree", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r".") as refused:
        ScheduleFree(parameters(), RATE)
    assert str(refused.value) == "schedulefree is not installed. Install it with: pip install 'gptzoo[schedulefree]'"
