"""The report of a study: what it says, that it says it honestly, and that its files are sound."""

from __future__ import annotations

import csv
import functools
import html
import io
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from scipy import stats

from gptzoo.ablation import figures, wording
from gptzoo.ablation.analysis import analyse
from gptzoo.ablation.findings import Findings, find, unfinished
from gptzoo.ablation.report import alerts, notes, results_csv, summary_json, to_html, to_markdown, write_report
from gptzoo.ablation.results import read_results
from gptzoo.ablation.study import StudyOutcome
from gptzoo.ablation.wording import Numbers
from tests.ablation import demo_study as demo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def sentences(study: StudyOutcome) -> list[str]:
    findings = find(study)
    return [wording.sentence(findings, arm, Numbers.of(findings)) for arm in findings.arms[1:]]


def with_values(values: dict[str, list[float]], *, curves: bool = False, **changes: object) -> StudyOutcome:
    """The study with these results; the first arm is the baseline."""
    cells = [
        replace(demo.cell(arm, seed), value=value) for arm, row in values.items() for seed, value in enumerate(row)
    ]
    cells = cells if curves else [replace(cell, curve=()) for cell in cells]
    arms = tuple(demo.arm(name) for name in values if name != "a/a")
    seeds = max(map(len, values.values()))
    return replace(demo.study(), arms=arms, seeds=seeds, cells=tuple(cells), **changes)  # type: ignore[arg-type]


def every_study() -> dict[str, StudyOutcome]:
    """Studies of all kinds."""
    whole = demo.study()
    nothing = tuple(demo.failed(cell) for cell in whole.cells)
    return {
        "whole": whole,
        "trouble": demo.with_trouble(),
        "many": demo.many_arms(),
        "one seed": demo.study(seeds=1),
        "five seeds": demo.study(seeds=5),
        "blocked": replace(whole, mismatches=("rope: 115,776 parameters, the baseline has 119,872",)),
        "nothing": replace(whole, cells=nothing),
        "no cells": replace(whole, cells=()),
        "all diverged": replace(whole, cells=tuple(map(demo.diverged, whole.cells))),
        "baseline failed": replace(
            whole, cells=tuple(demo.failed(c) if c.arm == "learned" else c for c in whole.cells)
        ),
        "baseline alone": replace(whole, arms=whole.arms[:1], aa=False, cells=whole.cells[:3]),
        "only a/a": replace(
            whole, arms=whole.arms[:1], cells=tuple(c for c in whole.cells if c.arm in ("learned", "a/a"))
        ),
        "no curves": replace(whole, cells=tuple(replace(cell, curve=()) for cell in whole.cells)),
        "one point": replace(whole, cells=tuple(replace(cell, curve=cell.curve[-1:]) for cell in whole.cells)),
        "no noise": with_values({"learned": [2.0] * 3, "rope": [1.5] * 3, "none": [2.0] * 3}),
        "huge": with_values({"learned": [2.0, 2.1, 2.2], "rope": [1e12, 2e12, 9e12]}),
        "exact match": with_values(
            {"learned": [0.1, 0.12, 0.11], "rope": [0.9, 0.92, 0.93]}, metric="exact_match", higher_is_better=True
        ),
        "a fraction": demo.crossed(),
        "one factor at a time": demo.crossed("both", seeds=3),
        "a grid of many levels": demo.many_levels(),
        "a grid with a hole": replace(
            demo.crossed("grid"),
            cells=tuple(map(demo.failed, demo.crossed("grid").cells[:3])) + demo.crossed("grid").cells[3:],
        ),
        "looks": replace(demo.study(8), looks=(3, 5, 8), delta=0.02),
        "before the first look": replace(demo.study(2), looks=(3, 5, 8)),
        "tuned": demo.tuned(),
        "kills": demo.with_kills(),
        "far": demo.read_far(),
        "by position": demo.read_far(1),
        "tuning goes on": replace(
            demo.tuned(),
            cells=(),
            tuning=tuple(replace(each, rate=None) for each in demo.tuned().tuning[:2]),
        ),
        "odd recipe": replace(whole, base_recipe="{: no yaml", metric="accuracy/novel", match="params+flops+wall"),
    }


STUDIES = every_study()


@functools.cache
def found(name: str) -> Findings:
    """What is found in one of these studies; found once."""
    return find(STUDIES[name])


@functools.cache
def page_of(name: str) -> str:
    """The page of one of these studies; drawn once."""
    return to_html(found(name))


@pytest.fixture(params=STUDIES)
def name(request) -> str:
    return request.param


@pytest.fixture
def study(name) -> StudyOutcome:
    return STUDIES[name]


@pytest.fixture
def page(name) -> str:
    return page_of(name)


# What is said


def test_a_winner_is_told_with_its_size_its_interval_and_its_seeds():
    said = sentences(with_values({"learned": [2.40, 2.42, 2.44], "rope": [2.30, 2.31, 2.35]}))
    assert said == ["rope is better than learned by 0.1000 nats [0.0752, 0.1248], p = 0.0033, 3 seeds."]


