"""Studies that tune: what is planned once runs have ended, and a real one that is stopped, extended and spoilt."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gptzoo.ablation.cells import CellSet, PlannedCell
from gptzoo.ablation.collecting import collect
from gptzoo.ablation.forecast import forecast
from gptzoo.ablation.ledger import changes_of_plan
from gptzoo.ablation.past import Ended, Past
from gptzoo.ablation.plan import parse_plan, read_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.ablation.study import StudyOutcome
from tests.ablation.studies import TWO_ARMS, Place, kill, wait_until

# -- planning, with runs that are made up ------------------------------------------------------------------------------


class Told(Past):
    """Every tuning run has ended, with what a bowl around the arm's best rate says; an arm that has none diverged."""

    def __init__(self, best: Mapping[str, float | None], metric: str = "val_loss", *, second: bool = True) -> None:
        super().__init__(None, metric)
        self.best, self.second, self.sign = best, second, -1.0 if metric == "exact_match" else 1.0

    def of(self, folder: str, id_: str) -> Ended | None:
        told = re.fullmatch(r"tune-([a-z]+)-(.+)-(2000[01])", folder)
        if told is None:
            return None
        arm, rate, seed = told.groups()
        best = self.best[arm]
        if best is None:
            return Ended("diverged", None, (), ())
        if seed == "20001" and not self.second:
            return None
        return Ended("done", self.sign * (2 + math.log2(float(rate) / best) ** 2), (), ())


