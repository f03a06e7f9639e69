"""Losses by position: written at the end of a cell, equal to its evaluation, and read as far as a model goes."""

from __future__ import annotations

import html
import json
import math
import shutil
from pathlib import Path

import pytest

from gptzoo.ablation.collecting import collect
from gptzoo.ablation.findings import find
from gptzoo.ablation.plan import parse_plan, read_plan
from gptzoo.ablation.positions import edges, ends, read_positions, spans
from gptzoo.ablation.report import summary_json, to_html
from gptzoo.errors import GPTZooError
from gptzoo.runs import Records
from tests.ablation import demo_study as demo
from tests.ablation.studies import TWO_ARMS, Place


@pytest.fixture(scope="module")
def far(place: Place) -> Path:
    """A study read at four times the context length: learned positions end, none go on."""
    done = place.run(place.plan(TWO_ARMS, name="far", seeds=1, aa=False, read_at=4), runs="far-runs")
    assert dict(done.failed) == {}
    return place.study("far-runs", "far")


def test_every_cell_is_read_at_the_length_it_was_trained_at(serial: Place) -> None:
    for cell in collect(serial.study()).cells:
        assert cell.positions is not None
        assert (cell.positions.trained, cell.positions.asked, cell.positions.trouble) == (16, 16, "")
        assert cell.positions.targets == (4,) * 16
        records = [r for r in Records.read(serial.study() / cell.path / "metrics.jsonl") if "val_loss" in r]
        mean = math.fsum(x for x in cell.positions.losses if x is not None) / 16
        assert mean == pytest.approx(float(records[-1]["val_loss"]), rel=1e-5)  # type: ignore[arg-type]


def test_positions_that_end_are_told_and_others_are_read_on(far: Path) -> None:
    cells = {cell.arm: cell for cell in collect(far).cells}
    learned, none = cells["learned"].positions, cells["none"].positions
    assert learned is not None
    assert none is not None
    assert (len(learned.losses), learned.asked, learned.trouble) == (16, 64, "its positions end at 16")
    assert (len(none.losses), none.trouble) == (64, "")
    assert all(math.isfinite(loss) for loss in none.losses if loss is not None)
    assert ends([cells["learned"]]) == "read up to position 16: its positions end at 16"
    page = html.unescape(to_html(find(collect(far))))
    assert "learned was read up to position 16: its positions end at 16." in page
    assert "The dashed line is the length of rows in training." in page


def test_a_file_that_was_changed_is_found_and_a_damaged_one_refused(far: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(far, tmp_path / "far"))
    file = folder / "cells" / "none-0" / "positions.json"
    file.write_text(file.read_text().replace('"trained":16', '"trained":17'))
    assert "cells/none-0/positions.json was changed after the run" in collect(folder).mismatches
    file.write_text("{")
    with pytest.raises(GPTZooError) as caught:
        read_positions(file.parent)
    assert str(caught.value) == f"{file}: these are no losses by position. Remove the file, or restore it."
    file.unlink()
    assert read_positions(file.parent) is None


def test_spans_double_and_break_at_the_trained_length() -> None:
    assert edges(8, 8) == list(range(9))
    assert edges(100, 24) == [0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 100]
    made = spans([c for c in demo.read_far().cells if c.arm == "rope"])
    assert [(span.start, span.stop) for span in made][-3:] == [(32, 64), (64, 128), (128, 256)]
    runs = [c.positions.losses[64:128] for c in demo.read_far().cells if c.arm == "rope" and c.positions is not None]
    means = [sum(x for x in losses if x is not None) / 64 for losses in runs]
    assert (made[-2].mean, made[-2].low, made[-2].high) == pytest.approx((sum(means) / 3, min(means), max(means)))


def test_the_report_shows_them_where_there_are_any() -> None:
    page = html.unescape(to_html(find(demo.read_far())))
    assert "<h3>Up to and beyond the context length</h3>" in page
    assert '<svg class="figure positions"' in page
    assert "<h3>Up to the context length</h3>" in html.unescape(to_html(find(demo.read_far(1))))
    assert "<h2>Loss by position</h2>" not in to_html(find(demo.study()))
    summary = json.loads(summary_json(find(demo.read_far())))
    assert summary["positions"]["rope"][-1]["stop"] == 256


def test_a_plan_says_how_far_and_text_alone_can_be_read_on(place: Place, tmp_path: Path) -> None:
    from gptzoo.ablation.planning import plan_cells

    text = "base: gpt2-tiny\narms: {a: {}, b: {model.position: rope}}\n"
    assert parse_plan(text, "p.yaml", "p").read_at == 1
    assert "read_at" not in parse_plan(text, "p.yaml", "p").described
    assert parse_plan(f"{text}read_at: 4\n", "p.yaml", "p").described["read_at"] == 4
    with pytest.raises(GPTZooError) as caught:
        parse_plan(f"{text}read_at: 0.5\n", "p.yaml", "p")
    assert str(caught.value) == (
        "p.yaml:3: read_at: 0.5 is not a whole number from 1 to 64, times the context length. Write 4."
    )
    plan = tmp_path / "sums.yaml"
    plan.write_text("base: algebra-tiny\narms: {a: {}, b: {model.position: rope}}\nread_at: 4\n")
    with pytest.raises(GPTZooError) as caught:
        plan_cells(read_plan(plan))
    assert str(caught.value).endswith(
        "sums.yaml: read_at: it reads text beyond the context length, and data 'algebra' is no text. Leave it out."
    )
