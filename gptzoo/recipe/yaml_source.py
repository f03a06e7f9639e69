"""Strict YAML for recipes and plans: every value with its line, nothing surprising, nothing executed.

A file is read event by event; PyYAML's constructors, which could make objects, are never used. Plain words mean what
YAML 1.2 says, and those that readers disagree about (`no`, `12:30`, `017`, `.inf`) are refused, all in one go.

A caller that has more to check hands in a list: problems are added to it instead of raised, `REFUSED` stands for each
refused value and `UNREADABLE` for each refused key, and whoever meets these passes over them without a word.
"""

from __future__ import annotations

import enum
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from gptzoo.errors import GPTZooError, Problems, raise_all

Path_ = tuple[str | int, ...]
"""Where a value stands in a recipe: `("model", "attention", "n_kv_head")`."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_VALUES = 20_000
COMMAND_LINE = "command line"
MAPPING = "mapping"
UNREADABLE = ""
"""What stands for a key that was refused; no recipe can write an empty key."""


class Refused(enum.Enum):
    """What stands for a value that was refused."""

    REFUSED = enum.auto()


REFUSED = Refused.REFUSED


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file and a line, the command line, or a mapping given in Python."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return one_line(self.file if self.line is None else f"{self.file}:{self.line}")


@dataclass(frozen=True)
class Node:
    """A value and its place: a scalar, a list of nodes, or a mapping of words to nodes."""

    value: bool | int | float | str | list[Node] | dict[str, Node] | Refused | None
    place: Place

    @property
    def items(self) -> dict[str, Node]:
        """The entries of a mapping; of anything else, none."""
        return self.value if isinstance(self.value, dict) else {}

    def updated(self, **items: Node) -> Node:
        """The mapping with other entries."""
        return Node({**self.items, **items}, self.place)

    def plain(self) -> object:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def walk(self, path: Path_ = ()) -> Iterator[tuple[Path_, Node]]:
        """This node and all inner ones, with their paths."""
        yield path, self
        children = enumerate(self.value) if isinstance(self.value, list) else self.items.items()
        for key, node in children:
            yield from node.walk((*path, key))


class RecipeError(GPTZooError):
    """A mistake in a recipe, which knows its place."""

    def __init__(self, what: str, where: str, place: Place | None) -> None:
        super().__init__(what, where)
        self.place = place


def read_file(path: Path, called: str, problems: list[GPTZooError] | None = None) -> Node:
    """The mapping in a YAML file.

    Args:
        path: The file.
        called: The file's name in messages and places.
        problems: Where to put problems after which reading can go on; by default they are raised.

    Raises:
        GPTZooError: It cannot be read or is not strict YAML; all problems at once, each with its line.
    """
    called = one_line(called)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise GPTZooError("this is not a file.", called)
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise GPTZooError(f"it cannot be read: {error.strerror}.", called) from error
    if len(raw) > MAX_BYTES:
        raise GPTZooError("it is larger than 1 MB.", called)
    return parse(_decoded(raw, called), called, problems)


def parse(text: str, called: str, problems: list[GPTZooError] | None = None) -> Node:
    """The mapping in a YAML text; `problems` as in `read_file`.

    Raises:
        GPTZooError: It is not strict YAML, or not a mapping; all problems at once, each with its line.
    """
    builder = _Builder(text, lambda line: Place(called, line))
    node = builder.document()
    if node is None or not isinstance(node.value, dict):
        raise_sorted(builder.problems)
        if node is None or node.value is None:
            raise GPTZooError("the file is empty.", called)
        raise GPTZooError("the file must be a mapping, `key: value`.", str(node.place))
    _hand_over(builder.problems, problems)
    return node


def parse_value(raw: str, path: Path_, problems: list[GPTZooError] | None = None) -> Node:
    """One value of the command line, in YAML: `3e-4`, `rope`, `{name: rope, theta: 500}`.

    Raises:
        GPTZooError: It is not strict YAML; only if there is no list of `problems` to put that in.
    """
    place = Place(COMMAND_LINE)
    builder = _Builder(raw, lambda line: place, path)
    node = builder.document()
    cut = builder.only_plain is not None and builder.only_plain != raw.strip()
    if not builder.problems and (node is None or cut):
        what = "the value is empty" if not raw.strip() else "a part of the value would be read as a comment or a marker"
        builder.problems.append(problem(place, path, f"{what}. Put it in quotes of its own: '\"...\"'."))
    _hand_over(builder.problems, problems)
    return Node(REFUSED, place) if node is None or cut else node


def from_python(value: object, place: Place, path: Path_ = (), problems: list[GPTZooError] | None = None) -> Node:
    """A plain Python value as a node; `problems` as in `read_file`.

    Raises:
        GPTZooError: Something in it is no recipe value; all problems at once.
    """
    found: list[GPTZooError] = []
    node = _from_python(value, place, path, found)
    _hand_over(found, problems)
    return node


def problem(place: Place | None, path: Path_, what: str) -> RecipeError:
    """An error in the recipe's own form: `recipe.yaml:7: model.n_embd: what`."""
    return RecipeError(one_line(what), ": ".join(str(part) for part in (place, dotted(path)) if part), place)


