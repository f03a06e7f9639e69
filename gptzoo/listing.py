"""What `gptzoo list` and `gptzoo show NAME` say about registered components: text in plain columns, or plain data."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.registry import SLOTS, Entry, InSlot, Zoo


def listing(zoo: Zoo, slot: str | None = None, pattern: str = "*") -> list[dict[str, Any]]:
    """One mapping per component, ready for JSON.

    Its keys: slot, name, aliases, summary, options (name, type, default as text), source, plugin, origin, version.

    Args:
        zoo: The registered components.
        slot: A slot; or a name or shell pattern, over all slots.
        pattern: A shell pattern for names and aliases.

    Raises:
        GPTZooError: There is no such slot, or a word without wildcards matches nothing.
    """
    if slot is None or slot in SLOTS:
        entries = list(zoo.entries(slot, pattern))
        if not entries and slot is not None and not _is_pattern(pattern):
            zoo.get(slot, pattern)  # says what there is
        return [_row(entry) for entry in entries]
    if pattern != "*":
        raise GPTZooError(f"no slot is called {slot!r}.{did_you_mean(slot, SLOTS) or _all_slots()}")
    entries = list(zoo.entries(None, slot))
    if not entries and not _is_pattern(slot):
        names = [word for entry in zoo.entries() for word in (entry.name, *entry.aliases)]
        hint = did_you_mean(slot, [*SLOTS, *names]) or _all_slots()
        raise GPTZooError(f"{slot!r} is neither a slot nor a component.{hint}")
    return [_row(entry) for entry in entries]


def _all_slots() -> str:
    return f" Slots: {', '.join(SLOTS)}."


def _is_pattern(word: str) -> bool:
    return any(sign in word for sign in "*?[")


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A line per component: slot, name with its aliases, summary, plugin; cut to no width, so that grep finds all."""
    if not rows:
        return "No component matches."
    cells = [(row["slot"], _with_aliases(row["name"], row["aliases"]), row["plugin"], row["summary"]) for row in rows]
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]
    lines = ("  ".join([*(c.ljust(w) for c, w in zip(cell, widths, strict=False)), cell[3]]) for cell in cells)
    return "\n".join(line.rstrip() for line in lines)


def counts(rows: Sequence[dict[str, Any]]) -> str:
    """How many components there are of each slot, on one line."""
    slots = Counter(row["slot"] for row in rows)
    return f"{len(rows)} components: " + ", ".join(f"{count} {slot}" for slot, count in slots.items())


def describe(entry: Entry) -> str:
    """All about one component: docstring, options, source, owner, and how a recipe asks for it."""
    owner = entry.owner
    facts = {
        "Source": _source(entry),
        "Plugin": str(owner),
        "sha256": owner.sha256,
    }
    sections = [
        f"{entry.slot} {_with_aliases(entry.name, entry.aliases)}",
        _prose(entry),
        _options_text(entry),
        "\n".join(f"{name}: {fact}" for name, fact in facts.items() if fact),
        f"In a recipe:\n  {example(entry)}",
    ]
    return "\n\n".join(section for section in sections if section)


def example(entry: Entry) -> str:
    """A line of a recipe that asks for the component: its required options, and the defaults of the others."""
    shown = entry.examples[0]
    options = {o.name: shown.get(o.name, f"<{o.name}>") if o.required else o.default for o in _options(entry)}
    plain = {name: value for name, value in options.items() if _is_plain(value)}
    value: object = {"name": entry.name, **plain} if plain else entry.name
    value = [value] if entry.slot == "logger" else value
    top, *inner = SLOTS[entry.slot].key.split(".")
    for key in reversed(inner):
        value = {key: value}
    return f"{top}: {_yaml(value)}"


