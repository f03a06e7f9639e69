"""Exact match, right to the letter, in training and evaluation; and data sets of problems to share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo.building import build_data
from gptzoo.cli import run
from gptzoo.dataset_card import make_dataset
from gptzoo.exact_match import exact_match, is_right, problems_of
from gptzoo.generation import Generated
from gptzoo.loading import load_plugins
from gptzoo.running import load_with_plan

SUMS = {"name": "algebra", "rows": 60, "operations": ["+"], "low": 0, "high": 9, "held_out": 0.5, "tokenizer": "byte"}
RECIPE: dict[str, Any] = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 16},
    "data": SUMS,
    "train": {"steps": 4, "batch_size": 4, "eval_every": 2, "eval_problems": 20, "device": "cpu"},
}


@pytest.fixture(scope="module")
def model() -> gptzoo.Model:
    model = gptzoo.build(RECIPE)
    model.tokenizer = gptzoo.Byte()
    return model


class Scribe:
    """In place of a model's writing: knows the answers of some prompts, and remembers what it was asked."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known
        self.calls: list[tuple[list[str], int]] = []

    def __call__(
        self, model: gptzoo.Model, prompts: Sequence[str], *, tokens: int, greedy: bool, precision: str | None
    ) -> list[Generated]:
        assert greedy
        self.calls.append((list(prompts), tokens))
        return [Generated(prompt, self.known.get(prompt, "")[:tokens], ()) for prompt in prompts]


@pytest.fixture
def scribe(monkeypatch: pytest.MonkeyPatch) -> Scribe:
    scribe = Scribe({})
    monkeypatch.setattr("gptzoo.exact_match.generate", scribe)
    return scribe


# what is right


def test_an_answer_is_right_to_the_letter() -> None:
    assert is_right("12", "12")
    assert not any(is_right(text, "12") for text in ("12 ", "012", "1", "", "12\n12", "12\n"))


def test_of_several_lines_the_last_one_counts() -> None:
    assert is_right("5 + 7 = 12\n12", "5 + 7 = 12\n12")
    assert is_right("another way\n12", "5 + 7 = 12\n12")
    assert not is_right("5 + 7 = 12\n13", "5 + 7 = 12\n12")
    assert not is_right("12", "5 + 7 = 12\n12")


