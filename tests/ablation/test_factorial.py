"""Effects of factors, against statsmodels and against the effects that were put in."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from gptzoo.ablation.designs import Design, two_level
from gptzoo.ablation.factorial import LENTH, Factorial, OneFactor, effects_of, half_normal, lenth
from gptzoo.ablation.verdicts import Cell

LETTERS = "ABCDEFGH"


def results(design: Design, seeds: int, effects: dict[str, float], noise: float = 1.0, seed: int = 0) -> list[Cell]:
    """Results with these coefficients of the levels 0 and 1, `A` or `A:B`, seed effects and noise."""
    generator = np.random.default_rng(seed)
    blocks = generator.normal(size=seeds)
    cells = []
    for arm, row in design.arms.items():
        level = dict(zip(design.factors, row, strict=True))
        mean = sum(size * math.prod(level[f] for f in name.split(":")) for name, size in effects.items())
        cells += [Cell(arm, s, 5 + mean + blocks[s] + noise * generator.normal()) for s in range(seeds)]
    return cells


def frame(design: Design, cells: list[Cell]) -> pd.DataFrame:
    """The same as statsmodels takes it, levels coded -1 and +1 where there are two."""
    rows = []
    for cell in cells:
        row = design.arms[cell.arm]
        levels = {
            f: 2 * i - 1 if len(design.levels[p]) == 2 else design.levels[p][i]
            for p, (f, i) in enumerate(zip(design.factors, row, strict=True))
        }
        rows.append({"y": cell.value, "seed": cell.seed, **levels})
    return pd.DataFrame(rows)


def statsmodels_holm(p_values: list) -> list[float]:
    corrected = multipletests(p_values, method="holm")[1]
    assert corrected is not None
    return list(corrected)


def crossed(design: Design, cells: list[Cell], alpha: float = 0.05) -> Factorial:
    made = effects_of(design, cells, alpha)
    assert isinstance(made, Factorial)
    return made


@pytest.mark.parametrize("holes", [0, 3])
def test_effects_and_their_errors_are_those_of_least_squares(holes: int) -> None:
    design = two_level("grid", "KLMN")
    cells = results(design, 3, {"K": 1.0, "L": -2.0, "K:L": 1.5})[holes:]
    made = crossed(design, cells)
    fit = ols("y ~ (K + L + M + N)**2 + C(seed)", frame(design, cells)).fit()
    assert made.df == fit.df_resid
    assert made.sigma == pytest.approx(math.sqrt(fit.scale), rel=1e-10)
    assert len(made.effects) == 4 + 6
    for effect in made.effects:
        name, scale = ":".join(effect.factors), 2 ** len(effect.factors)
        low, high = fit.conf_int().loc[name]
        expected = (scale * fit.params[name], scale * fit.bse[name], fit.pvalues[name], scale * low, scale * high)
        assert (effect.size, effect.error, effect.p, effect.low, effect.high) == pytest.approx(expected, rel=1e-8)
    for size in (1, 2):
        own = [effect for effect in made.effects if len(effect.factors) == size]
        assert [e.p_holm for e in own] == pytest.approx(statsmodels_holm([e.p for e in own]))


def test_the_errors_are_the_ones_that_a_plan_prints() -> None:
    design = two_level("fractional", "ABCDEF")
    made = crossed(design, results(design, 2, {}))
    assert made.sigma is not None
    for effect in made.effects:
        share = {1: 2, 2: 4}[len(effect.factors)] / math.sqrt(32)
        assert effect.error == pytest.approx(share * made.sigma)


@pytest.mark.parametrize("holes", [0, 4])
def test_terms_of_many_levels_are_those_of_anova(holes: int) -> None:
    levels = (("a", "b", "c"), ("x", "y"), ("p", "q", "r", "s"))
    names = ["+".join(each) for each in itertools.product(*levels)]
    rows = list(itertools.product(*(range(len(each)) for each in levels)))
    design = Design("grid", ("F", "G", "H"), levels, dict(zip(names, rows, strict=True)))
    cells = results(design, 2, {"F": 1.0, "F:G": 0.7})[holes:]
    made = crossed(design, cells)
    terms = "C(F, Sum) * G + C(F, Sum) * C(H, Sum) + G * C(H, Sum) + C(seed)"
    table = anova_lm(ols(f"y ~ {terms}", frame(design, cells)).fit(), typ=2)
    table.index = [name.replace("C(", "").replace(", Sum)", "") for name in table.index]
    assert made.df == table.loc["Residual", "df"]
    assert [":".join(term.factors) for term in made.terms] == ["F", "G", "H", "F:G", "F:H", "G:H"]
    for term in made.terms:
        expected = table.loc[":".join(term.factors)]
        said = (term.df, term.squares, term.f, term.p)
        assert said == pytest.approx((expected["df"], expected["sum_sq"], expected["F"], expected["PR(>F)"]), rel=1e-8)


@pytest.mark.parametrize("factors", [4, 5, 6, 7, 8])
def test_a_fraction_finds_main_effects_and_chains_of_interactions(factors: int) -> None:
    """Without noise each main effect is found as it was put in, and an interaction in its chain."""
    names = LETTERS[:factors]
    design = two_level("fractional", names)
    put = {"A": 1.0, names[-1]: -3.0, "A:B": 2.0}
    made = crossed(design, results(design, 2, put, noise=0.0))
    found = {effect.name: effect for effect in made.effects}
    assert found["A"].size == pytest.approx(1.0 + 1.0)  # A:B of 0 and 1 adds half of itself to A and to B
    assert found["B"].size == pytest.approx(1.0)
    assert found[names[-1]].size == pytest.approx(-3.0)
    assert found["A x B"].size == pytest.approx(2.0)
    others = [e.size for e in made.effects if e.name not in ("A", "B", names[-1], "A x B")]
    np.testing.assert_allclose(others, 0.0, atol=1e-12)


def test_a_chain_names_those_that_it_cannot_tell_apart() -> None:
    made = crossed(two_level("fractional", "ABCD"), results(two_level("fractional", "ABCD"), 2, {}))
    aliases = {effect.name: effect.aliases for effect in made.effects if effect.aliases}
    assert aliases == {"A x B": ("C x D",), "A x C": ("B x D",), "A x D": ("B x C",)}


def test_one_seed_is_judged_by_lenth() -> None:
    """Box, Hunter & Hunter's way: fifteen contrasts, most of them noise."""
    design = two_level("fractional", "ABCDEF")
    cells = results(design, 1, {"A": 8.0})
    made = crossed(design, cells)
    y = {cell.arm: cell.value for cell in cells}
    sign = {arm: np.array(row) * 2 - 1 for arm, row in design.arms.items()}
    chains = [each for size in (1, 2, 3, 4) for each in itertools.combinations(range(4), size)]
    contrasts = [np.mean([2 * y[arm] * np.prod(sign[arm][list(each)]) for arm in y]) for each in chains]
    sizes = np.abs(contrasts)
    first = 1.5 * np.median(sizes)
    error = 1.5 * np.median(sizes[sizes < 2.5 * first])
    assert made.method == LENTH
    assert made.df == 5
    first_effect = made.effects[0]
    assert (first_effect.name, first_effect.error) == ("A", pytest.approx(error))
    assert first_effect.p == pytest.approx(2 * stats.t.sf(abs(first_effect.size) / error, 5))
    assert first_effect.p_holm is not None
    assert first_effect.p_holm < 0.01
    assert all(e.p_holm is not None and e.p_holm > 0.05 for e in made.effects[1:])


