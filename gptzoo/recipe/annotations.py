"""The types that an option may have, and what of a recipe's values each of them admits.

jsonargparse makes the values (`Leaves`). It is lenient, though: a quoted "3" passes for an int, null for anything, an
import path for a class. So the grammar of types is closed here, and a value must be of a type's own kind beforehand.
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import enum
import functools
import inspect
import pathlib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser

from gptzoo.errors import any_of, did_you_mean
from gptzoo.recipe.schema import Bounds
from gptzoo.recipe.yaml_source import plain_value, shown
from gptzoo.registry import SLOTS, InSlot

ALLOWED = "int, float, bool, str, Literal, Enum, Path, lists, tuples and dicts of these, X | None, and parts"
_LISTS = (list, tuple, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)


@dataclass(frozen=True)
class Kind:
    """One alternative of an annotation.

    Args:
        type: The annotation without `Annotated`.
        slot: The slot, if the value is a part.
        bounds: The limits of a number.
    """

    type: object
    slot: str = ""
    bounds: Bounds | None = None

    @property
    def container(self) -> object:
        """`list`, `tuple`, `dict`, ..., or None."""
        origin = get_origin(self.type)
        return origin if origin in (*_LISTS, *_DICTS) else None

    @property
    def is_dict(self) -> bool:
        return self.container in _DICTS

    @property
    def choices(self) -> list[object]:
        """The values of a Literal, the names of an Enum."""
        if get_origin(self.type) is Literal:
            return list(get_args(self.type))
        return [member.name for member in self.type] if _is_class(self.type, enum.Enum) else []  # type: ignore[attr-defined]

    def admits(self, value: object) -> bool:
        """Whether a plain value is of this kind; what it holds is not looked at."""
        if self.slot:
            return isinstance(value, (str, dict))
        if self.container or dataclasses.is_dataclass(self.type):
            return isinstance(value, list if self.container in _LISTS else dict)
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        return self.is_exactly(value) or (type(value) is int and _is_class(self.type, float))

    def is_exactly(self, value: object) -> bool:
        """Whether the scalar is of the very type that YAML has for this kind."""
        if self.type is None or self.type is type(None):
            return value is None
        wanted = next((t for t in (bool, int, float) if _is_class(self.type, t)), str)
        return type(value) is wanted

    def __str__(self) -> str:
        if self.slot:
            return f"the name of a part for {SLOTS[self.slot].key}"
        if self.choices:
            return any_of([str(choice) for choice in self.choices])
        if self.container or dataclasses.is_dataclass(self.type):
            return "a list" if self.container in _LISTS else "a mapping"
        return _SAID.get(self.type, f"a {getattr(self.type, '__name__', self.type)}")


_SAID: Mapping[object, str] = {
    None: "null",
    type(None): "null",
    bool: "true or false",
    int: "an int",
    float: "a float",
    str: "a string",
    pathlib.Path: "a path",
}


def hints_of(factory: Callable[..., object], names: collections.abc.Iterable[str]) -> dict[str, object]:
    """The annotations of some of a constructor's parameters, evaluated; `inspect.Parameter.empty` where there is none.

    Raises:
        TypeError, NameError: An annotation cannot be evaluated.
    """
    parameters = inspect.signature(factory).parameters
    space = getattr(_function(factory), "__globals__", {})
    hints = {}
    for name in names:
        # One by one: the wiring's annotations may exist for type checkers only.
        holder = types.SimpleNamespace(__annotations__={name: parameters[name].annotation})
        hints[name] = get_type_hints(holder, globalns=space, include_extras=True)[name]
    return hints


def kinds_of(annotation: object) -> list[Kind]:
    """The alternatives of an annotation.

    Raises:
        TypeError: It is none that an option may have; the message is the offending piece.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        if marker := next((each for each in extras if isinstance(each, InSlot)), None):
            if marker.slot not in SLOTS:
                raise TypeError(repr(marker))
            return [Kind(inner, marker.slot)]
        bounds = next((each for each in extras if isinstance(each, Bounds)), None)
        return [dataclasses.replace(kind, bounds=bounds or kind.bounds) for kind in kinds_of(inner)]
    if origin in (Union, types.UnionType):
        return [kind for each in get_args(annotation) for kind in kinds_of(each)]
    kind = Kind(annotation)
    for each in _inner(kind):
        kinds_of(each)
    return [kind]