def test_the_share_is_of_the_problems_asked(scribe: Scribe, model: gptzoo.Model) -> None:
    problems = [(f"{n} = ", str(n)) for n in range(8)]
    scribe.known = dict(problems[:3]) | {"5 = ": "50"}
    assert exact_match(model, problems) == 3 / 8
    assert exact_match(model, problems, problems=4) == 3 / 4


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text("ab", max_size=6), st.text("cd", max_size=10)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_every_problem_is_asked_once_with_room_for_its_answer(
    model: gptzoo.Model, problems: list[tuple[str, str]], size: int
) -> None:
    scribe = Scribe(dict(problems))
    problems = list(dict(problems).items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptzoo.exact_match.generate", scribe)
        assert exact_match(model, problems, batch_size=size) == 1.0
    assert sorted(prompt for prompts, _ in scribe.calls for prompt in prompts) == sorted(map(first, problems))
    for prompts, tokens in scribe.calls:
        assert len(prompts) <= size
        assert max(max(1, len(prompt)) for prompt in prompts) + tokens <= 16


def first(problem: tuple[str, str]) -> str:
    return problem[0]


def test_an_answer_that_ends_with_the_last_position_needs_no_end(scribe: Scribe, model: gptzoo.Model) -> None:
    exact_match(model, [("12345678", "1234567"), ("12345678", "12345678")])
    assert [tokens for _, tokens in scribe.calls] == [8]


def test_batches_do_not_change_the_result(model: gptzoo.Model) -> None:
    prompts = [f"{a} + {b} = " for a in range(12) for b in (3, 44)]
    written = gptzoo.generate(model, prompts, tokens=2, greedy=True, stop_at_end=False)
    problems = [(each.prompt, each.text if index % 3 else "wrong") for index, each in enumerate(written)]
    shares = {exact_match(model, problems, batch_size=size) for size in (1, 5, 100)}
    assert len(shares) == 1


def test_a_stop_gives_the_share_of_what_was_done(scribe: Scribe, model: gptzoo.Model) -> None:
    problems = [(f"{n} = ", str(n)) for n in range(8)]
    scribe.known = dict(problems)
    answers = iter([False, False, True])
    assert exact_match(model, problems, batch_size=2, should_stop=lambda: next(answers)) == 1.0
    assert len(scribe.calls) == 2
    assert math.isnan(exact_match(model, problems, should_stop=lambda: True))


def test_data_without_problems_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        problems_of(gptzoo.Data())
    assert str(refused.value) == (
        "data: data Data has no problems to solve. Ask for none, or use data that has, as algebra."
    )
    model = gptzoo.build(RECIPE)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        exact_match(model, [("a", "b")])
    assert str(refused.value) == "this model has no tokenizer, and answers are text. Set model.tokenizer."


# in training and evaluation


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gptzoo.train(RECIPE, runs=tmp_path_factory.mktemp("runs")).path


def test_training_records_what_the_loaded_model_solves(trained: Path) -> None:
    records = [record for record in gptzoo.Run(trained).metrics if "val_loss" in record]
    assert [record["step"] for record in records] == [0, 2, 4]
    model, made = load_with_plan(trained)
    assert model.tokenizer is not None
    data = build_data(made, model.tokenizer)
    assert records[-1]["exact_match"] == exact_match(model, data, problems=20)


def test_a_model_that_has_learned_all_answers_solves_all_problems(tmp_path: Path) -> None:
    train = {**RECIPE["train"], "steps": 150, "batch_size": 8, "learning_rate": 0.02, "eval_every": 0}
    model = {**RECIPE["model"], "n_embd": 32, "n_layer": 1}
    few = {**SUMS, "rows": 12, "high": 4, "held_out": 0.3}
    path = gptzoo.train({"model": model, "data": few, "train": train}, runs=tmp_path).path
    loaded, made = load_with_plan(path)
    assert loaded.tokenizer is not None
    data = build_data(made, loaded.tokenizer)
    assert exact_match(loaded, data, split="train") == 1.0
    flawed = [(prompt, answer + "0" * (index < 2)) for index, (prompt, answer) in enumerate(data.problems("train", 8))]
    assert exact_match(loaded, flawed) == 6 / 8


def test_problems_do_not_change_the_training(trained: Path, tmp_path: Path) -> None:
    without = {**RECIPE, "train": {**RECIPE["train"], "eval_problems": 0}}
    path = gptzoo.train(without, runs=tmp_path).path
    assert not any("exact_match" in record for record in gptzoo.Run(path).metrics)
    one, other = gptzoo.load(path).state_dict(), gptzoo.load(trained).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_on_data_without_problems_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    recipe = {**RECIPE, "data": {"name": "python_source", "tokenizer": "byte"}}
    with pytest.raises(gptzoo.GPTZooError) as refused:
        gptzoo.train(recipe, runs=tmp_path)
    assert str(refused.value) == (
        "data: data PythonSource has no problems to solve. Ask for none, or use data that has, as algebra."
    )


def test_the_command_line_prints_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("exact match")).endswith(" of 30 problems")
    assert run(["evaluate", str(trained), "--problems", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] in [n / 7 for n in range(8)]
    assert run(["evaluate", str(trained), "--problems", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] is None
    assert run(["evaluate", str(trained), "--problems", "-1"]) == 2
    assert capsys.readouterr().err == "gptzoo: --problems: -1 is below 0.\n"


# data sets to share


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "algebra"
    make_dataset("algebra", load_plugins().zoo, folder, rows=400, seed=7)
    return folder


def test_load_dataset_reads_what_was_made(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    from gptzoo_plugins.algebra import Table

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    read = datasets.load_dataset(str(shared))
    table = Table(rows=400, generator_seed=7)
    for split in ("train", "test"):
        assert list(read[split]) == list(table.records(split))
    assert read.num_rows == {"train": 396, "test": 4}
    assert read.column_names["train"] == ["instruction", "answer", "reasoning"]


def test_the_card_says_what_it_is_and_how_it_was_made(shared: Path) -> None:
    _, header, text = (shared / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["size_categories"]) == ("mit", ["n<1K"])
    assert [feature["name"] for feature in facts["dataset_info"]["features"]] == ["instruction", "answer", "reasoning"]
    assert "gptzoo data make algebra --rows 400 --seed 7 --out FOLDER" in text
    assert "- 100 problems: a - b with operands in [0, 1,000]\n" in text
    assert "| train | 396 |\n| test | 4 |\n" in text


def test_making_it_again_gives_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    again = make_dataset("algebra", load_plugins().zoo, tmp_path / "again", rows=400, seed=7).folder
    names = sorted(path.relative_to(shared) for path in shared.rglob("*") if path.is_file())
    assert [str(name) for name in names] == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert all((shared / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_many_rows_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config

    monkeypatch.setattr("gptzoo.dataset_card.SHARD", 150)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = make_dataset("algebra", load_plugins().zoo, tmp_path / "made", rows=400).folder
    assert len(list(folder.glob("data/train-*-of-00003.parquet"))) == 3
    assert datasets.load_dataset(str(folder)).num_rows == {"train": 396, "test": 4}


def test_a_folder_that_exists_is_refused_and_a_failure_leaves_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "make", "algebra", "--rows", "400", "--out", str(tmp_path)]) == 2
    what = "it exists already. Name a folder that does not, or remove it."
    assert capsys.readouterr().err == f"gptzoo: {tmp_path}: {what}\n"
    out = str(tmp_path / "new")
    assert run(["data", "make", "algebra", "--rows", "3", "--out", out]) == 2
    assert capsys.readouterr().err == "gptzoo: data.rows: 3 is not between 4 and 10,000,000.\n"
    assert run(["data", "make", "text", "--out", out]) == 2
    assert capsys.readouterr().err == "gptzoo: data 'text' reads what exists and makes nothing. Use algebra.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("gptzoo.dataset_card._write_shards", full)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        make_dataset("algebra", load_plugins().zoo, tmp_path / "new", rows=400)
    assert str(refused.value) == f"{tmp_path / 'new'}: cannot be written: Permission denied."
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new"
    assert run(["data", "make", "algebra", "--rows", "1000", "--out", str(out)]) == 0
    assert capsys.readouterr().out == (
        f"train         990 rows\ntest           10 rows\nwrote {out}    read it: datasets.load_dataset({str(out)!r})\n"
    )


def test_a_group_of_commands_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data"]) == 2
    assert capsys.readouterr().err == "gptzoo: data needs a command. Use gptzoo data make.\n"
    assert run(["data", "mkae"]) == 2
    assert capsys.readouterr().err == "gptzoo: there is no command 'data mkae'. Use gptzoo data make.\n"