def test_lenths_error_ignores_what_is_no_noise() -> None:
    noise = np.random.default_rng(0).normal(size=4001)
    assert lenth(noise) == pytest.approx(1.0, abs=0.05)
    assert lenth(np.concatenate([noise, np.full(200, 50.0)])) == pytest.approx(lenth(noise), rel=0.1)


def test_half_normal_quantiles_are_those_of_sizes() -> None:
    points = half_normal([3.0, -1.0, 2.0])
    assert [index for _, index in points] == [1, 2, 0]
    assert [q for q, _ in points] == pytest.approx(stats.halfnorm.ppf([1 / 6, 3 / 6, 5 / 6]).tolist())


def test_means_of_pairs_of_levels_are_those_of_the_table() -> None:
    design = two_level("grid", "AB")
    made = crossed(design, results(design, 3, {"A": 1.0, "A:B": 2.0}, noise=0.0))
    (means,) = made.means.values()
    table = np.array(means)
    assert table - table[0, 0] == pytest.approx(np.array([[0.0, 0.0], [1.0, 3.0]]))
    assert made.flagged == [("A", "B")]


def test_a_run_that_diverged_is_a_hole() -> None:
    design = two_level("grid", "ABC")
    cells = results(design, 2, {"A": 1.0})
    bare = crossed(design, cells[1:])
    assert crossed(design, [Cell(cells[0].arm, 0, math.nan), *cells[1:]]) == bare
    assert bare.missing == 1


