"""Merges a recipe's bases, the recipe itself and the command line into one plain mapping, each value with its place.

Merging comes before typing, so that a component that is replaced leaves none of its options behind: a block with
`name` replaces the old one whole, a block without `name` changes options of the part that stands there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.recipe.library import Chain, Library, RecipeFile, shipped_folder
from gptzoo.recipe.schema import LAYER_SLOTS
from gptzoo.recipe.yaml_source import (
    COMMAND_LINE,
    MAPPING,
    MAX_DEPTH,
    REFUSED,
    UNREADABLE,
    Node,
    Path_,
    Place,
    dotted,
    from_python,
    parse_value,
    problem,
    raise_sorted,
)
from gptzoo.registry import RESERVED

KEYS = ("base", "name", "seed", "model", "data", "train")
_OWN = re.compile(r"--((?:model|data|train)(?:\.[^=]*)?|name|seed|base)(?:=(.*))?", re.DOTALL)
_CODE = frozenset({"class_path", "init_args", "dict_kwargs", "_target_", "_partial_", "_component_", "__class__"})
_SECTIONS: tuple[Path_, ...] = ((), ("model",), ("train",))  # where `name` is a key like any other
_INIT_FROM = ("train", "init_from")


@dataclass(frozen=True)
class Composed:
    """A recipe merged into one mapping, not typed yet.

    Args:
        tree: Plain values.
        places: Where every value came from, those of inner mappings too.
        problems: What was refused so far. `REFUSED` stands for such a value in the tree, `UNREADABLE` for such a key.
    """

    tree: dict[str, object]
    places: dict[Path_, Place]
    problems: tuple[GPTZooError, ...] = ()


def compose(
    recipe: str | os.PathLike[str] | Mapping[str, object],
    overrides: Sequence[tuple[str, str]] | Mapping[str, object] = (),
    *,
    shipped: Path | None = None,
    defer: bool = False,
) -> Composed:
    """Merge a recipe with its bases and with what overrides it.

    Args:
        recipe: A path, a shipped name (`gpt2-tiny`, `ablations/positions`) or a mapping.
        overrides: Dotted keys with raw YAML text, as on the command line, or with plain Python values.
        shipped: The folder of shipped recipes; by default that of the installed package.
        defer: Leave the problems after which one can go on to `typed`, which raises them together with its own.

    Raises:
        GPTZooError: Something cannot be read or merged; all problems at once.
    """
    problems: list[GPTZooError] = []
    chain = Chain(Library(shipped or shipped_folder()), problems)
    commands = _commands(overrides, problems)
    try:
        file, own = _own(recipe, chain)
        named = next((each for each in reversed(commands) if "base" in each.items), None)
        bases = list(chain.of(named, None) if named else chain.of(own, file))
    except GPTZooError as error:
        raise_sorted([*problems, error])
        raise
    name = _default_name(file, bases)
    files = [*(_without(base, "base", "name") for base in bases), _without(own, "base")]
    composed = _merged(files, [_without(command, "base") for command in commands], name, problems)
    if not defer:
        raise_sorted(composed.problems)
    return composed


def shipped_names(shipped: Path | None = None) -> list[str]:
    """The names of all shipped recipes and plans."""
    return Library(shipped or shipped_folder()).names()


def find_recipe(recipe: str | os.PathLike[str], *, shipped: Path | None = None) -> Path:
    """The file of a recipe or plan that a user typed, as a path or a shipped name.

    Raises:
        GPTZooError: There is none; close matches are named.
    """
    return Library(shipped or shipped_folder()).typed(recipe).path


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Take the recipe keys (`--model.position rope`, `--seed=1`) out of a command line.

    Returns:
        The other arguments, and the keys with their raw values.

    Raises:
        GPTZooError: A key has no value.
    """
    rest: list[str] = []
    found: list[tuple[str, str]] = []
    tokens = iter(argv)
    for token in tokens:
        if token == "--":
            return [*rest, token, *tokens], found
        if not (own := _OWN.fullmatch(token)):
            rest.append(token)
            continue
        key, value = own[1], own[2] if own[2] is not None else next(tokens, None)
        if value is None or (own[2] is None and value.startswith("--")):
            raise GPTZooError(f"it has no value. Write --{key} VALUE.", f"{COMMAND_LINE}: {key}")
        found.append((key, value))
    return rest, found


def _own(recipe: str | os.PathLike[str] | Mapping[str, object], chain: Chain) -> tuple[RecipeFile | None, Node]:
    if isinstance(recipe, Mapping):
        return None, from_python(recipe, Place(MAPPING), problems=chain.problems)
    file = chain.library.typed(recipe)
    return file, chain.read(file)


