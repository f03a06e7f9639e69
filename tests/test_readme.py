"""What the READMEs show is true: recipes build, the plugin works, figures are what the commands print."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import gptzoo
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.cli import run
from tests.house import ROOT

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
    for name, text in zip(("mine", "norms", "fair"), blocks("README_EN.md", "yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(text)
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


def test_the_fair_plan_tunes_every_arm_first_and_then_looks(folder: Path) -> None:
    study = plan_cells(read_plan("fair.yaml"))
    assert [each.match for each in study.sets] == ["tokens", "flops"]
    assert {cell.purpose for cell in study.cells} == {"tuning"}
    assert {cell.arm for cell in study.cells} == {"learned", "rope", "alibi"}


def test_the_plugin_trains_and_is_at_most_25_lines(folder: Path) -> None:
    assert len((folder / "strided.py").read_text().splitlines()) <= 25
    words = next(line for line in "".join(blocks("README_EN.md", "sh")).splitlines() if "strided" in line).split()
    assert run([*words[1:-2], "--train.steps", "2", "--train.batch_size", "2"]) == 0


def test_the_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = blocks("README_EN.md", "python")[1].replace('"train.steps": 20', '"train.steps": 2, "train.batch_size": 2')
    script = folder / "script.py"
    script.write_text(lines)
    runpy.run_path(str(script))
    assert capsys.readouterr().out


def test_the_refusal_is_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(text for text in blocks("README_EN.md", "") if text.startswith("$ gptzoo show"))
    command, expected = shown.rstrip("\n").split("\n", 1)
    import shlex

    assert run(shlex.split(command.removeprefix("$ "))[1:]) == 2
    assert capsys.readouterr().err.rstrip("\n") == expected


@pytest.mark.parametrize("command", ["laws", "calibration", "cheats", "launchers"])
def test_what_a_recorded_command_is_said_to_find_is_what_it_found(command: str) -> None:
    title = f"$ python -m tests.{command}\n"
    shown = next(text for text in blocks("README_EN.md", "") if text.startswith(title))
    found = printed(f"tests.{command}.table")
    assert shown.removeprefix(title) == found.removeprefix(title), f"print it anew: python -m tests.{command}.table"


def printed(module: str) -> str:
    """What a module prints that is run as a command."""
    command = [sys.executable, "-m", module]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120).stdout


def test_how_many_parts_have_a_twin() -> None:
    said = printed("tests.laws.twins").splitlines()[-1].split(":")[0]
    assert f"{said}." in (ROOT / "README_EN.md").read_text()


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
