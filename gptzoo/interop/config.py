"""A foreign model's description, `config.json` or its like, read key by key, with every problem told at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from gptzoo.errors import GPTZooError, any_of, raise_all

CONFIG = "config.json"
MAX_LAYERS = 1000
"""A recipe's limit."""


class Config:
    """Values by key. A missing key, or null, is the default; a wrong value is reported, and the default goes on.

    Args:
        values: What the file says.
        where: The file, for messages.
        prefix: What stands before a key in messages, for a mapping within the file.
    """

    def __init__(self, values: Mapping[str, object], where: str, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix
        self.problems: list[GPTZooError] = []

    def report(self, key: str, what: str) -> None:
        """Remember a problem."""
        self.problems.append(GPTZooError(what, f"{self.where}: {self.prefix}{key}"))

    def raise_problems(self) -> None:
        """Raise what was reported.

        Raises:
            GPTZooError: Something was; all problems at once.
        """
        raise_all(self.problems)

    def has(self, key: str) -> bool:
        """Whether there is a value for it."""
        return self.values.get(key) is not None

    def count(self, key: str, default: int, high: int = 2**31) -> int:
        """A whole number of at least 1."""
        value = self.values.get(key)
        if value is None:
            return default
        if type(value) is not int or not 1 <= value <= high:
            self.report(key, f"{value!r} is not a whole number from 1 to {high:,}.")
            return default
        return value

    def positive(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.report(key, f"{value!r} is not a number above 0.")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.report(key, f"{value!r} is neither true nor false.")
        return value if isinstance(value, bool) else default

    def one_of(self, key: str, default: str, known: Iterable[str]) -> str:
        """One of the words that can be read."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in (known := list(known)):
            self.report(key, f"{value!r} cannot be read, only {any_of(list(known))}.")
            return default
        return value

    def section(self, key: str) -> Config:
        """The mapping under a key, an empty one if there is none. It reports to this one."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.report(key, f"{value!r} is not a mapping.")
            value = None
        inner = Config(value or {}, self.where, f"{self.prefix}{key}.")
        inner.problems = self.problems
        return inner

    def words(self, key: str, known: Iterable[str], length: int) -> list[str] | None:
        """A list of known words, one for each layer; None if there is none."""
        value, known = self.values.get(key), list(known)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length or any(word not in known for word in value):
            self.report(key, f"it is not a list of {length} words, each {any_of(known)}.")
            return None
        return [str(word) for word in value]

    def refuse(self, key: str, what: str) -> None:
        """Report a switch that is on and does what no recipe can express."""
        if self.flag(key, False):
            self.report(key, f"true {what}, which no recipe can express.")


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file.

    Raises:
        GPTZooError: There is no such file, or it holds something else.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Name a folder that transformers' save_pretrained wrote."
        raise GPTZooError(f"there is no such file. {remedy}", str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise GPTZooError(f"this is not JSON that can be read: {one_line(error)}.", str(path)) from error
    if not isinstance(read, dict):
        raise GPTZooError("this is not a JSON object.", str(path))
    return read


def one_line(error: BaseException) -> str:
    """What an error says, fit for one line of ours."""
    return " ".join(str(error).split()).rstrip(".")[:200]
