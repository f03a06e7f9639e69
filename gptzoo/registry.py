"""The registry: which component stands under which name in which slot, and who put it there.

Everything enters through one pluggy hook, `gptzoo_register(zoo)`: our own parts and a stranger's alike. Importing this
module imports neither torch nor any part.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pluggy

from gptzoo.errors import GPTZooError, any_of, did_you_mean

hookspec = pluggy.HookspecMarker("gptzoo")
hookimpl = pluggy.HookimplMarker("gptzoo")


class Hooks:
    """The hooks that a plugin may implement."""

    @hookspec
    def gptzoo_register(self, zoo: Zoo) -> None:
        """Register components: `zoo.attention("name", Class, aliases=[...])`, one method per slot."""


@dataclass(frozen=True)
class Slot:
    """A place in the model or the trainer that a component fills.

    Args:
        key: Where the component stands in a recipe, `model.attention`.
        wiring: Leading arguments of the component's constructor that the model knows; the rest are options.
    """

    key: str
    wiring: tuple[str, ...] = ()


SLOTS: Mapping[str, Slot] = MappingProxyType(
    {
        "attention": Slot("model.attention", ("dims",)),
        "kernel": Slot("model.kernel"),
        "position": Slot("model.position", ("dims", "rotate_dim")),
        "norm": Slot("model.norm", ("size",)),
        "mlp": Slot("model.mlp", ("dims",)),
        "block": Slot("model.block", ("dims", "attention", "mlp", "norm")),
        "head": Slot("model.head", ("dims", "wte")),
        "init": Slot("model.init"),
        "optimizer": Slot("train.optimizer", ("parameters", "learning_rate")),
        "schedule": Slot("train.schedule"),
        "data": Slot("data", ("tokenizer", "context_length")),
        "tokenizer": Slot("data.tokenizer"),
        "logger": Slot("train.loggers"),
    }
)


@dataclass(frozen=True)
class InSlot:
    """Marks an option that is itself a component: `Annotated[Callable[[int], nn.Module], InSlot("norm")]`.

    A recipe gives its name, or a mapping with `name`; the constructor receives the component's factory.
    """

    slot: str


RESERVED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "attention": frozenset({"naive", "sdpa", "flash", "flex", "auto"}),  # shorthand for a kernel in recipes
        "kernel": frozenset({"auto"}),
    }
)


@dataclass(frozen=True)
class Owner:
    """Who registered a component.

    Args:
        plugin: The plugin's name.
        origin: `core`, `gptzoo_plugins`, the name of a distribution, or the path of a file.
        version: The version of the distribution, or an empty string.
        sha256: The hash of the plugin's source file.
    """

    plugin: str
    origin: str
    version: str = ""
    sha256: str = ""

    def __str__(self) -> str:
        origin = f"{self.origin} {self.version}".strip()
        return self.plugin if self.plugin == self.origin else f"{self.plugin} ({origin})"


@dataclass(frozen=True)
class Entry:
    """One registered component."""

    slot: str
    name: str
    factory: Callable[..., object]
    owner: Owner
    aliases: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the component's docstring."""
        return (self.factory.__doc__ or "").strip().split("\n", 1)[0]

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The constructor's parameters after the wiring: what a recipe may set."""
        wiring = SLOTS[self.slot].wiring
        parameters = inspect.signature(self.factory).parameters
        anything = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # of a class without a constructor
        return {name: p for name, p in parameters.items() if name not in wiring and p.kind not in anything}

    @property
    def examples(self) -> tuple[Mapping[str, object], ...]:
        """Options, as a recipe writes them, under which the laws try the component; the first stand in for all.

        A component states them as a class attribute `examples`; without one its defaults are tried. A component with a
        required option must have some.
        """
        return tuple(getattr(self.factory, "examples", ())) or ({},)

    @property
    def goes_with(self) -> Mapping[str, object]:
        """Recipe keys that must have these values beside the component; a class attribute of the same name."""
        return getattr(self.factory, "goes_with", {})

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages that compute for the component; a class attribute of the same name. A run records their versions."""
        return tuple(getattr(self.factory, "libraries", ()))


@dataclass
class Zoo:
    """All registered components, by slot and name."""

    _entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {slot: {} for slot in SLOTS})
    _aliases: dict[str, dict[str, str]] = field(default_factory=lambda: {slot: {} for slot in SLOTS})

    def get(self, slot: str, name: str, where: str = "") -> Entry:
        """The component called `name` (or with that alias) in a slot.

        Raises:
            GPTZooError: There is none; close matches are named.
        """
        entry = self._entries[slot].get(self._aliases[slot].get(name, name))
        if entry is None:
            known = [*self._entries[slot], *self._aliases[slot]]
            hint = did_you_mean(name, known) or f" Known: {', '.join(self.names(slot))}."
            raise GPTZooError(f"no {slot} is called {name!r}.{hint}", where)
        return entry

    def names(self, slot: str) -> list[str]:
        """The names in a slot, sorted."""
        return sorted(self._entries[slot])

    def entries(self, slot: str | None = None, pattern: str = "*") -> Iterator[Entry]:
        """Entries of one slot or of all, whose name or alias matches a shell pattern."""
        for each in SLOTS if slot is None else [slot]:
            for name in self.names(each):
                entry = self._entries[each][name]
                if any(fnmatch.fnmatch(word, pattern) for word in (name, *entry.aliases)):
                    yield entry

    def find(self, name: str) -> Entry:
        """A component by `name` alone, or by `slot.name` where the bare name stands in two slots.

        Raises:
            GPTZooError: No such component, or several.
        """
        slot, _, rest = name.partition(".")
        if rest and slot in SLOTS:
            return self.get(slot, rest)
        found = [self.get(s, name) for s in SLOTS if name in self._entries[s] or name in self._aliases[s]]
        if len(found) == 1:
            return found[0]
        if found:
            raise GPTZooError(
                f"{name!r} stands in several slots. Write {any_of([f'{e.slot}.{e.name}' for e in found])}."
            )
        known = [word for s in SLOTS for word in (*self._entries[s], *self._aliases[s])]
        raise GPTZooError(f"no component is called {name!r}.{did_you_mean(name, known)}")

    def add(self, entry: Entry) -> None:
        """Register an entry.

        Raises:
            GPTZooError: The name or an alias is reserved or taken in this slot; both owners are named.
        """
        for word in (entry.name, *entry.aliases):
            if not word.replace("-", "_").isidentifier():
                raise GPTZooError(f"{entry.slot} {word!r} is not a name. Use letters, digits, '_' and '-'.")
            if word in RESERVED.get(entry.slot, ()):
                raise GPTZooError(
                    f"{entry.slot} {word!r} of plugin {entry.owner} is a reserved word. Choose another name."
                )
            taken = self._entries[entry.slot].get(self._aliases[entry.slot].get(word, word))
            if taken is not None:
                what = f"{entry.slot} {word!r} of plugin {entry.owner} is taken by plugin {taken.owner}."
                raise GPTZooError(f"{what} Choose another name.")
        self._entries[entry.slot][entry.name] = entry
        self._aliases[entry.slot].update(dict.fromkeys(entry.aliases, entry.name))

    def registering(self, owner: Owner) -> Registrar:
        """A view of the zoo that registers in an owner's name, all or nothing."""
        return Registrar(self, owner)


