"""What a signal asks of a supervisor of cells: the first one to stop after a save, a second one to stop at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether we were asked to stop: `number` is the first signal, `hurry` says that a second one came."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.hurry = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this scope signals raise a flag. Only the main thread can receive them.

        A scope within a scope passes on what it heard: whoever runs cells in its own process stops as well.
        """
        try:
            before = {number: signal.signal(number, self.flag) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
                outer = getattr(handler, "__self__", None)
                if number == self.number and isinstance(outer, Stop):
                    outer.flag(number, None)

    def flag(self, number: int, _frame: FrameType | None) -> None:
        """A signal came."""
        self.hurry = self.number is not None
        self.number = self.number or number