def raise_sorted(problems: Sequence[GPTZooError]) -> None:
    """Raise the problems, if there are any, by file and line, each once; those of the command line come last."""
    flat = [inner for each in problems for inner in (each.problems if isinstance(each, Problems) else [each])]
    raise_all(sorted({str(each): each for each in flat}.values(), key=_order))


def dotted(path: Path_) -> str:
    """`model.attention.n_kv_head`."""
    return ".".join(_shortened(one_line(str(key))) for key in path)


def shown(value: object) -> str:
    """A value as it appears in a message: `'abc'`, `true`, `null`, `a list`."""
    if isinstance(value, str):
        return _shortened(repr(value))
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return _shortened(one_line(str(value)))


def one_line(text: str) -> str:
    """Text with everything escaped that could break a line or a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_value(text: str) -> bool | int | float | str | None:
    """What an unquoted word means.

    Raises:
        ValueError: Readers of YAML disagree about it, or it is not a finite 64-bit number.
    """
    if text in _WORDS:
        return _WORDS[text]
    for pattern, what in _TRAPS:
        if pattern.fullmatch(text):
            raise ValueError(what.format(text=_shortened(one_line(text))))
    if _INT.fullmatch(text):
        return _int(text)
    if _FLOAT.fullmatch(text):
        return _finite(float(text))
    return text


def _order(error: GPTZooError) -> tuple[bool, str, int]:
    place = error.place if isinstance(error, RecipeError) else None
    return (place.file == COMMAND_LINE, place.file, place.line or 0) if place else (False, "", 0)


def _hand_over(found: list[GPTZooError], problems: list[GPTZooError] | None) -> None:
    if problems is None:
        raise_sorted(found)
    else:
        problems += found


_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TRAPS = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        ("yes|on", "some readers of YAML take {text} for true. Write true, or put it in quotes."),
        ("no|off", "some readers of YAML take {text} for false. Write false, or put it in quotes."),
        (r"[-+]?\.inf|\.nan", "{text} is not a finite number."),
        (r"[-+]?[0-9]+(:[0-9]+)+(\.[0-9]*)?", "some readers of YAML take {text} for a number. Put it in quotes."),
        (r"[-+]?0[box][0-9a-f_]+", "{text} is not a decimal number. Write a decimal one, or put it in quotes."),
        (r"[-+]?0[0-9_]+(\.[0-9_]*)?(e[-+]?[0-9]+)?", "{text} begins with a zero. Leave it out, or put it in quotes."),
        (r"[-+]?[0-9]+_[0-9_]*(\.[0-9_]*)?", "{text} has '_' in a number. Leave it out, or put it in quotes."),
    )
)


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:  # int() itself refuses thousands of digits
        raise ValueError(f"{_shortened(text)} does not fit 64 bits.")
    return int(text)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("the number is too large.")
    return number


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]}...{text[-20:]}"


def _decoded(raw: bytes, called: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        what = f"this is not UTF-8 text (byte 0x{raw[error.start]:02x}). Save the file as UTF-8."
        raise GPTZooError(what, f"{called}:{line}") from error


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _UnreadableError(Exception):
    """The rest of the text cannot be read."""


class _Builder:
    """Makes nodes from the parser's events, and collects what is wrong with them."""

    def __init__(self, text: str, place: Callable[[int], Place], path: Path_ = ()) -> None:
        self.text, self.place, self.root = text, place, path
        self.problems: list[GPTZooError] = []
        self.only_plain: str | None = None  # the text of a document that is one unquoted word
        self._values = 0

    def document(self) -> Node | None:
        """The first document's value, or None if there is no document."""
        try:
            return self._document()
        except _UnreadableError:
            return None

    def _document(self) -> Node | None:
        self._events = self._parsed()
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            return None
        if getattr(start, "version", None) or getattr(start, "tags", None):
            self._report(start, self.root, "there are no directives in a recipe.")
        first = self._next()
        if isinstance(first, yaml.ScalarEvent) and not first.style:
            self.only_plain = first.value
        node = self._node(first, self.root)
        self._next()  # the end of the document
        if not isinstance(after := self._next(), yaml.StreamEndEvent):
            self._report(after, self.root, "a second document begins here. A recipe is one.")
        return node

    def _parsed(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            line = self.text[: error.position].count("\n") + 1
            character = one_line(chr(error.character) if isinstance(error.character, int) else str(error.character))
            self._stop(line, f"the character {character} is not allowed.")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._stop(mark.line + 1 if mark else 1, _syntax(error))
        except (yaml.YAMLError, ValueError, OverflowError):  # an escape or a version beyond all numbers
            self._stop(1, "this is not YAML.")

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _stop(self, line: int, what: str) -> None:
        self.problems.append(problem(self.place(line), self.root, what))
        raise _UnreadableError

    def _report(self, event: yaml.Event, path: Path_, what: str) -> None:
        self.problems.append(problem(self._at(event), path, what))

    def _at(self, event: yaml.Event) -> Place:
        return self.place(event.start_mark.line + 1)

    def _node(self, event: yaml.Event, path: Path_) -> Node:
        self._guard(event, path)
        refused = self._refuses_machinery(event, path)
        if isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._scalar(event, path)
        return Node(REFUSED if refused else value, self._at(event))

    def _guard(self, event: yaml.Event, path: Path_) -> None:
        self._values += 1
        line = event.start_mark.line + 1
        if len(path) > MAX_DEPTH:
            self._stop(line, f"it is nested deeper than {MAX_DEPTH} levels.")
        if self._values > MAX_VALUES:
            self._stop(line, f"it holds more than {MAX_VALUES} values.")

    def _refuses_machinery(self, event: yaml.Event, path: Path_) -> bool:
        """Report an alias, an anchor or a tag; whether there is no knowing what the value is."""
        if isinstance(event, yaml.AliasEvent):
            self._report(event, path, f"there are no aliases (*{event.anchor}) in a recipe. Write the value out.")
            return True
        if event.anchor is not None:  # type: ignore[attr-defined]
            self._report(event, path, f"there are no anchors (&{event.anchor}) in a recipe. Leave it out.")  # type: ignore[attr-defined]
        if event.tag is not None:  # type: ignore[attr-defined]
            self._report(event, path, "there are no tags (!) in a recipe. A recipe never names code.")
        return event.tag is not None  # type: ignore[attr-defined]

    def _sequence(self, path: Path_) -> list[Node]:
        nodes = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            nodes.append(self._node(event, (*path, len(nodes))))
        return nodes

    def _mapping(self, path: Path_) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            line = event.start_mark.line + 1
            value = self._node(self._next(), (*path, "?" if key is None else key))
            if key in nodes:
                self._report(event, (*path, key), f"the key is given twice, first in line {lines[key]}.")
            elif key is None:
                nodes[UNREADABLE] = Node(REFUSED, value.place)
            else:
                nodes[key], lines[key] = value, line
        return nodes

    def _key(self, event: yaml.Event, path: Path_) -> str | None:
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, (*path, "?"))
            self._report(event, path, "a key must be a word.")
            return None
        if event.value == "<<" and not event.style:
            self._report(event, path, "there are no merge keys (<<) in a recipe. Write the values out.")
            return None
        known = len(self.problems)
        key = self._node(event, (*path, event.value)).value
        if isinstance(key, str) and key:
            return key
        if len(self.problems) == known:  # else it is refused already
            self._report(event, path, f"{shown(key)} is not a word. A key must be one; put it in quotes.")
        return None

    def _scalar(self, event: yaml.Event, path: Path_) -> bool | int | float | str | Refused | None:
        if not isinstance(event, yaml.ScalarEvent):
            return REFUSED
        if not _is_text(event.value):
            self._report(event, path, "half a surrogate pair is not text.")
            return REFUSED
        if event.style:
            return event.value
        try:
            return plain_value(event.value)
        except ValueError as error:
            self._report(event, path, str(error))
            return REFUSED