def test_a_loser_is_told_likewise():
    said = sentences(with_values({"rope": [2.30, 2.31, 2.35], "learned": [2.40, 2.42, 2.44]}, baseline="rope"))
    assert said == ["learned is worse than rope by 0.1000 nats [0.0752, 0.1248], p = 0.0033, 3 seeds."]


def test_higher_is_better_turns_the_verdict_and_not_the_sign():
    study = STUDIES["exact match"]
    assert sentences(study) == ["rope is better than learned by 0.8067 [0.7780, 0.8354], p < 0.0001, 3 seeds."]
    assert "(higher is better)" in wording.lede(find(study), Numbers.of(find(study)))


def test_equivalence_names_the_margin():
    said = sentences(with_values({"learned": [2.400, 2.421, 2.440], "rope": [2.401, 2.420, 2.442]}, delta=0.02))
    assert said == [
        "rope is equivalent to learned: the difference, +0.0007 nats [\N{MINUS SIGN}0.0031, +0.0045], p = 0.53, "
        "3 seeds, lies within \N{PLUS-MINUS SIGN}0.0200 nats."
    ]


def test_an_undecided_arm_says_what_would_settle_it():
    study = with_values({"learned": [2.40, 2.42, 2.44], "none": [2.39, 2.44, 2.42]}, delta=None)
    assert sentences(study) == [
        "none cannot be told from learned yet: the difference is \N{MINUS SIGN}0.003 nats "
        "[\N{MINUS SIGN}0.055, +0.048], p = 0.81, 3 seeds. "
        "Even 200 seeds would not settle it, if the truth is what was observed."
    ]
    assert [wording.badge(arm) for arm in find(study).arms[1:]] == ["undecided, more than 200 seeds"]


def test_a_divergence_is_counted_and_not_averaged_away():
    assert sentences(demo.with_trouble())[1] == (
        "alibi diverged: 1 of 3 runs did not end in a number. The other 2 average 2.327."
    )


def test_one_seed_gives_numbers_and_no_verdict():
    study = with_values({"learned": [2.4], "rope": [2.3]})
    assert sentences(study) == [
        "rope: no verdict, because one seed says nothing about the noise. "
        "It measured \N{MINUS SIGN}0.1000 nats beside learned."
    ]
    assert [(alert.title, alert.grave) for alert in alerts(find(study))] == [("One seed for learned, rope:", False)]


def test_a_mismatch_takes_the_verdicts_and_the_ranking_and_leaves_the_numbers():
    findings = found("blocked")
    assert findings.analysis is not None
    assert {arm.verdict for arm in findings.analysis.arms} == {"no verdict"}
    assert {arm.reason for arm in findings.analysis.arms} == {"the ledger has a mismatch"}
    assert findings.analysis.ranking == ()
    free = found("whole").analysis
    assert free is not None
    assert [arm.low for arm in findings.analysis.arms] == [arm.low for arm in free.arms]
    first = alerts(findings)[0]
    assert (first.title, first.grave, first.points) == ("Verdicts are blocked.", True, STUDIES["blocked"].mismatches)
    assert json.loads(summary_json(findings))["arms"][0]["verdict"] == "no verdict"


def test_a_divergence_is_told_even_where_the_verdicts_are_blocked():
    study = replace(demo.with_trouble(), mismatches=("data differ",))
    assert [arm.verdict.verdict for arm in find(study).arms[1:] if arm.verdict] == [
        "no verdict",
        "diverged",
        "no verdict",
    ]


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("nothing", "The baseline learned has no result, so there is nothing to compare with."),
        ("no cells", "The baseline learned has no result, so there is nothing to compare with."),
        ("baseline failed", "The baseline learned has no result, so there is nothing to compare with."),
        ("baseline alone", "Only the baseline learned has results, so there is nothing to compare."),
    ],
)
def test_a_study_without_an_analysis_says_why(name, trouble):
    findings = found(name)
    assert (findings.analysis, findings.trouble) == (None, trouble)
    assert trouble in to_html(findings)
    assert json.loads(summary_json(findings))["trouble"] == trouble


def test_an_arm_without_a_result_says_what_became_of_its_runs():
    assert sentences(STUDIES["nothing"])[0] == "rope: no verdict. None of its runs gave a result: 3 failed."
    assert sentences(STUDIES["no cells"])[0] == "rope: no verdict. It has no runs."


def test_a_diverged_baseline_is_grave():
    said = alerts(found("all diverged"))
    assert [(alert.title.split(",")[0], alert.grave) for alert in said] == [("The baseline learned diverged", True)]


