"""Reading a plan: what it means, and what each mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.ablation.ledger import changes_of_plan, text_of
from gptzoo.ablation.plan import AblationPlan, parse_plan, read_plan
from gptzoo.ablation.tuning import Tuning
from gptzoo.errors import GPTZooError

WHOLE = """\
base: gpt2-tiny
baseline: learned
arms:
  learned: {}
  rope: {model.position: rope}
  wide: {model.mlp: {name: swiglu, hidden: 64}, train.learning_rate: 1e-3}
seeds: 4
aa: false
match: [tokens, tokens+params]
free: model.mlp.hidden
metric: bits_per_byte
delta: 0.02
alpha: 0.01
"""

TWO = "base: gpt2-tiny\narms:\n  a: {}\n  b: {model.position: rope}\n"

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes p.yaml, and names it as one who stands beside it does."""
    monkeypatch.chdir(tmp_path)

    def text(content: str) -> str:
        (tmp_path / "p.yaml").write_text(content)
        return "p.yaml"

    return text


def refusal(path: str) -> list[str]:
    with pytest.raises(GPTZooError) as caught:
        read_plan(path)
    return caught.value.lines


def test_a_plan_says_what_it_says(write: Write) -> None:
    plan = read_plan(write(WHOLE))
    assert (plan.name, plan.base.plain(), plan.baseline, plan.seeds, plan.aa) == ("p", "gpt2-tiny", "learned", 4, False)
    assert (plan.match, plan.free) == (("tokens", "tokens+params"), "model.mlp.hidden")
    assert (plan.metric, plan.higher_is_better, plan.delta, plan.alpha) == ("bits_per_byte", False, 0.02, 0.01)
    assert {arm.name: arm.changes for arm in plan.arms} == {
        "learned": {},
        "rope": {"model.position": "rope"},
        "wide": {"model.mlp": {"name": "swiglu", "hidden": 64}, "train.learning_rate": 1e-3},
    }


def test_what_is_left_out_has_its_usual_value(write: Write) -> None:
    plan = read_plan(write("base: gpt2-tiny\narms: {a: {}, b: {model.position: rope}}\n"))
    assert (plan.baseline, plan.seeds, plan.aa, plan.match, plan.free) == ("a", 3, True, ("tokens",), None)
    assert (plan.metric, plan.delta, plan.alpha) == ("val_loss", None, 0.05)


def test_a_grid_is_its_product_and_the_first_of_each_is_the_baseline(write: Write) -> None:
    grid = "grid: {model.position: [learned, {name: rope, theta: 500}], model.norm: [layernorm, rmsnorm]}"
    plan = read_plan(write(f"base: gpt2-tiny\n{grid}\n"))
    names = ["learned+layernorm", "learned+rmsnorm", "rope(theta=500)+layernorm", "rope(theta=500)+rmsnorm"]
    assert [arm.name for arm in plan.arms] == names
    assert plan.baseline == names[0]
    assert plan.arms[2].changes == {"model.position": {"name": "rope", "theta": 500}, "model.norm": "layernorm"}


FACTORS = """\
base: gpt2-tiny
factors:
  rope: {model.position: rope}
  gated: {model.mlp: swiglu, train.learning_rate: 1e-3}
  rms: {model.norm: rmsnorm}
"""


def test_factors_are_crossed_as_the_design_says(write: Write) -> None:
    plan = read_plan(write(f"{FACTORS}design: both\n"))
    rope, gated, rms = (
        {"model.position": "rope"},
        {"model.mlp": "swiglu", "train.learning_rate": 1e-3},
        {"model.norm": "rmsnorm"},
    )
    assert {arm.name: arm.changes for arm in plan.arms} == {
        "base": {},
        "rope": rope,
        "gated": gated,
        "rms": rms,
        "full": {**rope, **gated, **rms},
        "full-rope": {**gated, **rms},
        "full-gated": {**rope, **rms},
        "full-rms": {**rope, **gated},
    }
    assert plan.baseline == "base"
    assert read_plan(write(f"{FACTORS}design: leave_one_out\n")).baseline == "full"
    assert len(read_plan(write(f"{FACTORS}design: grid\n")).arms) == 8


