"""What a report says of the factors of a design: a sentence, tables, and what to beware of."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptzoo.ablation.designs import alias_lines, effect_name, roman
from gptzoo.ablation.factorial import LENTH, Effect, Effects, Factorial, OneFactor, Term
from gptzoo.ablation.wording import NONE, Numbers, p_text


@dataclass(frozen=True)
class Table:
    """A table, ready to be set.

    Args:
        head: Of its columns; the first and the last are words.
        rows: Texts.
        note: Below it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def lede(effects: Effects) -> str:
    """How the factors were crossed, in a sentence or two."""
    if not isinstance(effects, Factorial):
        return (
            "Each change was added alone to the base, and taken alone out of the full model. Where the two agree, a "
            "change does the same whatever the others are."
        )
    design = effects.design
    runs = f"Every run bears on every effect: {len(design.arms)} combinations of {len(design.factors)} factors"
    if design.kind != "fractional":
        return f"{runs}, all there are."
    assert design.resolution is not None
    generators = "; ".join(
        f"{name} is on where an odd number of {', '.join(product)} is" for name, product in design.generators.items()
    )
    return f"{runs} of {2 ** len(design.factors)}, a fraction of resolution {roman(design.resolution)}: {generators}."


def warnings(effects: Effects, alpha: float) -> list[str]:
    """What must be known before the effects are believed."""
    if not isinstance(effects, Factorial):
        return [line for each in effects if (line := _disagreement(each, alpha))]
    found = []
    for factors in effects.flagged:
        chain = [effect_name(factors), *(effect_name(other) for other in effects.design.aliases(factors))]
        pair = " and ".join(factors)
        if len(chain) > 1:
            found.append(f"{' or '.join(chain)}: one of these interactions is real. Cross their factors fully to know.")
        else:
            found.append(
                f"{pair} interact: what one does depends on the other, so read the means of both, not averages."
            )
    if effects.missing:
        runs = "1 run has" if effects.missing == 1 else f"{effects.missing} runs have"
        found.append(f"{runs} no number; least squares on the rest.")
    if effects.sigma is None:
        found.append("One seed and few effects: there is no noise to compare them with. Run two seeds or more.")
    return found


def _disagreement(each: OneFactor, alpha: float) -> str:
    p = each.interaction.p_holm
    if p is None or p >= alpha:
        return ""
    return f"{each.factor} interacts: it does not do among the others what it does alone (p {p_text(p, '= ')})."


def tables(effects: Effects, alpha: float, numbers: Numbers) -> list[Table]:
    """The effects, and what a fraction cannot tell apart."""
    if not isinstance(effects, Factorial):
        return [_one_factor(effects, alpha, numbers)]
    made = [_terms(effects) if effects.terms else _effects(effects, numbers)]
    if effects.design.kind == "fractional":
        note = " ".join(line.strip() + "." for line in alias_lines(effects.design))
        made[0] = Table(made[0].head, made[0].rows, f"{made[0].note} Aliases. {note}")
    return made


def _effects(made: Factorial, numbers: Numbers) -> Table:
    interval = f"{100 * (1 - made.alpha):.4g}% interval"

    def row(e: Effect) -> tuple[str, ...]:
        size = numbers.signed(_known(e.size)), numbers.plain(e.error), numbers.interval(e.low, e.high)
        return (e.name, *size, p_text(e.p_holm), _reading(e, made.alpha))

    noise = (
        f"Noise {numbers.amount(made.sigma)}, {_source(made)}. "
        if made.sigma is not None and made.df is not None
        else ""
    )
    note = (
        f"{noise}A main effect is on minus off, averaged over all else; an interaction is what one factor does with "
        "the other on, minus what it does with the other off. p is corrected by Holm's method, main effects and "
        "interactions apart."
    )
    return Table(
        ("effect", "size", "standard error", interval, "p (Holm)", "reading"), tuple(map(row, made.effects)), note
    )


def _source(made: Factorial) -> str:
    if made.method == LENTH:
        return f"from {LENTH}, as there is one seed"
    return f"the residual on {made.df:g} degrees of freedom"


def _reading(effect: Effect, alpha: float) -> str:
    if effect.p_holm is None:
        return "not tested"
    said = "beyond noise" if effect.p_holm < alpha else "within noise"
    return f"{said}; or {' or '.join(effect.aliases)}" if effect.aliases else said


def _terms(made: Factorial) -> Table:

    def row(t: Term) -> tuple[str, ...]:
        reading = "not tested" if t.p_holm is None else "beyond noise" if t.p_holm < made.alpha else "within noise"
        return t.name, str(t.df), NONE if t.f is None else f"{t.f:.3g}", p_text(t.p), p_text(t.p_holm), reading

    note = (
        "Analysis of variance, type II: each term beside all others that do not contain it. p is corrected by Holm's "
        "method, factors and interactions apart."
    )
    return Table(("term", "degrees of freedom", "F", "p", "p (Holm)", "reading"), tuple(map(row, made.terms)), note)


def _one_factor(effects: tuple[OneFactor, ...], alpha: float, numbers: Numbers) -> Table:
    def told(effect: Effect) -> str:
        return f"{numbers.signed(_known(effect.size))} {numbers.interval(effect.low, effect.high)}"

    def row(each: OneFactor) -> tuple[str, ...]:
        sizes = told(each.alone), told(each.among), told(each.interaction)
        return (each.factor, *sizes, p_text(each.interaction.p_holm), _agreement(each, alpha))

    note = (
        "Alone: base with the change minus base. Among the others: full minus full without it. Their difference is an "
        "interaction; its p is corrected by Holm's method over the changes. Intervals are each for itself."
    )
    head = ("change", "alone", "among the others", "difference of the two", "p (Holm)", "reading")
    return Table(head, tuple(map(row, effects)), note)


def _agreement(each: OneFactor, alpha: float) -> str:
    p = each.interaction.p_holm
    return "not tested" if p is None else "interacts" if p < alpha else "no interaction seen"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def as_text(effects: Effects, alpha: float, numbers: Numbers) -> list[str]:
    """The same for a terminal."""
    lines = ["", "factors"]
    for table in tables(effects, alpha, numbers):
        rows = [table.head, *table.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(table.head))]
        last = len(widths) - 1
        lines += [
            "  ".join(
                cell.ljust(width) if i in (0, last) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
    return [*lines, *warnings(effects, alpha)]
