"""Where cells run does not matter: the pool, submitit and Ray give the same study."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

from gptzoo.ablation.launching import launcher
from gptzoo.ablation.ledger import read_cell
from gptzoo.ablation.remote import last_step
from gptzoo.ablation.signals import Stop
from gptzoo.ablation.submitting import Submitit
from gptzoo.errors import GPTZooError
from tests.ablation.studies import TWO_ARMS, Place, wait_until
from tests.launchers.comparing import files, results

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'gptzoo[cluster]'")


@pytest.fixture(scope="session")
def one_seed(serial: Place) -> Place:
    """The study of two arms at one seed, run by the pool, in `one`."""
    done = serial.run(serial.plan(TWO_ARMS, seconds=0.03, seeds=1, aa=False), "one", workers=2)
    assert (done.ran, dict(done.failed)) == (2, {})
    return serial


SUBMITIT_LEAKS = pytest.mark.filterwarnings(
    "ignore:unclosed file .*_log:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""submitit's debug executor does not close its logs."""


@SUBMITIT_LEAKS
@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_submitit_gives_what_the_pool_gives(one_seed: Place, cluster: str) -> None:
    plan = one_seed.plan(TWO_ARMS, seconds=0.03, seeds=1, aa=False)
    done = one_seed.run(plan, cluster, workers=2, launcher=launcher("submitit", cluster=cluster))
    assert (done.ran, dict(done.failed)) == (2, {})
    assert results(one_seed.study(cluster)) == results(one_seed.study("one"))
    assert files(one_seed.study(cluster)) == files(one_seed.study("one"))
    assert not (one_seed.study(cluster) / "jobs").exists()
    assert one_seed.run(plan, cluster).kept == 2  # by any launcher


def test_a_relative_path_means_the_same_in_a_job(serial: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(serial.folder)
    place = Place(Path())
    done = place.run(place.plan(TWO_ARMS, seeds=1, aa=False), "near", launcher=launcher("submitit", cluster="local"))
    assert (done.ran, dict(done.failed)) == (2, {})


def test_a_cell_that_fails_in_a_job_is_recorded_as_in_the_pool(place: Place) -> None:
    arms = {"learned": {}, "broken": {"train.schedule.fail_at": 3}}
    plan = place.plan(arms, name="fails", seeds=1, aa=False)
    done = place.run(plan, "jobs", 2, launcher=launcher("submitit", cluster="local"))
    assert done.ran == 1
    assert done.failed["broken-0"].startswith("RuntimeError: no luck (")
    record = read_cell(place.study("jobs", "fails") / "cells" / "broken-0")
    assert record is not None
    assert (record.status, record.reason) == ("failed", done.failed["broken-0"])


def test_a_signal_cancels_the_jobs_and_the_study_goes_on_where_it_was(serial: Place) -> None:
    plan = serial.plan(TWO_ARMS, seconds=0.6, seeds=1, aa=False)
    process = serial.start(plan, "cancelled", 2, more=("--launcher", "submitit", "--cluster", "local"))
    folder = serial.study("cancelled")
    try:
        wait_until(lambda: list(folder.glob("cells/*/checkpoints/step-000002")), seconds=120)
    finally:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert f"stopped after 0 of 2 cells; the others were saved. Go on with: gptzoo ablate run {folder}" in errors
    assert serial.run(plan, "cancelled").ran == 2


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


def test_ray_gives_what_the_pool_gives(one_seed: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster of two processors that is started for it. It runs apart: Ray leaves threads and sockets behind."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'gptzoo[cluster]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = one_seed.plan(TWO_ARMS, seconds=0.03, seeds=1, aa=False)
    process = one_seed.start(plan, "ray", 2, more=("--launcher", "ray"))
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    assert "tiny: 2 cells run, 0 kept, 0 diverged, 0 failed" in out
    assert results(one_seed.study("ray")) == results(one_seed.study("one"))
    assert files(one_seed.study("ray")) == files(one_seed.study("one"))