def test_an_a_a_arm_beyond_noise_comes_first_and_once():
    study = with_values({"learned": [2.40, 2.41, 2.42], "rope": [2.3, 2.31, 2.33], "a/a": [2.90, 2.91, 2.92]})
    findings = find(study)
    assert [(alert.title, alert.grave) for alert in alerts(findings)] == [("A/A check failed:", True)]
    assert not any("A/A" in note for note in notes(findings))


def test_an_exploratory_study_says_so_at_every_verdict():
    findings = found("trouble")
    assert alerts(findings)[0].text == (
        "The plan's learning rate was changed after the first run. "
        "Take the verdicts as hints for a new plan, not as confirmed."
    )
    assert to_html(findings).count('<span class="note">exploratory</span>') == 3
    assert "exploratory" not in page_of("whole")


def test_without_a_delta_the_methods_say_why_nothing_is_equivalent():
    text = " ".join(wording.methods(found("trouble"), Numbers.of(found("trouble"))))
    assert "No arm can be called equivalent, because the plan gives no delta" in text
    assert "Equivalent means" not in text


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ("tokens", ""),
        ("params+flops", "An arm that costs more per step takes fewer steps. FLOPs are those of the matrix products"),
        ("wall", "A slower arm takes fewer steps. Before anything else each arm was timed in 3 windows of 30 steps"),
    ],
)
def test_the_methods_say_how_arms_got_their_steps(match: str, said: str) -> None:
    findings = find(replace(demo.study(), match=match))
    text = wording.methods(findings, Numbers.of(findings))[1]
    assert (said in text) if said else ("steps. " not in text)
    assert ("about speed on this machine" in text) == (match == "wall")


def test_the_methods_describe_the_model_the_seeds_and_the_tests():
    findings = found("whole")
    design, statistics, *_ = wording.methods(findings, Numbers.of(findings))
    assert design.startswith(
        "3 arms and the baseline learned were trained at seeds 0 to 2 (2 layers, 4 heads, width 64, context 64, "
        "120 k parameters, data python_source, 200 steps, 16 sequences each, adamw, peak learning rate 0.002)."
    )
    assert "t intervals (95% interval, each for one arm alone)" in statistics
    assert "corrected by Holm's method for 3 arms" in statistics
    assert "(6 degrees of freedom)" in statistics


def test_refused_failed_and_diverged_are_all_named_with_their_reasons():
    page = html.unescape(page_of("trouble"))
    assert "fire was not run: plan.yaml:9: model.position: 'fire' adds a dense bias" in page
    assert "out of memory after 80 steps" in page
    assert "loss not finite at step 100" in page


def test_the_ledger_tells_equal_from_different_from_unknown():
    study = demo.study()
    cells = [replace(c, data_hash="other") if (c.arm, c.seed) == ("none", 1) else c for c in study.cells]
    cells = [replace(c, environment={**demo.ENVIRONMENT, "threads": 2}) if c.arm == "rope" else c for c in cells]
    cells = [replace(c, data_key="") if c.arm == "rope" else c for c in cells]
    ledger = {entry.quantity: entry for entry in find(replace(study, cells=tuple(cells))).ledger}
    assert asdict(ledger["tokens trained on"]) == {
        **{"quantity": "tokens trained on", "required": True, "equal": True},
        **{"detail": "the same for all arms", "words": ("equal", "differs")},
    }
    assert ledger["parameters"].detail == "at most \N{MINUS SIGN}3.42% from the baseline (rope)"
    assert ledger["batches and their order, at each seed"].detail == "differ at seed 1"
    assert ledger["environment (versions, threads, device)"].detail == "differs: threads"
    assert ledger["data and tokenizer"].equal is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (wording.short(119_872), "120 k"),
        (wording.short(999.6), "1 k"),
        (wording.short(999_600), "1 M"),
        (wording.short(3.2e15), "3.2 P"),
        (wording.short(None), "–"),
        (wording.duration(5.12), "5.1 s"),
        (wording.duration(59.97), "1 min 0 s"),
        (wording.duration(12_000), "3 h 20 min"),
        (wording.memory(151_000_000), "151 MB"),
        (wording.memory(12), "12 B"),
        (wording.p_text(0.8213), "0.82"),
        (wording.p_text(0.00012, "= "), "= 0.0001"),
        (wording.p_text(0.0), "< 0.0001"),
        (wording.p_text(1.0), "1.0"),
        (wording.share(0.9999), "> 99%"),
        (wording.share(0.0), "0%"),
        (wording.share(0.001), "< 1%"),
        (
            wording.value_text({"name": "rope", "base": None, "on": [True, 1.5]}),
            "{name: rope, base: null, on: [true, 1.5]}",
        ),
        (Numbers("loss", "nats", 3).signed(-0.0001), "0.000"),
        (Numbers("loss", "nats", 3).signed(-0.5), "\N{MINUS SIGN}0.500"),
        (Numbers("bits per byte", "bits per byte", 3).heading, "bits per byte"),
    ],
)
def test_numbers_are_written_for_people(said, wanted):
    assert said == wanted


# The page


