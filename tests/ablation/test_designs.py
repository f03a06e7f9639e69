"""Designs of factors: what is run, what is confounded with what, and how that is printed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gptzoo.ablation.designs import Design, as_lines, two_level

LETTERS = "ABCDEFGH"


def coded(design: Design) -> np.ndarray:
    """Levels -1 and +1, (arms, factors)."""
    return 2 * np.array(list(design.arms.values())) - 1


def test_each_design_runs_what_it_says() -> None:
    assert two_level("add_one_in", "AB").arms == {"base": (0, 0), "A": (1, 0), "B": (0, 1)}
    assert two_level("leave_one_out", "AB").arms == {"full": (1, 1), "full-A": (0, 1), "full-B": (1, 0)}
    assert list(two_level("both", "ABC").arms) == ["base", "A", "B", "C", "full", "full-A", "full-B", "full-C"]
    assert list(two_level("grid", "AB").arms) == ["base", "A", "B", "A+B"]


@pytest.mark.parametrize("factors", [4, 5, 6, 7, 8])
def test_a_fraction_is_orthogonal_and_has_the_base_and_the_stated_generators(factors: int) -> None:
    design = two_level("fractional", LETTERS[:factors])
    table = coded(design)
    assert len(design.arms) == {4: 8}.get(factors, 16)
    assert next(iter(design.arms)) == "base"
    np.testing.assert_array_equal(table.T @ table, len(table) * np.eye(factors))
    for name, product in design.generators.items():
        column, columns = design.factors.index(name), [design.factors.index(each) for each in product]
        sign = 1 if len(product) % 2 else -1
        np.testing.assert_array_equal(table[:, column], sign * table[:, columns].prod(1))


@pytest.mark.parametrize(("factors", "resolution"), [(4, 4), (5, 5), (6, 4), (7, 4), (8, 4)])
def test_aliases_are_the_products_that_are_equal_in_every_run(factors: int, resolution: int) -> None:
    """By brute force over all products of columns."""
    design = two_level("fractional", LETTERS[:factors])
    assert design.resolution == resolution
    table = coded(design)
    effects = [each for size in (1, 2) for each in itertools.combinations(range(factors), size)]
    products = {each: table[:, list(each)].prod(1) for each in effects}
    for one in effects:
        equal = {two for two in effects if two != one and abs(products[one] @ products[two]) == len(table)}
        named = tuple(design.factors[i] for i in one)
        assert {tuple(design.factors.index(n) for n in two) for two in design.aliases(named)} == equal
    constant = [
        each
        for size in range(1, resolution)
        for each in itertools.combinations(range(factors), size)
        if abs(table[:, list(each)].prod(1).sum()) == len(table)
    ]
    assert constant == []


def test_generators_may_be_chosen() -> None:
    design = two_level("fractional", "ABCDEF", {"E": "BCD", "F": "ACD"})
    assert design.resolution == 4
    assert design.words == [frozenset("ABEF"), frozenset("ACDF"), frozenset("BCDE")]


@pytest.mark.parametrize(
    ("kind", "factors", "generators", "said"),
    [
        ("grid", "A", None, "grid needs 2 factors or more, there is 1."),
        ("grid", "ABCDEFGHI", None, "grid takes 8 factors at most, there are 9. Screen them in two."),
        (
            "both",
            "AB",
            None,
            "both needs 3 factors or more, there are 2. With two factors, design: grid says the same.",
        ),
        ("fractional", "ABC", None, "fractional needs 4 factors or more, there are 3. Take design: grid."),
        (
            "fractional",
            "ABCDE",
            {"D": "AB", "E": "AC"},
            "these have resolution III: A x B x D is constant, so that a factor cannot be told from the interaction of "
            "others. Take products of three factors or more, or leave generators out.",
        ),
        ("fractional", "ABCD", {"D": "ABX"}, "no factor is called 'X'. They are A, B, C, D."),
        (
            "fractional",
            "ABCDE",
            {"D": "ABC", "E": "BCD"},
            "E is a product of D, which is a product itself. Use free factors.",
        ),
        ("fractional", "ABCD", {"D": "ABB"}, "D is a product that names a factor twice."),
        (
            "add_one_in",
            ("base", "x"),
            None,
            "two arms would bear one name. Choose names of factors that contain no '+' or '-'.",
        ),
    ],
)
def test_what_makes_no_design_is_refused(kind: str, factors: str, generators: dict | None, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message follows
        two_level(kind, factors, generators)
    assert str(caught.value) == said


def test_a_plan_prints_its_fraction_with_its_aliases() -> None:
    assert as_lines(two_level("fractional", ("rope", "swiglu", "rms", "qk")), 3) == [
        "design fractional factorial 2^(4-1), 8 of 16 combinations, resolution IV",
        "  qk = rope x swiglu x rms",
        "aliases",
        "  main effects: clear of each other and of two-factor interactions; aliased with three-factor ones",
        "  rope x swiglu = rms x qk",
        "  rope x rms = swiglu x qk",
        "  rope x qk = swiglu x rms",
        "sees   main effects with a standard error of 0.41 SDs of the noise, interactions 0.82",
    ]
    lines = as_lines(two_level("fractional", "ABCDE"), 1)
    assert lines[:2] == [
        "design fractional factorial 2^(5-1), 16 of 32 combinations, resolution V",
        "  E = -A x B x C x D",
    ]
    assert lines[4].startswith("  clear of other two-factor interactions: A x B, A x C, ")


def test_sixteen_runs_of_six_factors_see_half_a_sigma() -> None:
    lines = as_lines(two_level("fractional", "ABCDEF"), 1)
    assert lines[-1] == "sees   main effects with a standard error of 0.50 SDs of the noise, interactions 1.00"
