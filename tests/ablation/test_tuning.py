"""The rule by which learning rates are tuned: tables worked by hand, and what holds for all tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.ablation.tuning import (
    FIRST,
    SECOND,
    Choice,
    Progress,
    Try,
    Tuning,
    best,
    choose,
    grid,
    kept,
    levels,
    news,
    score_of,
    told,
    tune,
    vertex,
)

INF = math.inf
GRID = (0.00025, 0.0005, 0.001, 0.002, 0.004)


def table(first: Mapping[float, float], second: Mapping[float, float] | None = None) -> dict[Try, float]:
    """Scores by rate, on the first seed and on the second."""
    return {
        **{Try(rate, FIRST): y for rate, y in first.items()},
        **{Try(rate, SECOND): y for rate, y in (second or {}).items()},
    }


def run(tables: Mapping[str, Mapping[Try, float]], tuning: Tuning | None = None, start: float = 0.001) -> Progress:
    """The tuning of arms whose runs score what the tables say; what is missing has not ended."""
    return tune(dict.fromkeys(tables, start), tuning or Tuning(), lambda arm, each: tables[arm].get(each))


def rates(tries: tuple[Try, ...], seed: int) -> list[float]:
    return [each.rate for each in tries if each.seed == seed]


FIVE = dict(zip(GRID, (5.0, 4.0, 3.0, 3.5, 6.0), strict=True))
THREE = {0.0005: 4.2, 0.001: 3.4, 0.002: 3.6}


def test_the_grid_is_laid_around_the_arms_own_rate() -> None:
    assert grid(0.001, Tuning()) == list(GRID)
    assert grid(3e-4, Tuning(points=3, factor=3)) == [1e-4, 3e-4, 9e-4]
    assert grid(1 / 3, Tuning(points=3)) == [0.167, 0.333, 0.667]


def test_first_the_grid_on_one_seed_then_the_best_three_on_another_then_the_parabola() -> None:
    begun = run({"a": {}})
    assert begun == Progress({"a": tuple(Try(rate, FIRST) for rate in GRID)}, begun.expected)
    assert rates(begun.expected["a"], SECOND) == list(GRID[1:4])
    halved = run({"a": table(FIVE)})
    assert halved.tries["a"] == (*begun.tries["a"], *(Try(rate, SECOND) for rate in GRID[1:4]))
    assert (halved.expected, halved.choices) == ({"a": ()}, None)
    ended = run({"a": table(FIVE, THREE)})
    assert ended.tries == halved.tries
    # Means 4.1, 3.2, 3.55: the lowest point lies (4.1 - 3.55) / 2 / (4.1 - 2 * 3.2 + 3.55) = 0.22 steps above.
    assert ended.choices == {"a": Choice(0.00116)}
    assert told(ended, Tuning()) == ""


def test_a_best_rate_at_the_edge_widens_the_grid_of_every_arm_once() -> None:
    high = dict(zip(GRID, (5.0, 4.0, 3.0, 2.5, 2.0), strict=True))
    left = dict(zip(GRID, (5.0, 3.2, 3.0, 3.5, 6.0), strict=True))
    wide = run({"high": table(high), "mid": table(FIVE), "left": table(left)})
    assert {arm: rates(own, FIRST)[5:] for arm, own in wide.tries.items()} == {
        "high": [0.008, 0.016],
        "mid": [0.008, 0.016],  # 3.5 is its better neighbour
        "left": [6.25e-05, 0.000125],  # 3.2 is
    }
    assert wide.widened == ("high",)
    assert wide.choices is None
    assert told(wide, Tuning()) == (
        "Every arm was tried at 2 more learning rates, because the best rate of high lay at the edge of the first 5: "
        "tuning budgets stay equal."
    )
    assert list(news(wide)) == ["the best rate lies at the edge for high: every arm is tried at 2 more"]
    higher = {**high, 0.008: 1.5, 0.016: 1.0}
    second = {0.004: 2.0, 0.008: 1.5, 0.016: 1.0}
    done = run({"high": table(higher, second), "mid": table({**FIVE, 0.008: 7.0, 0.016: 8.0}, THREE)})
    assert done.choices == {
        "high": Choice(0.016, "its best rate, 0.016, is the highest that was tried"),
        "mid": Choice(0.00116),
    }
    assert [len(own) for own in done.tries.values()] == [10, 10]
    assert list(news(done))[1:] == [
        "learning rates found: 0.016 for high, 0.00116 for mid",
        "high counts as untuned: its best rate, 0.016, is the highest that was tried",
    ]


def test_a_best_rate_that_moves_to_the_edge_on_the_second_seed_widens_late_and_on_both_seeds() -> None:
    first = dict(zip(GRID, (3.1, 3.0, 3.2, 3.5, 6.0), strict=True))
    second = {0.00025: 2.6, 0.0005: 3.0, 0.001: 3.3}
    wide = run({"a": table(first, second), "b": table(FIVE, THREE)})
    assert rates(wide.tries["a"], FIRST)[5:] == rates(wide.tries["a"], SECOND)[3:] == [6.25e-05, 0.000125]
    assert rates(wide.tries["b"], FIRST)[5:] == rates(wide.tries["b"], SECOND)[3:] == [0.008, 0.016]
    assert [len(own) for own in wide.tries.values()] == [Tuning().most_runs] * 2
    more = {0.000125: 4.0, 6.25e-05: 5.0}
    mine, theirs = table({**first, **more}, {**second, **more}), {**FIVE, 0.008: 8.0, 0.016: 9.0}
    done = run({"a": mine, "b": table(theirs, {**THREE, 0.008: 8.0, 0.016: 9.0})})
    assert done.widened == ("a",)
    assert done.choices is not None
    assert done.choices["b"] == Choice(0.00116)
    # 4.0, 2.85, 3.0: (4.0 - 3.0) / 2 / (4.0 - 2 * 2.85 + 3.0) steps above 0.00025
    assert done.choices["a"] == Choice(float(f"{0.00025 * 2 ** (0.5 / 1.3):.3g}"))


def test_the_three_that_go_on_have_the_best_in_their_middle_where_they_can() -> None:
    def of(*scores: float) -> list[float]:
        return kept(table(dict(zip(GRID, scores, strict=True))), 3)

    assert of(5, 4, 3, 3.5, 6) == list(GRID[1:4])
    assert of(1, 2, 3, 4, 5) == list(GRID[:3])
    assert of(5, 4, 3, 2, 1) == list(GRID[2:])
    assert of(5, 4, 3, INF, INF) == list(GRID[:3])
    assert of(INF, INF, 3, INF, INF) == list(GRID[1:4])
    assert kept(table(FIVE), 4) == list(GRID[:4])  # 5.0 is better than 6.0
    assert kept(table(FIVE), 5) == list(GRID)


def test_a_rate_that_ran_on_one_seed_is_put_on_the_level_of_both() -> None:
    assert levels(table({1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, {1.0: 3.2, 2.0: 2.4})) == {
        1.0: pytest.approx(3.1),
        2.0: pytest.approx(2.2),
        4.0: pytest.approx(5.15),
    }
    assert levels(table({1.0: 3.0, 2.0: 2.0, 4.0: 5.0}, {1.0: INF, 2.0: 2.4})) == {
        1.0: INF,
        2.0: pytest.approx(2.2),
        4.0: pytest.approx(5.2),
    }


def test_only_a_rate_that_went_on_can_win_and_of_equal_ones_the_lower() -> None:
    assert best(table({1.0: 0.5, 2.0: 2.0, 4.0: 2.0}, {2.0: 2.0, 4.0: 2.0})) == 2.0
    assert best(table({4.0: INF, 1.0: INF, 2.0: INF})) == 1.0


@pytest.mark.parametrize("three", [(INF, 3.0, 4.0), (4.0, 3.0, INF), (3.0, 3.0, 3.0), (2.0, 3.0, 3.5)])
def test_without_a_lowest_point_the_best_rate_is_taken(three: tuple[float, float, float]) -> None:
    assert vertex((-1.0, 0.0, 1.0), three) is None


def test_beside_a_rate_that_diverged_the_best_one_is_taken_as_it_is() -> None:
    assert choose(table({**FIVE, 0.002: INF})) == choose(table({**FIVE, 0.0005: INF})) == Choice(0.001)


def test_what_diverged_scores_worst_and_arms_that_only_diverge_are_untuned() -> None:
    assert score_of(None, higher_is_better=False) == score_of(math.nan, higher_is_better=True) == INF
    assert (score_of(2.0, higher_is_better=False), score_of(0.8, higher_is_better=True)) == (2.0, -0.8)
    seven = dict.fromkeys((6.25e-05, 0.000125, *GRID), INF)
    done = run({"a": table(seven, dict.fromkeys((6.25e-05, 0.000125, 0.00025), INF))})
    assert done.choices == {"a": Choice(6.25e-05, "all its tuning runs diverged")}


SCORES = st.floats(0.0, 9.0) | st.just(INF)
TUNINGS = st.builds(
    lambda half, factor, more: Tuning(2 * half + 1, factor, 0.25, min(2 * half + 1, 3 + more)),
    st.integers(1, 4),
    st.floats(1.1, 100.0),
    st.integers(0, 6),
)


class Luck:
    """Scores drawn as they are asked for, the same ones every time."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.drawn = data, {}

    def __call__(self, arm: str, each: Try) -> float:
        if (arm, each) not in self.drawn:
            self.drawn[arm, each] = self.data.draw(SCORES)
        return self.drawn[arm, each]


