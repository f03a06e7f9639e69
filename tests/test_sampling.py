"""The draw of the next token, against supports worked out by hand and frequencies worked out by chi-square."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy.stats import chisquare
from torch import Tensor

from gptzoo.errors import NotFinite
from gptzoo.sampling import choose, filter_logits, penalised, problems_of

PROBABILITIES = [0.4, 0.3, 0.15, 0.1, 0.05]


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def support(scores: Tensor) -> list[int]:
    return scores.isfinite().nonzero()[:, 0].tolist()


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + row) for row in range(count)]


def draws(logits: Tensor, count: int, **options: float) -> Tensor:
    one = torch.Generator().manual_seed(0)
    drawn = choose(logits.expand(count, -1), [one] * count, **options)  # type: ignore[arg-type]
    return torch.bincount(drawn, minlength=len(logits))


@pytest.mark.parametrize("k", range(1, 6))
def test_top_k_admits_exactly_the_k_best(k: int) -> None:
    shuffled = logits_of(0.05, 0.4, 0.1, 0.3, 0.15)
    assert support(filter_logits(shuffled, top_k=k)) == sorted([1, 3, 4, 2, 0][:k])


def test_top_k_admits_exactly_k_of_equal_scores_the_smallest_numbers_first() -> None:
    assert support(filter_logits(torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0]), top_k=3)) == [0, 1, 2]


@pytest.mark.parametrize(("p", "size"), [(1e-9, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.96, 5), (1.0, 5)])
def test_top_p_admits_the_fewest_tokens_that_hold_the_mass(p: float, size: int) -> None:
    assert support(filter_logits(logits_of(*PROBABILITIES), top_p=p)) == list(range(size))


def test_top_p_sees_only_what_top_k_left() -> None:
    # 0.4 and 0.3 are 4/7 and 3/7 of what is left
    assert support(filter_logits(logits_of(*PROBABILITIES), top_k=2, top_p=0.56)) == [0]
    assert support(filter_logits(logits_of(*PROBABILITIES), top_k=2, top_p=0.58)) == [0, 1]


@pytest.mark.parametrize(
    ("p", "size"), [(0.0, 5), (0.12, 5), (0.13, 4), (0.26, 3), (0.38, 2), (0.74, 2), (0.76, 1), (1.0, 1)]
)
def test_min_p_admits_what_is_at_least_that_share_of_the_best(p: float, size: int) -> None:
    assert support(filter_logits(logits_of(*PROBABILITIES), min_p=p)) == list(range(size))


def test_top_p_of_one_admits_even_what_rounding_would_lose() -> None:
    tail = torch.tensor([0.0] + [-60.0] * 9)
    assert support(filter_logits(tail, top_p=1.0)) == list(range(10))


def test_temperature_sharpens_before_anything_is_filtered() -> None:
    # at temperature 0.5 the probabilities are 0.16 : 0.09 : 0.0225 ...
    assert support(filter_logits(logits_of(*PROBABILITIES), temperature=0.5, min_p=0.57)) == [0]
    assert support(filter_logits(logits_of(*PROBABILITIES), temperature=2.0, min_p=0.57)) == [0, 1, 2]


def test_temperature_zero_admits_the_first_of_the_best_alone() -> None:
    assert support(filter_logits(torch.tensor([0.0, 3.0, 3.0]), temperature=0.0)) == [1]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-9])
def test_a_tiny_temperature_is_greedy_and_not_nan(temperature: float) -> None:
    logits = torch.tensor([[1e30, -1e30, 2e30], [0.0, 1.0, 0.5]])
    assert choose(logits, generators(2), temperature=temperature).tolist() == [2, 1]


def test_a_huge_temperature_is_uniform() -> None:
    scores = filter_logits(torch.tensor([5.0, -5.0, 0.0]), temperature=1e300)
    assert torch.equal(scores.softmax(-1), torch.full((3,), 1 / 3, dtype=torch.float64))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.integers(-1000, 1000), st.integers(0, 99))
@settings(deadline=None)
def test_a_shift_of_all_scores_changes_nothing(values: list[float], shift: int, seed: int) -> None:
    logits = (torch.tensor(values, dtype=torch.float64) * 1024).round() / 1024  # so that the shift is exact
    assert torch.equal(filter_logits(logits, top_p=0.9), filter_logits(logits + shift, top_p=0.9))
    assert choose(logits[None], generators(1, seed)).equal(choose(logits[None] + shift, generators(1, seed)))


@given(st.data())
@settings(deadline=None)
def test_every_draw_is_admitted_and_something_always_is(data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(-100, 100), min_size=1, max_size=30))
    options = {
        "temperature": data.draw(st.sampled_from([0.0, 1e-3, 0.7, 1.0, 50.0])),
        "top_k": data.draw(st.one_of(st.none(), st.integers(1, len(values)))),
        "top_p": data.draw(st.one_of(st.none(), st.floats(0, 1, exclude_min=True))),
        "min_p": data.draw(st.one_of(st.none(), st.floats(0, 1))),
    }
    logits = torch.tensor(values)[None]
    admitted = support(filter_logits(logits, **options)[0])
    assert int(logits[0].argmax()) in admitted
    assert int(choose(logits, generators(1, data.draw(st.integers(0, 999))), **options)) in admitted


def test_draws_come_as_often_as_their_probabilities_say() -> None:
    counts = draws(logits_of(*PROBABILITIES), 100_000)
    assert chisquare(counts.numpy(), [p * 100_000 for p in PROBABILITIES]).pvalue > 1e-4


def test_filtered_draws_come_as_often_as_the_rescaled_probabilities_say() -> None:
    counts = draws(logits_of(*PROBABILITIES), 100_000, temperature=0.5, top_k=4, top_p=0.97)
    expected = [p**2 for p in PROBABILITIES[:3]]  # the fourth holds the last 0.035 of the squares' mass ...
    expected.append(PROBABILITIES[3] ** 2)  # ... and is needed to reach 0.97
    assert counts[4] == 0
    assert chisquare(counts[:4].numpy(), [e / sum(expected) * 100_000 for e in expected]).pvalue > 1e-4


def test_an_impossible_token_is_never_drawn_at_either_end() -> None:
    counts = draws(logits_of(0.0, 0.5, 0.0, 0.5, 0.0), 100_000)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]


def test_a_draw_at_the_very_start_of_the_mass_is_the_first_admitted_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(1, dtype=torch.float64))
    assert choose(logits_of(0.0, 0.5, 0.5)[None], generators(1)).tolist() == [1]


def test_a_draw_at_the_very_end_of_the_mass_is_the_last_admitted_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1, dtype=torch.float64))
    assert choose(logits_of(0.5, 0.5, 0.0)[None], generators(1)).tolist() == [1]


def test_a_rows_draws_do_not_depend_on_the_rows_beside_it() -> None:
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    together = choose(logits, generators(5), top_p=0.9)
    apart = [choose(logits[row : row + 1], generators(5)[row : row + 1], top_p=0.9) for row in range(5)]
    assert together.equal(torch.cat(apart))


def test_drawing_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    choose(torch.zeros(3, 9), generators(3))
    assert torch.get_rng_state().equal(before)


def test_the_callers_logits_are_not_changed() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    copy = logits.clone()
    choose(logits, generators(2), temperature=0.5, top_k=3, top_p=0.5, min_p=0.5)
    assert logits.equal(copy)


@given(
    st.lists(st.floats(-20, 20), min_size=5, max_size=5),
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=2, max_size=2),
    st.floats(0.1, 10),
)
@settings(deadline=None)
def test_a_penalty_does_what_transformers_does(scores: list[float], seen: list[list[int]], penalty: float) -> None:
    from transformers.generation import RepetitionPenaltyLogitsProcessor

    twin = RepetitionPenaltyLogitsProcessor(penalty)
    logits = torch.tensor([scores, scores[::-1]], dtype=torch.float64)
    copy = logits.clone()
    expected = [
        twin(torch.tensor([tokens]), row[None].clone())[0]  # pyright: ignore[reportArgumentType]
        for tokens, row in zip(seen, logits, strict=True)
    ]
    torch.testing.assert_close(penalised(logits, seen, penalty), torch.stack(expected), rtol=1e-12, atol=0)  # type: ignore[arg-type]
    assert logits.equal(copy)


def test_a_penalty_of_one_changes_no_bit() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    assert penalised(logits, [[1], [2, 3]], 1.0).equal(logits)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}])
def test_each_way_to_ask_for_the_best_gives_the_argmax(options: dict[str, float]) -> None:
    logits = torch.randn(500, 50, generator=torch.Generator().manual_seed(0))
    assert choose(logits, generators(500), **options).equal(logits.argmax(-1))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[0.0, math.nan], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_scores_that_are_not_finite_are_refused(bad: list[float]) -> None:
    with pytest.raises(NotFinite) as refusal:
        choose(torch.tensor([[0.0, 1.0], bad]), generators(2))
    assert str(refusal.value) == (
        "the model's scores for the next token are not finite. Its weights are damaged or its training diverged: "
        "use an earlier checkpoint."
    )


FINE = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("temperature", -1.0, "-1.0 is not a finite number of at least 0. 0 always takes the likeliest token."),
        ("temperature", math.nan, "nan is not a finite number of at least 0. 0 always takes the likeliest token."),
        ("temperature", math.inf, "inf is not a finite number of at least 0. 0 always takes the likeliest token."),
        ("top_k", 0, "0 is below 1. Leave it out to admit every token."),
        ("top_k", 10, "10 is above the size of the vocabulary, 9. Leave it out to admit every token."),
        ("top_p", 0.0, "0.0 is not above 0 and at most 1. Leave it out to admit every token."),
        ("top_p", 1.5, "1.5 is not above 0 and at most 1. Leave it out to admit every token."),
        ("top_p", math.nan, "nan is not above 0 and at most 1. Leave it out to admit every token."),
        ("min_p", -0.1, "-0.1 is not between 0 and 1. Leave it out to admit every token."),
        ("min_p", 1.1, "1.1 is not between 0 and 1. Leave it out to admit every token."),
        ("min_p", math.nan, "nan is not between 0 and 1. Leave it out to admit every token."),
    ],
)
def test_an_option_out_of_range_is_named_as_on_the_command_line(option: str, value: float, message: str) -> None:
    problems = problems_of(9, **{**FINE, option: value})  # type: ignore[arg-type]
    assert [str(problem) for problem in problems] == [f"--{option.replace('_', '-')}: {message}"]


@pytest.mark.parametrize("fine", [{"temperature": 0.0}, {"top_k": 9}, {"top_p": 1.0}, {"min_p": 0.0}, {"min_p": 1.0}])
def test_the_ends_of_the_ranges_are_admitted(fine: dict[str, float]) -> None:
    assert problems_of(9, **{**FINE, **fine}) == []  # type: ignore[arg-type]