def _syntax(error: yaml.MarkedYAMLError) -> str:
    what = one_line(error.problem or error.context or "something is missing")
    if r"'\\t'" in what or r"'\t'" in what:
        return "a tab is used where YAML wants spaces."
    if found := re.fullmatch(r"found character (.+) that cannot start any token", what):
        return f"a value cannot begin with {found[1]}. Put it in quotes."
    return f"this is not YAML: {what}{f' ({one_line(error.context)})' if error.context else ''}."


def _from_python(value: object, place: Place, path: Path_, problems: list[GPTZooError]) -> Node:
    if len(path) > MAX_DEPTH:
        raise problem(place, path, f"it is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Mapping):
        return Node(_mapping_from_python(value, place, path, problems), place)
    if isinstance(value, (list, tuple)):
        return Node([_from_python(v, place, (*path, i), problems) for i, v in enumerate(value)], place)
    try:
        return Node(_scalar_from_python(value), place)
    except ValueError as error:
        problems.append(problem(place, path, str(error)))
        return Node(REFUSED, place)


def _mapping_from_python(
    value: Mapping[object, object], place: Place, path: Path_, problems: list[GPTZooError]
) -> dict[str, Node]:
    nodes = {}
    for key, item in value.items():
        if not isinstance(key, str) or not key or not _is_text(key):
            problems.append(problem(place, path, f"{shown(key)} is not a word. A key must be one."))
            nodes[UNREADABLE] = Node(REFUSED, place)
        else:
            nodes[str.__str__(key)] = _from_python(item, place, (*path, key), problems)
    return nodes


def _scalar_from_python(value: object) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError("the number does not fit 64 bits.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number.")
        return float(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        if not _is_text(value):
            raise ValueError("half a surrogate pair is not text.")
        return str.__str__(value)
    raise ValueError(f"a {type(value).__name__} is not a recipe value.")
