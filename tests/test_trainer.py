"""A run goes on bit for bit from anywhere, averages what it should average, and stops before damage."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo.building import build_data, build_model, build_optimizer, build_tokenizer, plan, with_vocab_size
from gptzoo.environment import FUSED, Operators
from gptzoo.errors import Interrupted, NotFinite
from gptzoo.parts.schedules import Cosine
from gptzoo.runs import Records, RunDirectory
from gptzoo.trainer import MOST_SKIPS, Trainer

RECIPE: dict = {
    "name": "tiny",
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16, "dropout": 0.1},
    "data": {"name": "text", "tokenizer": "byte"},
    "train": {"steps": 12, "batch_size": 6, "learning_rate": 1e-2, "eval_every": 4, "save_every": 3, "log_every": 1},
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
    return path


def recipe(text: Path, **changes: object) -> dict:
    train = {**RECIPE["train"], **{k: v for k, v in changes.items() if k in gptzoo_train_keys()}}
    model = {**RECIPE["model"], **{k: v for k, v in changes.items() if k not in train}}
    return {**RECIPE, "model": model, "data": {**RECIPE["data"], "path": str(text)}, "train": train}


def gptzoo_train_keys() -> set[str]:
    from gptzoo.recipe.schema import TrainRecipe

    return set(TrainRecipe.__dataclass_fields__)


class Stopper:
    """Raises a signal at a step, as a shell would send it."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.step, self.number = step, number

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)

    def evaluated(self, step: int, scores: object) -> None: ...
    def sampled(self, step: int, samples: object) -> None: ...
    def saved(self, step: int, path: str) -> None: ...
    def took(self, transfer: object) -> None: ...


def last_checkpoint(run: gptzoo.Run) -> tuple[dict[str, Tensor], dict, dict, dict]:
    checkpoint = RunDirectory.at(run.path, lock=False).latest()
    assert checkpoint is not None
    return checkpoint.model, checkpoint.optimizer, checkpoint.rng, checkpoint.state