def _default_name(file: RecipeFile | None, bases: Sequence[Node]) -> Node:
    """The file's stem, made fit for a folder."""
    place = Place(file.shown) if file else Place(MAPPING)
    source = file.path.name if file else Path(bases[-1].place.file).name if bases else "recipe"
    stem = source.removesuffix(".yaml").removesuffix(".yml")
    return Node(re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:100] or "recipe", place)


def _without(node: Node, *keys: str) -> Node:
    return Node({key: value for key, value in node.items.items() if key not in keys}, node.place)


# -- the command line ------------------------------------------------------------------------------------------------


def _commands(overrides: Sequence[tuple[str, str]] | Mapping[str, object], problems: list[GPTZooError]) -> list[Node]:
    """Each override as a recipe of its own."""
    made: list[tuple[Path_, Node]] = []
    python = isinstance(overrides, Mapping)
    for key, value in overrides.items() if isinstance(overrides, Mapping) else overrides:
        try:
            made.append(_command(key, value, Place(MAPPING if python else COMMAND_LINE), python, problems))
        except GPTZooError as error:
            problems.append(error)
    problems += _undone(made)
    return [_nested(path, node) for path, node in made]


def _command(key: str, value: object, place: Place, python: bool, problems: list[GPTZooError]) -> tuple[Path_, Node]:
    path: Path_ = tuple(str(key).split("."))
    if path[0] not in KEYS:
        raise problem(place, path, f"there is no such key.{did_you_mean(str(path[0]), KEYS)}")
    if "" in path or len(path) > MAX_DEPTH:
        raise problem(place, path, "this is not a key. Write words joined by dots.")
    if python:
        node = from_python(value, place, path, problems)
    elif path == ("name",) or (path == ("base",) and not str(value).startswith("[")):
        node = from_python(str(value), place, path, problems)  # a name such as 2024 needs no quotes here
    else:
        node = parse_value(str(value), path, problems)
    if path[-1] == "name" and path[:-1] not in _SECTIONS:
        return path[:-1], node  # `--model.attention.name x` is `--model.attention x`
    return path, node


def _undone(made: Sequence[tuple[Path_, Node]]) -> Iterator[GPTZooError]:
    """Keys that a later one replaces together with the part they belong to."""
    for index, (path, node) in enumerate(made):
        for earlier, _ in made[:index]:
            if len(earlier) > len(path) and earlier[: len(path)] == path and _replaces(node, path):
                key, lost = dotted(path), dotted(earlier)
                yield problem(node.place, path, f"it would undo {lost}, which comes before it. Write {key} first.")


def _nested(path: Path_, node: Node) -> Node:
    for key in reversed(path):
        node = Node({str(key): node}, node.place)
    return node


# -- merging ---------------------------------------------------------------------------------------------------------


def _merged(files: Sequence[Node], commands: Sequence[Node], name: Node, problems: list[GPTZooError]) -> Composed:
    problems += _two_kernels(commands)
    sources = [_expanded(_without_code(source, (), problems), problems) for source in (*files, *commands)]
    tree = Node({}, name.place)
    for source in sources:
        tree = _merge(tree, source, ())
    tree = Node({"name": name, **tree.items}, name.place)
    rank = {id(source): min(index, len(files)) for index, source in enumerate(sources)}  # all commands count as one
    tree = _settled_layers(tree, [(rank[id(source)], source) for source in sources], problems)
    plain = tree.plain()
    assert isinstance(plain, dict)
    return Composed(plain, {path: node.place for path, node in tree.walk() if path}, tuple(problems))


def _merge(old: Node | None, new: Node, path: Path_) -> Node:
    if old is None or _replaces(new, path):
        return new
    if isinstance(old.value, str):
        return Node({_head(path): old, **new.items}, old.place)
    if old.value is REFUSED and not _is_section(path):
        return old  # there is no knowing whose options these are
    if not isinstance(old.value, dict):
        return new
    merged = dict(old.value)
    for key, node in new.items.items():
        merged[key] = _merge(merged.get(key), node, (*path, key))
    return Node(merged, old.place)


def _replaces(new: Node, path: Path_) -> bool:
    return not isinstance(new.value, dict) or (path not in _SECTIONS and _head(path) in new.value)


def _is_section(path: Path_) -> bool:
    """Whether a mapping here is no part: it means what it says without a name."""
    return path in _SECTIONS or (path[:2] == ("model", "layers") and len(path) == 3)


def _head(path: Path_) -> str:
    """The key without which a mapping says nothing of its own."""
    return "path" if path == _INIT_FROM else "name"


def _without_code(node: Node, path: Path_, problems: list[GPTZooError]) -> Node:
    """A value without the keys that no recipe has; a part whose name may be among them is refused whole."""
    if isinstance(node.value, list):
        return Node([_without_code(e, (*path, i), problems) for i, e in enumerate(node.value)], node.place)
    if not isinstance(node.value, dict):
        return node
    kept: dict[str, Node] = {}
    for key, value in node.value.items():
        if what := _no_key((*path, key)):
            problems.append(problem(value.place, (*path, key), what))
        inner = _without_code(value, (*path, key), problems)
        kept[UNREADABLE if what else key] = Node(REFUSED, value.place) if what else inner
    unknown = UNREADABLE in kept and not _is_section(path) and _head(path) not in kept
    return Node(REFUSED if unknown else kept, node.place)