def type_text(hint: object) -> str:
    """A type as one would write it: `int | None`, `"a" | "b"`, and `<norm>` for an option that takes a component."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, str):
        return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", hint)
    if origin is typing.Annotated:
        slots = [each.slot for each in arguments[1:] if isinstance(each, InSlot)]
        return f"<{slots[0]}>" if slots else type_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_text(each) for each in arguments)
    if origin is typing.Literal:
        return " | ".join(json.dumps(each) for each in arguments)
    if hint in (None, type(None)):
        return "None"
    return type_text(inspect.formatannotation(hint))


@dataclass(frozen=True)
class _Option:
    """What a recipe may set: its type as text, its default and what the docstring says of it."""

    name: str
    type: str
    required: bool
    default: object
    doc: str

    @property
    def default_text(self) -> str | None:
        return None if self.required else _yaml(self.default)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "slot": entry.slot,
        "name": entry.name,
        "aliases": list(entry.aliases),
        "summary": entry.summary,
        "options": [{"name": o.name, "type": o.type, "default": o.default_text} for o in _options(entry)],
        "source": _source(entry),
        "plugin": entry.owner.plugin,
        "origin": entry.owner.origin,
        "version": entry.owner.version,
    }


def _with_aliases(name: str, aliases: Sequence[str]) -> str:
    return f"{name} ({', '.join(aliases)})" if aliases else name


# Options.


def _options(entry: Entry) -> Iterator[_Option]:
    hints, docs = _hints(entry.factory), _argument_docs(entry.factory)
    for name, parameter in entry.options.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # nn.Module's own, where a component has no constructor
        hint = hints.get(name, parameter.annotation)
        text = "" if hint is parameter.empty else type_text(hint)
        yield _Option(name, text, parameter.default is parameter.empty, parameter.default, docs.get(name, ""))


def _options_text(entry: Entry) -> str:
    options = list(_options(entry))
    if not options:
        return ""
    heads = [_head(option) for option in options]
    width = max(len(head) for head in heads)
    lines = [f"  {head.ljust(width)}  {option.doc}".rstrip() for head, option in zip(heads, options, strict=True)]
    return "\n".join(["Options:", *lines])


def _head(option: _Option) -> str:
    head = f"{option.name}: {option.type}" if option.type else option.name
    return f"{head} (required)" if option.required else f"{head} = {option.default_text}"


def _hints(factory: Callable[..., object]) -> dict[str, object]:
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    except (
        NameError,
        TypeError,
        AttributeError,
    ):  # a name that only type checkers see: the annotation's own text serves
        return {}


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _yaml(value: object) -> str:
    """The value as a recipe writes it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(each) for each in value) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_<][\w./<>-]*", value) and value.lower() not in _NOT_WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "." not in repr(value):
        return repr(value).replace("e", ".0e")  # 1e-08 is a word to YAML 1.1
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return getattr(value, "__name__", None) or repr(value)


_NOT_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


# Docstrings.


def _doc(factory: Callable[..., object]) -> str:
    """Its own docstring: neither a base class's nor the one that dataclasses make up."""
    doc = factory.__doc__ or ""
    return "" if doc.startswith(f"{getattr(factory, '__name__', '')}(") else inspect.cleandoc(doc)


def _source(entry: Entry) -> str:
    """What follows `Source:`, up to the end of the paragraph, on one line."""
    found = re.search(r"^Source:\s*(.*?)(?:\n\s*\n|\Z)", _doc(entry.factory), re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def _prose(entry: Entry) -> str:
    """The docstring without its source and its arguments."""
    paragraphs = re.split(r"\n\s*\n", _doc(entry.factory))
    return "\n\n".join(p for p in paragraphs if not p.startswith(("Source:", "Args:")))


def _argument_docs(factory: Callable[..., object]) -> dict[str, str]:
    """What the `Args:` sections say, one line each; a base class speaks for options that a class does not describe."""
    found: dict[str, str] = {}
    for each in inspect.getmro(factory) if inspect.isclass(factory) else (factory,):
        for name, doc in _args_section(_doc(each)):
            found.setdefault(name, doc)
    return found


def _args_section(doc: str) -> Iterator[tuple[str, str]]:
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if section:
        for name, text in re.findall(r"^ {4}(\w+)[^:\n]*:((?:.*)(?:\n {5,}.*)*)", section[1], re.MULTILINE):
            yield name, " ".join(text.split())