def test_the_page_needs_nothing_but_itself(page):
    assert not re.findall(r"https?://|//cdn|@import|src=|<link|<iframe|fetch\(|XMLHttpRequest", page)
    drawn = "forest seeds tokens bowls positions half-normal interaction gradients logits costs"
    assert set(re.findall(r"url\(([^)]{0,2})", page)) <= {f"#{name[0]}" for name in drawn.split()}


def test_figures_take_their_colours_and_fonts_from_the_page(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b|font-family|<metadata|<style", drawn)
    used, styled = set(re.findall(r"var\((--[\w-]+)\)", page)), set(re.findall(r"(--[\w-]+): #", page))
    assert used <= styled
    light, dark = page.split("prefers-color-scheme: dark")
    assert set(re.findall(r"(--[\w-]+): #", light)) == set(re.findall(r"(--[\w-]+): #", dark))


def test_ids_are_unique_and_references_lead_somewhere(page):
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', page)) <= set(ids)


def test_the_page_is_well_formed(page):
    from xml.etree import ElementTree

    for drawn in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(drawn.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    for tag in ("table", "tr", "td", "th", "div", "ul", "li", "p", "figure", "details", "span", "code"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_no_number_is_nan_and_nothing_is_none(page):
    words = html.unescape(re.sub(r"<(style|script|svg|pre).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))
    allowed = r"none (\(too few runs\)|cannot|diverged|is|:)|none"
    assert not re.findall(r"\bnan\b|\binf\b|\bNone\b(?! of its runs)|Undefined", re.sub(allowed, "", words))


def test_names_from_a_plan_are_text_and_never_markup():
    page = page_of("many")
    assert "<b>&amp;</b>" not in page
    assert "rôle “naïve” &lt;b&gt;&amp;amp;&lt;/b&gt; $x^2$" in page
    assert "窓付き注意 (窓 128)" in page


def test_a_long_name_is_whole_in_the_table_and_short_in_the_figures():
    page = page_of("many")
    assert "grouped-query-attention-2-heads-rope-base-500000</a></th>" in page
    assert "grouped-query-att…rope-base-500000<" in page


@pytest.mark.parametrize("columns", range(4, 60))
def test_a_shortened_name_fits_and_keeps_both_ends(columns):
    name = "窓付き注意-with-a-long-English-name-注意"
    short = figures.shortened(name, columns)
    width = sum(2 if ord(letter) > 0x2FFF else 1 for letter in short)
    assert width <= columns
    assert short == name or "…" in short
    assert columns < 6 or (short[0], short[-1]) == (name[0], name[-1])


def test_twelve_arms_have_twelve_colours():
    assert len({figures.colour_of(row) for row in range(12)}) == 12
    assert figures.colour_of(12) == 1, "the baseline's colour is never shared"


@pytest.mark.parametrize(("seeds", "few"), [(2, True), (3, False), (6, False)])
def test_a_band_is_the_range_of_few_runs_and_the_interval_of_many(seeds, few):
    cells = [cell for cell in demo.study(seeds).cells if cell.arm == "rope"]
    band = figures.curve(cells, "tokens")
    assert band is not None
    last = np.array([cell.curve[-1].value for cell in cells])
    low, high = stats.t.interval(0.95, seeds - 1, last.mean(), stats.sem(last))
    wanted = (last.min(), last.max()) if few else (low, high)
    assert (band.low[-1], band.high[-1]) == pytest.approx(wanted)
    assert band.mean[-1] == pytest.approx(last.mean())


def test_a_curve_uses_the_steps_that_all_runs_have():
    whole, short = demo.cell("rope", 0), demo.cell("rope", 1)
    holey = replace(short, curve=tuple(point for point in short.curve if point.step != 50))
    spiky = tuple(replace(p, value=math.inf) if p.step == 60 else p for p in holey.curve)
    band = figures.curve([whole, replace(holey, curve=spiky)], "tokens")
    assert band is not None
    assert len(band.x) == len(whole.curve) - 2


def test_every_cell_has_a_place_a_folder_and_a_command(name, page):
    cells = [cell for arm in found(name).everyone for cell in arm.cells]
    for place, arm in enumerate(found(name).everyone):
        assert page.count(f'id="cells-{place}"') == bool(arm.cells)
        assert all(page.count(f'id="cell-{place}-{cell.seed}"') == 1 for cell in arm.cells)
    ended = [cell for cell in cells if cell.status in ("done", "diverged")]
    runs = [run for tuned in found(name).study.tuning for run in tuned.runs if run.status in ("done", "diverged")]
    assert page.count('<button class="copy"') == len(ended) + len(runs)
    assert all(f'<a href="./{quote(cell.path)}">' in page for cell in cells)


def test_numbers_lead_to_their_cells():
    page = page_of("whole")
    assert '<a class="quiet" href="#cells-1">2.28' in page
    assert '<a class="quiet" href="#cells-4">' in page
    assert 'gptzoo ablate replay positions/rope-0</code><button class="copy" data-copy="gptzoo ablate replay' in page
    assert "<title>rope, seed 0: " in page
    assert "<title>rope: \N{MINUS SIGN}0.1" in page
    assert 'href="#tuning-1"' in page_of("tuned")


def test_a_report_in_a_folder_of_its_own_finds_the_cells_beside_it(tmp_path):
    (tmp_path / "tokens").mkdir()
    write_report(demo.study(1), tmp_path / "tokens", up="../")
    page = (tmp_path / "tokens" / "report.html").read_text()
    assert '<a href="../cells/rope-0">cells/rope-0</a>' in page
    assert '<a href="./results.csv">' in page


# The other files


def test_results_give_the_same_analysis_when_read_back(name, study, tmp_path):
    (tmp_path / "results.csv").write_text(results_csv(study))
    bare = replace(study, mismatches=(), tuning=(), rungs=())  # of these no row tells
    analysis = (found(name) if study == bare else find(bare)).analysis
    if analysis is None or unfinished(study):
        return
    cells = read_results(tmp_path / "results.csv")
    again = analyse(
        cells,
        alpha=study.alpha,
        delta=study.delta,
        higher_is_better=study.higher_is_better,
        looks=study.looks,
    )
    assert again == analysis


def test_results_have_a_row_for_every_cell_and_three_columns_first():
    study = demo.with_trouble()
    rows = list(csv.reader(io.StringIO(results_csv(study))))
    assert rows[0][:4] == ["arm", "seed", "metric", "status"]
    assert len(rows) == 1 + len(study.cells)
    status = {(row[0], row[1]): (row[2], row[3]) for row in rows[1:]}
    assert status["rope", "1"] == ("", "failed")
    assert status["alibi", "2"] == ("nan", "diverged")
    assert status["none", "2"] == ("", "missing")


def test_the_baseline_comes_first_in_the_results_wherever_it_stands_in_the_plan():
    study = replace(demo.study(), baseline="alibi")
    assert results_csv(study).splitlines()[1].startswith("alibi,0,")


def test_the_summary_is_strict_json_with_verdicts_cells_and_ledger(name, study):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    summary = json.loads(summary_json(found(name)), parse_constant=refuse)
    assert {"baseline", "alpha", "delta", "arms", "plan_hash", "cells", "ledger", "mismatches"} <= set(summary)
    assert len(summary["cells"]) == len(study.cells)
    for arm in summary["arms"]:
        wanted = {"arm", "n", "mean", "difference", "low", "high", "p", "p_holm", "verdict", "method"}
        assert wanted <= set(arm)


def test_the_markdown_table_has_a_row_per_arm_and_keeps_odd_names_in_their_cells():
    arms = (*demo.study().arms[:1], demo.arm("a|b *c*"))
    cells = (*demo.study().cells[:3], *(demo.cell("a|b *c*", seed) for seed in range(3)))
    text = to_markdown(find(replace(demo.study(), arms=arms, cells=cells)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert rows[3].startswith(r"| a\|b \*c\* | ")
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {10}


def test_gains_in_compute_are_in_every_file():
    page, text, summary = html.unescape(page_of("whole")), to_markdown(found("whole")), summary_json(found("whole"))
    gain = found("whole").arms[1].gain
    assert gain is not None
    value, ends = f"\N{MULTIPLICATION SIGN}{gain.estimate.value:.2f}", f"{gain.low.value:.2f}, {gain.high.value:.2f}"
    assert "<th>gain in compute</th>" in page
    assert f">{value}<br><small>[{ends}]</small></td>" in page
    assert f"| {value} \\[{ends}\\] |" in text
    assert f"That is worth {value} the compute [{ends}]." in page
    said = "Gain in compute: how many times an arm's training FLOPs learned would need"
    assert said in page
    assert said in text
    assert json.loads(summary)["compute_gains"]["rope"]["estimate"] == {"value": gain.estimate.value, "side": 0}
    assert json.loads(summary)["compute_curve"]["runs"] == 6
    assert json.loads(summary_json(found("exact match")))["compute_gains"] == {}


def test_blocked_verdicts_are_loud_in_markdown_too():
    assert "> **Verdicts are blocked.** The arms were not compared on equal terms" in to_markdown(found("blocked"))


SCRIPT = """
import sys
from pathlib import Path
from tests.ablation.demo_study import many_arms, with_trouble
from gptzoo.ablation.report import write_report
for name, study in (("a", many_arms()), ("b", with_trouble())):
    folder = Path(sys.argv[1]) / name
    folder.mkdir(parents=True)
    paths = write_report(study, folder)
    assert [path.name for path in paths] == ["report.html", "results.csv", "summary.json", "report.md"], paths
    assert sorted(folder.iterdir()) == sorted(paths)
assert "torch" not in sys.modules, "a report needs no torch"
"""


def test_a_report_made_again_is_equal_to_the_byte_and_needs_no_torch(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    folders = {seed: tmp_path / f"folder-{seed}" for seed in ("1", "2")}
    runs = []
    for seed, folder in folders.items():
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "HOME": str(tmp_path), "PATH": ""}
        run = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)]
        runs.append(subprocess.Popen(run, env=environment, cwd=tmp_path))
    assert [run.wait() for run in runs] == [0, 0]
    made = [
        {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in folders.values()
    ]
    assert len(made[0]) == 8
    assert made[0] == made[1]
    assert not any(str(tmp_path).encode() in data or str(root).encode() in data for data in made[0].values())


def test_drawing_leaves_matplotlib_as_it_was_and_ignores_its_settings():
    import matplotlib

    plain = page_of("whole")
    with matplotlib.rc_context({"font.size": 31, "lines.linewidth": 9}):
        assert to_html(find(demo.study())) == plain
        assert matplotlib.rcParams["font.size"] == 31


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path):
    from gptzoo.errors import GPTZooError

    with pytest.raises(GPTZooError) as caught:
        write_report(demo.study(seeds=1), tmp_path / "nowhere")
    missing = tmp_path / "nowhere" / "report.html"
    assert str(caught.value) == f"{missing}: cannot be written: No such file or directory."


# In a browser


def in_browser(findings: Findings, width: int, script: str, folder: Path) -> object:
    """What a script finds in the page, shown in a frame of this width; `page` is its document, `view` its window."""
    frame = f'<iframe style="border:0" width="{width}" height="900" srcdoc="{html.escape(to_html(findings))}"></iframe>'
    asked = f"""<pre id=answer></pre><script>
addEventListener("load", () => {{
  const view = document.querySelector("iframe").contentWindow, page = view.document;
  document.getElementById("answer").textContent = JSON.stringify((() => {{ {script} }})());
}});</script>"""
    (folder / "asked.html").write_text(frame + asked)
    return answer_of(folder / "asked.html", folder)


def answer_of(page: Path, folder: Path, *options: str) -> object:
    """What a page's script has put into its element `answer`."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", *options, "--dump-dom"),
        page.as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    answer = re.search(r'<pre id="answer">(.*?)</pre>', shown)
    assert answer, shown[-500:]
    return json.loads(html.unescape(answer[1]))


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@needs_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(width, tmp_path):
    script = """
    const wide = [...page.querySelectorAll("body *")].filter((part) => !part.closest(".scroll, svg, pre")
      && part.getBoundingClientRect().right > view.innerWidth + 1);
    return [page.documentElement.scrollWidth, wide.map((part) => part.outerHTML.slice(0, 80))];"""
    assert in_browser(found("many"), width, script, tmp_path) == [width, []]


def from_its_file(folder: Path, script: str) -> object:
    """What a script finds in the report that lies in a folder, opened as a file where there is no network."""
    page = (folder / "report.html").read_text()
    asked = f"""<pre id=answer></pre><script>
document.getElementById("answer").textContent = JSON.stringify((() => {{ {script} }})());</script></body>"""
    (folder / "asked.html").write_text(page.replace("</body>", asked))
    return answer_of(folder / "asked.html", folder, "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=0.0.0.0:1")


@needs_browser
def test_sorting_and_hiding_need_no_network(tmp_path):
    script = """
    const table = document.querySelector("table.sortable");
    const button = [...table.querySelectorAll("thead button")].find((b) => b.textContent === "difference");
    const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
    const before = order(); button.click(); const up = order(); button.click(); const down = order();
    const boxes = [...document.querySelectorAll('[data-hides="1"]')];
    const parts = [...document.querySelectorAll('[data-arm="1"]')];
    const others = document.querySelectorAll('[data-arm="2"]');
    const seen = (part) => getComputedStyle(part).display !== "none";
    const first = parts.every(seen); boxes[0].click(); const hidden = !parts.some(seen);
    const kept = [...others].every(seen), same = boxes.every((box) => !box.checked); boxes[1].click();
    return {before, up, down, parts: new Set(parts.map((part) => part.tagName)).size, first, hidden, kept, same,
      back: parts.every(seen), loaded: performance.getEntriesByType("resource").length, at: location.protocol};"""
    write_report(replace(demo.tuned(), aa=False, cells=demo.tuned().cells[:12]), tmp_path)
    differences = {arm: demo.MEANS[arm] for arm in demo.MEANS}
    assert from_its_file(tmp_path, script) == {
        **{"before": list(demo.MEANS), "up": (up := sorted(differences, key=lambda arm: differences[arm]))},
        **{"down": up[::-1], "parts": 2, "first": True, "hidden": True, "kept": True, "same": True, "back": True},
        **{"loaded": 0, "at": "file:"},
    }


@needs_browser
def test_a_link_leads_to_its_cell_and_opens_what_hides_it(tmp_path):
    script = """
    const dots = [...document.querySelectorAll("svg.seeds a")], rows = dots.map((dot) =>
      document.getElementById(dot.getAttribute("href").slice(1)).closest("tr"));
    const said = dots.map((dot, i) => [dot.querySelector("title").textContent, rows[i].cells[0].textContent,
      rows[i].cells[1].textContent, rows[i].cells[4].textContent]);
    location.hash = "tuning-1"; dispatchEvent(new HashChangeEvent("hashchange"));
    return [said, document.getElementById("tuning-1").closest("details").open];"""
    write_report(demo.tuned(), tmp_path)
    said, opened = from_its_file(tmp_path, script)  # type: ignore[misc]
    assert opened is True
    assert len(said) == len(demo.tuned().cells)
    for title, arm, seed, value in said:
        assert title == f"{arm}, seed {seed}: {float(value):.3f}"


# Factors


def test_a_fraction_says_what_it_found_and_what_it_cannot_tell_apart():
    page = page_of("a fraction")
    assert "16 combinations of 6 factors of 64, a fraction of resolution IV: bias is on where an odd number of" in page
    said = "rope x bias or swiglu x rmsnorm or qk_norm x tied: one of these interactions is real."
    assert said in html.unescape(page)
    assert page.count("<h3>Effects beside noise</h3>") == 1
    assert "<h3>rope and bias</h3>" in page


def test_changes_that_interact_are_told_where_one_goes_in_and_one_goes_out():
    text = html.unescape(page_of("one factor at a time"))
    assert "swiglu interacts: it does not do among the others what it does alone (p" in text
    assert "rope interacts" not in text


def test_a_grid_of_many_levels_has_an_analysis_of_variance():
    summary = json.loads(summary_json(found("a grid of many levels")))
    terms = {term["factors"][0]: term for term in summary["effects"]["terms"] if len(term["factors"]) == 1}
    assert terms["model.position"]["p_holm"] < 0.001
    assert terms["model.norm"]["df"] == 1


def test_effects_are_withheld_where_verdicts_are():
    blocked = replace(STUDIES["a fraction"], mismatches=("rope: trained on 512 tokens, the baseline on 384",))
    assert find(blocked).effects is None
    assert "<h2>Factors</h2>" not in to_html(find(blocked))


@pytest.mark.parametrize("kind", ["grid", "fractional", "both"])
def test_effects_are_not_told_of_runs_that_were_chosen_by_their_results(kind):
    study = demo.crossed(kind)
    killed = tuple(replace(c, status="killed", value=None) if c is study.cells[-1] else c for c in study.cells)
    for chosen, why in (
        (replace(study, looks=(3, 5)), "looks stop arms"),
        (replace(study, cells=killed), "were killed"),
    ):
        findings = find(chosen)
        assert findings.effects is None
        assert why in findings.study.notes[-1]


# Tuning, and arms that were killed


def test_an_arm_with_a_killed_run_has_no_verdict_and_leaves_the_noise():
    study = demo.with_kills()
    findings = find(study)
    assert findings.analysis is not None
    assert sentences(study)[2].startswith(
        "none: no verdict, because 2 of 3 runs were killed at 25% of training, far behind. It measured "
    )
    assert wording.badge(findings.arms[3]) == "no verdict, killed"
    assert "none: 2 of 3 runs were killed, far behind. Its mean is over the other runs, and flatters it." in " ".join(
        notes(findings)
    )
    alone = find(replace(study, cells=tuple(cell for cell in study.cells if cell.arm != "none"))).analysis
    assert alone is not None
    assert (findings.analysis.sigma, findings.analysis.df) == (alone.sigma, alone.df)
    assert "none" not in {place.arm for place in findings.analysis.ranking}


def test_an_arm_of_which_all_runs_were_killed_is_told():
    study = replace(
        demo.tuned(), cells=tuple(demo.killed(c, 0.5) if c.arm == "none" else c for c in demo.study().cells)
    )
    said = "none: no verdict, because 3 of 3 runs were killed at 50% of training, far behind."
    assert sentences(study)[2] == said
    rows = list(csv.DictReader(io.StringIO(results_csv(study))))
    assert {(row["metric"], row["status"]) for row in rows if row["arm"] == "none"} == {("", "killed")}


def test_an_untuned_arm_has_no_verdict_and_no_place():
    findings = found("kills")
    assert findings.analysis is not None
    assert sentences(demo.with_kills())[1].startswith(
        "alibi: no verdict, because it is untuned: its best rate, 0.008, is the highest that was tried. It measured "
    )
    assert [place.arm for place in findings.analysis.ranking] == ["rope", "learned"]
    assert findings.analysis.arms[0].verdict == "better"


def test_an_untuned_baseline_takes_every_verdict():
    tuning = [replace(each, trouble="its best rate is the lowest") for each in demo.tuned().tuning[:1]]
    study = replace(demo.tuned(), tuning=(*tuning, *demo.tuned().tuning[1:]))
    findings = find(study)
    assert findings.analysis is not None
    assert {arm.verdict for arm in findings.analysis.arms} == {"no verdict"}
    assert {arm.reason for arm in findings.analysis.arms} == {
        "the baseline is untuned: its best rate is the lowest",
    }
    assert findings.analysis.ranking == ()
    assert alerts(findings)[0].grave
    assert alerts(findings)[0].title == ("The baseline learned is untuned:")


def tuned_with(arm: str, runs: int = 5, **changes: object) -> StudyOutcome:
    """The tuned study, an arm's tuning being another."""
    study = demo.tuned()
    made = [
        replace(each, runs=tuple(replace(run, **changes) for run in each.runs[:runs])) if each.arm == arm else each  # type: ignore[arg-type]
        for each in study.tuning
    ]
    return replace(study, tuning=tuple(made))


@pytest.mark.parametrize(
    ("study", "mismatch"),
    [
        (tuned_with("rope", runs=4), "rope: 4 tuning runs, the baseline had 5 tuning runs"),
        (tuned_with("rope", tokens=102_400), "rope: tuning runs of 102,400 tokens, the baseline's had 51,200"),
        (tuned_with("rope", seed=1), "rope: tuned on seed 1, which its results use"),
        (
            replace(demo.tuned(), tuning=demo.tuned().tuning[1:]),
            "rope: 5 tuning runs, the baseline had no tuning runs",
        ),
    ],
)
def test_an_arm_that_was_tuned_on_other_terms_blocks_every_verdict(study, mismatch):
    findings = find(study)
    assert findings.study.mismatches[0] == mismatch
    assert alerts(findings)[0].title == "Verdicts are blocked."
    assert {arm.verdict.verdict for arm in findings.arms if arm.verdict} == {"no verdict"}
    assert mismatch in html.unescape(to_html(findings))


def test_equal_tuning_blocks_nothing_and_stands_in_the_ledger():
    findings = found("tuned")
    assert findings.study.mismatches == ()
    ledger = {entry.quantity: (entry.required, entry.equal, entry.detail) for entry in findings.ledger}
    assert ledger["tuning runs"] == (True, True, "5 for every arm")
    assert ledger["tokens of the longest tuning run"] == (True, True, "51,200 for every arm")
    assert ledger["tuning seeds that no result uses"] == (True, True, "seed 20000")
    assert ledger["learning rate chosen"][2] == "learned 0.0021, rope 0.0034, alibi 0.0017, none 0.0026"
    assert ledger["best learning rate inside the tried ones"] == (True, True, "for every arm")
    assert ledger["runs that diverged"] == (False, True, "\N{EN DASH}")
    killed = {entry.quantity: entry.detail for entry in found("kills").ledger}
    assert killed["runs that were killed"] == "2 of 3 of none"
    assert killed["best learning rate inside the tried ones"] == (
        "alibi: its best rate, 0.008, is the highest that was tried"
    )
    assert {e.quantity: e.detail for e in found("whole").ledger}["tuning runs"] == "none for any arm"


def test_the_page_shows_the_bowls_and_what_a_wrong_rate_costs():
    page = page_of("kills")
    assert "<h2>Tuning</h2>" in page
    assert "<h3>Loss over the learning rate</h3>" in page
    assert '<span class="state bad">untuned</span>' in page
    assert '<svg class="figure bowls"' in page
    assert "<h2>Tuning</h2>" not in page_of("whole")
    sensitivity = json.loads(summary_json(found("tuned")))["sensitivity"]
    levels = [run.value for run in demo.tuned().tuning[0].runs if run.value is not None]
    assert sensitivity["learned"] == pytest.approx(np.mean(levels) - min(levels))


def test_a_tuning_that_goes_on_blocks_nothing_yet():
    assert found("tuning goes on").study.mismatches == ()


# Looks


def test_what_each_look_stopped_is_in_the_report():
    findings = found("looks")
    page = html.unescape(to_html(findings))
    assert findings.analysis is not None
    assert "<h2>Looks</h2>" in page
    assert findings.analysis.looks[0].seeds == 3
    stopped = {stop.arm for look in findings.analysis.looks for stop in look.stops}
    assert {"rope", "alibi"} <= stopped
    assert "Looks were planned after 3, 5 and 8 seeds, and taken after 3 and 5." in page
    assert "both one-sided tests reject at the level that the look spent" in page
    assert "at most 8 seeds each" in page
    assert "interval at the level that its look spent" in page


def test_before_the_first_look_there_is_no_verdict_and_no_p_value():
    findings = found("before the first look")
    assert "3, 5 and 8 seeds, and none was taken yet." in " ".join(wording.methods(findings, Numbers.of(findings)))
    assert {arm.verdict.verdict for arm in findings.arms if arm.verdict} == {"no verdict"}
    assert all("p " not in said and "[" not in said for said in sentences(STUDIES["before the first look"]))
