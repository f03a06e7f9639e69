"""Schedules: pure functions that warm up, stay, fall, and never jump."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo_plugins.constant import Constant
from gptzoo_plugins.linear import Linear
from gptzoo_plugins.warmup_stable_decay import WarmupStableDecay

WARMUPS = st.one_of(st.just(0), st.just(1), st.integers(2, 300), st.floats(0, 0.99))
SHARES = st.floats(0, 1)
SCHEDULES = st.one_of(
    st.builds(Constant, WARMUPS),
    st.builds(Linear, WARMUPS, SHARES),
    st.builds(WarmupStableDecay, WARMUPS, WARMUPS, SHARES, st.sampled_from(["linear", "1-sqrt"])),
)


@settings(deadline=None, max_examples=200)
@given(schedule=SCHEDULES, steps=st.integers(1, 250), data=st.data())
def test_a_jump_gives_what_a_walk_gives_and_nothing_leaves_0_to_1(
    schedule: gptzoo.Schedule, steps: int, data: st.DataObject
) -> None:
    walk = [schedule(step, steps) for step in range(steps)]
    step = data.draw(st.integers(0, steps - 1))
    assert schedule(step, steps) == walk[step]
    assert all(0 <= factor <= 1 for factor in walk)
    assert 0 <= schedule(steps, steps) <= 1  # one past the end, as a resumed run may ask


@settings(deadline=None, max_examples=200)
@given(schedule=SCHEDULES, steps=st.integers(1, 250))
def test_it_rises_during_the_warm_up_and_never_afterwards(schedule: gptzoo.Schedule, steps: int) -> None:
    walk = [schedule(step, steps) for step in range(steps)]
    warmup = gptzoo.warmup_steps(schedule.warmup, steps)  # type: ignore[attr-defined]
    for step in range(warmup):
        assert walk[step] == pytest.approx((step + 1) / (warmup + 1), rel=1e-12)
    if warmup < steps:
        assert walk[warmup] == 1
    assert all(now >= then for now, then in pairwise(walk[warmup:]))


@settings(deadline=None, max_examples=100)
@given(warmup=WARMUPS, decay=WARMUPS, floor=SHARES, steps=st.integers(1, 250))
def test_warmup_stable_decay_has_no_step_larger_than_its_slopes(
    warmup: float, decay: float, floor: float, steps: int
) -> None:
    schedule = WarmupStableDecay(warmup, decay, floor)
    rise = 1 / (gptzoo.warmup_steps(warmup, steps) + 1)
    kept = min(gptzoo.warmup_steps(decay, steps), max(1, steps - 1 - gptzoo.warmup_steps(warmup, steps)))
    fall = (1 - floor) / max(1, kept)
    walk = [schedule(step, steps) for step in range(steps)]
    assert all(-fall - 1e-9 <= then - now <= rise + 1e-9 for now, then in pairwise(walk))


@pytest.mark.parametrize(
    "make",
    [Linear, WarmupStableDecay, lambda w, floor: WarmupStableDecay(w, floor=floor, shape="1-sqrt")],
    ids=["linear", "wsd", "wsd-1-sqrt"],
)
@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_the_last_step_is_at_the_floor(make: Callable[..., gptzoo.Schedule], floor: float) -> None:
    assert make(0.1, floor=floor)(99, 100) == pytest.approx(floor, abs=1e-12)


@pytest.mark.parametrize("make", [Constant, Linear, WarmupStableDecay])
@pytest.mark.parametrize("warmup", [0, 0.02])
def test_the_only_step_of_a_run_is_at_the_peak(make: Callable[..., gptzoo.Schedule], warmup: float) -> None:
    assert make(warmup)(0, 1) == 1


def test_linear_is_a_straight_line() -> None:
    assert [Linear(2, 0.5)(step, 7) for step in range(7)] == pytest.approx([1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5])


def test_constant_stays_at_the_peak() -> None:
    assert [Constant(1)(step, 5) for step in range(5)] == [0.5, 1, 1, 1, 1]


def test_warmup_stable_decay_falls_over_the_last_steps() -> None:
    assert [WarmupStableDecay(1, 0.4)(step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    )


def test_the_square_root_falls_steeply_at_first() -> None:
    walk = [WarmupStableDecay(0, 4, 0.2, "1-sqrt")(step, 10) for step in range(10)]
    assert walk == pytest.approx([1] * 6 + [0.2 + 0.8 * (1 - math.sqrt(i / 4)) for i in (1, 2, 3, 4)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1), "warmup must not be negative, -1 is"),
        (lambda: Linear(-0.5), "warmup must not be negative, -0.5 is"),
        (lambda: Linear(floor=1.5), "floor must lie in [0, 1], 1.5 does not"),
        (lambda: WarmupStableDecay(-1), "warmup must not be negative, -1 is"),
        (lambda: WarmupStableDecay(decay=-1), "decay must not be negative, -1 is"),
        (lambda: WarmupStableDecay(floor=-0.1), "floor must lie in [0, 1], -0.1 does not"),
        (lambda: WarmupStableDecay(shape="cubic"), "shape must be linear or 1-sqrt, not 'cubic'"),  # type: ignore[arg-type]
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
