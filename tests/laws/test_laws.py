"""The laws over everything registered, in few cases each; `python -m tests.laws` tries them in many.

A rotating tenth of the compositions goes with them: another one each day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from gptzoo.loading import load_plugins
from gptzoo.registry import SLOTS
from gptzoo.testing import laws_of, said, subjects, try_law
from gptzoo.testing.checking import applies
from gptzoo.testing.compositions import Composition, at_random, judge, pairs, triples
from gptzoo.testing.law import QUICK
from tests.laws.corpus import with_text

ZOO = with_text(load_plugins().zoo)
TENTH = date.today().toordinal() % 10
BATCH = 8


def compositions() -> Iterator[list[Composition]]:
    """The tenth of today, in batches."""
    every = [*triples(ZOO), *pairs(ZOO), *at_random(ZOO)][TENTH::10]
    for start in range(0, len(every), BATCH):
        yield every[start : start + BATCH]


@pytest.mark.parametrize("name", [f"{slot}.{name}" for slot in SLOTS for name in ZOO.names(slot)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_part_obeys_every_law_of_its_slot(name: str) -> None:
    entry = ZOO.find(name)
    outcomes = [
        try_law(law, subject, QUICK)
        for subject in subjects(ZOO, entry)
        for law in laws_of(entry.slot)
        if applies(law, subject)
    ]
    assert not (broken := [f"{o.subject}: {said(o)}" for o in outcomes if not o.passed]), "\n".join(broken)
    assert outcomes or entry.slot == "tokenizer", f"no law speaks of {name}"


@pytest.mark.parametrize("batch", list(compositions()), ids=lambda batch: str(batch[0]).replace(" ", "-"))
def test_a_composition_is_refused_with_a_reason_or_obeys_the_laws(batch: list[Composition]) -> None:
    verdicts = [judge(ZOO, composition) for composition in batch]
    assert not (failed := [f"{v.composition}: {v.note}" for v in verdicts if v.outcome == "failed"]), "\n".join(failed)


def test_every_slot_has_laws() -> None:
    assert [slot for slot in SLOTS if not laws_of(slot)] == []