def assert_same_run(first: gptzoo.Run, second: gptzoo.Run) -> None:
    """Weights, optimizer, generator states, counters and records, bit for bit."""
    one, two = last_checkpoint(first), last_checkpoint(second)
    assert set(one[0]) == set(two[0])
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])
    for a, b in zip(one[1]["state"].values(), two[1]["state"].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    assert all(torch.equal(one[2][name], two[2][name]) for name in one[2])
    assert one[3] == two[3]
    assert (first.path / "metrics.jsonl").read_bytes() == (second.path / "metrics.jsonl").read_bytes()
    assert (first.path / "samples.jsonl").read_bytes() == (second.path / "samples.jsonl").read_bytes()


CASES: list[dict[str, object]] = [
    {},
    {"precision": "bf16", "micro_batch_size": 2},
    {"precision": "fp16"},
    {"optimizer": "muon", "schedule": "wsd", "position": "rope", "norm": "rmsnorm", "mlp": "swiglu"},
    {"optimizer": "schedule_free", "schedule": "constant", "mlp": "moe"},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("stops", [[1], [4, 5], [3, 8, 11]], ids=str)
def test_a_stopped_run_goes_on_bit_for_bit(text: Path, tmp_path: Path, case: dict, stops: list[int]) -> None:
    made = recipe(text, sample_every=5, sample_prompts=["1 plus"], sample_tokens=4, **case)
    whole = gptzoo.train(made, runs=tmp_path / "whole")
    for step in stops:
        with pytest.raises(Interrupted) as stopped:
            gptzoo.train(made, runs=tmp_path / "parts", watcher=Stopper(step))
        assert stopped.value.exit_code == 143
    parts = gptzoo.train(made, runs=tmp_path / "parts")
    assert parts.path.name == whole.path.name
    assert_same_run(whole, parts)


def test_what_is_saved_is_what_the_optimizer_means_to_be_used(text: Path, tmp_path: Path) -> None:
    """Schedule-free: the average, of which the state holds the other two points; however often one looks at it."""
    made = recipe(text, optimizer="schedule_free", schedule="constant")
    run = gptzoo.train(made, runs=tmp_path / "often")
    rarely = gptzoo.train(
        recipe(text, optimizer="schedule_free", schedule="constant", eval_every=12, save_every=12),
        runs=tmp_path / "rarely",
    )
    weights, optimizer, _, _ = last_checkpoint(run)
    names = [name for group in optimizer["param_groups"] for name in group["params"]]
    assert len(names) == len(optimizer["state"]) == len(weights)
    by_shape = {tuple(w.shape): w for w in weights.values() if w.ndim == 2 and w.shape[0] > 100}
    points = next(s for s in optimizer["state"].values() if tuple(s["z"].shape) in by_shape)
    x, y, z = by_shape[tuple(points["z"].shape)], points["y"], points["z"]
    torch.testing.assert_close(y, 0.9 * x + 0.1 * z, rtol=1e-4, atol=1e-6)
    assert not torch.equal(x, y)
    assert all(torch.equal(weights[name], other) for name, other in last_checkpoint(rarely)[0].items())
    assert torch.equal(run.model().wte.weight, weights["wte.weight"])


@pytest.mark.parametrize("step", [1, 8])
def test_a_run_killed_between_saves_goes_on_from_the_last_one(text: Path, tmp_path: Path, step: int) -> None:
    """After step 1 there is none yet: it begins anew, and no record of the first try is left."""
    whole = gptzoo.train(recipe(text), runs=tmp_path / "whole")
    child = os.fork()
    if child == 0:
        gptzoo.train(recipe(text), runs=tmp_path / "killed", watcher=Stopper(step, signal.SIGKILL))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert_same_run(whole, gptzoo.train(recipe(text), runs=tmp_path / "killed"))


def test_a_finished_run_is_left_alone(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text), runs=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock" and path.is_file()}
    assert gptzoo.train(recipe(text), runs=tmp_path).path == run.path
    assert gptzoo.train(run.path).path == run.path
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_can_be_made_longer_and_keeps_its_place(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text), runs=tmp_path)
    longer = gptzoo.train(run.path, overrides={"train.steps": 15})
    assert longer.path == run.path
    assert longer.metrics[-1]["step"] == 15
    assert [r["step"] for r in longer.metrics if "loss" in r] == list(range(1, 16))
    changes = json.loads((run.path / "environment.json").read_text())["changes"]
    assert changes == [{"recipe": ["- steps: 12", "+ steps: 15"]}]
    assert plan(run.path / "recipe.yaml").recipe.train.steps == 15


def test_a_run_refuses_any_other_change(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text), runs=tmp_path)
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        gptzoo.train(run.path, overrides={"train.learning_rate": 1.0})
    assert str(refusal.value).startswith(
        "train.learning_rate: a run that exists cannot change this. Train another run:"
    )


def trainer(
    made: dict, directory: RunDirectory, model_change: Callable[[gptzoo.Model], object] = lambda m: m
) -> Trainer:
    planned = plan(made)
    tokenizer = build_tokenizer(planned)
    data = build_data(planned, tokenizer)
    planned = with_vocab_size(planned, tokenizer)
    model = build_model(planned)
    model_change(model)
    options = planned.recipe.train
    return Trainer(model, data, build_optimizer(planned, model), Cosine(), options, planned.recipe.seed, directory)


@pytest.fixture
def directory(tmp_path: Path):
    with RunDirectory.open(tmp_path / "direct", "direct", "0" * 12) as held:
        yield held


