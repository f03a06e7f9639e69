"""Figures of training and costs: that they show what the cells hold, and that every arm in them can be hidden."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gptzoo.ablation import figures, page_training
from gptzoo.ablation.figures_compute import gain_figure, loss_at, spread
from gptzoo.ablation.figures_costs import cost_bars, quantities
from gptzoo.ablation.figures_training import (
    MOST_POINTS,
    attention_logits,
    clipped_to,
    gradient_norms,
    logits_by_layer,
    mean_norms,
    thinned,
)
from gptzoo.ablation.findings import Findings, find
from gptzoo.ablation.report import to_html
from gptzoo.ablation.study import CellOutcome, StudyOutcome
from gptzoo.ablation.wording import Numbers
from tests.ablation import demo_study as demo


def changed(study: StudyOutcome, arm: str, change: Callable[[CellOutcome], CellOutcome]) -> StudyOutcome:
    """The study with the cells of one arm changed."""
    return replace(study, cells=tuple(change(cell) if cell.arm == arm else cell for cell in study.cells))


WHOLE = find(demo.study())
MANY = find(demo.many_arms())
DEARER = find(changed(demo.study(), "rope", lambda cell: replace(cell, flops=2 * cell.flops)))
EVERY = {"whole": WHOLE, "many": MANY, "dearer": DEARER, "trouble": find(demo.with_trouble())}


def drawn(findings: Findings) -> dict[str, str]:
    """All figures of training and costs, by name."""
    numbers = Numbers.of(findings)
    shown = [*page_training.of_training(findings, numbers), *page_training.of_costs(findings)]
    return {each.name: str(each.svg) for each in shown}


def words(svg: str) -> str:
    return html.unescape(" | ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)))


# All of them


@pytest.mark.parametrize("name", EVERY)
def test_every_arm_can_be_hidden_in_every_figure_and_nothing_of_it_stays(name: str) -> None:
    for figure, svg in drawn(EVERY[name]).items():
        rows = {int(row) for row in re.findall(r'data-arm="(\d+)"', svg)}
        coloured = set(re.findall(r"var\(--arm-(\d+)\)", svg))
        assert coloured <= {str(figures.colour_of(row)) for row in rows}, figure
        bare = re.sub(r"<g [^>]*data-arm=.*?</g>", "", re.sub(r"<defs>.*?</defs>", "", svg))
        assert "--arm-" not in bare, figure


@pytest.mark.parametrize("name", EVERY)
def test_the_same_study_gives_the_same_bytes(name: str) -> None:
    assert drawn(EVERY[name]) == drawn(find(EVERY[name].study))


def test_a_study_that_measured_nothing_has_none_of_these_figures() -> None:
    bare = replace(
        demo.study(),
        cells=tuple(replace(cell, gradients=(), logits=(), curve=(), flops=0.0) for cell in WHOLE.study.cells),
    )
    assert set(drawn(find(bare))) == {"costs-0", "costs-1"}
    page = to_html(find(bare))
    assert not re.findall(r'"about-(flops|compute|gradients|logits)"', page)
    assert drawn(find(replace(demo.study(), cells=()))) == {}


# Over FLOPs


def test_a_curve_over_flops_is_one_over_tokens_at_the_price_of_the_arm() -> None:
    cells = [cell for cell in DEARER.study.cells if cell.arm == "rope"]
    over_tokens, over_flops = figures.curve(cells, "tokens"), figures.curve(cells, "flops")
    assert over_tokens is not None
    assert over_flops is not None
    assert over_flops.mean == over_tokens.mean
    assert over_flops.x == pytest.approx([2 * 795_000.0 * tokens for tokens in over_tokens.x])


def test_an_arm_whose_flops_nobody_counted_has_no_curve_over_them() -> None:
    uncounted = [replace(cell, flops=0.0) for cell in demo.study().cells if cell.arm == "rope"]
    assert figures.curve(uncounted, "flops") is None
    assert figures.curve(uncounted, "tokens") is not None


def test_one_arm_that_scatters_does_not_flatten_all_others() -> None:
    wild = {0: -1.0, 1: 0.0, 2: 1.0}

    def scatter(cell: CellOutcome) -> CellOutcome:
        return replace(cell, curve=tuple(replace(point, value=point.value + wild[cell.seed]) for point in cell.curve))

    bands = [figures.curve(arm.cells, "tokens") for arm in find(changed(demo.study(), "none", scatter)).arms]
    low, high = figures._late_range([band for band in bands if band is not None])
    calm_low, calm_high = figures._late_range([band for band in bands[:3] if band is not None])
    assert bands[3] is not None
    assert bands[3].high[-1] - bands[3].low[-1] > 3
    assert high - low < 2 * (calm_high - calm_low)


# Gradients


def test_gradients_are_means_over_the_runs_at_the_steps_that_all_of_them_logged() -> None:
    one, two = demo.cell("rope", 0), demo.cell("rope", 1)
    one = replace(one, gradients=((1, 2.0), (2, 4.0), (3, 6.0)))
    two = replace(two, gradients=((1, 4.0), (3, 1.0)))
    assert mean_norms([one, two]) == ([1.0, 3.0], [3.0, 3.5])
    assert mean_norms([one, demo.failed(replace(two, gradients=()))]) == ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert mean_norms([replace(one, gradients=())]) is None


@pytest.mark.parametrize("steps", [1, 119, 120, 121, 1000, 12_345])
def test_a_long_line_has_few_points_and_the_same_mean(steps: int) -> None:
    norms = np.random.default_rng(0).uniform(0.1, 2.0, steps)
    x, y = thinned(range(1, steps + 1), [norms.tolist()])
    assert len(x) == len(y) <= MOST_POINTS
    size = math.ceil(steps / MOST_POINTS)
    sizes = [min(size, steps - start) for start in range(0, steps, size)]
    assert np.dot(y, sizes) == pytest.approx(norms.sum())
    assert np.dot(x, sizes) == pytest.approx(steps * (steps + 1) / 2)


def test_gradients_of_a_run_that_diverged_are_drawn_as_far_as_it_went() -> None:
    study = changed(demo.study(), "alibi", lambda cell: replace(demo.diverged(cell), gradients=((1, 1.0), (2, 900.0))))
    svg = gradient_norms(find(study))
    assert svg.count('data-arm="2"') == 3
    assert "500" in words(svg)
    assert "500" not in words(gradient_norms(WHOLE))


@pytest.mark.parametrize(("clip", "said"), [(1.0, "clipped to 1, the dashed line."), (50.0, "clipped to 50.")])
def test_the_clip_is_a_line_where_it_lies_in_the_figure(clip: float, said: str) -> None:
    recipe = demo.BASE.replace("{steps: 200,", f"{{steps: 200, clip: {clip},")
    findings = find(replace(demo.study(), base_recipe=recipe))
    assert page_training.about_gradients(findings).endswith(said)
    bare = gradient_norms(WHOLE).count("stroke-dasharray")
    assert gradient_norms(findings).count("stroke-dasharray") - bare == (clip == 1.0)
    assert "clipped" not in page_training.about_gradients(WHOLE)


def test_no_clip_is_told_where_arms_differ_in_it() -> None:
    study = replace(demo.study(), base_recipe=demo.BASE.replace("{steps: 200,", "{steps: 200, clip: 1.0,"))
    arms = [replace(arm, differs={"train.clip": (1.0, 0.1)}) if arm.name == "rope" else arm for arm in study.arms]
    assert clipped_to(find(study)) == 1.0
    assert clipped_to(find(replace(study, arms=tuple(arms)))) is None


# Attention logits


def test_logits_are_those_of_the_runs_that_were_done_layer_by_layer() -> None:
    cells = [replace(demo.cell("rope", seed), logits=(seed + 1.0, None)) for seed in range(3)]
    cells[2] = demo.diverged(cells[2])
    found = find(replace(demo.study(), cells=(*[c for c in WHOLE.study.cells if c.arm != "rope"], *cells)))
    assert logits_by_layer(found.arms[1]) == {1: [1.0, 2.0]}
    assert page_training.about_logits(found).endswith("Not shown: rope, where layers mix without a kernel.")
    assert "Not shown" not in page_training.about_logits(WHOLE)


@pytest.mark.parametrize(("largest", "ticks"), [(7.0, {"0"}), (900.0, {"1", "100"})])
def test_the_axis_of_logits_is_logarithmic_where_they_lie_far_apart(largest: float, ticks: set[str]) -> None:
    study = changed(demo.study(), "none", lambda cell: replace(cell, logits=(1.0, largest)))
    study = replace(study, cells=tuple(replace(c, logits=(2.0, 3.0)) if c.arm != "none" else c for c in study.cells))
    assert ticks <= set(words(attention_logits(find(study))).split(" | "))


def test_arms_that_all_mix_without_a_kernel_leave_words_in_place_of_a_figure() -> None:
    cells = tuple(replace(cell, logits=(None, None)) for cell in demo.study().cells)
    findings = find(replace(demo.study(), cells=cells))
    assert attention_logits(findings) == ""
    assert "None to show: every layer mixes without a kernel." in to_html(findings)
    assert "None to show" not in to_html(WHOLE)


# Gains in compute


def test_an_arm_s_line_leads_from_its_compute_to_the_baseline_s_curve() -> None:
    for findings in (WHOLE, MANY, DEARER):
        assert findings.curve is not None
        known = [arm for arm in findings.arms[1:] if arm.gain is not None and not arm.gain.estimate.side]
        assert known
        for arm in known:
            assert arm.gain is not None
            assert arm.verdict is not None
            assert arm.verdict.difference is not None
            share = (arm.costs.flops or 1) / (findings.baseline.costs.flops or 1)
            end = findings.curve.floor + findings.curve.scale
            reached = loss_at(findings.curve, arm.gain.estimate.value * share)
            assert reached == pytest.approx(end + arm.verdict.difference, abs=1e-9)


def test_every_gain_is_named_and_said_as_in_the_table() -> None:
    said = words(gain_figure(WHOLE, Numbers.of(WHOLE)))
    page = html.unescape(to_html(WHOLE))
    for name in ("rope", "alibi"):
        gain = re.search(rf"{name} (×[\d.]+)", said)
        assert gain, said
        assert f">{gain[1]}<br>" in page


def test_without_a_curve_or_a_verdict_there_is_no_figure_of_gains() -> None:
    blocked = find(replace(demo.study(), mismatches=("rope: more parameters",)))
    assert gain_figure(blocked, Numbers.of(blocked)) == ""
    matched = find(replace(demo.study(), metric="exact_match", higher_is_better=True))
    assert gain_figure(matched, Numbers.of(matched)) == ""


@pytest.mark.parametrize("seed", range(20))
def test_labels_keep_apart_in_their_order_and_in_their_room(seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted = sorted(random.uniform(0, 10, random.integers(1, 9)).tolist())
    heights = spread(wanted, 1.0, 0.0, 10.0)
    assert all(two - one >= 1 - 1e-9 for one, two in itertools.pairwise(heights))
    assert heights[0] >= 0
    assert heights[-1] <= 10 + 1e-9
    if all(two - one >= 1 for one, two in itertools.pairwise(wanted)):
        assert heights == pytest.approx(wanted)


def test_labels_that_touch_share_the_way() -> None:
    assert spread([1.0, 1.0, 5.0], 1.0) == [0.5, 1.5, 5.0]
    assert spread([], 1.0) == []


# Costs


def test_bars_are_as_long_as_an_arm_costs_beside_the_baseline() -> None:
    svg = "".join(cost_bars(DEARER))
    flops = next(each for each in quantities(DEARER) if each.name == "training FLOPs")
    assert [value / flops.values[0] for value in flops.values.values()] == [1, 2, 1, 1]
    assert "×2.00, 326 G" in words(svg)
    widths = [
        float(right) - float(left)
        for left, right in re.findall(r'data-arm="[0-3]"> <path d="M ([\d.]+) [\d.]+ L ([\d.]+) ', svg)
    ]
    assert widths[4:8] == pytest.approx([widths[4], 2 * widths[4], widths[4], widths[4]])


def test_what_is_equal_for_all_arms_is_one_bar() -> None:
    svg = "".join(cost_bars(WHOLE))
    assert words(svg).count("every arm") == 3  # FLOPs, tokens and memory
    assert "×" not in words(svg).split("training FLOPs")[1].split("time of training")[0]


def test_tuning_runs_are_costs_too() -> None:
    tuned = find(demo.tuned())
    assert "tuning runs | every arm | 5" in words("".join(cost_bars(tuned)))
    assert "tuning runs" not in words("".join(cost_bars(WHOLE)))


def test_a_baseline_without_a_result_leaves_nothing_to_compare_costs_with() -> None:
    assert cost_bars(find(changed(demo.study(), "learned", demo.failed))) == []