def test_a_fraction_takes_the_usual_generators_or_the_given_ones(write: Write) -> None:
    four = f"{FACTORS}  qk: {{model.attention.qk_norm: rmsnorm}}\ndesign: fractional\n"
    design = read_plan(write(four)).design
    assert design is not None
    assert design.generators == {"qk": ("rope", "gated", "rms")}
    design = read_plan(write(f"{four}generators: {{rope: [gated, rms, qk]}}\n")).design
    assert design is not None
    assert design.generators == {"rope": ("gated", "rms", "qk")}


def test_looks_say_how_many_seeds_there_are(write: Write) -> None:
    plan = read_plan(write(f"{TWO}looks: [3, 5, 8]\n"))
    assert (plan.looks, plan.seeds) == ((3, 5, 8), 8)
    assert parse_plan(text_of(plan, {"name": "x"}), "plan.yaml", "p").described == plan.described


def test_tuning_has_usual_options_and_is_frozen_with_all_of_them(write: Write) -> None:
    assert read_plan(write(TWO)).tune is None
    assert read_plan(write(f"{TWO}tune: false\n")).tune is None
    assert read_plan(write(f"{TWO}tune: true\n")).tune == Tuning(points=5, factor=2.0, share=0.25, keep=3)
    plan = read_plan(write(f"{TWO}tune: {{points: 7, factor: 1.5, keep: 4}}\n"))
    assert plan.tune == Tuning(points=7, factor=1.5, share=0.25, keep=4)
    assert plan.described["tune"] == {"points": 7, "factor": 1.5, "share": 0.25, "keep": 4}
    assert parse_plan(text_of(plan, {"name": "x"}), "plan.yaml", "p").described == plan.described


@pytest.mark.parametrize(
    ("arms", "place"),
    [
        ("arms:\n  a: {}\n  b: {train.learning_rate: 1}\n", "p.yaml:4: arms.b"),
        ("arms:\n  a: {}\n  b: {train: {steps: 3, learning_rate: 1}}\n", "p.yaml:4: arms.b"),
        ("grid: {model.norm: [layernorm, rmsnorm],\n  train.learning_rate: [1, 2]}\n", "p.yaml:3: grid"),
        ("factors: {a: {model.position: rope},\n  b: {train.learning_rate: 1}}\ndesign: grid\n", "p.yaml:3: factors.b"),
    ],
)
def test_an_arm_that_is_tuned_cannot_set_its_rate(write: Write, arms: str, place: str) -> None:
    said = f"{place}.train.learning_rate: tune finds the rate of every arm. Leave this out, or leave out tune."
    assert refusal(write(f"base: x\n{arms}tune: true\n")) == [said]
    assert read_plan(write(f"base: x\n{arms}")).tune is None


def test_a_metric_knows_its_direction(write: Write) -> None:
    plan = read_plan(write("base: gpt2-tiny\narms: {a: {}, b: {model.position: rope}}\nmetric: exact_match\n"))
    assert plan.higher_is_better


def test_the_shipped_plans_are_plans() -> None:
    assert read_plan("ablations/positions").name == "positions"
    assert read_plan("ablations/algebra-format").higher_is_better


