"""Tests of the logger `my_logger`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_logger.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}


def logger(path: Path) -> Any:
    return load_plugins([PLUGIN]).zoo.get("logger", "my_logger").factory(str(path))


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("logger", "my_logger").owner.plugin == "my_logger"


def test_it_writes_a_row_per_value(tmp_path: Path) -> None:
    made = logger(tmp_path / "metrics.csv")
    made.log(1, {"loss": 2.5, "learning_rate": 1e-3})
    made.log(2, {"loss": 2.25})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,name,value",
        "1,loss,2.5",
        "1,learning_rate,0.001",
        "2,loss,2.25",
    ]


def test_a_second_run_adds_to_the_file(tmp_path: Path) -> None:
    for step in (1, 2):
        logger(tmp_path / "metrics.csv").log(step, {"loss": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,name,value", "1,loss,1.0", "2,loss,1.0"]


def test_it_composes(tmp_path: Path) -> None:
    loggers = [{"name": "my_logger", "path": str(tmp_path / "metrics.csv")}]
    model = gptzoo.build({"model": TINY, "train": {"loggers": loggers}}, plugins=[PLUGIN])
    assert model(torch.arange(8)[None]).shape == (1, 8, 257)


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