def _no_key(path: Path_) -> str:
    """What is wrong with a key that no recipe has: one that names code, or another tool's."""
    if path[-1] in _CODE:
        return "a recipe never names code. Write the name of a registered part."
    return "there is no such key. Write base: NAME." if path == ("config",) else ""


# -- shorthand -------------------------------------------------------------------------------------------------------


def _expanded(source: Node, problems: list[GPTZooError]) -> Node:
    """A recipe with `attention: sdpa` and `init_from: PATH` written out."""
    if (
        (train := source.items.get("train"))
        and (start := train.items.get("init_from"))
        and isinstance(start.value, str)
    ):
        source = source.updated(train=train.updated(init_from=Node({"path": start}, start.place)))
    if not (model := source.items.get("model")) or not isinstance(model.value, dict):
        return source
    model = _with_kernel(model, ("model",), problems)
    if (layers := model.items.get("layers")) and isinstance(layers.value, list):
        entries = [_with_kernel(e, ("model", "layers", i), problems) for i, e in enumerate(layers.value)]
        model = model.updated(layers=Node(entries, layers.place))
    return source.updated(model=model)


def _with_kernel(holder: Node, path: Path_, problems: list[GPTZooError]) -> Node:
    attention = holder.items.get("attention")
    if not attention or not (word := _shorthand(attention)):
        return holder
    if word.value != attention.value:
        what = f"{word.value} is a kernel, not an attention. Write name: multi_head, and kernel: {word.value}."
        problems.append(problem(word.place, (*path, "attention", "name"), what))
    elif "kernel" in holder.items:
        problems.append(_two(word, path))
    name = Node("multi_head", word.place)
    attention = attention.updated(name=name) if attention.items else name
    return holder.updated(**{"kernel": Node(word.value, word.place), **holder.items, "attention": attention})


def _shorthand(attention: Node) -> Node | None:
    word = attention.items.get("name", attention)
    return word if isinstance(word.value, str) and word.value in RESERVED["attention"] else None


def _two(word: Node, path: Path_) -> GPTZooError:
    what = (
        f"{word.value} stands for multi_head with kernel: {word.value}, and kernel is given as well. Give one of them."
    )
    return problem(word.place, (*path, "attention"), what)


def _two_kernels(commands: Sequence[Node]) -> Iterator[GPTZooError]:
    """A shorthand in one override, a kernel in another."""
    models = [command.items["model"] for command in commands if "model" in command.items]
    for model in models:
        word = _shorthand(model.items.get("attention", model))
        if word and any("kernel" in other.items for other in models if other is not model):
            yield _two(word, ("model",))


# -- layers ----------------------------------------------------------------------------------------------------------


def _settled_layers(tree: Node, sources: Sequence[tuple[int, Node]], problems: list[GPTZooError]) -> Node:
    """Options of an entry without `name` join the model's part; what every entry overrides is refused or dropped."""
    model = tree.items.get("model")
    layers = model.items.get("layers") if model else None
    if model is None or layers is None or not isinstance(layers.value, list) or not layers.value:
        return tree
    entries = layers.value
    overridden = [s for s in LAYER_SLOTS if s in model.items and all(_sets(entry, s) for entry in entries)]
    since = _last_set(sources, "layers")
    problems += [_useless(model, slot, layers) for slot in overridden if _last_set(sources, slot) >= since]
    joined = Node([_joined(entry, model) for entry in entries], layers.place)
    return tree.updated(model=_without(model.updated(layers=joined), *overridden))


def _sets(entry: Node, slot: str) -> bool:
    given = entry.items.get(slot)
    return given is not None and _replaces(given, ("model", slot))


def _last_set(sources: Sequence[tuple[int, Node]], key: str) -> int:
    return max(rank for rank, source in sources if "model" in source.items and key in source.items["model"].items)


def _useless(model: Node, slot: str, layers: Node) -> GPTZooError:
    places = [node.place for _, node in model.items[slot].walk()]
    typed = [place for place in places if place.line is None]  # an option on the command line is the likelier mistake
    what = f"every entry of layers ({layers.place}) overrides it. Leave it out, or change layers."
    return problem([*typed, *places][0], ("model", slot), what)


def _joined(entry: Node, model: Node) -> Node:
    given = {slot: node for slot, node in entry.items.items() if slot in LAYER_SLOTS and slot in model.items}
    joined = {slot: _merge(model.items[slot], node, ("model", slot)) for slot, node in given.items()}
    return entry.updated(**joined) if joined else entry
