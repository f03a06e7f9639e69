"""Writes a typed recipe back: as a plain mapping, and as text that loads as the same recipe."""

from __future__ import annotations

import dataclasses
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from gptzoo.recipe.schema import LAYER_SLOTS, LayerRecipe, ModelRecipe, Part, Recipe
from gptzoo.recipe.yaml_source import Path_, Place, plain_value


def as_mapping(recipe: Recipe) -> dict[str, object]:
    """The recipe as a plain mapping with nothing left to defaults; composing and typing it gives the same recipe."""
    made = {field.name: plain(getattr(recipe, field.name)) for field in dataclasses.fields(Recipe)}
    made["model"] = _model(recipe.model)
    return made


def as_yaml(recipe: Recipe, places: Mapping[Path_, Place] | None = None) -> str:
    """The recipe as YAML, the same text for the same recipe.

    Args:
        recipe: A typed recipe.
        places: If given, each line says in a comment where its value came from.
    """
    lines = list(_lines(as_mapping(recipe), (), 0))
    if places is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(48, max(len(text) for text, path in lines if path))
    return "".join(f"{text:<{width}}  # {_origin(path, places)}\n" if path else f"{text}\n" for text, path in lines)


def plain(value: object) -> object:
    """A typed value as a recipe writes it."""
    if isinstance(value, Part):
        options = {key: plain(option) for key, option in value.options.items()}
        return {"name": value.name, **options} if options else value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, enum.Enum):
        return value.name
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _model(model: ModelRecipe) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(model) if field.name != "layers"]
    unused = {slot for slot in LAYER_SLOTS if model.layers and not _is_used(model, slot)}
    made = {name: plain(getattr(model, name)) for name in names if name not in unused}
    entries = [_entry(layer, model) for layer in model.layers]
    if any(entries):
        made["layers"] = _pattern(entries)
    return made


def _is_used(model: ModelRecipe, slot: str) -> bool:
    return any(getattr(layer, slot) == getattr(model, slot) for layer in model.layers)


def _entry(layer: LayerRecipe, model: ModelRecipe) -> dict[str, object]:
    """What a layer does not share with the model."""
    own = [slot for slot in LAYER_SLOTS if getattr(layer, slot) != getattr(model, slot)]
    return {slot: plain(getattr(layer, slot)) for slot in own}


def _pattern(entries: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The shortest pattern whose repetition gives all layers, equal neighbours counted."""
    count = len(entries)
    period = next(n for n in range(1, count + 1) if count % n == 0 and entries[n:] == entries[: count - n])
    return [{"repeat": len(list(run)), **entry} for entry, run in groupby(entries[:period])]


def _lines(value: object, path: Path_, indent: int) -> Iterator[tuple[str, Path_]]:
    """Each line, with the path of the value that ends it; an empty path for a line that opens a block."""
    pad = "  " * indent
    assert isinstance(value, dict)
    for key, item in value.items():
        here = (*path, key)
        head = f"{pad}{_scalar(key)}:"
        if isinstance(item, dict) and item:
            yield head, ()
            yield from _lines(item, here, indent + 1)
        elif isinstance(item, list) and any(isinstance(each, dict) and each for each in item):
            yield head, ()
            yield from _items(item, here, indent + 1)
        else:
            yield f"{head} {_flow(item)}", here


def _items(items: Sequence[object], path: Path_, indent: int) -> Iterator[tuple[str, Path_]]:
    pad = "  " * indent
    for index, item in enumerate(items):
        here = (*path, index)
        if not isinstance(item, dict) or not item:
            yield f"{pad}- {_flow(item)}", here
            continue
        for number, (text, inner) in enumerate(_lines(item, here, indent + 1)):
            yield (f"{pad}- {text[len(pad) + 2 :]}" if number == 0 else text), inner


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    return _scalar(value)


def _scalar(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        digits, e, exponent = repr(value).partition("e")
        return digits + (".0" if e and "." not in digits else "") + e + exponent  # 1.0e-05: a float to YAML 1.1 too
    text = str(value)
    return text if not isinstance(value, str) or _is_plain(text) else f'"{"".join(map(_escaped, text))}"'


def _is_plain(text: str) -> bool:
    """Whether a string needs no quotes for any reader of YAML."""
    try:
        means_itself = plain_value(text) == text
    except ValueError:
        return False
    return means_itself and text.isascii() and text[0].isalpha() and all(c.isalnum() or c in "_./-" for c in text)


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _origin(path: Path_, places: Mapping[Path_, Place]) -> str:
    if path[:2] == ("model", "layers"):
        path = path[:2]  # the pattern is written anew, so its entries are not those of the files
    if path[-1] == "name" and path not in places:
        path = path[:-1]
    return str(places.get(path, "default"))