def test_there_is_no_such_plan() -> None:
    assert refusal("ablations/postions") == [
        "there is no recipe 'ablations/postions'. Did you mean ablations/positions, ablations/induction or "
        "ablations/shakespeare?"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "arms: {a: {}, b: {}}\n",
            "p.yaml:1: base: it is missing. Name the recipe that all arms change: base: gpt2-tiny.",
        ),
        ("base: x\n", "p.yaml:1: arms: it is missing. Name two arms."),
        (f"{TWO}grid: {{}}\n", "p.yaml:5: grid: arms and grid are both given. Keep one."),
        (f"{TWO}factors: {{}}\n", "p.yaml:5: factors: arms and factors are both given. Keep one."),
        (
            f"{TWO}design: grid\n",
            "p.yaml:5: design: it says how factors are crossed, and there are none. Write factors: {rope: ...}.",
        ),
        (
            FACTORS,
            "p.yaml:3: design: it is missing. Write one of grid, add_one_in, leave_one_out, both, fractional.",
        ),
        (f"{FACTORS}design: fraction\n", "p.yaml:6: design: no design is called 'fraction'. Did you mean fractional?"),
        (
            f"{FACTORS}design: fractional\n",
            "p.yaml:6: design: fractional needs 4 factors or more, there are 3. Take design: grid.",
        ),
        (
            f"{FACTORS}design: grid\ngenerators: {{rms: [rope, gated]}}\n",
            "p.yaml:7: generators: only a fraction has generators. Write design: fractional.",
        ),
        (
            f"{FACTORS}  d: {{model.dropout: 0.1}}\ndesign: fractional\ngenerators: {{d: [rope, gated]}}\n",
            "p.yaml:8: generators: these have resolution III: rope x gated x d is constant, so that a factor cannot be "
            "told from the interaction of others. Take products of three factors or more, or leave generators out.",
        ),
        (
            f"{FACTORS}  d: {{model.dropout: 0.1}}\ndesign: fractional\ngenerators: {{d: rope}}\n",
            "p.yaml:8: generators: it is not a mapping of factors to lists of factors. Write {d: [a, b, c]}.",
        ),
        (
            f"{FACTORS}  alibi: {{model.position: alibi}}\ndesign: grid\n",
            "p.yaml:6: factors.alibi.model.position: factor 'rope' changes it too, so the two cannot be crossed. "
            "Use grid for its values.",
        ),
        (
            f"{FACTORS}  a+b: {{model.dropout: 0.1}}\ndesign: grid\n",
            "p.yaml:6: factors.a+b: 'a+b' has a '+', which joins factors. Choose another name.",
        ),
        (
            f"{FACTORS}  d: {{}}\ndesign: grid\n",
            "p.yaml:6: factors.d: it changes nothing. Write recipe keys: {model.position: rope}.",
        ),
        (
            f"{FACTORS}  d: {{modle.dropout: 0.1}}\ndesign: grid\n",
            "p.yaml:6: factors.d.modle.dropout: there is no such key. Did you mean model?",
        ),
        (f"{TWO}seed: 3\n", "p.yaml:5: seed: there is no such key. Did you mean seeds?"),
        (
            "name: x\nmodel: {}\n",
            "p.yaml:2: model: this is a recipe, not the plan of an ablation. Use it with gptzoo train.",
        ),
        (f"{TWO}baseline: c\n", "p.yaml:5: baseline: no arm is called 'c'. The arms are a or b."),
        ("base: 3\narms: {a: {}, b: {}}\n", "p.yaml:1: base: 3 is not a recipe's name, a list of names or a recipe."),
        ("base: x\narms: {a: {}}\n", "p.yaml:2: arms: there is only one arm: nothing to compare. Add a second one."),
        ("base: x\narms: [a, b]\n", "p.yaml:2: arms: a list is not a mapping of names to changes."),
        ("base: x\narms:\n  a: {}\n  b: rope\n", "p.yaml:4: arms.b: 'rope' is not a mapping of recipe keys. Write {}."),
        (
            "base: x\narms:\n  a: {}\n  a/a: {}\n",
            "p.yaml:4: arms.a/a: this name is taken: it is the baseline on fresh seeds. Write aa: true.",
        ),
        (
            "base: x\narms:\n  a: {}\n  a-a: {}\n",
            "p.yaml:4: arms.a-a: it would share the folder 'a-a' with 'a/a'. Choose another name.",
        ),
        (
            "base: x\narms:\n  b c: {}\n  b/c: {}\n",
            "p.yaml:4: arms.b/c: it would share the folder 'b-c' with 'b c'. Choose another name.",
        ),
        (
            "base: x\narms:\n  a: {}\n  '--': {}\n",
            "p.yaml:4: arms.--: '--' cannot name an arm. Use letters and digits, at most 60.",
        ),
        (
            "base: x\narms:\n  a: {}\n  b:\n    modle.position: rope\n",
            "p.yaml:5: arms.b.modle.position: there is no such key. Did you mean model?",
        ),
        (
            "base: x\narms:\n  a: {}\n  b: {seed: 4}\n",
            "p.yaml:4: arms.b.seed: seeds are the plan's. Write seeds: 3 beside arms.",
        ),
        (
            "base: x\narms:\n  a: {}\n  b: {train.device: cuda}\n",
            "p.yaml:4: arms.b.train.device: an arm cannot choose its device. Set it in the base.",
        ),
        (
            "base: x\narms:\n  a: {}\n  b: {model.attention: sdpa}\n",
            "p.yaml:4: arms.b.model.attention: sdpa changes attention and kernel at once. Write model.kernel: sdpa.",
        ),
        (
            "base: x\narms:\n  a: {}\n  b: {model: {layers: [{attention: {name: naive}}]}}\n",
            "p.yaml:4: arms.b.model: naive changes attention and kernel at once. Write model.kernel: naive.",
        ),
        (
            "base: x\ngrid: {model.attention: [multi_head, flash]}\n",
            "p.yaml:2: grid.model.attention: flash changes attention and kernel at once. Write model.kernel: flash.",
        ),
        ("base: x\ngrid: {model.norm: rmsnorm}\n", "p.yaml:2: grid.model.norm: 'rmsnorm' is not a list of values."),
        (
            f"{TWO}seeds: [0, 1, 2]\n",
            "p.yaml:5: seeds: it is a count, not a list. Write 3: seeds 0, 1, ... are used.",
        ),
        (f"{TWO}seeds: 0\n", "p.yaml:5: seeds: 0 is not a count. Write 3: seeds 0, 1 and 2 are used."),
        (f"{TWO}seeds: 9999\n", "p.yaml:5: seeds: these are more than 10,000 cells. Take fewer seeds or arms."),
        (
            f"{TWO}looks: [5, 3]\n",
            "p.yaml:5: looks: these are not two or more numbers of seeds that increase. Write [3, 5, 8].",
        ),
        (f"{TWO}looks: 3\n", "p.yaml:5: looks: 3 is not two or more numbers of seeds that increase. Write [3, 5, 8]."),
        (
            f"{TWO}looks: [2, 4]\n",
            "p.yaml:5: looks: the first look is at 2 seeds, and fewer than 3 do not show the noise. Write [3, 5, 8].",
        ),
        (
            f"{TWO}looks: [3, 4]\nseeds: 5\n",
            "p.yaml:6: seeds: the last look is at 4 seeds, not 5. Leave seeds out.",
        ),
        (f"{TWO}aa: 1\n", "p.yaml:5: aa: 1 is not true or false."),
        (
            f"{TWO}match: flop\n",
            "p.yaml:5: match: 'flop' is not supported. Supported: tokens, params, flops, wall, tokens+params, "
            "params+flops, params+wall, and a list of them. Did you mean flops?",
        ),
        (
            f"{TWO}match: tokens+flops\n",
            "p.yaml:5: match: tokens and flops cannot be matched in the same runs (tokens: all take the baseline's "
            "steps; flops: an arm that costs more takes fewer steps). Write [tokens, flops].",
        ),
        (
            f"{TWO}free: model.mlp.hidden\nmatch: [tokens, params+flops+wall]\n",
            "p.yaml:6: match: flops and wall cannot be matched in the same runs (flops: an arm that costs more takes "
            "fewer steps; wall: a slower arm takes fewer steps). Write [flops, wall].",
        ),
        (f"{TWO}match: [tokens, tokens]\n", "p.yaml:5: match: the list says one thing twice. Write tokens."),
        (
            f"{TWO}match: params\n",
            "p.yaml:5: free: it is missing, and params needs a width to change. Write free: model.mlp.hidden.",
        ),
        (
            f"{TWO}free: model.mlp.hidden\n",
            "p.yaml:5: free: match tokens changes no width. Leave it out, or write match: params.",
        ),
        (
            f"{TWO}match: params\nfree: train.steps\n",
            "p.yaml:6: free: 'train.steps' is not a key of the model. Write model.mlp.hidden.",
        ),
        (f"{TWO}tune: 5\n", "p.yaml:5: tune: 5 is neither true nor a mapping. Write true, or {points: 5}."),
        (f"{TWO}tune: {{point: 5}}\n", "p.yaml:5: tune.point: there is no such option. Did you mean points?"),
        (
            f"{TWO}tune: {{x: 5}}\n",
            "p.yaml:5: tune.x: there is no such option. The options are points, factor, share, keep.",
        ),
        (
            f"{TWO}tune: {{points: 4}}\n",
            "p.yaml:5: tune.points: 4 is not an odd number from 3 to 25: the arm's own rate is the middle one.",
        ),
        (f"{TWO}tune: {{factor: 1}}\n", "p.yaml:5: tune.factor: 1 is not a number from 1.1 to 100."),
        (
            f"{TWO}tune: {{share: 25%}}\n",
            "p.yaml:5: tune.share: '25%' is not a share of the steps: above 0, at most 1.",
        ),
        (f"{TWO}tune: {{keep: 2}}\n", "p.yaml:5: tune.keep: 2 is not a count from 3 to 5, the points."),
        (
            f"{TWO}tune: true\nseeds: 3330\n",
            "p.yaml:6: seeds: these are more than 10,000 cells. Take fewer seeds or arms.",
        ),
        (f"{TWO}metric: val_los\n", "p.yaml:5: metric: no metric is called 'val_los'. Did you mean val_loss?"),
        (f"{TWO}delta: 0\n", "p.yaml:5: delta: 0 is not a number above 0."),
        (f"{TWO}alpha: 5\n", "p.yaml:5: alpha: 5 is not a number above 0 and below 1."),
    ],
)
def test_each_mistake_is_one_line(write: Write, text: str, said: str) -> None:
    assert refusal(write(text)) == [said]


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    assert refusal(write(f"{TWO}seeds: [1]\ndelta: -1\nbaseline: c\n")) == [
        "p.yaml:7: baseline: no arm is called 'c'. The arms are a or b.",
        "p.yaml:5: seeds: it is a count, not a list. Write 1: seeds 0, 1, ... are used.",
        "p.yaml:6: delta: -1 is not a number above 0.",
    ]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "more",
    [
        "design: both\n",
        "  qk: {model.attention.qk_norm: rmsnorm}\ndesign: fractional\ngenerators: {rope: [gated, rms, qk]}\n",
    ],
)
def test_a_frozen_design_is_the_design_that_was_frozen(more: str) -> None:
    plan = parse_plan(FACTORS + more, "p.yaml", "p")
    again = parse_plan(text_of(plan, {"name": "x"}), "plan.yaml", "p")
    assert again.described == plan.described
    assert again.design == plan.design


