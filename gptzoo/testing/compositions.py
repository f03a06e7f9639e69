"""Whole models: every composition is refused with a reason, or obeys the laws. There is no third outcome."""

from __future__ import annotations

import itertools
import random
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hypothesis.errors import UnsatisfiedAssumption

from gptzoo.errors import GPTZooError
from gptzoo.recipe.schema import Recipe
from gptzoo.registry import Zoo
from gptzoo.resolving import admits, resolve
from gptzoo.seeds import stable_seed
from gptzoo.testing.law import LAWS
from gptzoo.testing.places import Case
from gptzoo.testing.subject import Around, Sizes, Subject, part_named
from gptzoo.testing.whole import takes_float64

SIZES = Sizes(4, 16, 64, 2)
TRIPLE = ("position", "attention", "kernel")
AROUND = ("norm", "block", "mlp", "head")
SLOTS = (*TRIPLE, *AROUND, "init")

WAYS_OUT = ("Use ", "No registered part would work", " goes with ", " must ")
"""What a refusal says beside the key: what would work, that nothing would, what it needs, or what is allowed."""

IN_EVAL = (
    "future_tokens_change_no_bit_of_the_past",
    "decoding_with_a_cache_gives_what_the_whole_gives",
    "padding_changes_nothing",
    "documents_in_a_row_do_not_see_each_other",
    "rows_of_a_batch_do_not_see_each_other",
)
IN_TRAINING = (
    "no_gradient_comes_from_the_future",
    "a_token_depends_on_what_it_may_see",
    "gradients_are_finite_everywhere",
)
"""The laws of whole models, each tried in one case of a composition."""

FRAMES = 8
"""Of a crash, which may not come again."""


@dataclass(frozen=True)
class Composition:
    """Names of the parts of a model, by slot; GPT-2's where none is named."""

    parts: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{slot} {name}" for slot, name in self.parts.items())


@dataclass(frozen=True)
class Verdict:
    """What came of a composition.

    Args:
        composition: The composition.
        outcome: `passed`, `refused` or `failed`; `by rule` where the kernel has no float64, so that it follows from the
            laws of the kernel and of the same composition under `naive`.
        note: The refusal, or what is wrong.
        trained: Whether laws that need gradients were tried too.
    """

    composition: Composition
    outcome: str
    note: str = ""
    trained: bool = False


def triples(zoo: Zoo) -> Iterator[Composition]:
    """Every position with every attention and every kernel."""
    for names in itertools.product(*(zoo.names(slot) for slot in TRIPLE)):
        yield Composition(dict(zip(TRIPLE, names, strict=True)))


def pairs(zoo: Zoo, slots: Sequence[str] = AROUND) -> list[Composition]:
    """Few compositions in which every two parts of different slots meet: a pairwise covering array, greedily."""
    names = {slot: zoo.names(slot) for slot in slots}
    open_ = {
        frozenset([(a, x), (b, y)]) for a, b in itertools.combinations(slots, 2) for x in names[a] for y in names[b]
    }
    rows: list[Composition] = []
    draw = random.Random(0)
    while open_:
        best: dict[str, str] = {}
        for _ in range(20):
            row = dict(draw.choice(sorted(map(sorted, open_))))  # type: ignore[arg-type]
            for slot in draw.sample(list(slots), len(slots)):
                if slot not in row:
                    row[slot] = max(
                        names[slot], key=lambda name, row=row, slot=slot: (_gain(open_, row, slot, name), draw.random())
                    )
            if _covered(open_, row) > _covered(open_, best):
                best = row
        open_ = {pair for pair in open_ if not pair <= set(best.items())}
        rows.append(Composition({slot: best[slot] for slot in slots}))
    return rows


def _gain(open_: set[frozenset[tuple[str, str]]], row: Mapping[str, str], slot: str, name: str) -> int:
    return sum(frozenset([(slot, name), other]) in open_ for other in row.items())