@pytest.fixture
def planned(place: Place) -> Callable[..., CellSet]:
    base = {
        "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16},
        "data": {"name": "text", "path": str(place.folder / "text.txt"), "tokenizer": "byte"},
        "train": {"steps": 4000, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"},
    }

    def plan(past: Past, arms: dict = TWO_ARMS, **more: object) -> CellSet:
        text = json.dumps({"base": base, "arms": arms, "seeds": 1, "tune": True, **more})
        return plan_cells(parse_plan(text, "p.yaml", "p"), past=past).sets[0]

    return plan


def rates(made: CellSet) -> dict[str, object]:
    trains = {cell.arm: cell.recipe["train"] for cell in made.cells}
    return {arm: train["learning_rate"] for arm, train in trains.items() if isinstance(train, dict)}


def test_cells_run_at_the_rates_that_were_found_and_the_aa_arm_at_the_baselines(planned) -> None:
    made = planned(Told({"learned": 0.013, "none": 0.0072}))
    assert rates(made) == {"learned": 0.013, "none": 0.0072, "a/a": 0.013}
    assert [cell.folder for cell in made.cells] == ["learned-0", "none-0", "a-a-10000"]
    assert [arm.changes for arm in made.arms] == [
        {"train.learning_rate": 0.013},
        {"model.position": "none", "train.learning_rate": 0.0072},
    ]
    assert made.arms[1].differs == {"model.position": ("learned", "none"), "train.learning_rate": (0.013, 0.0072)}
    assert (len(made.before), made.expected, made.notes) == (16, (), ())
    assert made.told == ("learning rates found: 0.013 for learned, 0.0072 for none",)


def test_the_second_seed_follows_the_first_and_cells_follow_the_second(planned) -> None:
    made = planned(Told({"learned": 0.013, "none": 0.0072}, second=False))
    assert [(cell.arm, cell.rate, cell.seed) for cell in made.before[10:]] == [
        (arm, rate, 20001) for rate in (0.005, 0.01, 0.02) for arm in ("learned", "none")
    ]
    assert made.cells == ()
    assert [cell.purpose for cell in made.expected] == ["confirm"] * 3


def test_an_arm_whose_best_rate_is_far_away_runs_at_the_edge(planned) -> None:
    made = planned(Told({"learned": 0.01, "none": 3.0}))
    assert rates(made) == {"learned": 0.01, "none": 0.16, "a/a": 0.01}
    assert len(made.before) == 20
    assert made.notes == (
        "Every arm was tried at 2 more learning rates, because the best rate of none lay at the edge of the first 5: "
        "tuning budgets stay equal.",
    )


def test_an_arm_that_is_added_later_is_tuned_alone_unless_all_need_more(planned) -> None:
    best = {"learned": 0.013, "none": 0.0072, "rope": 0.011, "alibi": 3.0}
    before = planned(Told(best))
    rope, alibi = ({"model.position": name} for name in ("rope", "alibi"))
    one = planned(Told(best), {**TWO_ARMS, "rope": rope})
    assert {c.id for c in one.before if c.arm != "rope"} == {c.id for c in before.before}
    assert {c.id for c in one.cells if c.arm != "rope"} == {c.id for c in before.cells}
    all_ = planned(Told(best), {**TWO_ARMS, "alibi": alibi})
    assert {arm.name: sum(c.arm == arm.name for c in all_.before) for arm in all_.arms} == dict.fromkeys(
        ("learned", "none", "alibi"), 10
    )
    assert {c.id for c in before.before} < {c.id for c in all_.before}
    assert all_.notes[0].startswith("Every arm was tried at 2 more learning rates, because the best rate of alibi lay")


def test_a_metric_to_raise_and_runs_that_diverge_are_understood(planned) -> None:
    algebra = {
        "base": {
            "data": {"name": "algebra", "rows": 300},
            "train": {"eval_problems": 4, "learning_rate": 1e-2, "device": "cpu"},
        }
    }
    made = planned(Told({"learned": 0.013, "none": None}, "exact_match"), **algebra, metric="exact_match")
    assert rates(made) == {"learned": 0.013, "none": 0.000625, "a/a": 0.013}


def test_an_arm_that_is_refused_is_not_tuned(planned) -> None:
    arms = {**TWO_ARMS, "odd": {"model.kernel": "flash", "model.dropout": 0.1}}
    made = planned(Told({"learned": 0.013, "none": 0.0072}), arms)
    assert {cell.arm for cell in (*made.before, *made.cells)} == {"learned", "none", "a/a"}
    assert [bool(arm.refused) for arm in made.arms] == [False, False, True]


def steps(cell: PlannedCell) -> int:
    train = cell.recipe["train"]
    assert isinstance(train, dict)
    return train["steps"]


def test_looks_come_after_tuning(planned) -> None:
    made = planned(Told({"learned": 0.013, "none": 0.0072}), looks=[3, 5], seeds=5)
    assert [(cell.arm, cell.seed) for cell in made.cells if cell.arm == "none"] == [("none", seed) for seed in range(3)]
    assert len(made.before) == 16
    assert {cell.purpose for cell in made.expected} == {"confirm"}


def test_an_arm_with_other_steps_is_tuned_at_a_share_of_its_own(planned) -> None:
    arms = {"learned": {}, "deep": {"model.n_layer": 4}}
    made = planned(Told({"learned": 0.013, "deep": 0.0072}), arms, match="flops")
    whole = {cell.arm: steps(cell) for cell in made.cells}
    assert whole["deep"] < whole["learned"] == 4000
    assert {cell.arm: steps(cell) for cell in made.before} == {arm: round(whole[arm] / 4) for arm in arms}
    changes = made.arms[1].changes
    assert (changes["train.steps"], changes["train.learning_rate"]) == (whole["deep"], 0.0072)


# -- a real one --------------------------------------------------------------------------------------------------------

TUNE = {"points": 3, "factor": 100, "share": 0.5}
CELLS = 2 * 6 + 2


@pytest.fixture(scope="module")
def tuned(place: Place) -> Place:
    done = place.run(plan(place))
    assert (done.ran, done.kept, dict(done.failed)) == (CELLS, 0, {})
    return place


def plan(place: Place) -> Path:
    return place.plan(TWO_ARMS, name="tuned", tune=TUNE, seeds=1, aa=False)


def test_tuning_comes_first_and_the_outcome_tells_of_it(tuned: Place) -> None:
    outcome = tuned.outcome(name="tuned")
    assert [(each.arm, len(each.runs), each.trouble) for each in outcome.tuning] == [
        ("learned", 6, ""),
        ("none", 6, ""),
    ]
    assert outcome.mismatches == ()
    assert outcome.notes == ()
    run = outcome.tuning[1].runs[4]
    assert (run.arm, run.rate, run.seed, run.path) == ("none", 0.01, 20001, "cells/tune-none-0.01-20001")
    assert (run.status, run.tokens) == ("done", 3 * 4 * 16)
    assert run.value is not None
    for arm, each in zip(outcome.arms, outcome.tuning, strict=True):
        assert arm.changes["train.learning_rate"] == each.rate
        assert 1e-4 < (each.rate or 0) < 1
    kept = json.loads((tuned.study(name="tuned") / "study.json").read_text())["sets"][0]["before"]
    assert [cell["rate"] for cell in kept[::2]] == [0.0001, 0.01, 1.0] * 2


def test_a_forecast_names_the_rates_that_were_found(tuned: Place) -> None:
    runs = tuned.folder / "runs"
    past = Past(runs / "tuned", "val_loss")
    study = plan_cells(read_plan(plan(tuned)), past=past, plugins=[tuned.plugin])
    (made,) = forecast(study, runs=runs, workers=1, probe=False)
    assert (made.cells, made.to_run) == (CELLS, 0)
    one, two = (each.rate for each in tuned.outcome(name="tuned").tuning)
    said = f"tuning 6 runs of 50% of the steps for each arm found {one:g} for learned, {two:g} for none"
    assert made.tuning is not None
    assert made.tuning.line == said


def test_a_study_that_is_killed_while_it_tunes_goes_on_to_the_same_end(tuned: Place) -> None:
    process = tuned.start(plan(tuned), "tuning-killed")
    wait_until(lambda: len(tuned.ended("tuning-killed", "tuned")) >= 7, seconds=120)
    kill(process.pid)
    out, _ = process.communicate()
    assert out.startswith("tuned, tuning: 6 cells, 1 worker\n")
    assert "learned at 0.0001 seed 20000: val_loss 5." in out
    before = {path: path.read_bytes() for path in tuned.ended("tuning-killed", "tuned")}
    report = collect(tuned.study("tuning-killed", "tuned"))
    assert report.cells == ()
    assert [each.rate for each in report.tuning] == [None, None]
    assert report.notes == (f"Tuning goes on: {len(before)} of 12 runs that are planned so far have ended.",)
    done = tuned.run(plan(tuned), "tuning-killed")
    assert (done.ran, done.kept) == (CELLS - len(before), len(before))
    assert {path: path.read_bytes() for path in before} == before
    assert tuned.outcome("tuning-killed", "tuned") == tuned.outcome(name="tuned")


def test_another_budget_is_exploratory() -> None:
    old, new = (parse_plan(f"base: x\narms: {{a: {{}}, b: {{}}}}\ntune: {t}\n", "p.yaml", "p") for t in ("true", "{}"))
    assert changes_of_plan(old, {}, new, {}) == []
    new = parse_plan("base: x\narms: {a: {}, b: {}}\ntune: {share: 1}\n", "p.yaml", "p")
    before = '{"points": 5, "factor": 2.0, "share": 0.25, "keep": 3}'
    assert changes_of_plan(old, {}, new, {}) == [f"tune: {before} -> {before.replace('0.25', '1')}"]


@pytest.fixture
def spoilt(tuned: Place, tmp_path: Path) -> Path:
    """A study of one's own to spoil."""
    return Path(shutil.copytree(tuned.study(name="tuned"), tmp_path / "tuned"))


def change(folder: Path, arm: int, **changes: object) -> StudyOutcome:
    kept = json.loads((folder / "study.json").read_text())
    kept["sets"][0]["arms"][arm]["changes"].update(changes)
    (folder / "study.json").write_text(json.dumps(kept))
    return collect(folder)


def test_another_rate_than_the_tuned_one_blocks_the_verdicts(spoilt: Path) -> None:
    found = collect(spoilt).tuning[1].rate
    said = f"none: its runs are at the learning rate 0.5, and its tuning finds {found:g}"
    assert change(spoilt, 1, **{"train.learning_rate": 0.5}).mismatches == (said,)


def test_a_tuning_run_that_was_changed_or_is_gone_blocks_the_verdicts(spoilt: Path) -> None:
    recipe = spoilt / "cells" / "tune-none-0.01-20000" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "\n")
    assert collect(spoilt).mismatches == ("cells/tune-none-0.01-20000/recipe.yaml was changed after the run",)
    shutil.rmtree(recipe.parent)
    assert collect(spoilt).mismatches == (
        "cells/tune-none-0.01-20000 ended as done and is gone",
        "none: a tuning run that its learning rate rests on is gone",
    )
