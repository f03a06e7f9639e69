"""Laws of inits, optimizers, schedules and loggers: what makes a model learn."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import tempfile
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gptzoo.model import Model, named_parameters
from gptzoo.testing.law import law
from gptzoo.testing.subject import SIZES, Around, Sizes, Subject
from gptzoo.testing.tolerance import equal, finite
from gptzoo.testing.whole import logits


@dataclass(frozen=True)
class Small:
    """A small model, untrained."""

    sizes: Sizes
    seed: int


def _small(subject: Subject) -> st.SearchStrategy[Small]:
    return st.builds(Small, st.sampled_from(SIZES[:4]), st.integers(0, 20))


# Inits


def _quiet(subject: Subject, small: Small, **more: object) -> Model:
    return subject.model(
        small.sizes, Around("learned", "auto"), seed=small.seed, loud=False, dtype=torch.float32, fresh=True
    )


@law("init", cases=_small)
def an_init_fills_every_weight(subject: Subject, small: Small) -> None:
    init, dims = subject.construct(), subject.dims(small.sizes)
    assert callable(init), "an init is called with (path, tensor, dims, generator)"
    paths = [p.name for p in named_parameters(_quiet(subject, small)) if p.tensor.ndim == 2]
    state = torch.get_rng_state()
    for path in paths:
        tensor = torch.full((dims.n_embd, 3 * dims.n_embd), math.nan)
        init(path, tensor, dims, torch.Generator().manual_seed(small.seed))
        finite(tensor, f"{path}, drawn into memory that held nothing")
        again = torch.full_like(tensor, math.nan)
        init(path, again, dims, torch.Generator().manual_seed(small.seed))
        equal(again, tensor, f"{path}, drawn again from the same seed")
    assert torch.equal(torch.get_rng_state(), state), "it draws from torch's generator, not from the one it is given"


@law("init", cases=_small)
def other_seeds_draw_other_weights(subject: Subject, small: Small) -> None:
    one = _quiet(subject, small)
    two = _quiet(subject, Small(small.sizes, small.seed + 1))
    assert not torch.equal(one.wte.weight, two.wte.weight), "the embedding is the same under another seed"
    for path, p in one.named_parameters():
        finite(p, path)


@law("init", cases=_small, share=0.5)
def weights_do_not_depend_on_what_else_there_is(subject: Subject, small: Small) -> None:
    """A part that two models share starts from the same bits in both."""
    from gptzoo.testing.subject import part_named

    one = _quiet(subject, small).state_dict()
    other = subject.model(
        small.sizes,
        Around("none", "auto"),
        seed=small.seed,
        loud=False,
        dtype=torch.float32,
        mlp=part_named(subject.zoo, "mlp", "gelu"),
    ).state_dict()
    for name in other.keys() & one.keys():
        equal(other[name], one[name], f"{name} in a model of other positions")


@law("init", cases=_small, applies=lambda s: s.claims("starts_by_guessing"), share=0.5)
def a_fresh_model_guesses(subject: Subject, small: Small) -> None:
    model = subject.model(Sizes(4, 16, 64, 2), Around("none", "auto"), seed=small.seed, loud=False, dtype=torch.float32)
    tokens, targets = (subject.tokens(8, 32, small.seed + i) for i in (0, 1))
    with torch.no_grad():
        loss = float(model.loss(tokens, targets).total) / targets.numel()
        finite(logits(model, tokens), "logits of a fresh model")
    guess = math.log(model.dims.vocab_size)
    assert abs(loss / guess - 1) < 0.03, f"a fresh model's loss is {loss:.3f}, that of guessing {guess:.3f}"


# Optimizers


def _optimizer(subject: Subject, model: nn.Module, rate: float = 1e-2) -> torch.optim.Optimizer:
    built = subject.construct(named_parameters(model), rate)  # type: ignore[arg-type]
    assert isinstance(built, torch.optim.Optimizer), "an optimizer is a torch optimizer"
    return built


def _trained(subject: Subject, model: Model, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    for step in range(steps):
        tokens = subject.tokens(4, 9, 1000 * seed + step)
        optimizer.zero_grad(set_to_none=True)
        model.loss(tokens[:, :-1], tokens[:, 1:]).total.div(32).backward()
        optimizer.step()


@law("optimizer", cases=_small, share=0.5)
def every_parameter_is_in_one_group(subject: Subject, small: Small) -> None:
    model = _quiet(subject, small)
    groups = _optimizer(subject, model).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    missing = [p.name for p in named_parameters(model) if held.count(id(p.tensor)) != 1]
    assert not missing and len(held) == len(named_parameters(model)), f"not in exactly one group: {', '.join(missing)}"


@law("optimizer", cases=_small, share=0.5)
def it_makes_the_loss_smaller(subject: Subject, small: Small) -> None:
    model = _quiet(subject, small).train()
    optimizer = _optimizer(subject, model, 3e-3)
    tokens = subject.tokens(4, 9, small.seed)

    def loss() -> Tensor:
        return model.loss(tokens[:, :-1], tokens[:, 1:]).total / 32

    first = loss().item()
    for _ in range(40):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.9 * first, f"40 steps on one batch take the loss from {first:.3f} to {loss().item():.3f}"


@law("optimizer", cases=_small, share=0.5)
def its_state_goes_round(subject: Subject, small: Small) -> None:
    model = _quiet(subject, small).train()
    optimizer = _optimizer(subject, model)
    _trained(subject, model, optimizer, 3, small.seed)
    other = copy.deepcopy(model)
    again = _optimizer(subject, other)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _trained(subject, model, optimizer, 3, small.seed + 1)
    _trained(subject, other, again, 3, small.seed + 1)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        equal(q, p, f"{name} after three steps from a state that was saved and loaded")


@law("optimizer", cases=_small, share=0.3)
def parameters_without_a_gradient_are_left_alone(subject: Subject, small: Small) -> None:
    model = _quiet(subject, small).train()
    optimizer = _optimizer(subject, model)
    _trained(subject, model, optimizer, 1, small.seed)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    for name, p in model.named_parameters():
        equal(p, before[name], f"{name} after a step without gradients")


@law("optimizer", cases=_small, share=0.3)
def norms_and_biases_do_not_decay(subject: Subject, small: Small) -> None:
    """With gradients of zero from the start nothing moves but by decay, and what has no direction has none."""
    model = _quiet(subject, small).train()
    optimizer = _optimizer(subject, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for parameter in named_parameters(model):
        moved = parameter.tensor.detach() - before[parameter.name]
        if parameter.role in ("norm", "bias"):
            assert not moved.any(), f"{parameter.name} ({parameter.role}) decays"
        elif moved.any():
            assert float((moved * before[parameter.name]).sum()) < 0, f"{parameter.name} grows without a gradient"


@law("optimizer", cases=_small, share=0.3)
def a_learning_rate_of_zero_moves_nothing(subject: Subject, small: Small) -> None:
    model = _quiet(subject, small).train()
    optimizer = _optimizer(subject, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    _trained(subject, model, optimizer, 1, small.seed)
    for name, p in model.named_parameters():
        equal(p, before[name], f"{name} after a step at a rate of zero")


@law("optimizer", cases=_small, share=0.3)
def equal_gradients_make_equal_steps(subject: Subject, small: Small) -> None:
    ends = []
    for seed in (1, 2):
        model = _quiet(subject, small).train()
        torch.manual_seed(seed)
        _trained(subject, model, _optimizer(subject, model), 2, small.seed)
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        equal(ends[1][name], tensor, f"{name} after two steps under another state of torch's generator")


# Schedules


def _lengths(subject: Subject) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, 400), st.integers(0, 2**30)).map(lambda pair: (pair[0], pair[1] % pair[0]))


@law("schedule", cases=_lengths)
def a_schedule_is_a_function_of_the_step(subject: Subject, case: tuple[int, int]) -> None:
    steps, step = case
    walked, jumped = subject.construct(), subject.construct()
    assert callable(walked) and callable(jumped), "a schedule is called with (step, steps)"
    walk = [float(walked(each, steps)) for each in range(steps)]  # type: ignore[arg-type]
    for factor in walk:
        assert math.isfinite(factor) and 0 <= factor <= 1 + 1e-12, f"a factor of {factor} in {steps} steps"
    assert jumped(step, steps) == walk[step], f"step {step} of {steps}: reached by a jump it is another factor"
    assert max(walk) > 0, f"in {steps} steps nothing is learned"


@law("schedule", cases=lambda subject: st.sampled_from([2000, 3001]), applies=lambda s: s.claims("continuous"))
def a_schedule_has_no_jumps(subject: Subject, steps: int) -> None:
    schedule = subject.construct()
    walk = [float(schedule(each, steps)) for each in range(steps)]  # type: ignore[operator]
    down = [a - b for a, b in itertools.pairwise(walk)]
    assert max(down) <= 0.05, f"a step down by {max(down):.2f} in {steps} steps"


# Loggers


@law("logger", cases=lambda subject: st.integers(0, 3), share=0.1)
def a_logger_takes_what_the_trainer_measures(subject: Subject, case: int) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        logger = subject.construct()
        for step in range(case):
            logger.log(step, {"loss": 1.0 / (step + 1), "learning_rate": 1e-3})  # type: ignore[attr-defined]