def test_a_frozen_grid_is_the_grid_that_was_frozen() -> None:
    grid = "grid: {model.position: [learned, {name: rope, theta: 500}], model.norm: [layernorm, rmsnorm]}"
    plan = parse_plan(f"base: gpt2-tiny\n{grid}\n", "p.yaml", "p")
    again = parse_plan(text_of(plan, {"name": "x"}), "plan.yaml", "p")
    assert (again.described, again.design) == (plan.described, plan.design)
    assert again.design is not None
    assert again.design.levels == (("learned", "rope(theta=500)"), ("layernorm", "rmsnorm"))


def test_keys_that_are_no_words_are_quoted() -> None:
    text = text_of(parse_plan(WHOLE, "p.yaml", "p"), {"data": {"no": {}, "off": 1, "False": {"": 2}, "ok_1": "no"}})
    lines = ["base:", "  data:", '    "no": {}', '    "off": 1', '    "False": {"": 2}', '    ok_1: "no"']
    assert text.splitlines()[:6] == lines


@settings(deadline=None)
@given(value=VALUES)
def test_a_frozen_plan_reads_as_the_plan_that_was_frozen(value: object) -> None:
    base = {"name": "x", "model": {"n_layer": 2}, "data": {"odd": value}}
    plan = parse_plan(WHOLE, "p.yaml", "p")
    again = parse_plan(text_of(plan, base), "plan.yaml", "p")
    assert again.described == plan.described
    assert again.base.plain() == base
    assert isinstance(again, AblationPlan)


