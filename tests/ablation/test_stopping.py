"""Which cells a study with looks runs next, and that stopping early changes no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gptzoo.ablation.analysis import Analysis, analyse
from gptzoo.ablation.sequential import Rules
from gptzoo.ablation.stopping import Course, at_looks
from gptzoo.ablation.verdicts import Cell

LOOKS = (3, 5, 8)
NAMES = ("base", "far", "near", "twin")


def whole(effects: Sequence[float], seed: int, broken: float = 0.0) -> list[Cell]:
    """A study with all its seeds run; some runs of arms diverge or are killed."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(len(NAMES), LOOKS[-1])) + np.asarray(effects)[:, None]
    cells = []
    for row, name in enumerate(NAMES):
        for at in range(LOOKS[-1]):
            lost = row > 0 and generator.random() < broken
            cells.append(Cell(name, at, math.nan if lost else table[row, at], killed=lost and at % 2 == 0))
    return cells


def in_stages(cells: Sequence[Cell], rules: Rules) -> tuple[list[Cell], Course, list[int]]:
    """Run what is asked for until nothing more is: the cells that ran, the last course, and cells after each stage."""
    ran: list[Cell] = []
    sizes = []
    while True:
        course = at_looks(NAMES, ran, rules)
        wanted = [cell for cell in cells if cell.seed < course.seeds[cell.arm]]
        if len(wanted) == len(ran):
            return ran, course, sizes
        ran = wanted
        sizes.append(len(ran))


def verdicts(made: Analysis) -> list[tuple]:
    return [(arm.arm, arm.verdict, arm.reason, arm.p, arm.low, arm.high, arm.n, arm.stopped) for arm in made.arms]


@pytest.mark.parametrize("delta", [None, 2.0])
@pytest.mark.parametrize("broken", [0.0, 0.03])
def test_a_study_run_in_stages_has_the_verdicts_of_one_with_all_seeds_run(delta: float | None, broken: float) -> None:
    saved, studies = 0, 40 if delta is None else 6
    for seed in range(studies):
        effects = (0.0, 6.0, 1.5 * (seed % 3), 0.0)
        cells = whole(effects, seed, broken)
        ran, course, _ = in_stages(cells, Rules(LOOKS, 0.05, delta))
        of_all, of_some = (analyse(each, delta=delta, looks=LOOKS) for each in (cells, ran))
        assert verdicts(of_some) == verdicts(of_all)
        assert [(look.seeds, look.stops) for look in of_some.looks] == [(x.seeds, x.stops) for x in of_all.looks]
        assert course.live == ()
        saved += len(cells) - len(ran)
    assert saved > studies * 4


def test_only_what_the_next_look_needs_is_asked_for() -> None:
    cells = whole((0.0, 40.0, 0.9, 1.0), 4)
    _, _, sizes = in_stages(cells, Rules(LOOKS, 0.05))
    assert sizes[0] == 4 * 3
    assert at_looks(NAMES, [], Rules(LOOKS, 0.05)).seeds == dict.fromkeys(NAMES, 3)
    course = at_looks(NAMES, [cell for cell in cells if cell.seed < 3], Rules(LOOKS, 0.05))
    assert course.seeds == {"base": 5, "far": 3, "near": 5, "twin": 5}
    assert course.live == ("near", "twin")
    assert course.lines == ("look at 3 seeds: far worse; 2 arms go on to 5 seeds",)


def test_a_look_waits_for_every_cell_of_every_arm_that_is_left() -> None:
    cells = whole((0.0, 40.0, 0.9, 1.0), 4)
    lost = [cell for cell in cells if cell.seed < 3 and (cell.arm, cell.seed) != ("near", 1)]
    assert at_looks(NAMES, lost, Rules(LOOKS, 0.05)) == at_looks(NAMES, [], Rules(LOOKS, 0.05))
    ahead = [cell for cell in cells if (cell.arm, cell.seed) != ("near", 1)]
    assert at_looks(NAMES, ahead, Rules(LOOKS, 0.05)).seeds == dict.fromkeys(NAMES, 3)


def test_an_arm_that_is_added_later_starts_at_the_first_look() -> None:
    cells = whole((0.0, 40.0, 0.9, 40.0), 4)
    old = [cell for cell in cells if cell.arm != "twin"]
    course = at_looks(NAMES, old, Rules(LOOKS, 0.05))
    assert course.seeds == dict.fromkeys(NAMES, 3)  # no arm is looked at before the new one has its cells
    course = at_looks(NAMES, [cell for cell in cells if cell.arm != "twin" or cell.seed < 3], Rules(LOOKS, 0.05))
    assert course.seeds == {"base": 5, "far": 3, "near": 5, "twin": 3}
    assert course.live == ()


def test_arms_that_broke_stop_and_say_so() -> None:
    cells = [
        Cell(c.arm, c.seed, math.nan, killed=c.arm == "far") if c.seed == 1 and c.arm in ("far", "near") else c
        for c in whole((0.0, 0.0, 0.0, 0.9), 4)
    ]
    course = at_looks(NAMES, [cell for cell in cells if cell.seed < 3], Rules(LOOKS, 0.05))
    assert course.seeds == {"base": 5, "far": 3, "near": 3, "twin": 5}
    assert course.lines == ("look at 3 seeds: far killed, near diverged; 1 arm goes on to 5 seeds",)


def test_nothing_goes_on_without_a_baseline() -> None:
    cells = [Cell(c.arm, c.seed, math.nan) if (c.arm, c.seed) == ("base", 2) else c for c in whole((0, 0, 0, 0), 4)]
    course = at_looks(NAMES, cells, Rules(LOOKS, 0.05))
    assert (course.live, course.seeds) == ((), dict.fromkeys(NAMES, 3))
    assert course.lines == (f"look at 3 seeds: {', '.join(f'{name} has no sound baseline' for name in NAMES[1:])}",)


def test_the_last_look_leaves_arms_undecided() -> None:
    cells = whole((0.0, 0.0, 0.0, 0.0), 4)
    course = at_looks(NAMES, cells, Rules(LOOKS, 0.05, futile=0.0))
    assert course.live == ()
    assert course.lines[-1] == "look at 8 seeds: 3 arms stay undecided"


def test_better_is_the_way_that_the_metric_is_good() -> None:
    cells = [cell for cell in whole((0.0, 40.0, -40.0, 0.0), 4) if cell.seed < 3]
    assert at_looks(NAMES, cells, Rules(LOOKS, 0.05)).lines[0].startswith("look at 3 seeds: far worse, near better;")
    line = at_looks(NAMES, cells, Rules(LOOKS, 0.05), higher_is_better=True).lines[0]
    assert line.startswith("look at 3 seeds: far better, near worse;")
