"""Plugins by someone else: broken ones train without complaint, and the laws name what is wrong with each.

The stranger's package itself is installed and tested by `.ci/stranger`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import gptzoo
from gptzoo.cli import run
from gptzoo.registry import Owner
from gptzoo.runs import RunDirectory
from tests.house import ROOT

STRANGER = ROOT / "tests" / "stranger"
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 16}

BROKEN = {
    "attention.forgetful_cache": "decoding_with_a_cache_gives_what_the_whole_gives",
    "attention.future_leak": "future_tokens_change_no_bit_of_the_past",
    "attention.ignored_option": "every_option_has_an_effect",
    "attention.unscaled": "scores_of_unit_normal_queries_and_keys_have_unit_variance",
    "norm.global_state": "a_forward_leaves_everything_as_it_was",
}


def file_of(part: str) -> str:
    return str(STRANGER / "broken" / f"{part.partition('.')[2]}.py")


def trained(part: str, folder: Path, plugin: str) -> Path:
    slot, _, name = part.partition(".")
    recipe = {
        "name": "tiny",
        "model": {**TINY, slot: name},
        "data": {"name": "copy", "length": [1, 4], "val_examples": 20, "tokenizer": "byte"},
        "train": {"steps": 2, "batch_size": 2, "eval_every": 1, "device": "cpu"},
    }
    return gptzoo.train({**recipe, "model": {**recipe["model"], "context_length": 32}}, plugins=[plugin]).path


def test_there_are_no_others() -> None:
    files = {path.stem for path in (STRANGER / "broken").glob("*.py")}
    assert files == {part.partition(".")[2] for part in BROKEN}


@pytest.mark.parametrize("part", BROKEN)
def test_it_trains_and_writes_without_complaint(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = trained(part, tmp_path, file_of(part))
    assert run(["generate", str(done), "1 2 = ", "--tokens", "4", "-p", file_of(part)]) == 0


@pytest.mark.parametrize("part", BROKEN)
def test_a_law_names_what_is_wrong_with_it(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", file_of(part), "--law", BROKEN[part], "--examples", "6"]) == 1
    assert f"FAILED {BROKEN[part].replace('_', ' ')}" in capsys.readouterr().out


# a run whose plugin is gone


@pytest.fixture
def abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run made with the stranger's attention."""
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "log_sparse.py"
    shutil.copy(STRANGER / "gptzoo_stranger" / "log_sparse.py", plugin)
    return trained("attention.log_sparse", tmp_path, str(plugin))


def said_by(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert run(command) == 2
    return capsys.readouterr().err


def test_its_file_is_asked_for_in_one_line(abandoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = (
        f"gptzoo: {abandoned}: it was made with parts that are not here: attention 'log_sparse'. "
        f"Give their file: -p {abandoned.parent.parent.resolve() / 'log_sparse.py'}.\n"
    )
    assert said_by(["generate", str(abandoned), "1 = "], capsys) == message
    assert said_by(["train", str(abandoned), "--train.steps", "3"], capsys) == message


def test_its_package_is_named_with_the_version(
    abandoned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [Owner("log_sparse", "gptzoo-stranger", "1.2.3"), Owner("other", "pytest", "0.0.1")]
    recorded = [vars(owner) for owner in owners]
    monkeypatch.setattr(RunDirectory, "read_environment", lambda self: {"plugins": recorded})
    assert said_by(["generate", str(abandoned), "1 = "], capsys) == (
        f"gptzoo: {abandoned}: it was made with parts that are not here: attention 'log_sparse'. "
        "Install them: pip install gptzoo-stranger==1.2.3 pytest==0.0.1.\n"
    )


def test_other_mistakes_are_told_as_ever(abandoned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = said_by(["generate", str(abandoned), "1 = ", "--model.norm", "rmsnrm"], capsys)
    place = f"{abandoned}/recipe.yaml:{line_of(abandoned, 'log_sparse')}: model.attention"
    assert [line.partition(" Did you mean")[0] for line in message.splitlines()] == [
        f"{place}: no attention is called 'log_sparse'.",
        "command line: model.norm: no norm is called 'rmsnrm'.",
    ]


def line_of(run: Path, word: str) -> int:
    lines = (run / "recipe.yaml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if word in line)