def item_types(kind: Kind, count: int) -> list[object] | None:
    """The annotations of a list's `count` items; None if there must be another number of them."""
    args = get_args(kind.type)
    if kind.container is not tuple or args[-1:] == (...,):
        return [args[0]] * count
    return list(args) if len(args) == count else None


def hint(kinds: collections.abc.Sequence[Kind], value: object) -> str:
    """What the user may have meant, a sentence with a leading blank, or nothing."""
    if isinstance(value, str):
        return _hint_for_text(kinds, value)
    if isinstance(value, float) and value.is_integer() and any(kind.type is int for kind in kinds):
        return f" Write {int(value)}."
    if isinstance(value, (bool, int, float)) and any(kind.type is str for kind in kinds):
        return " Put it in quotes."
    return ""


def _hint_for_text(kinds: collections.abc.Sequence[Kind], value: str) -> str:
    try:
        meant = plain_value(value)
    except ValueError:
        meant = value
    if not isinstance(meant, str) and any(kind.admits(meant) for kind in kinds):
        return " Leave out the quotes."
    if value.lower() in ("none", "nil") and any(kind.admits(None) for kind in kinds):
        return " Write null."
    return did_you_mean(value, [str(choice) for kind in kinds for choice in kind.choices])


class Leaves:
    """Types scalars with jsonargparse, one parser per annotation."""

    def __init__(self) -> None:
        self._parsers: dict[object, ArgumentParser] = {}

    def typed(self, kind: Kind, value: object) -> object:
        """The value as the annotation wants it.

        Raises:
            ValueError: It does not; the message says what it is not.
        """
        try:
            typed = self._parser(kind.type).parse_object({"value": value}).value
        except argparse.ArgumentError:
            raise ValueError(f"{shown(value)} is not {kind}.") from None
        if kind.bounds and not kind.bounds.admits(typed):
            raise ValueError(f"{shown(value)} must be {kind.bounds}.")
        # jsonargparse's PositiveInt and its kin are checked by now; the value need not carry them on.
        return next(
            (base(typed) for base in (int, float) if type(value) is not bool and isinstance(typed, base)), typed
        )

    def _parser(self, annotation: object) -> ArgumentParser:
        if annotation not in self._parsers:
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument("--value", type=annotation)  # type: ignore[arg-type]
            self._parsers[annotation] = parser
        return self._parsers[annotation]


def _function(factory: Callable[..., object]) -> object:
    """The function whose signature the factory shows."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    if isinstance(factory, type):
        return factory.__init__ if inspect.isfunction(factory.__init__) else factory.__new__
    return factory if inspect.isroutine(factory) else getattr(type(factory), "__call__")  # noqa: B004, B009


def _inner(kind: Kind) -> list[object]:
    """The annotations inside a kind.

    Raises:
        TypeError: The kind itself is not allowed.
    """
    args = get_args(kind.type)
    if kind.is_dict and args[0] is str:
        return [args[1]]
    if kind.container in _LISTS and args:
        return [each for each in args if each is not ...]
    if dataclasses.is_dataclass(kind.type):
        return list(get_type_hints(kind.type, include_extras=True).values())
    scalars = (bool, int, float, str, enum.Enum, type(None), pathlib.PurePath)
    if kind.type is not None and not kind.choices and not any(_is_class(kind.type, each) for each in scalars):
        raise TypeError(kind.type.__qualname__ if _is_class(kind.type, object) else str(kind.type))  # type: ignore[union-attr]
    return []


def _is_class(annotation: object, base: type) -> bool:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, base)