STARTS = st.dictionaries(st.sampled_from("abcd"), st.floats(1e-6, 1.0), min_size=1)


@settings(deadline=None)
@given(starts=STARTS, tuning=TUNINGS, data=st.data())
def test_budgets_are_always_equal_and_the_rate_lies_between_its_neighbours(
    starts: dict[str, float], tuning: Tuning, data: st.DataObject
) -> None:
    luck = Luck(data)
    done = tune(starts, tuning, luck)
    assert done.choices is not None
    (count,) = {len(own) for own in done.tries.values()}
    assert count in (tuning.runs, tuning.runs + 2, tuning.most_runs)
    for seed in (FIRST, SECOND):
        assert len({len(rates(own, seed)) for own in done.tries.values()}) == 1
    for arm, own in done.tries.items():
        assert len(set(own)) == len(own)
        tried, choice = sorted(rates(own, FIRST)), done.choices[arm]
        middle = best({each: luck(arm, each) for each in own})
        at = tried.index(middle)
        if choice.trouble:
            assert choice.rate == middle
            assert at in (0, len(tried) - 1) or "all its tuning runs diverged" in choice.trouble
        else:
            assert tried[at - 1] <= choice.rate <= tried[at + 1]


@settings(deadline=None)
@given(starts=STARTS, tuning=TUNINGS, data=st.data())
def test_the_order_of_the_arms_changes_nothing(starts: dict[str, float], tuning: Tuning, data: st.DataObject) -> None:
    luck = Luck(data)
    done = tune(starts, tuning, luck)
    again = tune(dict(reversed(starts.items())), tuning, luck)
    assert (again.tries, again.choices, set(again.widened)) == (done.tries, done.choices, set(done.widened))