class Registrar:
    """What a plugin's `gptzoo_register(zoo)` receives: one method per slot.

    Entries are collected and reach the zoo at `commit`, all or none.
    """

    def __init__(self, zoo: Zoo, owner: Owner) -> None:
        self._zoo = zoo
        self._owner = owner
        self._collected: list[Entry] = []

    def _add(self, slot: str, name: str, factory: Callable[..., object], aliases: Sequence[str]) -> None:
        if not callable(factory):
            raise GPTZooError(f"{slot} {name!r} of plugin {self._owner} is not a class or function.")
        self._collected.append(Entry(slot, name, factory, self._owner, tuple(aliases)))

    def commit(self) -> list[Entry]:
        """Hand the collected entries to the zoo, all or none."""
        trial = Zoo(
            {s: dict(v) for s, v in self._zoo._entries.items()}, {s: dict(v) for s, v in self._zoo._aliases.items()}
        )
        for entry in self._collected:
            trial.add(entry)
        self._zoo._entries, self._zoo._aliases = trial._entries, trial._aliases
        return self._collected

    def attention(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register an attention: built with `dims`, called `(x, ctx) -> x`."""
        self._add("attention", name, factory, aliases)

    def kernel(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a kernel: a function of q, k, v; see `gptzoo.Kernel`."""
        self._add("kernel", name, factory, aliases)

    def position(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a positional encoding: built with `dims, rotate_dim`; see `gptzoo.Position`."""
        self._add("position", name, factory, aliases)

    def norm(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a norm: built with `size`, called `(x) -> x`."""
        self._add("norm", name, factory, aliases)

    def mlp(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register an MLP: built with `dims`, called `(x, ctx) -> x`."""
        self._add("mlp", name, factory, aliases)

    def block(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a block: built with `dims, attention, mlp, norm`, called `(x, ctx) -> x`."""
        self._add("block", name, factory, aliases)

    def head(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a head: built with `dims, wte`, called `(x) -> logits`."""
        self._add("head", name, factory, aliases)

    def init(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register an init: called `(path, tensor, dims, generator)`, fills the tensor in place."""
        self._add("init", name, factory, aliases)

    def optimizer(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register an optimizer: built with `parameters, learning_rate`, a torch optimizer."""
        self._add("optimizer", name, factory, aliases)

    def schedule(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a schedule: called `(step, steps) -> factor`."""
        self._add("schedule", name, factory, aliases)

    def data(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a data set: built with `tokenizer, context_length`; see `gptzoo.Data`."""
        self._add("data", name, factory, aliases)

    def tokenizer(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a tokenizer; see `gptzoo.Tokenizer`."""
        self._add("tokenizer", name, factory, aliases)

    def logger(self, name: str, factory: Callable[..., object], aliases: Sequence[str] = ()) -> None:
        """Register a logger: called `log(step, mapping)`."""
        self._add("logger", name, factory, aliases)
