"""Types a composed recipe: every key known, every value of its type, every problem reported at once."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

from gptzoo.errors import GPTZooError, any_of, did_you_mean
from gptzoo.recipe.annotations import ALLOWED, Kind, Leaves, hint, hints_of, item_types, kinds_of
from gptzoo.recipe.compose import Composed
from gptzoo.recipe.schema import LAYER_SLOTS, Count, LayerRecipe, ModelRecipe, Part, Recipe, TrainRecipe
from gptzoo.recipe.written import as_mapping, as_yaml, plain
from gptzoo.recipe.yaml_source import REFUSED, UNREADABLE, Node, Path_, Place, from_python, problem, raise_sorted, shown
from gptzoo.registry import RESERVED, SLOTS, Entry, Zoo

__all__ = ["as_mapping", "as_yaml", "typed", "typed_section"]

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PATHLIKE = re.compile(r"[./\\:]")
_SIGNATURE = Place("signature")
_PLAN_KEYS = frozenset({"arms", "grid", "baseline"})


def typed(composed: Composed, zoo: Zoo) -> Recipe:
    """The recipe with every value typed and every default filled in.

    Args:
        composed: The merged recipe.
        zoo: The registered components, whose constructors say which options there are.

    Raises:
        GPTZooError: Something is unknown, missing or of the wrong type, or was refused before; all problems at once.
    """
    typer = _Typer(composed.places, zoo)
    recipe = typer.recipe(composed.tree)
    raise_sorted([*composed.problems, *typer.problems])
    return recipe


def typed_section(cls: type[T], node: Node, path: Path_ = ()) -> T:
    """A mapping as a dataclass of plain values: keys known, values typed, defaults filled in, as strictly as a recipe.

    Raises:
        GPTZooError: Something is unknown, missing or of the wrong type; all problems at once.
    """
    typer = _Typer({inner: each.place for inner, each in node.walk(path)}, Zoo())
    values = typer.section(cls, node.plain(), path)
    raise_sorted(typer.problems)
    return cls(**values)


class _Typer:
    """Collects problems; a value that has one, or was refused before, is None in what is returned."""

    def __init__(self, places: Mapping[Path_, Place], zoo: Zoo, leaves: Leaves | None = None) -> None:
        self.places, self.zoo, self.leaves = places, zoo, leaves or Leaves()
        self.problems: list[GPTZooError] = []
        self.refused: set[Path_] = set()  # where something is wrong, be it reported here or before

    def report(self, path: Path_, what: str) -> None:
        self.refused.add(path)
        self.problems.append(problem(self.place(path), path, what))

    def refuse(self, path: Path_, tree: object, what: str) -> None:
        """Report what is wrong with a value, unless it was refused before."""
        if tree is REFUSED:
            self.refused.add(path)
        else:
            self.report(path, what)

    def is_sure(self, section: object, path: Path_, *names: str) -> bool:
        """Whether some of a section's values are what the recipe means: none refused, none perhaps misspelt."""
        unknown = [key for key in (section if isinstance(section, dict) else {}) if (*path, key) in self.refused]
        return not any(key in names or _may_mean(key, names) for key in unknown)

    def place(self, path: Path_) -> Place | None:
        """Where the value was written, or else the mapping that lacks it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)

    def where(self, path: Path_) -> str:
        return problem(self.place(path), path, "").where

    # -- sections ----------------------------------------------------------------------------------------------------

    def recipe(self, tree: Mapping[str, object]) -> Recipe:
        if _PLAN_KEYS & tree.keys():
            key = sorted(_PLAN_KEYS & tree.keys())[0]
            self.report((key,), "this is the plan of an ablation, not a recipe. Use it with gptzoo ablate.")
            tree = {"name": "plan"}
        values = self.section(Recipe, tree, (), handled=("model", "train"))
        self.check_name(values.get("name"))
        model = self.model(tree.get("model", {}))
        train = self.train(tree.get("train", {}))
        return Recipe(**{"name": "", **values, "model": model, "train": train})

    def section(self, cls: type, tree: object, path: Path_, handled: Iterable[str] = ()) -> dict[str, Any]:
        """The values of a dataclass's fields, defaults and all, except those that are handled elsewhere."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        hints = get_type_hints(cls, include_extras=True)
        required = [f.name for f in fields.values() if f.default is f.default_factory is dataclasses.MISSING]
        given, tree = tree, self.keys(tree, fields, path)
        values = {}
        for name, field in fields.items():
            if isinstance(field.default, Part):
                values[name] = self.part(field.default.slot, tree.get(name, {}), (*path, name), field.default)
            elif name in tree and name not in handled:
                values[name] = self.value(hints[name], tree[name], (*path, name))
            elif name in required and name not in handled and self.is_sure(given, path, name):
                self.report((*path, name), "it is missing.")
        return values

    def keys(self, tree: object, known: Iterable[str], path: Path_) -> dict[str, object]:
        """The entries of a mapping whose keys are known."""
        if not isinstance(tree, dict):
            self.refuse(path, tree, f"{shown(tree)} is not a mapping of keys.")
            return {}
        known = list(known)
        for key in tree:
            if key == UNREADABLE:
                self.refused.add((*path, key))
            elif key not in known:
                self.report((*path, key), f"there is no such key.{self.nearest(key, known, path)}")
        return {key: value for key, value in tree.items() if key in known}

    def nearest(self, key: str, known: Iterable[str], path: Path_) -> str:
        if "." in key and not path:
            return " Write nested mappings, `model: {position: rope}`."
        return did_you_mean(key, known)

    def check_name(self, name: object) -> None:
        if isinstance(name, str) and not _NAME.fullmatch(name):
            self.report(("name",), f"{shown(name)} cannot name a folder. Use letters, digits, '.', '_' and '-'.")

    def train(self, tree: object) -> TrainRecipe:
        path: Path_ = ("train",)
        train = TrainRecipe(**self.section(TrainRecipe, tree, path))
        sure = self.is_sure(tree, path, "batch_size", "micro_batch_size")
        if sure and train.batch_size % (train.micro_batch_size or 1):
            what = f"{train.micro_batch_size} does not divide batch_size {train.batch_size}."
            self.report((*path, "micro_batch_size"), what)
        return train

    def model(self, tree: object) -> ModelRecipe:
        path: Path_ = ("model",)
        model = ModelRecipe(**self.section(ModelRecipe, tree, path, handled=("layers",)))
        entries = self.entries(tree.get("layers") if isinstance(tree, dict) else None, model)
        sure = self.is_sure(tree, path, "n_embd", "n_head", "head_dim")
        if sure and model.head_dim is None and model.n_embd % model.n_head:
            what = f"{model.n_embd} is not divisible by n_head {model.n_head}. Change one of them, or set head_dim."
            self.report((*path, "n_embd"), what)
        layers = self.unrolled(entries, model) if self.is_sure(tree, path, "n_layer", "layers") else ()
        return model if self.refused else self.settled(model, layers)

    # -- layers ------------------------------------------------------------------------------------------------------

    def entries(self, pattern: object, model: ModelRecipe) -> list[tuple[int, LayerRecipe]]:
        """The pattern's entries: how often each is repeated, and its parts."""
        path: Path_ = ("model", "layers")
        whole = LayerRecipe(**{slot: getattr(model, slot) for slot in LAYER_SLOTS})
        if pattern is None:
            return [(1, whole)]
        if not isinstance(pattern, list) or not pattern:
            said = "an empty list" if pattern == [] else shown(pattern)
            self.refuse(path, pattern, f"{said} is not a list of entries, `- {{repeat: 3, attention: NAME}}`.")
            return []
        return [self.entry(entry, (*path, index), whole) for index, entry in enumerate(pattern)]

    def entry(self, tree: object, path: Path_, whole: LayerRecipe) -> tuple[int, LayerRecipe]:
        given = self.keys(tree, ("repeat", *LAYER_SLOTS), path)
        repeat = self.value(Count, given.pop("repeat", 1), (*path, "repeat"))
        if path in self.refused or not self.is_sure(tree, path, "repeat"):
            self.refused.add(path[:-1])  # there is no knowing how many layers the pattern makes
        defaults = {field.name: field.default for field in dataclasses.fields(ModelRecipe)}
        parts = {slot: self.part(slot, part, (*path, slot), defaults[slot]) for slot, part in given.items()}  # type: ignore[arg-type]
        return (repeat if isinstance(repeat, int) else 1), dataclasses.replace(whole, **parts)

    def unrolled(self, entries: list[tuple[int, LayerRecipe]], model: ModelRecipe) -> tuple[LayerRecipe, ...]:
        total = sum(repeat for repeat, _ in entries)
        if model.n_layer % total:
            what = f"the entries make {total} layers, which do not divide n_layer {model.n_layer}."
            self.report(("model", "layers"), what)
            return ()
        return tuple(layer for repeat, layer in entries for _ in range(repeat)) * (model.n_layer // total)

    def settled(self, model: ModelRecipe, layers: tuple[LayerRecipe, ...]) -> ModelRecipe:
        """One form for equal models: what all layers share is the model's; a slot that none takes from it, default."""
        shared: dict[str, Part] = {}
        for slot in LAYER_SLOTS if layers else ():
            parts = [getattr(layer, slot) for layer in layers]
            if all(part == parts[0] for part in parts):
                shared[slot] = parts[0]
            elif getattr(model, slot) not in parts:
                default = next(field.default for field in dataclasses.fields(ModelRecipe) if field.name == slot)
                shared[slot] = self.part(slot, {}, ("model", slot), default)  # type: ignore[arg-type]
        return dataclasses.replace(model, layers=layers, **shared)  # type: ignore[arg-type]

    # -- parts -------------------------------------------------------------------------------------------------------

    def part(self, slot: str, tree: object, path: Path_, default: Part | None = None) -> Part:
        """A component and all its options; `default` is what stands there if the recipe names none."""
        name, options = self.named(slot, tree, path, default)
        wired: dict[str, object] = {}
        if slot == "data":
            byte = Recipe.data.options["tokenizer"]
            assert isinstance(byte, Part)
            wired["tokenizer"] = self.part("tokenizer", options.pop("tokenizer", {}), (*path, "tokenizer"), byte)
        if slot == "position" and "shared" in options:  # the skeleton's, not the part's: equal layers share a module
            shared = self.value(bool, options.pop("shared"), (*path, "shared"), True)
            wired |= {} if shared else {"shared": shared}
        if name is None:
            return Part(slot, "")
        if name in RESERVED.get(slot, ()) and slot != "attention":
            for key in [each for each in options if each != UNREADABLE]:
                self.report((*path, key), f"{slot} {name!r} has no options.")
            return Part(slot, name)
        try:
            entry = self.zoo.get(slot, name, self.where(path))
        except GPTZooError as error:
            self.report(path, error.what)
            return Part(slot, name)
        return Part(slot, entry.name, {**wired, **self.options(entry, options, path)})

    def named(self, slot: str, tree: object, path: Path_, default: Part | None) -> tuple[str | None, dict[str, object]]:
        """A part's name and the options given with it."""
        options = dict(tree) if isinstance(tree, dict) else {}
        name = options.pop("name", default.name if default else None) if isinstance(tree, dict) else tree
        if isinstance(tree, dict) and name is None and "name" not in tree:
            self.report(path, f"it needs the name of a part for {SLOTS[slot].key}.")
        elif not isinstance(name, str) or not name:
            self.refuse(path, name, f"{shown(name)} is not the name of a part for {SLOTS[slot].key}.")
        elif _PATHLIKE.search(name):
            self.report(path, f"{shown(name)} looks like code or a path. A recipe names registered parts only.")
        elif len(name) > 100:
            self.report(path, f"no {slot} is called {shown(name)}.")
        else:
            return name, options
        return None, options

    def options(self, entry: Entry, given: Mapping[str, object], path: Path_) -> dict[str, object]:
        """Every option of a component, typed from its constructor's signature."""
        try:
            parameters = entry.options
            hints = hints_of(entry.factory, parameters)
        except (TypeError, ValueError, NameError, AttributeError, SyntaxError) as error:
            self.fault(entry, path, f"its constructor's signature cannot be read: {error}")
            return {}
        for name in given:
            if name == UNREADABLE:
                self.refused.add((*path, name))
            elif name not in parameters:
                what = f"{entry.slot} {entry.name!r} has no option {shown(name)}."
                known = f" Its options: {', '.join(parameters)}." if parameters else " It has none."
                self.report((*path, name), f"{what}{did_you_mean(name, parameters) or known}")
        values = {}
        for name, parameter in parameters.items():
            if self.is_sound(entry, parameter, hints[name], path):
                values[name] = self.option(entry, parameter, hints[name], given, path)
        return values

    def option(
        self, entry: Entry, parameter: inspect.Parameter, annotation: object, given: Mapping[str, object], path: Path_
    ) -> object:
        name = parameter.name
        if name in given:
            return self.value(annotation, given[name], (*path, name), plain(parameter.default))
        if parameter.default is parameter.empty:
            if self.is_sure(given, path, name):
                self.report((*path, name), f"{entry.slot} {entry.name!r} needs the option {name!r}.")
            return None
        trial = _Typer(self.places, self.zoo, self.leaves)
        try:
            value = trial.value(annotation, from_python(plain(parameter.default), _SIGNATURE).plain(), (*path, name))
            raise_sorted(trial.problems[:1])
            return value
        except GPTZooError as error:
            self.fault(entry, path, f"the default of its option {name!r} is wrong: {error.what}")
            return None

    def is_sound(self, entry: Entry, parameter: inspect.Parameter, annotation: object, path: Path_) -> bool:
        """Whether an option is declared as options must be; if not, that is the plugin's fault."""
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self.fault(entry, path, f"its option {parameter.name!r} is positional only, so no recipe can name it")
        elif annotation is parameter.empty:
            self.fault(entry, path, f"its option {parameter.name!r} has no type. Use {ALLOWED}")
        else:
            try:
                kinds_of(annotation)
                return True
            except (TypeError, NameError) as error:
                self.fault(entry, path, f"its option {parameter.name!r} has the type {error}. Use {ALLOWED}")
        return False

    def fault(self, entry: Entry, path: Path_, what: str) -> None:
        whose = f"{entry.slot} {entry.name!r} of plugin {entry.owner} is faulty"
        self.report(path, f"{whose}: {what.removesuffix('.')}.")

    # -- values ------------------------------------------------------------------------------------------------------

    def value(self, annotation: object, tree: object, path: Path_, default: object = None) -> object:
        """A value of an annotation's type. `default` names the part if the value is one without a name."""
        kinds = kinds_of(annotation)
        fitting = [kind for kind in kinds if kind.admits(tree)]
        fitting = [kind for kind in fitting if kind.choices or kind.is_exactly(tree)] or fitting
        if not fitting:
            what = any_of([str(kind) for kind in kinds])
            self.refuse(path, tree, f"{shown(tree)} is not {what}.{hint(kinds, tree)}")
            return None
        trials = []
        for kind in fitting:
            trial = _Typer(self.places, self.zoo, self.leaves)
            trials.append((trial, trial.of_kind(kind, tree, path, default)))
        trial, value = next((each for each in trials if not each[0].problems), trials[0])
        self.problems += trial.problems
        self.refused |= trial.refused
        return value

    def of_kind(self, kind: Kind, tree: Any, path: Path_, default: object) -> object:
        if kind.slot:
            stands = Part(kind.slot, default) if isinstance(default, str) else None
            return self.part(kind.slot, tree, path, stands)
        if tree is None:
            return None
        if dataclasses.is_dataclass(kind.type):
            values = self.section(kind.type, tree, path)  # type: ignore[arg-type]
            return None if self.refused else kind.type(**values)  # type: ignore[operator]
        if kind.is_dict:
            inner = kind.type.__args__[1]  # type: ignore[attr-defined]
            return {key: self.value(inner, each, (*path, key)) for key, each in tree.items()}
        if kind.container:
            return self.items(kind, tree, path)
        try:
            return self.leaves.typed(kind, tree)
        except ValueError as error:
            self.report(path, str(error))
            return None

    def items(self, kind: Kind, tree: list[object], path: Path_) -> object:
        inner = item_types(kind, len(tree))
        if inner is None:
            wanted = len(kind.type.__args__)  # type: ignore[attr-defined]
            self.report(path, f"it has {len(tree)} items, and {wanted} are wanted.")
            return None
        values = [self.value(each, item, (*path, i)) for i, (each, item) in enumerate(zip(inner, tree, strict=True))]
        return tuple(values) if kind.container is tuple else values


def _may_mean(key: str, names: Iterable[str]) -> bool:
    return key == UNREADABLE or bool(did_you_mean(key, names))
