"""Arms made alike: as many FLOPs or seconds as the baseline, by way of the steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gptzoo.ablation import timing
from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy
from gptzoo.ablation.matching import evaluations_off, rhythm
from gptzoo.ablation.past import Ended, Past
from gptzoo.ablation.plan import parse_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.ablation.timing import Windows, median_step, pace, windows
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


def test_a_warm_up_in_steps_is_told(base: dict) -> None:
    arms = {"learned": {}, "wide": {"train.batch_size": 8}}
    told = {}
    for warmup in (0.1, 20):
        train = {**base["train"], "schedule": {"name": "cosine", "warmup": warmup}}
        (told[warmup],) = the_set({**base, "train": train}, arms, match="flops").notes
    assert told[0.1] == "wide: 200 steps, as many FLOPs as the baseline's 400."
    assert told[20] == f"{told[0.1][:-1]}; its warm-up has 20 steps all the same."


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
    assert made.arms[1].refused == (
        "its FLOPs cannot be matched: with 4 steps it costs 7.87% less than the baseline with 6, "
        "and 0.5% is allowed. Raise train.steps in the base to 139 or more."
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


# -- seconds ---------------------------------------------------------------------------------------------------------

Runs = set[tuple[str, int]]


def in_order(planned: Windows, ended: Runs) -> str:
    """`a0 b0 a1`: what is still to be run."""
    return " ".join(f"{arm}{window}" for arm, window in planned.runs if (arm, window) not in ended)


def test_arms_are_timed_in_turn_between_runs_of_the_baseline() -> None:
    planned = windows("a", ["b", "c"], lambda arm, window: False)
    assert in_order(planned, set()) == "a0 b0 c0 a1 b1 c1 a2 b2 c2 a3"
    assert not planned.ended


def ended_of(text: str) -> Runs:
    return {(word[0], int(word[1:])) for word in text.split()}


@pytest.mark.parametrize(
    ("ended", "to_run"),
    [
        ("a0", "a1 b1 c1 a2 b2 c2 a3 b3 c3 a4"),  # who knows how long ago that was
        ("a0 b0", "c0 a1 b1 c1 a2 b2 c2 a3"),
        ("a0 b0 c0 a1 b1 c1", "a2 b2 c2 a3"),
        ("a0 b0 c0 a1 b1 c1 a2", "a3 b3 c3 a4"),
        ("a0 b0 a1 b1 a2 b2 a3", "a4 c4 a5 c5 a6 c6 a7"),  # c was added later
        ("a0 c0 a1 c1 a2 c2 a3", "a4 b4 a5 b5 a6 b6 a7"),
        ("a0 b0 a1 b1", "c1 a2 b2 c2 a3 c3 a4"),  # c was added while b was timed
        ("a0 b0 c0 a1 b1 c1 a2 b2 c2 a3", ""),
    ],
)
def test_timing_goes_on_where_it_stopped_and_never_beside_an_old_run(ended: str, to_run: str) -> None:
    known = ended_of(ended)
    planned = windows("a", ["b", "c"], lambda arm, window: (arm, window) in known)
    assert in_order(planned, known) == to_run
    assert planned.ended == (not to_run)
    everything = known | ended_of(to_run)
    at_last = windows("a", ["b", "c"], lambda arm, window: (arm, window) in everything)
    assert at_last.ended
    assert {arm: len(each) for arm, each in at_last.of.items()} == {"b": 3, "c": 3}


def test_an_arms_pace_is_the_median_of_its_windows_and_drift_cancels() -> None:
    """The machine slows down all the time, by 0.1 a run; the second window is disturbed."""
    base = {("a", window): 1.0 + 0.2 * window for window in range(4)}
    own = {("b", window): 2 * (1.1 + 0.2 * window) for window in range(3)}
    times = {**base, **own, ("b", 1): 9.0}
    found = pace("b", "a", (0, 1, 2), lambda arm, window: times[arm, window])
    assert found is not None
    assert found.ratio == pytest.approx(2)
    assert (found.low, found.high) == (pytest.approx(2), pytest.approx(9 / 1.3))
    assert (found.seconds, found.base_seconds, found.windows) == (pytest.approx(3), pytest.approx(1.3), 3)


def test_the_warm_up_is_left_out() -> None:
    assert median_step([9.0] * timing.WARM_UP + [1.0, 2.0, 4.0]) == 2.0
    assert median_step([9.0] * timing.WARM_UP) is None


class Told(Past):
    """What ended, by folder: how long a step took."""

    def __init__(self) -> None:
        super().__init__(None, "val_loss")
        self.seconds: dict[str, float] = {}

    def of(self, folder: str, id_: str) -> Ended | None:
        if folder not in self.seconds:
            return None
        return Ended("done", None, (), (1.0,) * timing.WARM_UP + (self.seconds[folder],) * 5)

    def run(self, planned: PlannedStudy, seconds: dict[str, float]) -> list[str]:
        """End all runs that are known."""
        new = [cell for cell in planned.cells if cell.folder not in self.seconds]
        self.seconds |= {cell.folder: seconds[cell.arm] for cell in new}
        return [cell.folder for cell in new]


def planned(base: dict, arms: dict, past: Past, **more: object) -> PlannedStudy:
    plan = {"base": base, "arms": arms, "seeds": 1, "aa": False, "match": "wall", **more}
    return plan_cells(parse_plan(json.dumps(plan, indent=1), "p.yaml", "p"), past=past)


SPEEDS = {"learned": 0.010, "rope": 0.0125, "none": 0.008}
THREE = {"learned": {}, "rope": {"model.position": "rope"}, "none": {"model.position": "none"}}


def test_a_slower_arm_has_fewer_steps_once_it_is_timed(base: dict) -> None:
    past = Told()
    first = planned(base, THREE, past).sets[0]
    assert [cell.folder for cell in first.before][:4] == [
        "time-learned-30000",
        "time-rope-30000",
        "time-none-30000",
        "time-learned-30001",
    ]
    assert {cell.purpose for cell in first.before} == {"timing"}
    assert len(first.before) == 3 * 2 + 4
    assert first.cells == ()
    assert [cell.arm for cell in first.expected] == ["learned", "rope", "none"]
    short = training(first.before[1])
    assert (short["steps"], short["eval_every"], short["save_every"], short["log_every"]) == (30, 0, 0, 1)
    past.run(planned(base, THREE, past), SPEEDS)
    made = planned(base, THREE, past).sets[0]
    assert made.before == first.before
    assert made.expected == ()
    assert {cell.arm: training(cell)["steps"] for cell in made.cells} == {"learned": 400, "rope": 320, "none": 500}
    assert {cell.arm: training(cell)["eval_every"] for cell in made.cells} == {"learned": 50, "rope": 40, "none": 63}
    assert made.notes == (
        "rope: 320 steps, as long as the baseline's 400 "
        "(12.5 ms a step, the baseline 10; 1.25 to 1.25 times in 3 windows).",
        "none: 500 steps, as long as the baseline's 400 "
        "(8 ms a step, the baseline 10; 0.80 to 0.80 times in 3 windows).",
    )


def test_an_arm_that_is_added_later_is_timed_beside_the_baseline_of_that_time(base: dict) -> None:
    """The machine has become half as fast since; what was timed before is not timed again."""
    past = Told()
    two = {name: THREE[name] for name in ("learned", "rope")}
    past.run(planned(base, two, past), SPEEDS)
    past.run(planned(base, two, past), SPEEDS)
    new = past.run(planned(base, THREE, past), {arm: 2 * seconds for arm, seconds in SPEEDS.items()})
    again = [(f"time-none-3000{window}", f"time-learned-3000{window + 1}") for window in (4, 5, 6)]
    assert new == ["time-learned-30004", *(name for pair in again for name in pair)]
    made = planned(base, THREE, past).sets[0]
    assert {cell.arm: training(cell)["steps"] for cell in made.cells} == {"learned": 400, "rope": 320, "none": 500}


def test_sets_are_timed_one_after_the_other_and_equal_arms_once(base: dict) -> None:
    base = {**base, "model": {**SMALL, "n_embd": 64}}
    arms = {"learned": {}, "flat": {"train.schedule": "constant"}, "gated": {"model.attention": "multi_query"}}
    more = {"match": ["wall", "params+wall"], "free": "model.mlp.hidden"}
    speeds = {"learned": 0.01, "flat": 0.0125, "gated": 0.02}
    past = Told()
    assert len(past.run(planned(base, arms, past, **more), speeds)) == 10
    second = planned(base, arms, past, **more)
    waiting = [cell.folder for cell in second.sets[1].before if cell.folder not in past.seconds]
    assert waiting[:3] == ["time-learned-30004", "time-gated.params-wall-30004", "time-learned-30005"]
    assert len(waiting) == 7
    past.run(second, speeds)
    one, two = planned(base, arms, past, **more).sets
    folders = [cell.folder for cell in two.cells]
    assert folders == ["learned-0", "flat-0", "gated.params-wall-0"]
    assert [cell.folder for cell in one.cells] == ["learned-0", "flat-0", "gated-0"]


def test_an_arm_that_diverges_at_once_keeps_the_baselines_steps(base: dict) -> None:
    past = Told()
    two = {name: THREE[name] for name in ("learned", "rope")}
    past.run(planned(base, two, past), SPEEDS)

    class Wild(Told):
        def of(self, folder: str, id_: str) -> Ended | None:
            if "rope" in folder and super().of(folder, id_):
                return Ended("diverged", None, (), (0.1, 0.1))
            return super().of(folder, id_)

    wild = Wild()
    wild.seconds = past.seconds
    made = planned(base, two, wild).sets[0]
    assert [training(cell)["steps"] for cell in made.cells] == [400, 400]
    assert made.notes == ("rope: 400 steps, because it diverged before it could be timed.",)


def test_windows_that_disagree_are_told_and_too_few_steps_refused(base: dict) -> None:
    past = Told()
    two = {name: THREE[name] for name in ("learned", "rope")}
    past.run(planned(base, two, past), SPEEDS)
    past.seconds["time-rope-30001"] *= 1.2
    said = "1.25 to 1.50 times in 3 windows, too far apart for an idle machine)."
    assert planned(base, two, past).sets[0].notes[0].endswith(said)
    few = {**base, "train": {**base["train"], "steps": 2}}
    past = Told()
    past.run(planned(few, two, past), {"learned": 1.0, "rope": 3.0})
    assert planned(few, two, past).sets[0].arms[1].refused == (
        "its training time cannot be matched: with 1 step it trains 50% longer than the baseline with 2, "
        "and 10% is allowed. Raise train.steps in the base to 15 or more."
    )
