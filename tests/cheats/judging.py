"""Whether a cheat was caught: no verdict is left standing, and the words name what was done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cheats.desk import Answer, Desk
from tests.cheats.planted import Cheat


@dataclass(frozen=True)
class Caught:
    """What came of a cheat.

    Args:
        passed: It did not go through, and was named.
        words: The line that names it.
        text: All that was said.
    """

    passed: bool
    words: str
    text: str


def caught(cheat: Cheat, honest: Desk, folder: Path) -> Caught:
    """Commit a cheat in a copy of the honest study, and judge what is said of it."""
    with honest.copied(folder).working() as desk:
        answer = cheat.commit(desk)
    words = naming(answer, cheat.says)
    return Caught(bool(words) and not answer.stands, words, answer.text)


def naming(answer: Answer, says: str) -> str:
    """The line that has these words."""
    return next((" ".join(line.split()) for line in answer.text.splitlines() if says in line), "")
