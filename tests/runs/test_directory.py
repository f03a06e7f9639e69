"""The run directory: held by one, sound after any kill, pruned only when it is safe."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gptzoo import files
from gptzoo.errors import CheckpointError, GPTZooError, NoSpace, RunInUse
from gptzoo.runs import Records, RunDirectory, identity
from gptzoo.runs.checkpoint import Checkpoint
from gptzoo.runs.directory import slug

Make = Callable[..., Checkpoint]
Fork = Callable[..., int]


def opened(tmp_path: Path, keep: int = 2) -> RunDirectory:
    return RunDirectory.open(tmp_path, "tiny", "0123456789ab", keep=keep)


def damage(run: RunDirectory, step: int) -> None:
    path = run.checkpoint_path(step) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_folder_is_called_by_name_and_id(tmp_path: Path) -> None:
    with opened(tmp_path / "runs" / "deep") as run:
        assert run.path == tmp_path / "runs" / "deep" / "tiny-0123456789ab"
        run.write_recipe("seed: 0\n")
        run.write_environment({"torch": "2.13", "threads": 1})
    with opened(tmp_path / "runs" / "deep") as run:
        assert run.recipe_path.read_text() == "seed: 0\n"
        assert run.read_environment() == {"torch": "2.13", "threads": 1}


def test_the_parts_of_a_run_stand_where_the_documents_say(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path, None)
    parts = [run.recipe_path, run.environment_path, run.metrics_path, run.timings_path, run.samples_path]
    parts += [run.tokenizer_path, run.checkpoints_path, run.checkpoint_path(500)]
    assert [str(part.relative_to(tmp_path)) for part in parts] == [
        "recipe.yaml", "environment.json", "metrics.jsonl", "timings.jsonl", "samples.jsonl",
        "tokenizer", "checkpoints", "checkpoints/step-000500",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a/a", "a-a"), ("../../x", "x"), ("Größe 3", "Gr-e-3"), ("", "run"), ("..", "run"), ("x" * 300, "x" * 100)],
)
def test_a_name_cannot_lead_out_of_the_folder(name: str, folder: str) -> None:
    assert slug(name) == folder


def test_the_id_depends_on_content_alone() -> None:
    assert identity({"seed": 0, "model": {"a": 1, "b": 2}}) == identity({"model": {"b": 2, "a": 1}, "seed": 0})
    assert identity({"seed": 0}) != identity({"seed": 1})
    code = "from gptzoo.runs import identity; print(identity({'seed': 0, 'x': {'a': 1.5, 'b': None}}))"
    ids = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": s},
        ).stdout.strip()
        for s in ("1", "2")
    }
    assert ids == {identity({"seed": 0, "x": {"a": 1.5, "b": None}})}
    assert len(ids.pop()) == 12


def test_reading_runs_needs_no_torch() -> None:
    code = "import sys, gptzoo.runs, gptzoo.runs.manifest; assert not {'torch', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_environment_yet_is_empty_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.read_environment() == {}
        run.environment_path.write_text("[")
        with pytest.raises(GPTZooError) as caught:
            run.read_environment()
    expected = f"{run.environment_path}: not a JSON object. Restore the file, or start a new run."
    assert str(caught.value) == expected


def test_a_missing_run_is_refused_with_close_names(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.write_recipe("")
    with pytest.raises(GPTZooError) as caught:
        RunDirectory.at(tmp_path / "tinny-0123456789ab", lock=False)
    expected = f"{tmp_path}/tinny-0123456789ab: there is no such run. Did you mean tiny-0123456789ab?"
    assert str(caught.value) == expected
    (tmp_path / "other").mkdir()
    with pytest.raises(GPTZooError) as caught:
        RunDirectory.at(tmp_path / "other", lock=True)
    assert str(caught.value) == f"{tmp_path}/other: has no recipe.yaml, so it is not a run."
    assert os.listdir(tmp_path / "other") == []


def test_a_run_opened_for_reading_cannot_be_written(tmp_path: Path, make: Make) -> None:
    with opened(tmp_path) as run:
        run.write_recipe("")
    reader = RunDirectory.at(run.path, lock=False)
    for write in (lambda: reader.save(make()), lambda: reader.write_recipe(""), lambda: reader.write_environment({})):
        with pytest.raises(AssertionError, match="was opened for reading only"):
            write()


def test_a_second_holder_is_refused_naming_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.write_recipe("")
        holder = json.loads((run.path / ".lock").read_text())
        for again in (lambda: opened(tmp_path), lambda: RunDirectory.at(run.path, lock=True)):
            with pytest.raises(RunInUse) as caught:
                again()
            who = f"process {os.getpid()} on {socket.gethostname()} since {holder['start']}"
            assert str(caught.value) == f"{run.path}: in use by {who}. Wait for it, or stop it."
            assert caught.value.exit_code == 3
        RunDirectory.at(run.path, lock=False)
    opened(tmp_path).close()


def test_of_two_processes_exactly_one_holds_the_run(tmp_path: Path) -> None:
    def contend(ready: int, result: int) -> None:
        os.read(ready, 1)
        try:
            opened(tmp_path)
            os.write(result, b"h")
            time.sleep(0.5)
        except RunInUse as error:
            os.write(result, b"r" if "in use by process " in str(error) else b"?")

    for _ in range(5):
        (ready, go), (answers, result) = os.pipe(), os.pipe()
        children = []
        for _ in range(2):
            children.append(os.fork())
            if children[-1] == 0:
                contend(ready, result)
                os._exit(0)
        os.write(go, b"xx")
        assert sorted([os.read(answers, 1), os.read(answers, 1)]) == [b"h", b"r"]
        for child in children:
            os.waitpid(child, 0)
        for descriptor in (ready, go, answers, result):
            os.close(descriptor)


def test_the_lock_is_free_after_a_kill_even_if_a_forked_worker_lives_on(tmp_path: Path) -> None:
    ready, go = os.pipe()
    holder = os.fork()
    if holder == 0:
        run = opened(tmp_path)
        if os.fork() == 0:
            os.write(go, b"x")
            time.sleep(3)
            os._exit(0)
        time.sleep(10 if run else 0)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(RunInUse):
        opened(tmp_path)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    opened(tmp_path).close()
    os.close(ready)
    os.close(go)


def test_a_stale_lock_file_with_a_reused_pid_does_not_hold(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "tiny-0123456789ab" / ".lock").write_text(json.dumps({"pid": 1, "host": "x", "start": "y"}))
    opened(tmp_path).close()


def test_no_checkpoint_at_all_is_none(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.latest() is None
        assert run.best() is None
        with pytest.raises(CheckpointError) as caught:
            run.load(5)
    assert str(caught.value) == f"{run.checkpoints_path}: no checkpoint of step 5. Steps here: none."


def test_the_newest_sound_checkpoint_is_taken_and_each_skipped_one_warned_of_once(tmp_path: Path, make: Make) -> None:
    with opened(tmp_path, keep=4) as run:
        for step in (5, 10, 15, 1000000):
            run.save(make(step))
        assert run.steps() == [5, 10, 15, 1000000]
        damage(run, 1000000)
        (run.checkpoint_path(15) / "rng.safetensors").unlink()
        with pytest.warns(UserWarning, match="skipped an unsound checkpoint") as caught:
            latest = run.latest()
        assert latest is not None
        assert latest.step == 10
        messages = [str(warning.message).replace(str(run.checkpoints_path), "") for warning in caught]
        size = (run.checkpoint_path(1000000) / "model.safetensors").stat().st_size
        assert messages == [
            "skipped an unsound checkpoint: /step-1000000/model.safetensors: is damaged: "
            f"the sha256 of its {size} bytes is not the manifest's.",
            "skipped an unsound checkpoint: /step-000015/rng.safetensors: is missing.",
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert run.latest() is not None


@pytest.mark.filterwarnings("ignore:skipped")
def test_if_all_are_damaged_nothing_is_deleted_and_all_are_named(tmp_path: Path, make: Make) -> None:
    with opened(tmp_path) as run:
        for step in (5, 10):
            run.save(make(step))
        for step in (5, 10):
            (run.checkpoint_path(step) / "MANIFEST.json").unlink()
    with opened(tmp_path) as run:
        with pytest.raises(CheckpointError) as caught:
            run.latest()
        folder = run.checkpoints_path
        assert str(caught.value) == (
            f"{folder}: no sound checkpoint ({folder}/step-000010/MANIFEST.json: is missing; "
            f"{folder}/step-000005/MANIFEST.json: is missing). "
            "Nothing was deleted: restore one, or remove the folder to start anew."
        )
        assert caught.value.exit_code == 4
        assert run.steps() == [5, 10]


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path, make: Make) -> None:
    losses = {5: 3.0, 10: 2.0, 15: 2.5, 20: 2.0, 25: 2.2, 30: None}
    with opened(tmp_path) as run:
        for step, loss in losses.items():
            run.save(make(step, val_loss=loss))
        assert run.steps() == [10, 25, 30]
        best = run.best()
        assert best is not None
        assert best.step == 10
        assert len(os.listdir(run.checkpoints_path)) == 3


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path, make: Make) -> None:
    with opened(tmp_path) as run:
        for step in (5, 10):
            run.save(make(step))
        (run.checkpoint_path(10) / "state.json").write_bytes(b"")
        run.save(make(15))
        assert run.steps() == [5, 15]


def test_nothing_is_pruned_if_the_new_one_does_not_verify(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptzoo.runs import directory

    with opened(tmp_path, keep=1) as run:
        run.save(make(5))

        def unsound(folder: Path) -> None:
            raise CheckpointError("is damaged.", str(folder))

        monkeypatch.setattr(directory.manifests, "verify", unsound)
        with pytest.raises(CheckpointError, match="is damaged"):
            run.save(make(10))
        assert run.steps() == [5, 10]


def test_a_checkpoint_pruned_while_it_is_read_is_no_damage(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, keep=1) as run:
        run.write_recipe("")
        run.save(make(5))
        reader = RunDirectory.at(run.path, lock=False)
        load = RunDirectory.load

        def overtaken(self: RunDirectory, step: int) -> Checkpoint:
            if step == 5:
                run.save(make(10))
            return load(self, step)

        monkeypatch.setattr(RunDirectory, "load", overtaken)
        latest = reader.latest()
        assert latest is not None
        assert latest.step == 10


def killed_run(tmp_path: Path, make: Make) -> Callable[[], None]:
    """A run that passes every fail-point: saves, replaces, prunes, logs, cuts back."""

    def work() -> None:
        (tmp_path / "tiny-0123456789ab" / "recipe.yaml.tmp-stale").write_bytes(b"")
        with opened(tmp_path, keep=1) as run:
            run.write_recipe("seed: 1\n")
            with Records(run.metrics_path) as metrics:
                metrics.append({"step": 10})
                run.save(make(10, val_loss=1.0))
                run.save(make(10, val_loss=0.5))
                metrics.append({"step": 15})
                metrics.truncate(0)
                run.save(make(15, val_loss=0.4))

    return work


@pytest.mark.parametrize("name", files.FAILPOINTS)
def test_after_a_kill_at_any_failpoint_the_run_goes_on(tmp_path: Path, make: Make, fork: Fork, name: str) -> None:
    kills = 0
    for nth in (1, 2, 6, 13):
        shutil.rmtree(tmp_path / "tiny-0123456789ab", ignore_errors=True)
        with opened(tmp_path, keep=1) as run:
            run.write_recipe("seed: 0\n")
            run.save(make(5))
        status = fork(killed_run(tmp_path, make), {"GPTZOO_FAILPOINT": f"{name}:{nth}"})
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        reader = RunDirectory.at(run.path, lock=False)
        if name != "checkpoint.replaced" and not (name.startswith("write.") and nth > 6):
            assert reader.latest() is not None
        with opened(tmp_path, keep=1) as run:
            latest = run.latest()
            assert latest is not None
            assert torch.equal(latest.model["wte.weight"], make(latest.step).model["wte.weight"])
            assert run.recipe_path.read_text() in ("seed: 0\n", "seed: 1\n")
            assert [path for path in run.path.rglob("*") if ".tmp-" in path.name] == []
            assert all(isinstance(record["step"], int) for record in Records.read(run.metrics_path))
            run.save(make(20))
            assert run.steps()[-1] == 20
    assert kills >= 1, f"{name} was never hit"


def test_the_only_checkpoint_survives_a_kill_while_it_is_replaced(tmp_path: Path, make: Make, fork: Fork) -> None:
    with opened(tmp_path) as run:
        run.save(make(5, val_loss=1.0))

    def work() -> None:
        with opened(tmp_path) as run:
            run.save(make(5, val_loss=2.0))

    assert fork(work, {"GPTZOO_FAILPOINT": "checkpoint.replaced"}) == -signal.SIGKILL
    assert run.steps() == []
    with opened(tmp_path) as run:
        latest = run.latest()
        assert latest is not None
        assert latest.state["val_loss"] == 2.0
        assert os.listdir(run.checkpoints_path) == ["step-000005"]


def test_a_kill_while_pruning_does_not_bring_the_pruned_back(tmp_path: Path, make: Make, fork: Fork) -> None:
    with opened(tmp_path, keep=1) as run:
        run.save(make(5))

    def work() -> None:
        with opened(tmp_path, keep=1) as run:
            run.save(make(10))

    assert fork(work, {"GPTZOO_FAILPOINT": "prune.renamed"}) == -signal.SIGKILL
    with opened(tmp_path, keep=1) as run:
        assert os.listdir(run.checkpoints_path) == ["step-000010"]


@pytest.mark.parametrize("limit", [0, 200, 900])
def test_no_space_while_saving_leaves_the_previous_checkpoint(
    tmp_path: Path, make: Make, fork: Fork, limit: int
) -> None:
    with opened(tmp_path, keep=1) as run:
        run.save(make(5))

        def work() -> None:
            run = RunDirectory(tmp_path / "tiny-0123456789ab", None, 1)
            run._assert_held = lambda: None  # type: ignore[method-assign]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(NoSpace, match=r"no space: need .* have "):
                run.save(make(10))

        assert fork(work) == 0
        assert os.listdir(run.checkpoints_path) == ["step-000005"]
        latest = run.latest()
        assert latest is not None
        assert latest.step == 5
