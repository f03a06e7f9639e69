"""Arms made alike: as many FLOPs or seconds as the baseline, by way of the steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy, plan_cells
from gptzoo.ablation.matching import evaluations_off, rhythm
from gptzoo.ablation.plan import parse_plan
from gptzoo.building import build_model, plan
from gptzoo.errors import GPTZooError
from gptzoo.recipe.schema import TrainRecipe

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 32, "context_length": 16, "kernel": "naive"}


@pytest.fixture
def base(tmp_path: Path) -> dict:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
    return {
        "name": "tiny",
        "model": SMALL,
        "data": {"name": "text", "path": str(path), "tokenizer": "byte"},
        "train": {"steps": 400, "batch_size": 4, "eval_every": 50, "save_every": 200, "device": "cpu"},
    }


def study(base: dict, arms: dict, **more: object) -> PlannedStudy:
    plan = {"base": base, "arms": arms, "seeds": 1, "aa": False, **more}
    return plan_cells(parse_plan(json.dumps(plan, indent=1), "p.yaml", "p"))


def the_set(base: dict, arms: dict, **more: object) -> CellSet:
    return study(base, arms, **more).sets[0]


def training(cell: PlannedCell) -> dict:
    train = cell.recipe["train"]
    assert isinstance(train, dict)
    return train


def flops_of_a_step(recipe: dict) -> int:
    """Forward and backward of a real batch, as torch counts them."""
    model = build_model(plan(recipe, training=False))
    tokens = torch.zeros(recipe["train"]["batch_size"], recipe["model"]["context_length"], dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.loss(tokens, tokens).total.backward()
    return counter.get_total_flops()


DEEP = {"learned": {}, "deep": {"model.n_layer": 3}}


def test_an_arm_that_costs_more_has_fewer_steps(base: dict) -> None:
    """6 N + 12 L H Q T, N = 12 L C^2 + C V; the output matrix is the embedding's."""
    made = the_set(base, DEEP, match="flops")
    two, three = (6 * (12 * layers * 32**2 + 32 * 257) + 12 * layers * 32 * 16 for layers in (2, 3))
    assert [costs.flops_per_token for costs in made.costs.values() if costs] == [two, three]
    steps = round(400 * two / three)
    assert [training(cell)["steps"] for cell in made.cells] == [400, steps]
    assert made.notes == (f"deep: {steps} steps, as many FLOPs as the baseline's 400.",)
    assert made.arms[1].differs["train.steps"] == (400, steps)
    assert made.arms[1].changes["train.steps"] == steps


def test_the_matched_flops_are_those_that_torch_counts(base: dict) -> None:
    arms = {**DEEP, "gated": {"model.mlp": "swiglu"}, "one": {"model.attention": "multi_query"}}
    cells = the_set(base, arms, match="flops").cells
    spent = [training(cell)["steps"] * flops_of_a_step(cell.recipe) for cell in cells]
    assert len({training(cell)["steps"] for cell in cells}) > 2
    assert all(abs(each / spent[0] - 1) <= 0.005 for each in spent)


def test_positions_count_not_steps(base: dict) -> None:
    """Twice the batch costs twice as much a step."""
    made = the_set(base, {"learned": {}, "wide": {"train.batch_size": 8}}, match="flops")
    assert [training(cell)["steps"] for cell in made.cells] == [400, 200]


def test_arms_are_evaluated_and_saved_at_the_same_shares_of_their_training(base: dict) -> None:
    made = the_set(base, {"learned": {}, "wide": {"train.batch_size": 8}}, match="flops")
    assert [(training(c)["eval_every"], training(c)["save_every"]) for c in made.cells] == [(50, 200), (25, 100)]


@pytest.mark.parametrize(
    ("steps", "every", "fewer", "expected"),
    [
        (200, 25, 188, 24),  # 23 would evaluate at 184 and 188
        (400, 50, 100, 13),
        (400, 50, 3, 1),
        (400, 0, 100, 0),
        (400, 1000, 100, 250),
        (100, 10, 250, 25),
    ],
)
def test_the_last_evaluations_lie_where_the_baselines_do(steps: int, every: int, fewer: int, expected: int) -> None:
    train = TrainRecipe(steps=steps, eval_every=every)
    found = rhythm(train, fewer)
    assert (found["steps"], found["eval_every"]) == (fewer, expected)


