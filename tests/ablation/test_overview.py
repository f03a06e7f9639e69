"""A study that was matched in several ways: both beside each other, and what depends on it."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gptzoo.ablation.findings import find
from gptzoo.ablation.overview import Side, disagreements, to_html, to_json, to_markdown, write_overview
from gptzoo.ablation.study import StudyOutcome
from tests.ablation import demo_study as demo


def matched_on_flops() -> StudyOutcome:
    """The study where rope is no better once its FLOPs are paid for, and alibi could not be matched."""
    whole = demo.study()
    cells = [replace(c, value=(c.value or 0) + 0.17) if c.arm == "rope" else c for c in whole.cells]
    arms = [replace(arm, refused="no width matches") if arm.name == "alibi" else arm for arm in whole.arms]
    cells = [cell for cell in cells if cell.arm != "alibi"]
    return replace(whole, match="flops+params", arms=tuple(arms), cells=tuple(cells))


@pytest.fixture(scope="module")
def sides() -> list[Side]:
    return [Side.of(find(study)) for study in (demo.study(), matched_on_flops())]


@pytest.fixture(scope="module")
def page(sides: list[Side]) -> str:
    return to_html(sides)


def test_where_verdicts_disagree_a_sentence_says_so(sides: list[Side]) -> None:
    assert disagreements(sides) == [
        "rope: matched on tokens, it is better than learned; matched on FLOPs and parameters, it cannot be told from "
        "learned.",
        "alibi: matched on tokens, it is better than learned; matched on FLOPs and parameters, it could not be run.",
    ]
    same = [sides[0], Side.of(find(replace(demo.study(), match="flops")))]
    assert disagreements(same) == []
    assert "Every arm has the same verdict under both ways of matching." in to_html(same)
    third = Side.of(find(replace(demo.study(), match="wall")))
    assert disagreements([*same, third, sides[1]])[0] == (
        "rope: matched on tokens or on FLOPs or on training time, it is better than learned; matched on FLOPs and "
        "parameters, it cannot be told from learned."
    )


def test_both_stand_side_by_side_and_lead_to_their_reports(sides: list[Side], page: str) -> None:
    text = html.unescape(page)
    assert all(line in text for line in disagreements(sides))
    assert '<a href="./tokens/report.html">matched on tokens</a>' in page
    assert f'<a href="./{sides[1].folder}/report.html">matched on FLOPs and parameters</a>' in page
    assert page.count("<svg ") == 2
    assert 'href="./tokens/report.html#cells-1"' in page
    rows = {row.split("</th>")[0]: row for row in page.split('<tr><th scope="row">')[1:]}
    assert re.findall(r'class="badge [^>]*>([^<]*)<', rows["rope"]) == ["better", "undecided, 14 more seeds"]
    assert re.findall(r'class="badge [^>]*>([^<]*)<', rows["alibi"]) == ["better", "refused"]


def test_the_page_needs_nothing_but_itself_and_its_ids_are_unique(page: str) -> None:
    assert not re.findall(r"https?://|@import|src=|<link|<script", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', page)) <= set(ids)
    assert not re.findall(r"#[0-9a-f]{6}\b", "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)))
    for tag in ("table", "tr", "td", "th", "div", "ul", "li", "p", "figure", "span"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_the_other_files_say_the_same(sides: list[Side], tmp_path: Path) -> None:
    text, summary = to_markdown(sides), json.loads(to_json(sides))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    assert "(tokens/report.md)" in text
    assert "rope: matched on tokens, it is better than learned; matched on FLOPs and" in text
    assert summary["disagreements"] == disagreements(sides)
    verdicts = {match: [arm["verdict"] for arm in side["arms"]] for match, side in summary["matches"].items()}
    assert verdicts == {
        "tokens": ["better", "better", "undecided"],
        "flops+params": ["undecided", "refused", "undecided"],
    }
    assert [path.name for path in write_overview(sides, tmp_path)] == ["report.html", "report.md", "summary.json"]


def test_a_mismatch_under_one_way_is_loud_and_says_which(sides: list[Side]) -> None:
    blocked = Side.of(find(replace(demo.study(), match="flops", mismatches=("rope: data differ",))))
    page = to_html([sides[0], blocked])
    assert "<strong>Matched on FLOPs: Verdicts are blocked.</strong>" in page
    assert "rope: matched on tokens, it is better than learned; matched on FLOPs, it has no verdict." in page
