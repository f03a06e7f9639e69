"""The journal of a study: nothing that a cell ended with is changed or taken away unseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptzoo.ablation.journal import Journal
from gptzoo.ablation.ledger import CellRecord, write_cell

PLANNED = [{"folder": "rope-0", "id": "a"}, {"folder": "rope-1", "id": "b"}]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two cells; the second one diverged."""
    journal = Journal(tmp_path)
    journal.has_plan("p")
    for name, record in {"rope-0": CellRecord("a", 0, "done"), "rope-1": CellRecord("b", 1, "diverged")}.items():
        write(tmp_path, name, record)
        journal.ended(name)
    return tmp_path


def write(study: Path, name: str, record: CellRecord) -> None:
    (study / "cells" / name).mkdir(parents=True, exist_ok=True)
    write_cell(study / "cells" / name, record)


def faults(study: Path) -> list[str]:
    return list(Journal(study).faults(PLANNED))


def test_what_was_written_is_read_and_accuses_nobody(study: Path) -> None:
    journal = Journal(study)
    assert (journal.plan, list(journal.endings), journal.fault, faults(study)) == ("p", ["a", "b"], "", [])
    journal.has_plan("p")
    journal.found(["rope-0", "rope-1", "none-0"])
    assert len(journal.path.read_text().splitlines()) == 3


def test_a_plan_that_comes_back_is_written_again(study: Path) -> None:
    for plan in ("q", "p"):
        Journal(study).has_plan(plan)
    assert Journal(study).plan == "p"
    assert len(Journal(study).path.read_text().splitlines()) == 5


def test_a_cell_that_has_not_ended_is_not_written(study: Path) -> None:
    write(study, "none-0", CellRecord("c", 0, "failed"))
    write(study, "none-1", CellRecord("d", 0, "running"))
    Journal(study).found(["none-0", "none-1"])
    assert list(Journal(study).endings) == ["a", "b"]


def test_a_line_that_is_taken_out_or_edited_is_missed_by_the_next(study: Path) -> None:
    path, lines = study / "journal.jsonl", (study / "journal.jsonl").read_text().splitlines()
    said = "journal.jsonl was changed: line {} does not follow from the one before"
    path.write_text(f"{lines[0]}\n{lines[2]}\n")
    assert Journal(study).fault == said.format(2)
    path.write_text("\n".join([lines[0], lines[1].replace("done", "diverged"), lines[2], ""]))
    assert Journal(study).fault == said.format(3)
    path.write_text("\n".join([lines[0], "[]", lines[2], ""]))
    assert Journal(study).fault == said.format(2)


def test_a_line_that_a_crash_cut_short_was_never_written(study: Path) -> None:
    path = study / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert (list(Journal(study).endings), faults(study)) == (["a"], [])
    Journal(study).found(["rope-0", "rope-1"])
    assert (list(Journal(study).endings), faults(study)) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "ended as diverged and is gone"),
        (CellRecord("b", 1, "failed"), "ended as diverged, and now says that it is failed"),
        (CellRecord("b", 1, "done"), "ended as diverged, and now says that it is done"),
        (CellRecord("b", 1, "diverged", parameters=7), "has another cell.json than the one it ended with"),
        (CellRecord("c", 9, "done"), "holds another run than the planned one: of seed 9, id c and not b"),
    ],
)
def test_a_cell_that_is_not_what_it_ended_as_is_named(study: Path, record: CellRecord | None, said: str) -> None:
    if record is None:
        (study / "cells" / "rope-1" / "cell.json").unlink()
    else:
        write(study, "rope-1", record)
    assert faults(study) == [f"cells/rope-1 {said}"]


def test_a_cell_that_is_run_once_more_must_come_out_the_same(study: Path) -> None:
    write(study, "rope-1", CellRecord("b", 1, "diverged", peak_memory=5))
    Journal(study).ended("rope-1")
    assert faults(study) == []
    write(study, "rope-1", CellRecord("b", 1, "done", sealed={"metrics.jsonl": "x"}))
    Journal(study).ended("rope-1")
    assert faults(study) == ["cells/rope-1 ended as diverged and was run once more, with other numbers; now it is done"]


def test_a_cell_that_was_set_aside_and_copied_back_is_what_it_was(study: Path) -> None:
    again = CellRecord("a", 0, "done", copied_from="tiny/rope-0.a")
    write(study, "rope-0", again)
    assert faults(study) == []
    assert Journal(study).has_run(again)
    edited = CellRecord("a", 0, "done", parameters=7, copied_from="tiny/rope-0.a")
    write(study, "rope-0", edited)
    assert faults(study) == ["cells/rope-0 has another cell.json than the one it ended with"]
    assert not Journal(study).has_run(edited)


def test_the_mark_of_a_copy_cannot_be_taken_off(study: Path) -> None:
    copied = CellRecord("e", 2, "done", copied_from="sweep/rope-2")
    write(study, "rope-2", copied)
    Journal(study).ended("rope-2")
    assert not Journal(study).has_run(copied)
    write(study, "rope-2", CellRecord("e", 2, "done"))
    said = list(Journal(study).faults([{"folder": "rope-2", "id": "e"}]))
    assert said == ["cells/rope-2 has another cell.json than the one it ended with"]


def test_a_killed_cell_may_be_run_to_its_end(study: Path) -> None:
    for status, metrics in (("killed", "x"), ("running", ""), ("done", "y")):
        write(study, "rope-2", CellRecord("e", 2, status, sealed={"metrics.jsonl": metrics}))
        Journal(study).ended("rope-2")
        assert list(Journal(study).faults([{"folder": "rope-2", "id": "e"}])) == []


def test_lines_are_json_that_anybody_reads(study: Path) -> None:
    first, second, _ = (json.loads(line) for line in (study / "journal.jsonl").read_text().splitlines())
    assert first == {"event": "plan", "sha256": "p", "after": ""}
    assert {key: second[key] for key in ("event", "folder", "id", "status")} == {
        "event": "ended",
        "folder": "rope-0",
        "id": "a",
        "status": "done",
    }