def _covered(open_: set[frozenset[tuple[str, str]]], row: Mapping[str, str]) -> int:
    return sum(pair <= set(row.items()) for pair in open_)


def at_random(zoo: Zoo, count: int = 300, seed: int = 0) -> list[Composition]:
    """Seeded random compositions over all slots of a model."""
    draw = random.Random(stable_seed(seed, "compositions"))
    return [Composition({slot: draw.choice(zoo.names(slot)) for slot in SLOTS}) for _ in range(count)]


def subject_of(zoo: Zoo, composition: Composition, device: str = "cpu") -> tuple[Subject, Around]:
    """The composition as the surroundings of its attention."""
    names = {"position": "learned", "attention": "multi_head", "kernel": "auto", **composition.parts}
    beside = tuple(part_named(zoo, slot, name) for slot, name in composition.parts.items() if slot not in TRIPLE)
    beside += (part_named(zoo, "position", names["position"]),)
    subject = Subject(zoo, part_named(zoo, "attention", names["attention"]), device, beside)
    return subject, Around(names["position"], names["kernel"])


def fits(zoo: Zoo, composition: Composition, device: str, *, training: bool = True) -> bool:
    """Whether `resolve` admits a composition on a device, which need not be here."""
    return admits(_recipe(zoo, composition, device), zoo, device, training=training)


def _recipe(zoo: Zoo, composition: Composition, device: str) -> Recipe:
    """Where there is a GPU one trains in bfloat16."""
    subject, around = subject_of(zoo, composition)
    recipe = subject.recipe(SIZES, around)
    return recipe if device == "cpu" else replace(recipe, train=replace(recipe.train, precision="bf16"))


def refusal(zoo: Zoo, composition: Composition, device: str) -> str:
    """What `resolve` says to a composition that does not fit."""
    try:
        resolve(_recipe(zoo, composition, device), zoo, device, training=False)
    except GPTZooError as error:
        return str(error)
    return ""


def judge(zoo: Zoo, composition: Composition, device: str = "cpu") -> Verdict:
    """Refused, or tried by the laws of whole models."""
    if not fits(zoo, composition, device, training=False):
        said = refusal(zoo, composition, device)
        sound = "model." in said and any(way in said for way in WAYS_OUT)
        return Verdict(composition, "refused" if sound else "failed", said or "refused without a word")
    kernel = composition.parts.get("kernel", "auto")
    if kernel != "auto" and not takes_float64(zoo, kernel, device):
        return Verdict(composition, "by rule")
    subject, around = subject_of(zoo, composition, device)
    trains = fits(zoo, composition, device, training=True)
    try:
        for name in (*IN_EVAL, *(IN_TRAINING if trains else ())):
            if wrong := _try(subject, name, around):
                return Verdict(composition, "failed", f"{name.replace('_', ' ')}: {wrong}", trains)
    finally:
        subject._models.clear()
    return Verdict(composition, "passed", trained=trains)


def _try(subject: Subject, name: str, around: Around) -> str:
    law = next(each for each in LAWS if each.name == name)
    if not law.applies(subject):
        return ""
    layout = "packed and padded" if subject.can("padding") and subject.can("documents") else "plain"
    if name.startswith(("padding", "documents")) and layout == "plain":
        layout = "left-padded" if subject.can("padding") else "packed"
    if name in ("a_token_depends_on_what_it_may_see", "future_tokens_change_no_bit_of_the_past"):
        layout = "plain"
    case = Case(SIZES, around, 3, 13, layout, (4, 1, 1, 2, 5), 7, 0)
    try:
        law.check(subject, case)
    except UnsatisfiedAssumption:
        return ""
    except Exception as error:
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    """What was raised and, unless a law said it, where: the innermost frame first."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, AssertionError):
        return said
    frames = traceback.extract_tb(error.__traceback__)[: -FRAMES - 1 : -1]
    return f"{said} (in {', from '.join(f'{frame.name} at {frame.filename}:{frame.lineno}' for frame in frames)})"
