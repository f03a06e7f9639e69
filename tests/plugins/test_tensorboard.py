"""The TensorBoard logger writes event files, or says what to install."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gptzoo.cli import run
from gptzoo_plugins.tensorboard import TensorBoard


def test_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    assert run(["train", "gpt2-tiny", "--train.loggers", "[tensorboard]", "--train.steps", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "gptzoo: command line: train.loggers: logger 'tensorboard': TensorBoard is not installed. "
        "Install it with: pip install 'gptzoo[tensorboard]'."
    )


def test_it_writes_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra gptzoo[tensorboard] is not installed")
    TensorBoard(str(tmp_path / "events")).log(1, {"loss": 2.5})
    assert [path.name[:6] for path in (tmp_path / "events").iterdir()] == ["events"]
