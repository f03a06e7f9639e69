"""Designs of several factors: which combinations are run, under which names, and what they cannot tell apart.

A factor is a change that is made or not (two levels, `off` and `on`), or a recipe key with a list of values. Nothing
here knows of recipes: a design is names and numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

KINDS = ("grid", "add_one_in", "leave_one_out", "both", "fractional")
"""Designs of factors: all combinations; one change at a time to the base; all changes but one; both; a fraction."""

BASE, FULL = "base", "full"
"""The arms without any factor and with all of them."""

SWITCH = ("off", "on")

FRACTIONS: Mapping[int, tuple[str, ...]] = {
    4: ("D=ABC",),
    5: ("E=ABCD",),
    6: ("E=ABC", "F=BCD"),
    7: ("E=ABC", "F=BCD", "G=ACD"),
    8: ("E=BCD", "F=ACD", "G=ABC", "H=ABD"),
}
"""The generators of least aberration at resolution IV or more (Box, Hunter & Hunter, Statistics for Experimenters)."""

MOST_FACTORS = 8


@dataclass(frozen=True)
class Design:
    """What is crossed with what.

    Args:
        kind: One of `KINDS`.
        factors: Their names.
        levels: The names of each factor's levels; the first one is the base's.
        arms: For each arm the index of every factor's level; the baseline is the first one.
        generators: Of a fraction: each factor that is not free, and those whose product it is.
    """

    kind: str
    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    arms: Mapping[str, tuple[int, ...]]
    generators: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_crossed(self) -> bool:
        """Whether effects are averaged over the other factors: a grid or a fraction of one."""
        return self.kind in ("grid", "fractional")

    @property
    def is_two_level(self) -> bool:
        return all(len(names) == 2 for names in self.levels)

    @property
    def words(self) -> list[frozenset[str]]:
        """The defining relation of a fraction: sets of factors whose product is the same in every run."""
        basic = [frozenset({name, *product}) for name, product in self.generators.items()]
        found = []
        for size in range(1, len(basic) + 1):
            for chosen in itertools.combinations(basic, size):
                word: frozenset[str] = frozenset()
                for each in chosen:
                    word = word ^ each
                found.append(word)
        return sorted(found, key=lambda word: (len(word), [self.factors.index(name) for name in self.named(word)]))

    @property
    def resolution(self) -> int | None:
        """The shortest word of the defining relation; None if nothing is confounded."""
        return min((len(word) for word in self.words), default=None)

    def named(self, factors: frozenset[str]) -> tuple[str, ...]:
        """A set of factors in the design's order."""
        return tuple(name for name in self.factors if name in factors)

    def aliases(self, effect: Sequence[str], most: int = 2) -> list[tuple[str, ...]]:
        """Other effects of up to `most` factors that a fraction cannot tell from this one."""
        found = [self.named(frozenset(effect) ^ word) for word in self.words]
        return [other for other in found if 0 < len(other) <= most]

    def effects(self, size: int) -> Iterator[tuple[str, ...]]:
        """Effects of so many factors; of those that are aliased only the first."""
        seen: set[tuple[str, ...]] = set()
        for effect in itertools.combinations(self.factors, size):
            if effect not in seen:
                seen.update([effect, *self.aliases(effect, size)])
                yield effect


def two_level(kind: str, factors: Sequence[str], generators: Mapping[str, Sequence[str]] | None = None) -> Design:
    """A design of changes that are made or not.

    Args:
        kind: One of `KINDS`.
        factors: Their names.
        generators: Of a fraction; the usual ones unless given.

    Raises:
        ValueError: The kind does not take so many factors, or the generators make no design of resolution IV.
    """
    names = tuple(factors)
    check_size(kind, len(names))
    chosen = {}
    if kind == "fractional":
        chosen = {n: tuple(p) for n, p in generators.items()} if generators else usual_generators(names)
        _check_generators(names, chosen)
    rows = list(_rows(kind, names, chosen))
    arms = {_name(kind, names, row): row for row in rows}
    if len(arms) < len(rows):
        raise ValueError("two arms would bear one name. Choose names of factors that contain no '+' or '-'.")
    design = Design(kind, names, tuple(SWITCH for _ in names), arms, chosen)
    if design.resolution is not None and design.resolution < 4:
        word = effect_name(design.named(design.words[0]))
        raise ValueError(
            f"these have resolution {roman(design.resolution)}: {word} is constant, so that a factor cannot be told "
            "from the interaction of others. Take products of three factors or more, or leave generators out."
        )
    return design


