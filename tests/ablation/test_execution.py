"""Running a study: in parallel as in series, through kills and failures, and never twice."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from gptzoo.ablation.ledger import read_cell
from gptzoo.errors import GPTZooError, RunInUse
from gptzoo.runs.directory import RunLock
from tests.ablation.studies import TWO_ARMS, Place, as_if_run, change, children, kill, wait_until


def metrics(study: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(study.glob("cells/*/metrics.jsonl"))}


def test_two_workers_give_what_one_gives(serial: Place) -> None:
    plan = serial.plan(TWO_ARMS, seconds=0.03)
    assert serial.run(plan, "parallel", workers=2).ran == 6
    assert serial.outcome("parallel") == serial.outcome()
    assert metrics(serial.study("parallel")) == metrics(serial.study())
    for path in serial.study().glob("cells/*/checkpoints/step-000006/*.safetensors"):
        other = serial.study("parallel") / path.relative_to(serial.study())
        assert other.read_bytes() == path.read_bytes()


def test_a_finished_study_runs_nothing_again(serial: Place) -> None:
    before = [path.stat().st_mtime_ns for path in serial.ended("runs")]
    done = serial.run(serial.plan(TWO_ARMS, seconds=0.03))
    assert (done.ran, done.kept) == (0, 6)
    assert [path.stat().st_mtime_ns for path in serial.ended("runs")] == before


def test_another_arm_runs_no_old_cell(serial: Place) -> None:
    shutil.copytree(serial.study(), serial.study("more"))
    done = serial.run(serial.plan({**TWO_ARMS, "rope": {"model.position": "rope"}}, seconds=0.03), "more")
    assert (done.ran, done.kept) == (2, 6)
    outcome = serial.outcome("more")
    assert outcome.exploratory == ""
    assert [cell for cell in outcome.cells if cell.arm != "rope"] == list(serial.outcome().cells)


def test_a_cell_of_another_study_is_copied_and_marked(serial: Place) -> None:
    done = serial.run(serial.plan(TWO_ARMS, name="other", seconds=0.03))
    assert (done.ran, done.copied) == (0, 6)
    record = read_cell(serial.study(name="other") / "cells" / "none-1")
    assert record is not None
    assert record.copied_from == "tiny/none-1"
    assert metrics(serial.study(name="other")) == metrics(serial.study())
    outcome = serial.outcome(name="other")
    assert outcome.notes[-1].startswith("Copied from other studies: cells/learned-0, ")
    assert outcome.exploratory == "results of none were known before this plan was: they are copied from tiny"


def test_a_worker_that_is_killed_loses_nothing(serial: Place) -> None:
    """It is killed right after its fourth checkpoint, the first one of its second cell; the next worker goes on."""
    plan = serial.plan(TWO_ARMS, seconds=0.03, seeds=1, aa=False)
    process = serial.start(plan, "killed", GPTZOO_FAILPOINT="checkpoint.renamed:4")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line for line in out.splitlines() if "worker was" in line] == [
        "none seed 0: its worker was ended by SIGKILL; it goes on in another one"
    ]
    whole = metrics(serial.study())
    assert metrics(serial.study("killed")) == {name: whole[name] for name in ("learned-0", "none-0")}


def test_a_killed_supervisor_leaves_no_worker_and_loses_nothing(serial: Place) -> None:
    plan = serial.plan(TWO_ARMS, seconds=0.03)
    process = serial.start(plan, "orphaned")
    wait_until(lambda: len(serial.ended("orphaned")) >= 2)
    workers = children(process.pid)
    kill(process.pid)
    process.communicate()
    assert workers
    wait_until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), seconds=5)
    before = {path: path.read_bytes() for path in serial.ended("orphaned")}
    done = serial.run(plan, "orphaned", workers=2)
    assert done.kept == len(before) < 6
    assert done.ran == 6 - done.kept
    assert {path: path.read_bytes() for path in before} == before
    assert serial.outcome("orphaned") == serial.outcome()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143)])
def test_a_signal_stops_the_workers_after_a_save(serial: Place, number: int, code: int) -> None:
    plan = serial.plan(TWO_ARMS, seconds=0.3, seeds=1)
    process = serial.start(plan, "stopped")
    wait_until(lambda: list(serial.study("stopped").glob("cells/*/metrics.jsonl")))
    wait_until(lambda: b'"loss"' in b"".join(metrics(serial.study("stopped")).values()))
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    folder = serial.study("stopped")
    said = f"stopped after 0 of 3 cells; the others were saved. Go on with: gptzoo ablate run {folder}"
    assert errors == f"gptzoo: {said}\n"
    assert list(folder.glob("cells/learned-0/checkpoints/step-*"))


MIXED = {
    "learned": {},
    "broken": {"train.schedule.fail_at": 3},
    "wild": {"train.learning_rate": 1e38, "train.clip": None},
    "stuck": {"train.schedule.seconds": 1000.0},
}


def test_a_cell_that_fails_diverges_or_hangs_stops_no_other(place: Place) -> None:
    done = place.run(place.plan(MIXED, name="mixed", seeds=1, aa=False), workers=2, silence=20.0)
    assert (done.ran, done.diverged) == (2, 1)
    assert sorted(done.failed) == ["broken-0", "stuck-0"]
    assert done.failed["broken-0"].startswith("RuntimeError: no luck (")
    assert done.failed["stuck-0"] == "nothing was heard of it for 20 s."
    cells = {cell.arm: cell for cell in place.outcome(name="mixed").cells}
    statuses = {"learned": "done", "broken": "failed", "wild": "diverged", "stuck": "missing"}
    assert {arm: cell.status for arm, cell in cells.items()} == statuses
    assert "is not finite" in cells["wild"].reason


def test_what_failed_is_tried_again_and_a_cell_from_another_environment_is_not_copied(place: Place) -> None:
    for name in ("again", "elsewhere"):
        shutil.copytree(place.study(name="mixed"), place.study("apart", name))
    shutil.rmtree(place.study("apart", "again") / "cells" / "learned-0")
    change(place.study("apart", "elsewhere") / "cells" / "learned-0" / "environment.json", threads=2)
    as_if_run(place.study("apart", "elsewhere"))
    arms = {name: MIXED[name] for name in ("learned", "broken", "wild")}
    done = place.run(place.plan(arms, name="again", seeds=1, aa=False), "apart")
    assert (done.ran, done.kept, done.copied, list(done.failed)) == (1, 1, 0, ["broken-0"])


def test_an_arm_that_changed_is_another_cell_and_the_study_is_exploratory_for_good(serial: Place) -> None:
    shutil.copytree(serial.study(), serial.study("changed"))
    swapped = {"learned": {"model.position": "none"}, "none": {}}
    done = serial.run(serial.plan(swapped, seconds=0.03, delta=0.5, baseline="none"), "changed")
    assert (done.ran, done.kept, done.copied) == (0, 2, 4)  # the old cells are set aside, and found by their identity
    said = 'baseline: "learned" -> "none"; delta: null -> 0.5; arms.learned: {} -> {"model.position": "none"}'
    exploratory = serial.outcome("changed").exploratory
    assert exploratory == f'{said}; arms.none: {{"model.position": "none"}} -> {{}}'
    aside = sorted(path.name.split(".")[0] for path in serial.study("changed").glob("cells/*.*"))
    assert aside == ["learned-0", "learned-1", "none-0", "none-1"]
    assert serial.run(serial.plan(TWO_ARMS, seconds=0.03), "changed").ran == 0
    back = serial.outcome("changed")
    assert back.exploratory.startswith(exploratory)
    assert (back.mismatches, [note for note in back.notes if "Copied" in note]) == ((), [])  # they are its own
    serial.study("changed").rename(serial.study("changed", "moved"))
    assert "copied" not in serial.outcome("changed", "moved").exploratory


def test_a_study_is_run_by_one_process_at_a_time(serial: Place) -> None:
    lock = RunLock(serial.study())
    try:
        with pytest.raises(RunInUse, match="in use by process"):
            serial.run(serial.plan(TWO_ARMS, seconds=0.03))
    finally:
        lock.release()


def test_no_workers_are_refused(serial: Place) -> None:
    with pytest.raises(GPTZooError) as caught:
        serial.run(serial.plan(TWO_ARMS, seconds=0.03), workers=0)
    assert str(caught.value) == "--workers: 0 workers cannot run anything. Give 1 or more."
