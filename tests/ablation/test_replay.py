"""A cell that is replayed comes out again to the bit, and what was tampered with does not."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest

from gptzoo.ablation.ledger import CellRecord, write_cell
from gptzoo.ablation.replay import find_cell, replay
from gptzoo.cli import run
from gptzoo.errors import GPTZooError
from tests.ablation.studies import Place


def said(place: Place, cell: str, runs: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the command."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(["ablate", "replay", cell, "--runs", str(runs), "-p", place.plugin])
    return code, out.getvalue().splitlines()


def test_a_cell_comes_out_again_bit_for_bit(serial: Place) -> None:
    before = {path: path.read_bytes() for path in serial.study().rglob("*") if path.is_file()}
    code, lines = said(serial, "none-1", serial.folder / "runs")
    assert code == 0
    assert lines[0] == f"{serial.study() / 'cells' / 'none-1'}: reproduced"
    assert lines[1] == "  same environment: every bit must be equal"
    assert [line.split(":")[1].split(",")[0] for line in lines[2:]] == [" equal", " equal"]
    assert {path: path.read_bytes() for path in serial.study().rglob("*") if path.is_file()} == before


def test_a_number_that_was_changed_does_not_come_out_again(serial: Place) -> None:
    cells = serial.study("tampered") / "cells"
    shutil.copytree(serial.study() / "cells" / "none-1", cells / "none-1")
    metrics = cells / "none-1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"step":6', '"step":7'))
    code, lines = said(serial, "none-1", serial.folder / "tampered")
    assert code == 1
    assert lines[:2] == [
        f"{cells / 'none-1'}: does not reproduce",
        "  metrics.jsonl of the cell was changed after the run",
    ]
    assert "differ" in lines[3]
    assert "equal" in lines[4]


@pytest.mark.parametrize(("factor", "reproduced"), [(1.0, True), (1.05, False)])
def test_elsewhere_it_comes_out_within_the_tolerance(serial: Place, factor: float, reproduced: bool) -> None:
    """A cell that claims another torch, with its own numbers and with numbers that are 5 % off."""
    runs = serial.folder / f"elsewhere-{factor}"
    cell = runs / "tiny" / "cells" / "none-0"
    shutil.copytree(serial.study() / "cells" / "none-0", cell)
    environment = json.loads((cell / "environment.json").read_text())
    (cell / "environment.json").write_text(json.dumps({**environment, "torch": "1.0"}))
    if factor != 1.0:
        records = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
        moved = [
            {key: value * factor if key == "val_loss" else value for key, value in each.items()} for each in records
        ]
        (cell / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in moved))
    reseal(cell)
    made = replay("none-0", runs=runs, plugins=[serial.plugin])
    assert (made.reproduced, made.exact) == (reproduced, False)
    assert made.lines[0].startswith("another environment (torch 1.0 -> ")
    assert made.lines[0].endswith("): within 0.01 of each value")
    assert any(line.endswith("too far apart") for line in made.lines) is not reproduced


def reseal(cell: Path) -> None:
    """As if the run itself had written these files."""
    from gptzoo.ablation.ledger import seals

    record = json.loads((cell / "cell.json").read_text())
    write_cell(cell, CellRecord(**{**record, "sealed": seals(cell)}))


def test_a_cell_is_found_by_id_by_name_and_by_folder(tmp_path: Path) -> None:
    for study, name, id_ in (("a", "rope-0", "0" * 12), ("a", "none-0", "1" * 12), ("b", "rope-0", "2" * 12)):
        write_cell(made(tmp_path / study / "cells" / name), CellRecord(id_, 0, "done"))
    write_cell(made(tmp_path / "c" / "cells" / "none-0"), CellRecord("1" * 12, 0, "done", copied_from="a/none-0"))
    assert find_cell("2" * 12, tmp_path) == tmp_path / "b" / "cells" / "rope-0"
    assert find_cell("none-0", tmp_path) == tmp_path / "a" / "cells" / "none-0"  # the copy is the same run
    assert find_cell("b/rope-0", tmp_path) == tmp_path / "b" / "cells" / "rope-0"
    assert find_cell(str(tmp_path / "c" / "cells" / "none-0"), tmp_path) == tmp_path / "c" / "cells" / "none-0"
    with pytest.raises(GPTZooError, match=r"rope-0 may mean a/rope-0, b/rope-0\. Give one of these, or an id\."):
        find_cell("rope-0", tmp_path)
    with pytest.raises(GPTZooError, match=r"there is no cell 'none-O'\. Did you mean .*none-0"):
        find_cell("none-O", tmp_path)


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_cell_that_has_not_ended_is_refused(tmp_path: Path) -> None:
    write_cell(made(tmp_path / "a" / "cells" / "none-0"), CellRecord("1" * 12, 0, "running"))
    with pytest.raises(GPTZooError, match="the cell is running, so there is nothing to compare with"):
        replay("none-0", runs=tmp_path)
