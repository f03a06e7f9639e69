"""Tests of the schedule `my_schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_schedule.py"))
TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}


def schedule(**options: float) -> Any:
    return load_plugins([PLUGIN]).zoo.get("schedule", "my_schedule").factory(**options)


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("schedule", "my_schedule").owner.plugin == "my_schedule"


def test_it_rises_to_one_and_falls_with_the_root() -> None:
    made = schedule(warmup=10)
    factors = [made(step, 100) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert max(factors) == factors[9] == 1
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[39] == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("warmup", [0, 0.5, 1, 10**6])
def test_it_lies_between_zero_and_one_for_every_length(steps: int, warmup: float) -> None:
    made = schedule(warmup=warmup)
    assert all(0 < made(step, steps) <= 1 for step in range(steps))


def test_it_composes() -> None:
    recipe = {"model": TINY, "train": {"schedule": {"name": "my_schedule", "warmup": 10}}}
    assert gptzoo.build(recipe, plugins=[PLUGIN])(torch.arange(8)[None]).shape == (1, 8, 257)


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup must not be negative, -1 is"):
        schedule(warmup=-1)


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
