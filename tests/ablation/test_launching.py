"""Where cells run does not matter: the pool, submitit and Ray give the same study."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptzoo.ablation.collecting import collect
from gptzoo.ablation.launching import launcher
from gptzoo.ablation.ledger import read_cell
from gptzoo.ablation.pool import PoolOutcome
from gptzoo.ablation.remote import Nobody, last_step
from gptzoo.ablation.report import results_csv
from gptzoo.ablation.signals import Stop
from gptzoo.ablation.submitting import Submitit
from gptzoo.ablation.worker import Job
from gptzoo.errors import GPTZooError
from tests.ablation.studies import TWO_ARMS, Place, wait_until

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'gptzoo[cluster]'")

MEASURED = ("seconds", "peak_memory")
"""Columns of results.csv that no two runs share."""


def results(folder: Path) -> list[dict[str, str]]:
    """results.csv, without what is measured."""
    rows = list(csv.DictReader(io.StringIO(results_csv(collect(folder)))))
    assert set(MEASURED) <= set(rows[0])
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    """The numbers and the weights of all cells."""
    kept = [*folder.glob("cells/*/metrics.jsonl"), *folder.glob("cells/*/checkpoints/*/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(kept)}


THREE_ARMS: dict = {**TWO_ARMS, "broken": {"train.schedule.fail_at": 3}}
OUTCOMES = {"learned-0": "done", "none-0": "done", "broken-0": "failed"}


def plan(place: Place) -> Path:
    """Three arms at one seed, the last of which fails."""
    return place.plan(THREE_ARMS, name="three", seeds=1, aa=False)


@pytest.fixture(scope="module")
def pooled(place: Place) -> Iterator[Place]:
    """The study, run by the pool, in `one`; under relative paths, which must mean the same in a job."""
    with contextlib.chdir(place.folder):
        near = Place(Path())
        assert near.run(plan(near), "one", workers=2).ran == 2
        yield near


def is_the_pools(place: Place, runs: str) -> None:
    """A study has the records, the numbers and the weights of the pool's."""
    ours, theirs = (place.study(each, "three") for each in (runs, "one"))
    records = {cell: read_cell(ours / "cells" / cell) for cell in OUTCOMES}
    assert {cell: record and record.status for cell, record in records.items()} == OUTCOMES
    assert records["broken-0"] is not None
    assert records["broken-0"].reason.startswith("RuntimeError: no luck (")
    assert results(ours) == results(theirs)
    assert files(ours) == files(theirs)


SUBMITIT_LEAKS = pytest.mark.filterwarnings(
    "ignore:unclosed file .*_log:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""submitit's debug executor does not close its logs."""


@SUBMITIT_LEAKS
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_submitit_gives_what_the_pool_gives(pooled: Place, cluster: str) -> None:
    """A cell that fails included."""
    done = pooled.run(plan(pooled), cluster, workers=2, launcher=launcher("submitit", cluster=cluster))
    assert (done.ran, list(done.failed)) == (2, ["broken-0"])
    is_the_pools(pooled, cluster)


@pytest.mark.parametrize(
    ("statuses", "number", "kept"),
    [
        ([("done", ""), ("diverged", "not finite")], None, False),
        ([("done", ""), ("failed", "no luck")], None, True),
        ([("done", "")], signal.SIGTERM, True),
    ],
    ids=["ended", "failed", "stopped"],
)
def test_logs_of_jobs_are_kept_where_one_failed_or_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statuses: list[tuple[str, str]], number: int | None, kept: bool
) -> None:
    def run(*_: object, **__: object) -> PoolOutcome:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        return PoolOutcome(dict(enumerate(statuses)), number)

    monkeypatch.setattr("gptzoo.ablation.submitting.run_remotely", run)
    job = Job("cells/learned-0", "", {})
    Submitit("debug", {}).run([job], 1, Nobody(), silence=None, folder=tmp_path)
    assert (tmp_path / "jobs").exists() is kept


def test_what_jobs_made_is_kept_by_any_launcher(pooled: Place) -> None:
    debug, again = pooled.study("debug", "three"), pooled.study("again", "three")
    shutil.copytree(debug, again, ignore=shutil.ignore_patterns("broken-0"))
    assert pooled.run(plan(pooled), "again").kept == 2


def test_a_signal_cancels_the_jobs_and_the_study_goes_on_where_it_was(place: Place) -> None:
    slow = place.plan(TWO_ARMS, name="slow", seconds=0.6, seeds=1, aa=False)
    process = place.start(slow, "cancelled", 2, more=("--launcher", "submitit", "--cluster", "local"))
    folder = place.study("cancelled", "slow")
    try:
        wait_until(lambda: list(folder.glob("cells/*/checkpoints/step-000002")), seconds=120)
    finally:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert f"stopped after 0 of 2 cells; the others were saved. Go on with: gptzoo ablate run {folder}" in errors
    assert place.run(slow, "cancelled").ran == 2


def test_a_stop_within_a_stop_is_heard_by_both() -> None:
    """A study whose cells run in its own process stops with them."""
    outer, inner = Stop(), Stop()
    with outer.listening():
        with inner.listening():
            signal.raise_signal(signal.SIGTERM)
            assert (outer.number, inner.number) == (None, signal.SIGTERM)
        assert outer.number == signal.SIGTERM
        assert not outer.hurry


def test_the_last_step_is_read_from_what_a_cell_writes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_step(path) is None
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 2, "val_loss": 2.0}\n{"step": 3, "lo')
    assert last_step(path) == (2, 2.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "slurm"}, "--launcher: 'slurm' is not known. Give one of pool, submitit, ray."),
        ({"name": "submitit", "cluster": "slrum"}, "--cluster: 'slrum' is not known. Did you mean slurm?"),
        (
            {"name": "ray", "cluster": "slurm"},
            "--cluster: ray has no kinds of cluster. Leave it out, or give --launcher submitit.",
        ),
        (
            {"name": "pool", "options": {"num_gpus": 1}},
            "--job-options: the pool asks nobody for resources. Leave it out, or give --launcher submitit or ray.",
        ),
    ],
)
def test_a_launcher_that_is_not_known_is_refused(given: dict, said: str) -> None:
    with pytest.raises(GPTZooError) as caught:
        launcher(**given)
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_package_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GPTZooError) as caught:
        launcher(name)
    said = f"{name} is not installed. Install it with: pip install 'gptzoo[cluster]'"
    assert str(caught.value) == f"--launcher {name}: {said}"


def test_an_option_that_submitit_does_not_know_is_refused(tmp_path: Path) -> None:
    chosen = Submitit("local", {"slurm_partitoin": "x"})
    with pytest.raises(GPTZooError, match="--job-options: submitit does not take this: Unknown argument 'partitoin'"):
        chosen.executor(tmp_path)


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a Slurm here")
def test_where_there_is_no_slurm_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(GPTZooError, match="--cluster: there is no slurm here"):
        Submitit("slurm", {}).executor(tmp_path)


def test_ray_gives_what_the_pool_gives(pooled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster of two processors that is started for it. It runs apart: Ray leaves threads and sockets behind."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'gptzoo[cluster]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    process = pooled.start(plan(pooled), "ray", 2, more=("--launcher", "ray"))
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 1, errors
    assert "three: 2 cells run, 0 kept, 0 diverged, 1 failed" in out
    is_the_pools(pooled, "ray")
