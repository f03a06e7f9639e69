"""From arms to cells: identities, refusals, widths that are solved, and what arms share to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy
from gptzoo.ablation.fingerprints import data_order, initial_weights
from gptzoo.ablation.plan import parse_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.building import build_data, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.errors import GPTZooError
from gptzoo.running import run_identity


@pytest.fixture
def base(tmp_path: Path) -> dict:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
    return {
        "name": "tiny",
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16},
        "data": {"name": "text", "path": str(path), "tokenizer": "byte"},
        "train": {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"},
    }


def study(base: dict, arms: dict, **more: object) -> PlannedStudy:
    text = json.dumps({"base": base, "arms": arms, **more}, indent=1)
    return plan_cells(parse_plan(text, "p.yaml", "p"))


def the_set(base: dict, arms: dict, **more: object) -> CellSet:
    return study(base, arms, **more).sets[0]


def refusal(base: dict, arms: dict, **more: object) -> list[str]:
    with pytest.raises(GPTZooError) as caught:
        study(base, arms, **more)
    return [line.split(": ", 1)[1] for line in caught.value.lines]  # without the line number


TWO = {"learned": {}, "rope": {"model.position": "rope"}}


def test_cells_go_seed_by_seed_and_the_aa_arm_has_seeds_of_its_own(base: dict) -> None:
    cells = the_set(base, TWO, seeds=2).cells
    assert [(cell.arm, cell.seed, cell.folder) for cell in cells] == [
        ("learned", 0, "learned-0"),
        ("rope", 0, "rope-0"),
        ("learned", 1, "learned-1"),
        ("rope", 1, "rope-1"),
        ("a/a", 10000, "a-a-10000"),
        ("a/a", 10001, "a-a-10001"),
    ]
    assert len({cell.id for cell in cells}) == 6


def test_the_identity_of_a_cell_is_that_of_its_recipe_trained_alone(base: dict) -> None:
    cell = the_set(base, TWO, seeds=2).cells[3]
    made = plan({**base, "seed": 1}, {"model.position": "rope"})
    tokenizer = build_tokenizer(made)
    data = build_data(made, tokenizer)
    assert cell.id == run_identity(with_vocab_size(made, tokenizer), data.key)
    made = plan(cell.recipe)
    assert cell.id == run_identity(with_vocab_size(made, build_tokenizer(made)), data.key)


def test_an_arm_says_how_it_differs_from_the_baseline(base: dict) -> None:
    other = {"model.position": {"name": "rope", "theta": 500.0}, "train.learning_rate": 2e-2}
    arms = {"a": {"model.position": "rope"}, "b": other}
    made = the_set(base, arms).arms
    assert made[0].differs == {}
    assert made[1].differs == {"model.position.theta": (10000.0, 500.0), "train.learning_rate": (1e-2, 2e-2)}


def test_an_arm_whose_parts_do_not_fit_is_refused_and_the_others_go_on(base: dict) -> None:
    arms = {**TWO, "odd": {"model.kernel": "flash", "model.dropout": 0.1}}
    made = the_set(base, arms, seeds=1, aa=False)
    assert made.arms[2].refused.startswith("model.kernel: kernel 'flash' on cpu has no dropout (model.dropout).")
    assert [cell.arm for cell in made.cells] == ["learned", "rope"]


def test_a_baseline_that_does_not_fit_is_an_error(base: dict) -> None:
    arms = {"odd": {"model.kernel": "flash", "model.dropout": 0.1}, "learned": {}}
    assert refusal(base, arms)[0].startswith("baseline: the baseline 'odd' cannot run: model.kernel: ")


def test_what_an_arm_names_must_exist_and_all_arms_are_looked_at(base: dict) -> None:
    arms = {"a": {}, "b": {"model.position": "rop"}, "c": {"model.norm.epsilon": 1e-3}, "d": {"train.stepz": 3}}
    assert refusal(base, arms) == [
        "arms.b.model.position: no position is called 'rop'. Did you mean rope?",
        "arms.c.model.norm.epsilon: norm 'layernorm' has no option 'epsilon'. Did you mean eps?",
        "arms.d.train.stepz: there is no such key. Did you mean steps?",
    ]


def test_a_mistake_in_an_arm_is_placed_in_its_line(base: dict) -> None:
    text = f"base: {json.dumps(base)}\narms:\n  a: {{}}\n  b:\n    model.position: {{name: rope,\n      thta: 3}}\n"
    with pytest.raises(GPTZooError) as caught:
        plan_cells(parse_plan(text, "p.yaml", "p"))
    assert str(caught.value) == (
        "p.yaml:6: arms.b.model.position.thta: position 'rope' has no option 'thta'. Did you mean theta?"
    )


def test_a_mistake_in_a_factor_is_told_once_and_in_its_line(base: dict) -> None:
    factors = "factors:\n  a: {model.position: rop}\n  b: {model.norm: rmsnorm}\n  c: {model.mlp: swiglu}\n"
    with pytest.raises(GPTZooError) as caught:
        plan_cells(parse_plan(f"base: {json.dumps(base)}\n{factors}design: grid\n", "p.yaml", "p"))
    assert caught.value.lines == ["p.yaml:3: factors.model.position: no position is called 'rop'. Did you mean rope?"]


def test_a_mistake_in_the_base_is_placed_in_the_plan(base: dict) -> None:
    text = f"base:\n  model: {{n_layer: 2,\n    n_head: x}}\narms: {json.dumps(TWO)}\n"
    with pytest.raises(GPTZooError) as caught:
        plan_cells(parse_plan(text, "p.yaml", "p"))
    assert str(caught.value) == "p.yaml:3: base.model.n_head: 'x' is not an int."


def test_a_base_that_is_not_there_is_named(base: dict) -> None:
    with pytest.raises(GPTZooError) as caught:
        plan_cells(parse_plan(f"base: gpt2-tny\narms: {json.dumps(TWO)}\n", "p.yaml", "p"))
    assert str(caught.value) == "p.yaml:1: base: there is no recipe 'gpt2-tny'. Did you mean gpt2-tiny or mup-tiny?"


def test_a_metric_that_is_never_measured_is_refused(base: dict) -> None:
    what = "exact_match needs problems to solve. Write train: {eval_problems: 200} in the base."
    assert refusal(base, TWO, metric="exact_match") == [f"metric: {what}"]


def test_two_arms_with_equal_recipes_are_refused(base: dict) -> None:
    arms = {**TWO, "again": {"model.position": {"name": "rope", "theta": 10000.0}}}
    assert refusal(base, arms) == ["arms.again: its recipe is the same as that of 'rope'. Leave one of them out."]


# -- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_are_matched_by_the_free_width(base: dict) -> None:
    base = {**base, "model": {**base["model"], "n_embd": 64}}
    gated = {"model.mlp": "swiglu", "model.norm": "rmsnorm", "model.attention": "multi_query"}
    arms = {"gelu": {}, "gated": gated, "norm": {"model.norm": "rmsnorm"}}
    made = the_set(base, arms, match="params", free="model.mlp.hidden", seeds=1)
    counts = {name: costs.parameters for name, costs in made.costs.items() if costs}
    assert all(abs(count / counts["gelu"] - 1) <= 0.005 for count in counts.values())
    width = made.arms[1].changes["model.mlp.hidden"]
    assert isinstance(width, int)
    assert width % 8 == 0
    assert made.arms[2].changes == {"model.norm": "rmsnorm"}  # near enough as it is
    share = counts["gated"] / counts["gelu"] - 1
    said = f"gated: model.mlp.hidden {width} gives {counts['gated']:,} parameters, {share:+.2%} of the baseline's"
    assert made.notes == (f"{said} {counts['gelu']:,}.",)


def test_an_arm_that_no_width_matches_is_refused(base: dict) -> None:
    arms = {"learned": {}, "deep": {"model.n_layer": 16}}
    arm = the_set(base, arms, match="params", free="model.mlp.hidden", seeds=1).arms[1]
    assert arm.refused.startswith("its parameters cannot be matched: model.mlp.hidden 8 gives ")
    assert arm.refused.endswith("and 0.5% is allowed.")


def test_an_arm_must_not_set_the_width_that_is_solved(base: dict) -> None:
    arms = {"learned": {}, "wide": {"model.mlp.hidden": 512}}
    what = "the arm sets model.mlp.hidden, which match: params is to solve. Leave it out, or match tokens only."
    assert refusal(base, arms, match="params", free="model.mlp.hidden") == [f"arms.wide.model.mlp.hidden: {what}"]


def test_a_list_of_matches_is_so_many_sets_that_share_equal_runs(base: dict) -> None:
    arms = {"learned": {}, "deep": {"model.n_layer": 3}}
    base = {**base, "model": {**base["model"], "n_embd": 64}}
    made = study(base, arms, match=["tokens", "tokens+params"], free="model.mlp.hidden", seeds=1, aa=False)
    assert [[cell.folder for cell in each.cells] for each in made.sets] == [
        ["learned-0", "deep-0"],
        ["learned-0", "deep.tokens-params-0"],
    ]
    assert len(made.cells) == 3


# -- tuning ----------------------------------------------------------------------------------------------------------


def tuning_runs(cells: Iterable[PlannedCell]) -> list[tuple[str, float | None, int, str]]:
    return [(cell.arm, cell.rate, cell.seed, cell.folder) for cell in cells if cell.purpose == "tuning"]


def test_while_tuning_goes_on_its_runs_are_known_and_the_others_expected(base: dict) -> None:
    made = the_set(base, TWO, seeds=1, tune=True)
    assert made.cells == ()
    assert tuning_runs(made.before) == [
        (arm, rate, 20000, f"tune-{arm}-{rate:g}-20000")
        for rate in (0.0025, 0.005, 0.01, 0.02, 0.04)
        for arm in ("learned", "rope")
    ]
    assert [(cell.arm, cell.seed) for cell in made.expected] == [
        *(3 * [("learned", 20001), ("rope", 20001)]),
        *(("learned", 0), ("rope", 0), ("a/a", 10000)),
    ]


def test_a_tuning_run_is_the_arm_at_a_share_of_its_length_with_as_many_evaluations(base: dict) -> None:
    base = {**base, "train": {**base["train"], "steps": 40, "eval_every": 10, "sample_every": 5}}
    cell = the_set(base, TWO, tune={"share": 0.3}).before[1]
    assert (cell.arm, cell.seed, cell.rate) == ("rope", 20000, 0.0025)
    assert isinstance(cell.recipe["train"], dict)
    train = {"steps": 12, "eval_every": 3, "sample_every": 0, "learning_rate": 0.0025}
    assert {key: cell.recipe["train"][key] for key in train} == train
    made = plan({**base, "seed": 20000, "train": {**base["train"], **train}}, {"model.position": "rope"})
    tokenizer = build_tokenizer(made)
    assert cell.id == run_identity(with_vocab_size(made, tokenizer), build_data(made, tokenizer).key)


def test_sets_whose_arms_are_the_same_share_their_tuning(base: dict) -> None:
    arms = {"learned": {}, "deep": {"model.n_layer": 3}}
    base = {**base, "model": {**base["model"], "n_embd": 64}}
    made = study(base, arms, match=["tokens", "tokens+params"], free="model.mlp.hidden", seeds=1, aa=False, tune=True)
    first, second = ([cell.folder for cell in each.before] for each in made.sets)
    assert second[::2] == first[::2]
    assert second[1::2] == [name.replace("deep", "deep.tokens-params") for name in first[1::2]]
    assert len(made.cells) == 15


# -- common random numbers -------------------------------------------------------------------------------------------


def fingerprint(recipe: dict) -> tuple[dict, str]:
    made = plan(recipe)
    tokenizer = build_tokenizer(made)
    data = build_data(made, tokenizer)
    train = made.recipe.train
    weights = initial_weights(build_model(with_vocab_size(made, tokenizer)))
    return weights, data_order(data, made.recipe.seed, train.steps, train.batch_size)


def test_arms_start_from_the_same_bits_where_they_share_a_weight_and_see_the_same_batches(base: dict) -> None:
    arms = {**TWO, "gated": {"model.mlp": "swiglu"}, "one": {"model.attention": "multi_query"}}
    cells = the_set(base, arms, seeds=1, aa=False).cells
    weights, orders = zip(*(fingerprint(cell.recipe) for cell in cells), strict=True)
    assert len(set(orders)) == 1
    for own in weights[1:]:
        shared = [path for path in weights[0] if path in own and own[path][0] == weights[0][path][0]]
        assert len(shared) > 15
        assert all(own[path] == weights[0][path] for path in shared)


def test_other_seeds_start_from_other_bits_and_see_other_batches(base: dict) -> None:
    first, second = (fingerprint(cell.recipe) for cell in the_set(base, TWO, seeds=2).cells[::2][:2])
    assert first[1] != second[1]
    assert first[0]["wte.weight"] != second[0]["wte.weight"]


def test_a_digest_sees_one_changed_bit(base: dict) -> None:
    made = plan(base)
    model = build_model(with_vocab_size(made, build_tokenizer(made)))
    before = initial_weights(model)
    with torch.no_grad():
        model.wte.weight[0, 0] = torch.nextafter(model.wte.weight[0, 0], torch.tensor(9.0))
    changed = [path for path, each in initial_weights(model).items() if each != before[path]]
    assert changed == ["wte.weight"]