def check_size(kind: str, factors: int) -> None:
    """Refuse a number of factors that a kind of design is not made for.

    Raises:
        ValueError: It is.
    """
    few = {"grid": 2, "add_one_in": 1, "leave_one_out": 2, "both": 3, "fractional": 4}[kind]
    if factors < few:
        other = {"both": " With two factors, design: grid says the same.", "fractional": " Take design: grid."}
        raise ValueError(f"{kind} needs {few} factors or more, there {_are(factors)}.{other.get(kind, '')}")
    if kind in ("grid", "fractional") and factors > MOST_FACTORS:
        raise ValueError(f"{kind} takes {MOST_FACTORS} factors at most, there {_are(factors)}. Screen them in two.")


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def usual_generators(factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The generators of `FRACTIONS` in the words of these factors."""
    letters = dict(zip("ABCDEFGH", factors, strict=False))
    words = (word.split("=") for word in FRACTIONS[len(factors)])
    return {letters[name]: tuple(letters[letter] for letter in product) for name, product in words}


def _check_generators(factors: Sequence[str], generators: Mapping[str, tuple[str, ...]]) -> None:
    for name, product in generators.items():
        for each in (name, *product):
            if each not in factors:
                raise ValueError(f"no factor is called {each!r}. They are {', '.join(factors)}.")
        if dependent := [each for each in product if each in generators]:
            raise ValueError(f"{name} is a product of {dependent[0]}, which is a product itself. Use free factors.")
        if len(set(product)) < len(product):
            raise ValueError(f"{name} is a product that names a factor twice.")


def _rows(kind: str, factors: tuple[str, ...], generators: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[int, ...]]:
    """The levels of each arm, the baseline first."""
    count = len(factors)
    single = [tuple(int(i == j) for j in range(count)) for i in range(count)]
    if kind in ("add_one_in", "both"):
        yield (0,) * count
        yield from single
    if kind in ("leave_one_out", "both"):
        yield (1,) * count
        yield from (tuple(1 - level for level in row) for row in single)
    if kind in ("grid", "fractional"):
        free = [name for name in factors if name not in generators]
        for levels in itertools.product((0, 1), repeat=len(free)):
            row: dict[str, int] = dict(
                zip(free, reversed(levels), strict=True)
            )  # the first factor changes fastest: Yates' order
            for name, product in generators.items():
                row[name] = sum(row[each] for each in product) % 2  # so that the base is always among the runs
            yield tuple(row[name] for name in factors)


def _name(kind: str, factors: Sequence[str], row: Sequence[int]) -> str:
    """`base`, `rope+swiglu`, `full`, `full-rope`."""
    on = [name for name, level in zip(factors, row, strict=True) if level]
    off = [name for name, level in zip(factors, row, strict=True) if not level]
    if not on:
        return BASE
    if kind in ("leave_one_out", "both") and len(off) <= 1:
        return f"{FULL}-{off[0]}" if off else FULL
    return "+".join(on)


def as_lines(design: Design, seeds: int) -> list[str]:
    """What a plan prints of its design: its size, its generators, its aliases, and what it can see."""
    lines = [_headline(design)]
    if design.kind == "fractional":
        width = max(map(len, design.generators))
        lines += [f"  {name.ljust(width)} = {_product(product)}" for name, product in design.generators.items()]
        lines += ["aliases", *alias_lines(design)]
    if design.is_crossed and design.is_two_level:
        runs = len(design.arms) * seeds
        main, two = 2 / math.sqrt(runs), 4 / math.sqrt(runs)
        lines.append(
            f"sees   main effects with a standard error of {main:.2f} SDs of the noise, interactions {two:.2f}"
        )
    return lines


def alias_lines(design: Design) -> list[str]:
    """The alias table of a fraction, up to interactions of two factors."""
    assert design.resolution is not None
    chains = [(effect, design.aliases(effect)) for effect in design.effects(2)]
    aliased = [[effect, *others] for effect, others in chains if others]
    order = "three" if design.resolution == 4 else "four"
    lines = [f"  main effects: clear of each other and of two-factor interactions; aliased with {order}-factor ones"]
    lines += [f"  {' = '.join(map(effect_name, chain))}" for chain in aliased]
    clear = [effect_name(effect) for effect, others in chains if not others]
    return [*lines, f"  clear of other two-factor interactions: {', '.join(clear)}"] if clear else lines


def effect_name(factors: Sequence[str]) -> str:
    """`rope x swiglu`."""
    return " x ".join(factors)


def _product(factors: Sequence[str]) -> str:
    """The product of levels -1 and +1 that is off where all of its factors are off."""
    return ("" if len(factors) % 2 else "-") + effect_name(factors)


def _headline(design: Design) -> str:
    count, runs = len(design.factors), len(design.arms)
    if design.kind == "fractional":
        assert design.resolution is not None
        free = count - len(design.generators)
        size = f"2^({count}-{count - free}), {runs} of {2**count} combinations, resolution {roman(design.resolution)}"
        return f"design fractional factorial {size}"
    if design.kind == "grid":
        return f"design full crossing of {' x '.join(str(len(names)) for names in design.levels)} levels"
    words = {
        "add_one_in": "each change alone, added to the base",
        "leave_one_out": "all changes together, and all but one",
        "both": "each change alone, and all but each: where the two disagree, changes interact",
    }
    return f"design {words[design.kind]}"


def roman(number: int) -> str:
    """Resolutions are written so."""
    return {1: "I", 2: "II", 3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII"}.get(number, str(number))