def test_nothing_run_is_nothing_found() -> None:
    assert effects_of(two_level("grid", "AB"), [], 0.05) is None
    assert effects_of(two_level("add_one_in", "AB"), results(two_level("add_one_in", "AB"), 3, {}), 0.05) is None


# -- one factor at a time --------------------------------------------------------------------------------------------


def test_a_change_alone_and_among_all_are_contrasts_of_the_blocked_model() -> None:
    design = two_level("both", "ABC")
    cells = results(design, 4, {"A": 1.0, "A:B": 3.0})
    made = effects_of(design, cells, 0.05)
    assert isinstance(made, tuple)
    table = pd.DataFrame([{"y": c.value, "arm": c.arm, "seed": c.seed} for c in cells])
    fit = ols("y ~ C(arm, Treatment('base')) + C(seed)", table).fit()

    def name(arm: str) -> str:
        return f"C(arm, Treatment('base'))[T.{arm}]"

    for each in made:
        alone, among = name(each.factor), f"{name('full')} - {name(f'full-{each.factor}')}"
        for effect, contrast in (
            (each.alone, alone),
            (each.among, among),
            (each.interaction, f"{among} - {alone}"),
        ):
            test = fit.t_test(f"{contrast} = 0")
            expected = (test.effect[0], test.sd[0, 0], float(test.pvalue), *test.conf_int()[0])
            said = (effect.size, effect.error, effect.p, effect.low, effect.high)
            assert said == pytest.approx(expected, rel=1e-8)


def test_changes_that_add_up_agree_and_changes_that_interact_do_not() -> None:
    design = two_level("both", "ABC")
    by_factor = one_factor(design, {"A": 1.0, "B": 2.0, "A:B": 30.0})
    assert (by_factor["A"].alone.size, by_factor["A"].among.size) == pytest.approx((1.0, 31.0), abs=3.0)
    found = {name: each.interaction.p_holm for name, each in by_factor.items()}
    assert all(p is not None for p in found.values())
    assert {name for name, p in found.items() if p is not None and p < 0.05} == {"A", "B"}


def test_a_contrast_never_rests_on_an_arm_that_is_out_of_line() -> None:
    design = two_level("both", "ABC")
    cells = [
        Cell(c.arm, c.seed, 50.0 * c.value if c.arm == "A" else c.value) for c in results(design, 4, {}, noise=1.0)
    ]
    made = effects_of(design, cells, 0.05)
    assert isinstance(made, tuple)
    assert [each.alone.p is None for each in made] == [True, False, False]
    assert [each.among.p is None for each in made] == [False, False, False]


def one_factor(design: Design, effects: dict[str, float]) -> dict[str, OneFactor]:
    made = effects_of(design, results(design, 4, effects), 0.05)
    assert isinstance(made, tuple)
    return {each.factor: each for each in made}
