"""The laws are tested: every planted bug is caught, by the law that names it, on the default number of examples."""

from __future__ import annotations

import pytest

from gptzoo.testing import LAWS, Subject, try_law
from gptzoo.testing.law import EXAMPLES
from gptzoo.testing.subject import typed_part
from tests.laws.planted import BUGS, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.factory.__name__)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_planted_bug_is_caught_by_its_law(bug: Bug) -> None:
    outcome = caught(bug)
    assert not outcome.passed, f"{bug.what}: {bug.law} does not see it"
    assert outcome.examples <= EXAMPLES or outcome.case is not None


def caught(bug: Bug):  # type: ignore[no-untyped-def]
    """What the bug's law says of it."""
    law = next(law for law in LAWS if law.name == bug.law and bug.slot in law.slots)
    zoo = bug.zoo()
    subject = Subject(zoo, typed_part(zoo, bug.slot, bug.name, bug.options))
    assert law.applies(subject), f"{bug.law} does not speak of {bug.what}"
    return try_law(law, subject)


def test_there_are_at_least_25_bugs_and_no_two_are_the_same() -> None:
    assert len(BUGS) >= 25
    assert len({bug.what for bug in BUGS}) == len(BUGS)