def gradients(made: dict, directory: RunDirectory) -> dict[str, Tensor]:
    one = trainer(made, directory, lambda model: model.double())
    batch = one.data.batch("train", 0, 0, 6)
    targets = batch.targets.clone()
    targets[0, 3:], targets[4, :] = -100, -100  # rows of uneven weight
    batch = gptzoo.Batch(batch.tokens, targets, batch.pos, batch.doc)
    one._backward(batch, 0)
    return {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_accumulated_gradients_are_those_of_the_whole_batch(text: Path, directory: RunDirectory, size: int) -> None:
    whole = gradients(recipe(text, dropout=0.0), directory)
    parts = gradients(recipe(text, dropout=0.0, micro_batch_size=size), directory)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-10, atol=1e-14)


def test_training_leaves_the_callers_generator_alone(text: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    gptzoo.train(recipe(text, steps=2), runs=tmp_path)
    assert torch.equal(torch.rand(2), expected)


def test_a_loss_that_is_not_finite_stops_before_the_update(text: Path, directory: RunDirectory) -> None:
    def poison(model: gptzoo.Model) -> None:
        model.layers[1].mlp.down.weight.data[0, 0] = torch.inf  # type: ignore[union-attr,index,operator]

    broken = trainer(recipe(text, eval_every=0), directory, poison)
    before = {name: p.clone() for name, p in broken.model.named_parameters()}
    with pytest.raises(NotFinite) as stopped:
        broken.run()
    assert "the loss of step 0 is not finite, first in layers.1.mlp.down;" in str(stopped.value)
    assert stopped.value.exit_code == 6
    assert all(torch.equal(before[name], p) for name, p in broken.model.named_parameters())


def test_an_fp16_overflow_skips_the_update_and_the_schedule_and_halves_the_scale(
    text: Path, directory: RunDirectory
) -> None:
    one = trainer(recipe(text, precision="fp16"), directory)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = one.model.wte.weight.detach().clone()
    with one._records():
        one._step()
        assert torch.equal(one.model.wte.weight, before)
        assert (one.progress.step, one.progress.applied, one.progress.skips) == (1, 0, 1)
        assert one.scaler.get_scale() == 2.0**39


def test_too_many_fp16_skips_running_stop_the_run(text: Path, directory: RunDirectory) -> None:
    one = trainer(recipe(text, precision="fp16", steps=40), directory)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    with pytest.raises(NotFinite) as stopped:
        one.run()
    assert str(stopped.value).startswith(f"{MOST_SKIPS} fp16 steps running overflowed, up to step {MOST_SKIPS - 1}.")


def test_samples_that_will_not_fit_are_refused_before_the_first_step(text: Path, tmp_path: Path) -> None:
    with pytest.raises(gptzoo.GPTZooError, match="Use at most 10, or a shorter prompt"):
        gptzoo.train(recipe(text, sample_every=4, sample_prompts=["1 plus"], sample_tokens=20), runs=tmp_path)


def test_metrics_hold_only_what_a_repeated_run_would_write_again(text: Path, tmp_path: Path) -> None:
    first = gptzoo.train(recipe(text), runs=tmp_path / "a")
    second = gptzoo.train(recipe(text), runs=tmp_path / "b")
    assert (first.path / "metrics.jsonl").read_bytes() == (second.path / "metrics.jsonl").read_bytes()
    assert set(Records.read(first.path / "timings.jsonl")[0]) == {"seconds", "step", "tokens_per_second"}


def test_weights_of_another_run_are_taken_strictly_or_partially(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text, steps=3), runs=tmp_path)
    again = gptzoo.train({**recipe(text, steps=1, init_from=str(run.path)), "name": "again"}, runs=tmp_path)
    environment = json.loads((again.path / "environment.json").read_text())
    assert environment["init_from"]["initialised"] == environment["init_from"]["dropped"] == []
    other = {**recipe(text, steps=1, position="rope", init_from=str(run.path)), "name": "other"}
    with pytest.raises(gptzoo.GPTZooError, match=r"belong to another model: model\.position learned -> None, "):
        gptzoo.train(other, runs=tmp_path)
    heads = {**recipe(text, steps=1, n_head=4, init_from=str(run.path)), "name": "heads"}
    with pytest.raises(gptzoo.GPTZooError, match=r"belong to another model: model.n_head 2 -> 4\. Write the same"):
        gptzoo.train(heads, runs=tmp_path)  # the shapes alone would fit
    chunked = {**recipe(text, steps=1, init_from=str(run.path)), "name": "chunked"}
    chunked["model"] = {**chunked["model"], "head": {"name": "tied", "chunk": 8}}  # the loss in pieces
    gptzoo.train(chunked, runs=tmp_path)
    other["train"]["init_from"] = {"path": str(run.path), "partial": True}
    partial = gptzoo.train(other, runs=tmp_path)
    transfer = json.loads((partial.path / "environment.json").read_text())["init_from"]
    assert [name for name, _why in transfer["dropped"]] == ["positions.0.wpe.weight"]
    assert "wte.weight" in transfer["taken"]


