"""Bowls: the parabola goes through the best three, sensitivity is the mean excess, and narrow winners are told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gptzoo.ablation.bowls import bowls_of, narrow_winners, wins_at
from gptzoo.ablation.figures_tuning import bowls
from gptzoo.ablation.findings import find
from gptzoo.ablation.report import notes
from gptzoo.ablation.study import StudyOutcome, Tuned, TuningRun
from gptzoo.ablation.wording import Numbers
from tests.ablation import demo_study as demo

RATES = (0.001, 0.002, 0.004, 0.008)


def tuned(scores: dict[str, tuple[float, ...]], seed: int = 20_000) -> StudyOutcome:
    """A study with these scores at `RATES`; infinite for a run that diverged."""
    arms = []
    for arm, row in scores.items():
        runs = [
            TuningRun(arm, rate, seed, "", "", "done" if math.isfinite(y) else "diverged", y)
            for rate, y in zip(RATES, row, strict=True)
        ]
        arms.append(Tuned(arm, tuple(runs), 0.002))
    return replace(demo.study(), tuning=tuple(arms))


def test_the_parabola_goes_through_the_best_rate_and_its_neighbours():
    (bowl,) = bowls_of(tuned({"learned": (2.5, 2.2, 2.3, 2.9)}))
    assert bowl.parabola is not None
    assert [bowl.at(rate) for rate in RATES] == pytest.approx([2.5, 2.2, 2.3, None])
    a, b, _, *_ = bowl.parabola
    wanted = np.polyfit(np.log2(RATES[:3]), [2.5, 2.2, 2.3], 2)
    assert bowl.parabola[:3] == pytest.approx(tuple(wanted))
    assert 0.002 < 2 ** (-b / (2 * a)) < 0.004


def test_sensitivity_is_the_mean_excess_over_the_best_rate_and_never_beyond_not_training():
    study = tuned({"learned": (2.5, 2.2, 2.3, math.inf), "rope": (2.0, 9.0, 2.1, 2.2), "odd": (2.5, 2.2, 2.3, 2.9)})
    initial = {
        arm: np.mean([c.curve[0].value for c in study.cells if c.arm == arm]).item() for arm in ("learned", "rope")
    }
    learned, rope, odd = bowls_of(study)
    assert learned.sensitivity == pytest.approx(np.mean([2.5, 2.2, 2.3, initial["learned"]]) - 2.2)
    assert rope.sensitivity == pytest.approx(np.mean([2.0, initial["rope"], 2.1, 2.2]) - 2.0)
    assert odd.sensitivity == pytest.approx(np.mean([2.5, 2.2, 2.3, 2.9]) - 2.2)
    assert (odd.edge, rope.edge, rope.parabola) == (False, True, None)


def test_where_not_training_is_unknown_a_divergence_has_no_sensitivity():
    (bowl,) = bowls_of(replace(tuned({"learned": (2.5, 2.2, 2.3, math.inf)}), cells=()))
    assert bowl.sensitivity is None
    (bowl,) = bowls_of(tuned({"learned": (math.inf,) * 4}))
    assert (bowl.sensitivity, bowl.best) == (None, math.inf)


def test_there_are_no_bowls_without_runs_or_where_higher_is_better():
    assert bowls_of(demo.study()) == []
    assert bowls_of(replace(demo.tuned(), higher_is_better=True)) == []
    waiting = tuple(replace(run, status="missing", value=None) for run in demo.tuned().tuning[0].runs)
    assert bowls_of(replace(demo.study(), tuning=(Tuned("learned", waiting, None),))) == []


def test_an_arm_that_wins_at_one_learning_rate_is_labelled():
    study = tuned({"learned": (2.5, 2.45, 2.5, 2.6), "rope": (2.6, 2.3, 2.6, 2.7), "alibi": (2.3, 2.2, 2.3, 2.4)})
    study = replace(study, arms=study.arms[:3])
    learned, rope, alibi = bowls_of(study)
    assert wins_at(rope, learned) == ([0.002], 4)
    assert wins_at(alibi, learned) == (list(RATES), 4)
    said = "rope beat learned at one learning rate only (0.002) of the 4 that both tried in tuning."
    assert narrow_winners([learned, rope, alibi], "learned", ["rope", "alibi"]) == [said]
    assert said in notes(find(study))


def test_a_bowl_shows_every_rate_and_those_that_diverged_at_the_top():
    study = tuned({"learned": (2.5, 2.2, 2.3, math.inf), "rope": (2.0, 2.1, 2.2, 90.0)})
    findings = find(study)
    drawn = bowls(findings, bowls_of(study), Numbers.of(findings))
    assert 'data-arm="0"' in drawn
    assert 'data-arm="1"' in drawn
    assert "learning rate" in drawn
    assert "nan" not in drawn
    assert bowls(findings, [], Numbers.of(findings)) == ""
