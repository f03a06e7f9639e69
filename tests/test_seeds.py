"""Seeds are the same everywhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gptzoo import GPTZooError
from gptzoo.seeds import stable_seed


def test_a_seed_is_what_it_was_in_earlier_versions() -> None:
    assert stable_seed(0, "data", 0) == 0x7A5418028A75FEE7  # sha256 of [0,"data",0], without its top bit
    assert stable_seed() == 0x4F53CDA18C2BAA0C


def test_a_seed_is_the_same_in_another_process() -> None:
    code = "from gptzoo.seeds import stable_seed; print(stable_seed(7, 'init', [1, None], True))"
    command = [sys.executable, "-c", code]
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    ).stdout
    assert int(out) == stable_seed(7, "init", [1, None], True)


def test_seeds_of_different_purposes_differ_and_fit_into_an_int64() -> None:
    parts = [(seed, purpose, step) for seed in range(20) for purpose in ("data", "dropout") for step in range(200)]
    seeds = {stable_seed(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len({stable_seed(1), stable_seed(1.0), stable_seed("1"), stable_seed(True), stable_seed([1])}) == 5


def test_a_part_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(GPTZooError):
        stable_seed(float("nan"))
