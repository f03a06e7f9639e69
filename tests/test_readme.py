"""What the READMEs show is true: recipes build, the plugin works, figures are what the commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import gptzoo
from gptzoo.ablation.cells import plan_cells
from gptzoo.ablation.plan import read_plan
from gptzoo.cli import run
from tests.house import ROOT
from tests.laws.table import RESULTS, table

READMES = ("README.md", "README_EN.md")


def blocks(readme: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / readme).read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_both_readmes_show_the_same_code() -> None:
    def code(readme: str) -> list[str]:
        lines = "".join(blocks(readme, "sh") + blocks(readme, "yaml") + blocks(readme, "python")).splitlines()
        return [line.split("  #")[0].rstrip() for line in lines]

    assert code("README.md") == code("README_EN.md")
    assert blocks("README.md", "") == blocks("README_EN.md", "")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recipe, plan = blocks("README_EN.md", "yaml")
    (tmp_path / "mine.yaml").write_text(recipe)
    (tmp_path / "norms.yaml").write_text(plan)
    (tmp_path / "strided.py").write_text(blocks("README_EN.md", "python")[0])
    return tmp_path


def test_the_recipe_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "mine.yaml"]) == 0
    assert run(["train", "mine.yaml", "--train.steps", "2", "--train.batch_size", "2"]) == 0


def test_the_plan_is_a_plan_in_which_all_arms_fit(folder: Path) -> None:
    study = plan_cells(read_plan("norms.yaml"))
    assert [(arm.name, arm.refused) for arm in study.sets[0].arms] == [
        ("layernorm", ""),
        ("rmsnorm", ""),
        ("swiglu", ""),
    ]
    assert len(study.sets[0].cells) == 3 * 3 + 3


def test_the_plugin_trains_and_is_at_most_25_lines(folder: Path) -> None:
    assert len((folder / "strided.py").read_text().splitlines()) <= 25
    words = next(line for line in "".join(blocks("README_EN.md", "sh")).splitlines() if "strided" in line).split()
    assert run([*words[1:-2], "--train.steps", "2", "--train.batch_size", "2"]) == 0


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = blocks("README_EN.md", "python")[1].replace('"train.steps": 20', '"train.steps": 2, "train.batch_size": 2')
    script = folder / "script.py"
    script.write_text(lines)
    import runpy

    runpy.run_path(str(script))
    assert capsys.readouterr().out


def test_the_refusal_is_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(text for text in blocks("README_EN.md", "") if text.startswith("$ gptzoo show"))
    command, expected = shown.rstrip("\n").split("\n", 1)
    import shlex

    assert run(shlex.split(command.removeprefix("$ "))[1:]) == 2
    assert capsys.readouterr().err.rstrip("\n") == expected


def test_what_is_said_of_the_laws_is_what_was_found() -> None:
    shown = next(text for text in blocks("README_EN.md", "") if text.startswith("$ python -m tests.laws"))
    assert shown == table(json.loads(RESULTS.read_text())), "print it anew: python -m tests.laws.table"


def test_the_parameters_in_the_table_are_the_models() -> None:
    from gptzoo.showing import costs_of, plan, with_size

    rows = re.findall(r"^\| `(gpt2-\w+)` \| ([\d,]+)", (ROOT / "README_EN.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == 5
    for name, figure in rows:
        overrides = {} if name == "gpt2-tiny" else {"model.vocab_size": 50257, "data.tokenizer": "byte"}
        made = with_size(plan(name, overrides))
        assert f"{costs_of(made).parameters:,}" == figure


def test_an_unknown_name_in_gptzoo_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'gptzoo' has no attribute 'nothing'"):
        _ = gptzoo.nothing  # type: ignore[attr-defined]
