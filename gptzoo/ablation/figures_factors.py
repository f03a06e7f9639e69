"""Figures of designs of factors: which effects stand out from noise, and how two factors act together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtri

from gptzoo.ablation.factorial import Effect, Factorial, half_normal
from gptzoo.ablation.figures import COLOURS, INKS, colour_of, drawing, shortened
from gptzoo.ablation.wording import Numbers

MOST_INTERACTIONS = 4


def half_normal_plot(made: Factorial, numbers: Numbers) -> str:
    """The sizes of all effects over the quantiles of noise: noise lies on the line, what is real lies above it.

    Empty where there are too few effects to see a line.
    """
    effects = [effect for effect in made.effects if not math.isnan(effect.size)]
    if len(effects) < 4:
        return ""
    points = half_normal([effect.contrast for effect in effects])
    with drawing("half-normal", 0, height=300) as (axes, svg):
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        if made.sigma is not None and (error := _error(effects)) is not None:
            top = ndtri(0.5 + 0.5 * (len(effects) - 0.5) / len(effects))
            axes.plot([0, top], [0, top * error], color=INKS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        named = 0
        for quantile, index in points:
            effect = effects[index]
            real = effect.p_holm is not None and effect.p_holm < made.alpha
            size = abs(effect.contrast)
            axes.plot([quantile], [size], "o", color=INKS["arm-1" if real else "muted"], markersize=7)
            if real:
                offset = (-2, 8 + 13 * (named % 3))  # neighbours are often of one size
                text = axes.annotate(
                    shortened(effect.name, 30), (quantile, size), offset, textcoords="offset points", ha="right"
                )
                text.set_parse_math(False)
                named += 1
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.2 * max(abs(effect.contrast) for effect in effects) or 1)
        axes.set_xlabel("half-normal quantile")
        axes.set_ylabel(f"size of the effect{f', {numbers.unit}' if numbers.unit else ''}")
    return svg()


def _error(effects: Sequence[Effect]) -> float | None:
    """The standard error that all contrasts share; the middle one where runs are missing."""
    known = sorted(effect.error / len(effect.factors) for effect in effects if effect.error is not None)
    return known[len(known) // 2] if known else None


def shown_pairs(made: Factorial) -> list[tuple[str, str]]:
    """Pairs of factors whose interaction is drawn: those beyond noise with their aliases, else all if they are few."""
    chains = [[factors, *made.design.aliases(factors)] for factors in made.flagged]
    flagged = [(each[0], each[1]) for chain in chains for each in chain if len(each) == 2]
    pairs = flagged or (list(made.means) if len(made.means) <= 3 else [])
    return pairs[:MOST_INTERACTIONS]


def interaction_plot(made: Factorial, pair: tuple[str, str], place: int, numbers: Numbers) -> str:
    """The mean of the metric over the levels of one factor, a line for each level of the other.

    Parallel lines: the two add up. Otherwise what one does depends on the other.

    Args:
        pair: Which factors; the first along the axis.
        place: Of the figure on its page.
    """
    means = made.means[pair]
    first, second = (made.design.levels[made.design.factors.index(name)] for name in pair)
    with drawing(f"interaction-{place}", 0, height=260) as (axes, svg):
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        for line, name in enumerate(second):
            y = [row[line] for row in means]
            colour = INKS[f"arm-{colour_of(line) % COLOURS}"]
            axes.plot(range(len(y)), y, "o-", color=colour, linewidth=1.8, markersize=6)
            if not math.isnan(y[-1]):
                label = shortened(f"{_word(pair[1])} {name}", 14)
                text = axes.annotate(label, (len(y) - 1, y[-1]), (9, 0), textcoords="offset points", va="center")
                text.set(color=colour, parse_math=False)
        axes.set_xticks(range(len(first)), [shortened(name, 40 // len(first)) for name in first], parse_math=False)
        axes.set_xlim(-0.12 * (len(first) - 1), 1.36 * (len(first) - 1))  # room for the names of the lines
        axes.margins(y=0.12)
        axes.set_xlabel(_word(pair[0]), parse_math=False)
        axes.set_ylabel(numbers.heading, parse_math=False)
    return svg()


def _word(factor: str) -> str:
    """`position` of `model.position`: a grid's factors are keys."""
    return factor.rpartition(".")[2]