@settings(deadline=None)
@given(starts=STARTS, tuning=TUNINGS, data=st.data())
def test_whatever_has_ended_what_is_known_is_the_beginning_of_what_will_be(
    starts: dict[str, float], tuning: Tuning, data: st.DataObject
) -> None:
    luck = Luck(data)
    done = tune(starts, tuning, luck)
    ended = data.draw(st.sets(st.sampled_from([(arm, each) for arm, own in done.tries.items() for each in own])))
    part = tune(starts, tuning, lambda arm, each: luck(arm, each) if (arm, each) in ended else None)
    assert all(done.tries[arm][: len(own)] == own for arm, own in part.tries.items())
    assert (part.choices is None) == any((arm, each) not in ended for arm, own in done.tries.items() for each in own)


@settings(deadline=None)
@given(
    lowest=st.floats(-3.4, 3.4),
    bend=st.floats(0.01, 5.0),
    shift=st.floats(-1.0, 1.0),
    start=st.floats(1e-5, 1.0),
    factor=st.floats(1.5, 8.0),
)
def test_the_lowest_point_of_a_parabola_is_found(
    lowest: float, bend: float, shift: float, start: float, factor: float
) -> None:
    truth = math.log2(start) + lowest * math.log2(factor)

    def score(_: str, each: Try) -> float:
        return 2.0 + bend * (math.log2(each.rate) - truth) ** 2 + (shift if each.seed == SECOND else 0.0)

    done = tune({"a": start}, Tuning(factor=factor), score)
    assert done.choices is not None
    assert done.choices["a"].trouble == ""
    assert done.choices["a"].rate == pytest.approx(2**truth, rel=0.0051)  # three digits
    assert (len(done.tries["a"]) == Tuning().runs) == (abs(lowest) < 1.5) or abs(abs(lowest) - 1.5) < 0.01
