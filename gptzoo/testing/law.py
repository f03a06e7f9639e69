"""A law: a sentence, the cases it speaks of, and the check. Hypothesis searches the cases and shrinks what it finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import NonInteractiveExampleWarning, Unsatisfiable, UnsatisfiedAssumption
from hypothesis.strategies import SearchStrategy

from gptzoo.errors import GPTZooError
from gptzoo.testing.subject import Subject

EXAMPLES = 50
QUICK = 6

Cases = Callable[[Subject], SearchStrategy[Any]]


@dataclass(frozen=True)
class Law:
    """What every component of some slots must obey.

    Args:
        name: The sentence, in snake_case.
        slots: The slots it speaks of.
        cases: The cases of a subject.
        check: Raises AssertionError where a subject breaks it in a case.
        applies: Whether it speaks of a subject at all.
        share: Of the number of examples that laws get; below 1 where a case is dear.
    """

    name: str
    slots: tuple[str, ...]
    cases: Cases
    check: Callable[[Subject, Any], None]
    applies: Callable[[Subject], bool]
    share: float = 1.0

    @property
    def sentence(self) -> str:
        return self.name.replace("_", " ")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Outcome:
    """What came of one law on one subject.

    Args:
        law: The law.
        subject: The subject, as text.
        examples: How many cases were tried.
        failure: What was found wrong, or an empty string.
        case: The smallest case in which it is wrong.
    """

    law: Law
    subject: str
    examples: int
    failure: str = ""
    case: object = None

    @property
    def passed(self) -> bool:
        return not self.failure


LAWS: list[Law] = []
"""All laws, in the order of their definition."""


def law(
    *slots: str, cases: Cases, applies: Callable[[Subject], bool] = lambda subject: True, share: float = 1.0
) -> Callable[[Callable[[Subject, Any], None]], Law]:
    """Declare a law; the function's name is its sentence."""

    def declare(check: Callable[[Subject, Any], None]) -> Law:
        assert all(check.__name__ != each.name for each in LAWS), f"two laws are called {check.__name__}"
        LAWS.append(Law(check.__name__, slots, cases, check, applies, share))
        return LAWS[-1]

    return declare


def laws_of(slot: str) -> list[Law]:
    """The laws that speak of a slot."""
    return [each for each in LAWS if slot in each.slots]


def try_law(law: Law, subject: Subject, examples: int = EXAMPLES, seed: int | None = None) -> Outcome:
    """Try a law on a subject, in `examples` cases at most.

    Args:
        law: The law.
        subject: The subject.
        examples: How many cases; a law that is dear takes its share of them.
        seed: Of the search; None is hypothesis's own fixed order.
    """
    tried, last = 0, None

    def attempt(case: object) -> None:
        nonlocal tried, last
        tried, last = tried + 1, case
        _attempt(law, subject, case)

    count = max(1, round(examples * law.share))
    search = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=seed is None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),  # type: ignore[arg-type]
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NonInteractiveExampleWarning)
            test = search(given(law.cases(subject))(attempt))
            test if seed is None else setattr(test, "_hypothesis_internal_use_seed", seed)
            test()
    except Unsatisfiable:
        return Outcome(law, str(subject), tried, "no case of this law suits the component", None)
    except (AssertionError, GPTZooError, _Broken) as error:
        return Outcome(law, str(subject), tried, _first_lines(error), last)
    return Outcome(law, str(subject), tried)


class _Broken(Exception):
    """The component raised something of its own."""


def _attempt(law: Law, subject: Subject, case: object) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            law.check(subject, case)
        except (AssertionError, GPTZooError, UnsatisfiedAssumption):
            raise
        except Exception as error:
            raise _Broken(f"{type(error).__name__}: {error}") from error


def _first_lines(error: BaseException) -> str:
    text = str(error).strip() or "it fails an assertion of its own"
    return " ".join(line.strip() for line in text.splitlines()[:3])