def test_how_far_evaluations_lie_apart_is_a_share_of_the_training() -> None:
    """The last three: of 10 steps 6, 8, 10, and of 20 steps 10, 15, 20."""
    one, other = TrainRecipe(steps=10, eval_every=2), TrainRecipe(steps=20, eval_every=5)
    assert evaluations_off(one, other) == pytest.approx(0.1)
    assert evaluations_off(one, one) == 0


def test_arms_that_cost_the_same_share_their_runs_with_a_match_of_tokens(base: dict) -> None:
    arms = {**DEEP, "rope": {"model.position": "rope"}}
    made = study(base, arms, match=["tokens", "flops"])
    tokens, flops = ([(cell.arm, cell.folder) for cell in each.cells] for each in made.sets)
    assert tokens == [("learned", "learned-0"), ("deep", "deep-0"), ("rope", "rope-0")]
    assert flops == [("learned", "learned-0"), ("deep", "deep.flops-0"), ("rope", "rope-0")]
    assert len(made.cells) == 4


def test_parameters_and_flops_are_matched_together(base: dict) -> None:
    base = {**base, "model": {**SMALL, "n_embd": 64}}
    arms = {"gelu": {}, "gated": {"model.mlp": "swiglu", "model.attention": "multi_query"}}
    made = the_set(base, arms, match="params+flops", free="model.mlp.hidden")
    gelu, gated = (costs for costs in made.costs.values() if costs)
    assert abs(gated.parameters / gelu.parameters - 1) <= 0.005
    steps = [training(cell)["steps"] for cell in made.cells]
    assert abs(steps[1] * gated.flops_per_token / (400 * gelu.flops_per_token) - 1) <= 0.005
    assert made.notes[0].startswith("gated: model.mlp.hidden ")


def test_too_few_steps_cannot_be_matched(base: dict) -> None:
    base = {**base, "train": {**base["train"], "steps": 6}}
    made = the_set(base, DEEP, match="flops")
    costs = made.costs["learned"]
    assert costs is not None
    total = 6 * 4 * 16 * costs.flops_per_token
    assert made.arms[1].refused == (
        f"its FLOPs cannot be matched: 4 steps cost 7.87% less than the baseline's 6 ({total:.3g} FLOPs), "
        "and 0.5% is allowed. Raise train.steps in the base."
    )
    assert [cell.arm for cell in made.cells] == ["learned"]


LOOKS = '''
import gptzoo
from torch import nn

@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.mlp("looks", Looks)

class Looks(nn.Module):
    """Looks at values."""

    def __init__(self, dims: gptzoo.Dims):
        super().__init__()
        self.up = nn.Linear(dims.n_embd, dims.n_embd)

    def forward(self, x, ctx):
        return self.up(x) if x.sum() > 0 else x
'''


def test_an_arm_whose_flops_cannot_be_counted_is_refused_with_the_reason(base: dict, tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(LOOKS)
    text = json.dumps({"base": base, "arms": {"gelu": {}, "looks": {"model.mlp": "looks"}}, "match": "flops"})
    planned = plan_cells(parse_plan(text, "p.yaml", "p"), plugins=[str(tmp_path / "looks.py")])
    refused = planned.sets[0].arms[1].refused
    assert refused.startswith("its FLOPs cannot be matched: costs cannot be counted: the forward pass fails without ")
    text = json.dumps({"base": base, "arms": {"looks": {"model.mlp": "looks"}, "gelu": {}}, "match": "flops"})
    with pytest.raises(GPTZooError) as caught:
        plan_cells(parse_plan(text, "p.yaml", "p"), plugins=[str(tmp_path / "looks.py")])
    assert str(caught.value).startswith("p.yaml: match: flops cannot be matched with the baseline 'looks': costs ")


def test_an_arm_must_not_set_the_steps_that_are_solved(base: dict) -> None:
    with pytest.raises(GPTZooError) as caught:
        study(base, {"learned": {}, "short": {"train.steps": 30}}, match="flops")
    what = "the arm sets train.steps, which match: flops or wall is to solve. Leave it out, or match params only."
    assert str(caught.value).split(": ", 1)[1] == f"arms.short.train.steps: {what}"