def test_a_trained_run_predicts_better_than_guessing_and_loads_as_it_was(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text, steps=60, dropout=0.0, n_embd=32), runs=tmp_path)
    first = next(r["val_loss"] for r in run.metrics if "val_loss" in r)
    assert run.val_loss is not None
    assert run.val_loss < first - 2  # type: ignore[operator]
    data = build_data(plan(run.path / "recipe.yaml"), build_tokenizer(plan(run.path / "recipe.yaml")))
    scores = gptzoo.evaluate(gptzoo.load(run.path), data, sequences=64, batch_size=6)
    assert scores.loss == pytest.approx(run.val_loss, rel=1e-6)


@pytest.mark.parametrize("kernel", ["naive", "sdpa", "flash", "auto"])
def test_the_kernel_on_record_is_the_one_that_trained_evaluated_and_sampled(
    text: Path, tmp_path: Path, kernel: str
) -> None:
    made = recipe(text, kernel=kernel, dropout=0.0, steps=2, sample_every=1, sample_prompts=["1"], sample_tokens=2)
    with Operators() as operators:
        run = gptzoo.train(made, runs=tmp_path)
    fused = {FUSED[name] for name in operators.names if name in FUSED}
    name = "sdpa" if kernel == "auto" else kernel
    assert fused == (set() if kernel == "naive" else {"flash (cpu)"})
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["kernels"] == [f"{name}: {'plain' if kernel == 'naive' else 'flash (cpu)'}"] * 2
    assert plan(run.path / "recipe.yaml").recipe.model.kernel.name == name


def test_changed_data_refuse_a_resume(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text, steps=3), runs=tmp_path)
    text.write_text(text.read_text() + "More.")
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        gptzoo.train(run.path, overrides={"train.steps": 5})
    assert "the data or the tokenizer is not the one that this run was trained on." in str(refusal.value)


def test_a_changed_environment_is_said_once_or_refused(text: Path, tmp_path: Path) -> None:
    run = gptzoo.train(recipe(text, steps=3), runs=tmp_path)
    path = run.path / "environment.json"
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 7'))
    with pytest.raises(gptzoo.GPTZooError, match="resume is not bit-exact: threads 7 -> 1"):
        gptzoo.train(run.path, require_exact=True, overrides={"train.steps": 4})
    with pytest.warns(UserWarning, match="resume is not bit-exact: threads 7 -> 1"):
        gptzoo.train(run.path, overrides={"train.steps": 4})


def test_another_version_of_an_optimizers_library_is_a_changed_environment(text: Path, tmp_path: Path) -> None:
    made = recipe(text, steps=3, optimizer="schedule_free", schedule={"name": "constant"})
    run = gptzoo.train(made, runs=tmp_path)
    path, version = run.path / "environment.json", metadata.version("schedulefree")
    assert json.loads(path.read_text())["libraries"] == {"schedulefree": version}
    path.write_text(path.read_text().replace(f'"schedulefree": "{version}"', '"schedulefree": "0.9"'))
    with pytest.raises(gptzoo.GPTZooError, match=f"resume is not bit-exact: schedulefree 0.9 -> {version}"):
        gptzoo.train(run.path, require_exact=True, overrides={"train.steps": 4})