def test_rungs_are_all_of_them_or_some_in_their_order(write: Write) -> None:
    assert read_plan(write(TWO)).rungs == ()
    assert read_plan(write(f"{TWO}rungs: false\n")).rungs == ()
    assert read_plan(write(f"{TWO}rungs: true\n")).rungs == (0.25, 0.5, 0.75)
    assert read_plan(write(f"{TWO}rungs: [0.25, 0.75]\n")).described["rungs"] == [0.25, 0.75]
    for wrong in ("[0.75, 0.25]", "[0.1]", "[]", "3"):
        said = "it is neither true nor some of 0.25, 0.5, 0.75 in their order. Write true."
        assert refusal(write(f"{TWO}rungs: {wrong}\n")) == [f"p.yaml:5: rungs: {said}"]


def test_rungs_need_the_noise_of_an_aa_arm(write: Write) -> None:
    what = "what noise is, is seen from the A/A arm, and there is none. Write aa: true."
    assert refusal(write(f"{TWO}rungs: true\naa: false\n")) == [f"p.yaml:5: rungs: {what}"]


def test_adding_rungs_or_looks_to_a_study_makes_it_exploratory(write: Write) -> None:
    plain = read_plan(write(TWO))
    more = read_plan(write(f"{TWO}rungs: true\nlooks: [3, 5]\n"))
    assert changes_of_plan(plain, {}, more, {}) == ["looks: null -> [3, 5]", "rungs: null -> [0.25, 0.5, 0.75]"]
