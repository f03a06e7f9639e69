"""New plugins from templates: they work, and their tests pass, as they are written."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptzoo.errors import GPTZooError
from gptzoo.listing import listing
from gptzoo.loading import load_plugins, shipped_folder
from gptzoo.registry import SLOTS, Zoo
from gptzoo.scaffold import class_name, new


@functools.cache
def zoo() -> Zoo:
    return load_plugins(environ={}).zoo


def refused(slot: str, name: str, folder: Path) -> str:
    with pytest.raises(GPTZooError) as caught:
        new(slot, name, folder, zoo())
    return str(caught.value)


def test_every_slot_has_a_template_with_tests() -> None:
    folder = shipped_folder() / "_templates"
    expected = sorted(f"{slot}{end}.py" for slot in SLOTS for end in ("", "_tests"))
    assert sorted(path.name for path in folder.glob("*.py") if path.name != "__init__.py") == expected


def test_templates_are_no_plugins() -> None:
    owners = [owner.plugin for owner in load_plugins(environ={}).owners]
    assert not [name for name in owners if name.startswith("_")]
    assert not [row["name"] for row in listing(zoo(), "my_*")]


@pytest.mark.parametrize("slot", SLOTS)
def test_a_new_plugin_registers_under_its_name(slot: str, tmp_path: Path) -> None:
    files = new(slot, "fresh_idea", tmp_path / "deep" / "folder", zoo())
    assert files == [tmp_path / "deep/folder/fresh_idea.py", tmp_path / "deep/folder/test_fresh_idea.py"]
    entry = load_plugins(folders=[tmp_path / "deep/folder"], strict=False, environ={}).zoo.get(slot, "fresh_idea")
    assert getattr(entry.factory, "__name__", "") == "FreshIdea"
    assert entry.summary.endswith(".")
    assert all("my_" not in file.read_text() and "My" not in file.read_text() for file in files)


@pytest.mark.parametrize("slot", SLOTS)
def test_a_template_is_a_short_class(slot: str) -> None:
    tree = ast.parse((shipped_folder() / "_templates" / f"{slot}.py").read_text())
    (made,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    docs = {id(node.body[0]) for node in ast.walk(made) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    statements = [node for node in ast.walk(made) if isinstance(node, ast.stmt) and id(node) not in docs]
    assert len(statements) <= 25


def test_the_tests_of_all_new_plugins_pass_unedited(tmp_path: Path) -> None:
    for slot in SLOTS:
        new(slot, f"fresh_{slot}", tmp_path, zoo())
    root = str(Path(__file__).resolve().parent.parent)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    environ.pop("GPTZOO_PLUGINS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir=.", "."]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    for file in ("fresh.py", "test_fresh.py"):
        (tmp_path / file).write_text("mine")
        message = f"{tmp_path / file}: the file exists. Choose another name or --folder."
        assert refused("norm", "fresh", tmp_path) == message
        assert [path.name for path in tmp_path.iterdir()] == [file]
        assert (tmp_path / file).read_text() == "mine"
        (tmp_path / file).unlink()


@pytest.mark.parametrize(
    ("slot", "name", "message"),
    [
        ("atention", "x", "no slot is called 'atention'. Did you mean attention?"),
        (
            "zzz",
            "x",
            "no slot is called 'zzz'. Slots: attention, kernel, position, norm, mlp, block, head, init, optimizer, "
            "schedule, data, tokenizer, logger.",
        ),
        ("norm", "layernorm", "norm 'layernorm' is taken by plugin core. Choose another name."),
        ("attention", "mha", "attention 'mha' is taken by plugin core. Choose another name."),
        ("attention", "sdpa", "attention 'sdpa' is a reserved word. Choose another name."),
        ("norm", "Mine", "'Mine' is not a name for a plugin. Use lower case letters, digits and '_'."),
        ("norm", "my-norm", "'my-norm' is not a name for a plugin. Use lower case letters, digits and '_'."),
        ("norm", "../x", "'../x' is not a name for a plugin. Use lower case letters, digits and '_'."),
        ("norm", "", "'' is not a name for a plugin. Use lower case letters, digits and '_'."),
        (
            "norm",
            "test_norm",
            "test_norm.py would be taken for a test or a setup file, not for a plugin. Choose another name.",
        ),
    ],
)
def test_a_wrong_slot_or_name_is_refused(slot: str, name: str, message: str, tmp_path: Path) -> None:
    assert refused(slot, name, tmp_path) == message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refused("norm", "fresh", tmp_path / "file").startswith(str(tmp_path / "file"))


def test_the_class_is_called_like_the_plugin() -> None:
    assert [class_name(name) for name in ("rope", "sliding_window", "relu2_x")] == ["Rope", "SlidingWindow", "Relu2X"]
