"""What a user is told when something is refused, and the exit code that goes with it.

A user's mistake is a `GPTZooError`: where it is, what is wrong, how to mend it. A traceback is for our own bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class GPTZooError(Exception):
    """A mistake of the user's, or a refusal: one line that says where, what, and how to fix it.

    Args:
        what: The problem and its remedy, one line.
        where: The place: `file:line: key`, a path, or a command-line key. Empty if there is none.
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "") -> None:
        self.what = what
        self.where = where
        super().__init__(f"{where}: {what}" if where else what)

    @property
    def lines(self) -> list[str]:
        """The message, one line per problem."""
        return [str(self)]


class Problems(GPTZooError):
    """Several mistakes, reported in one go."""

    def __init__(self, problems: Sequence[GPTZooError]) -> None:
        self.problems = list(problems)
        Exception.__init__(self, "\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        return [line for problem in self.problems for line in problem.lines]


class RunInUse(GPTZooError):
    """Another process holds the run directory."""

    exit_code = 3


class CheckpointError(GPTZooError):
    """No sound checkpoint could be read."""

    exit_code = 4


class NoSpace(GPTZooError):
    """The disk is full."""

    exit_code = 5


class NotFinite(GPTZooError):
    """The loss or the gradient is not a finite number."""

    exit_code = 6


class Interrupted(GPTZooError):
    """Stopped by a signal, after a save. The exit code is 128 + the signal's number."""

    def __init__(self, what: str, signal_number: int) -> None:
        super().__init__(what)
        self.exit_code = 128 + signal_number


def raise_all(problems: Sequence[GPTZooError]) -> None:
    """Raise the problems, if there are any: one as itself, several as `Problems`."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean x or y?` for the closest known words, or an empty string."""
    by_folded = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, n=3, cutoff=0.6)
    return f" Did you mean {any_of([by_folded[c] for c in close])}?" if close else ""


def any_of(names: Sequence[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
