"""Suites: YAML that says what to measure. Reading one builds nothing; all that is wrong with it is said at once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from gptzoo.errors import GPTZooError, Problems, any_of, did_you_mean, raise_all
from gptzoo.recipe.library import Library, RecipeFile, shipped_folder
from gptzoo.recipe.schema import Bounds, Count
from gptzoo.recipe.typed import typed_section
from gptzoo.recipe.yaml_source import Node, problem, read_file, shown
from gptzoo.runs.directory import slug

Split = Literal["val", "train"]


@dataclass(frozen=True)
class LossEval:
    """Loss, perplexity and bits per byte on the run's own data.

    Args:
        split: Which part of it.
        sequences: Rows; all unless given.
        stride: Windows overlap: each is so many tokens ahead of the one before.
    """

    split: Split = "val"
    sequences: Count | None = None
    stride: Count | None = None


@dataclass(frozen=True)
class TextEval:
    """The same on a text file of another origin, by windows of the run's context_length.

    Args:
        path: The file, relative to the suite's folder.
        stride: By how many tokens a window is ahead of the one before; context_length unless given.
    """

    path: str
    stride: Count | None = None


@dataclass(frozen=True)
class PositionEval:
    """The loss at each position, with a picture.

    Args:
        length: Tokens in a row, the run's context_length unless given; beyond it, the curve extrapolates.
        split: Which part of the run's data.
        sequences: Rows.
    """

    length: Annotated[int, Bounds(low=1, high=1_000_000)] | None = None
    split: Split = "val"
    sequences: Count = 64


@dataclass(frozen=True)
class ExactEval:
    """Problems whose answers must be right to the letter.

    Args:
        path: Lines of JSON with `prompt` and `answer`, relative to the suite's folder; the run's own data unless given.
        split: Of the run's own data.
        problems: Most of them.
    """

    path: str | None = None
    split: Split = "val"
    problems: Count = 1000


@dataclass(frozen=True)
class ChoiceEval:
    """Questions with several answers.

    Args:
        path: Lines of JSON with `prompt`, `choices` and the index `answer`, relative to the suite's folder.
        questions: Most of them; all unless given.
    """

    path: str
    questions: Count | None = None


@dataclass(frozen=True)
class HarnessEval:
    """Tasks of lm-evaluation-harness, which `pip install 'gptzoo[eval]'` brings.

    Args:
        tasks: Their names.
        folder: Where further tasks are defined, relative to the suite's folder.
        limit: Documents per task; all unless given.
    """

    tasks: list[str]
    folder: str | None = None
    limit: Count | None = None


Eval = LossEval | TextEval | PositionEval | ExactEval | ChoiceEval | HarnessEval

KINDS: Mapping[str, type[Eval]] = MappingProxyType(
    {
        "loss": LossEval,
        "text": TextEval,
        "positions": PositionEval,
        "exact_match": ExactEval,
        "multiple_choice": ChoiceEval,
        "lm_eval": HarnessEval,
    }
)
"""What may be measured, by the word for it."""


@dataclass(frozen=True)
class Suite:
    """What to measure.

    Args:
        name: The file's stem.
        folder: Where the files that it names are looked up.
        evals: By name, in order.
        written: The same as plain values.
    """

    name: str
    folder: Path
    evals: Mapping[str, Eval]
    written: Mapping[str, object]


def read_suite(suite: str | os.PathLike[str]) -> Suite:
    """Read a suite: a path, or the name of a shipped one (`basics` or `evals/basics`).

    Raises:
        GPTZooError: There is no such file, or it is no suite; all problems at once, each with file, line and key.
    """
    library = Library(shipped_folder())
    file = library.shipped(f"evals/{suite}") if isinstance(suite, str) else None
    if file is None and isinstance(suite, str) and not os.path.exists(suite) and library.shipped(suite) is None:
        shipped = [name.removeprefix("evals/") for name in library.names() if name.startswith("evals/")]
        beside = [str(each) for each in Path(suite).parent.glob("*.yaml")]
        raise GPTZooError(f"there is no suite {shown(suite)}.{did_you_mean(suite, [*shipped, *beside])}", "--suite")
    file = file or library.typed(suite)
    return _suite(read_file(file.path, file.shown), file)


def _suite(node: Node, file: RecipeFile) -> Suite:
    problems = [
        problem(each.place, (key,), f"there is no such key.{did_you_mean(key, ('evals',))}")
        for key, each in node.items.items()
        if key != "evals"
    ]
    listed = node.items.get("evals")
    if listed is None or not listed.items:
        what = "it is missing. Write evals: {NAME: {kind: loss}}." if listed is None else "it is no mapping of names."
        raise_all([*problems, problem((listed or node).place, ("evals",), what)])
    assert listed is not None, "raised above"
    evals: dict[str, Eval] = {}
    for name, each in listed.items.items():
        try:
            evals[name] = _eval(name, each)
        except GPTZooError as error:
            problems += error.problems if isinstance(error, Problems) else [error]
    raise_all(problems)
    return Suite(slug(file.path.stem), file.path.parent, MappingProxyType(evals), {"evals": listed.plain()})


def _eval(name: str, node: Node) -> Eval:
    path = ("evals", name)
    if slug(name) != name:
        raise problem(node.place, path, f"{shown(name)} cannot name a file. Use letters, digits, '.', '_' and '-'.")
    if not node.items:
        raise problem(node.place, path, f"{shown(node.plain())} is no mapping with a kind. Write {{kind: loss}}.")
    kind = node.items.get("kind")
    if kind is None or not isinstance(kind.value, str) or kind.value not in KINDS:
        said = "" if kind is None else did_you_mean(str(kind.value), KINDS)
        what = "it is missing." if kind is None else f"no kind is called {shown(kind.plain())}."
        raise problem((kind or node).place, (*path, "kind"), f"{what}{said or f' Known: {any_of(list(KINDS))}.'}")
    rest = Node({key: each for key, each in node.items.items() if key != "kind"}, node.place)
    return typed_section(KINDS[kind.value], rest, path)


def read_lines(folder: Path, path: str, keys: Mapping[str, type]) -> list[dict[str, object]]:
    """The lines of a JSONL file, each an object with exactly these keys.

    Raises:
        GPTZooError: It cannot be read, or a line is something else; file and line are named.
    """
    file = folder / path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        there = [each.name for each in file.parent.glob("*.jsonl")] if file.parent.is_dir() else []
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise GPTZooError(f"it cannot be read: {why}.{did_you_mean(file.name, there)}", str(file)) from error
    found = [_line(line, f"{file}:{number}", keys) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise GPTZooError("it holds no line.", str(file))
    return found


def _line(line: str, place: str, keys: Mapping[str, type]) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise GPTZooError(f"this is not JSON: {error}.", place) from error
    if not isinstance(value, dict) or set(value) != set(keys):
        raise GPTZooError(f"this is not an object with the keys {', '.join(keys)} and no others.", place)
    for key, kind in keys.items():
        if type(value[key]) is not kind:
            raise GPTZooError(f"{key} is not a {kind.__name__}.", place)
    return value
