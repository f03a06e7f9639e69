"""What a law is about: one component under given options, built into small models on demand.

Weights are drawn large and every other parameter is moved off its initial value, so that nothing hides: a gate that
starts at zero, a projection too small to matter.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gptzoo.assembly import construct, identity_of
from gptzoo.building import Plan, build_model
from gptzoo.contracts import Dims
from gptzoo.errors import GPTZooError
from gptzoo.loading import Loaded
from gptzoo.model import Model
from gptzoo.recipe.compose import Composed, compose
from gptzoo.recipe.schema import LAYER_SLOTS, LayerRecipe, Part, Recipe
from gptzoo.recipe.typed import typed
from gptzoo.registry import SLOTS, Entry, Zoo
from gptzoo.resolving import admits, dims_of, resolve
from gptzoo.seeds import stable_seed

VOCABULARY = 19
CONTEXT = 64
POSITIONS = ("none", "rope", "alibi", "learned")
"""One position of each kind, under which parts of other slots are tried: nothing, rotation, bias, embedding."""

KERNELS = ("naive", "sdpa")
"""Kernels under which parts of other slots are tried; a kernel itself is compared with the first."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a small model."""

    n_head: int
    head_dim: int
    n_embd: int
    n_layer: int = 1

    def __str__(self) -> str:
        return f"{self.n_layer} layers, {self.n_head} heads of {self.head_dim}, width {self.n_embd}"


SIZES = (
    Sizes(2, 4, 8),
    Sizes(1, 8, 8),
    Sizes(4, 8, 32, 2),
    Sizes(3, 16, 48),
    Sizes(6, 4, 24, 2),
    Sizes(2, 32, 40),
    Sizes(8, 16, 128),
)
"""What laws choose from, the simplest first; a part that refuses some of them is tried under the others."""


@dataclass(frozen=True)
class Around:
    """The parts that surround the subject in a model."""

    position: str = "none"
    kernel: str = "naive"


@dataclass(frozen=True)
class Subject:
    """A component under given options, in a zoo.

    Args:
        zoo: All registered components.
        part: The component, typed.
        device: Where its models are put.
        beside: Parts of other slots that stand in its models, in place of GPT-2's.
    """

    zoo: Zoo
    part: Part
    device: str = "cpu"
    beside: tuple[Part, ...] = ()
    _models: dict[object, Model] = field(default_factory=dict, repr=False, compare=False)
    _fitting: dict[object, bool] = field(default_factory=dict, repr=False, compare=False)

    @property
    def slot(self) -> str:
        return self.part.slot

    @property
    def entry(self) -> Entry:
        return self.zoo.get(self.part.slot, self.part.name)

    def claims(self, what: str) -> bool:
        """Whether the component claims a property: whatever it does not disclaim by `what = False` on its class."""
        return getattr(self.entry.factory, what, True) is not False

    def can(self, ability: str) -> bool:
        """Whether the `abilities` of the component, and of what stands beside it, do not deny an ability."""
        factories = [self.entry.factory, *(self.zoo.get(part.slot, part.name).factory for part in self.beside)]
        return all(getattr(getattr(each, "abilities", None), ability, None) is not False for each in factories)

    def with_options(self, **options: object) -> Subject:
        """The same component under other options."""
        part = replace(self.part, options={**self.part.options, **options})
        return Subject(self.zoo, part, self.device, self.beside)

    # Building

    def recipe(self, sizes: Sizes, around: Around = Around(), **parts: Part) -> Recipe:
        """A recipe of small sizes with the subject in it."""
        base = _base(self.zoo)
        chosen: dict[str, Part] = {
            "position": part_named(self.zoo, "position", around.position),
            "kernel": part_named(self.zoo, "kernel", around.kernel),
            **self._company(base),
            **{part.slot: part for part in self.beside},
            **parts,
            self.slot: self.part,
        }
        layer: dict[str, Part] = {s: chosen[s] if s in chosen else getattr(base.model, s) for s in LAYER_SLOTS}
        model = replace(
            base.model,
            n_layer=sizes.n_layer,
            n_head=sizes.n_head,
            n_embd=sizes.n_embd,
            head_dim=sizes.head_dim,
            context_length=CONTEXT,
            vocab_size=VOCABULARY,
            head=chosen.get("head", base.model.head),
            init=chosen.get("init", base.model.init),
            layers=(LayerRecipe(**layer),) * sizes.n_layer,
            **layer,
        )
        optimizer, schedule = (chosen.get(slot, getattr(base.train, slot)) for slot in ("optimizer", "schedule"))
        return replace(base, model=model, train=replace(base.train, optimizer=optimizer, schedule=schedule))

    def _company(self, base: Recipe) -> dict[str, Part]:
        """The parts that the subject goes with, agreeing with it about options that both have."""
        found: dict[str, Part] = {}
        for key, value in self.entry.goes_with.items():
            section, slot, *option = key.split(".")
            part = found.get(slot, getattr(getattr(base, section), slot)) if option else None
            part = part or part_named(self.zoo, slot, str(value))
            shared = {name: self.part.options[name] for name in part.options.keys() & self.part.options.keys()}
            given = {option[0]: value} if option else shared
            found[slot] = replace(part, options={**part.options, **given})
        return found

    def fits(self, sizes: Sizes, around: Around, *, training: bool = True, **parts: Part) -> bool:
        """Whether `resolve` admits the subject among these parts."""
        key = (sizes, around, training, *((slot, identity_of(part)) for slot, part in parts.items()))
        if key not in self._fitting:
            recipe = self.recipe(sizes, around, **parts)
            self._fitting[key] = admits(recipe, self.zoo, _type(self.device), training=training)
        return self._fitting[key]

    def sizes(self) -> list[Sizes]:
        """The sizes under which it can be built.

        Raises:
            GPTZooError: There are none; what its constructor says to the first.
        """
        admitted = [sizes for sizes in SIZES if self.fits(sizes, Around("none", "auto"), training=False)]
        if not admitted:
            resolve(self.recipe(SIZES[0], Around("none", "auto")), self.zoo, _type(self.device), training=False)
        return admitted

    def surroundings(self, sizes: Sizes, *, training: bool = True) -> list[Around]:
        """Positions and kernels, one of each kind, that `resolve` admits around the subject."""
        positions = [p for p in POSITIONS if p in self.zoo.names("position")] if self.slot != "position" else ["none"]
        kernels = [k for k in KERNELS if k in self.zoo.names("kernel")] if self.slot != "kernel" else ["naive"]
        every = [Around(position, kernel) for position in positions for kernel in [*kernels, "auto"]]
        fitting = [around for around in every if self.fits(sizes, around, training=training)]
        named = [around for around in fitting if around.kernel != "auto"]
        covered = {around.position for around in named}
        return named + [around for around in fitting if around.position not in covered]

    def model(
        self,
        sizes: Sizes,
        around: Around = Around(),
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        fresh: bool = False,
        loud: bool = True,
        **parts: Part,
    ) -> Model:
        """A model with the subject in it, in eval mode; the same one for equal arguments, unless it is to be fresh.

        Args:
            sizes: Its sizes.
            around: Its position and kernel.
            seed: Of its weights.
            dtype: Of its weights.
            fresh: A copy of its own, for a law that changes it.
            loud: Weights are drawn anew, large, and no parameter is left at its initial value.
            parts: Other parts, by slot.
        """
        key = (sizes, around, seed, dtype, loud, *((slot, identity_of(part)) for slot, part in parts.items()))
        if key not in self._models:
            if len(self._models) > 100:
                self._models.clear()
            recipe = replace(self.recipe(sizes, around, **parts), seed=seed)
            recipe = resolve(recipe, self.zoo, _type(self.device), training=False)
            model = build_model(plan_of(recipe, self.zoo, self.device))
            if loud:
                speak_up(model, seed)
            self._models[key] = model.to(device=self.device, dtype=dtype).eval()
        model = self._models[key]
        return copy.deepcopy(model) if fresh else model

    def dims(self, sizes: Sizes, layer: int = 0) -> Dims:
        """What the subject is built with."""
        return dims_of(self.recipe(sizes).model, VOCABULARY).at(layer)

    def construct(self, *wiring: object) -> object:
        """The component alone."""
        return construct(self.part, self.zoo, *wiring)

    def tokens(self, batch: int, length: int, seed: int) -> Tensor:
        """int64 (B, T)."""
        g = torch.Generator().manual_seed(stable_seed(seed, "tokens"))
        return torch.randint(VOCABULARY, (batch, length), generator=g).to(self.device)

    def __str__(self) -> str:
        given = {k: v for k, v in self.part.options.items() if k in self._told()}
        return f"{self.slot} {self.part.name}" + (f" {given}" if given else "")

    def _told(self) -> frozenset[str]:
        return frozenset(
            name for name, p in self.entry.options.items() if self.part.options.get(name, p.default) != p.default
        )


def _type(device: str) -> str:
    return torch.device(device).type


def plan_of(recipe: Recipe, zoo: Zoo, device: str = "cpu") -> Plan:
    """A plan for a recipe that was not composed from files."""
    return Plan(recipe, Loaded(zoo, (), ()), torch.device(device), Composed({}, {}))


def typed_part(zoo: Zoo, slot: str, name: str, options: Mapping[str, object]) -> Part:
    """A component with options as a recipe writes them, typed as a recipe types them.

    Raises:
        GPTZooError: An option is unknown, missing or of the wrong type.
    """
    mapping: object = {"name": name, **options}
    mapping = [mapping] if slot == "logger" else mapping
    if slot == "tokenizer":
        mapping = {"name": _any_data(zoo), "tokenizer": mapping}
    for key in reversed([] if slot in ("data", "tokenizer") else SLOTS[slot].key.split(".")[1:]):
        mapping = {key: mapping}
    recipe = typed(compose({"name": "laws", SLOTS[slot].key.split(".")[0]: mapping}, defer=True), zoo)
    if slot == "logger":
        return recipe.train.loggers[0]
    if slot in ("data", "tokenizer"):
        part = recipe.data if slot == "data" else recipe.data.options["tokenizer"]
    else:
        part = getattr(recipe.train if slot in ("optimizer", "schedule") else recipe.model, slot)
    assert isinstance(part, Part)
    return part


def part_named(zoo: Zoo, slot: str, name: str) -> Part:
    """A component with its default options, `auto` for a kernel included."""
    if name == "auto":
        return Part("kernel", "auto")
    known: dict[tuple[str, str], Part] = zoo.__dict__.setdefault("_laws_parts", {})
    if (slot, name) not in known:
        known[slot, name] = typed_part(zoo, slot, name, zoo.get(slot, name).examples[0])
    return known[slot, name]


def subjects(zoo: Zoo, entry: Entry, device: str = "cpu") -> Iterator[Subject]:
    """A component under each of its examples.

    Raises:
        GPTZooError: An example is no options that a recipe could give it, or it needs some and has no examples.
    """
    required = [name for name, option in entry.options.items() if option.default is option.empty]
    for options in entry.examples:
        missing = [name for name in required if name not in options]
        if missing:
            what = f"{entry.slot} {entry.name!r} needs the option {missing[0]!r}, and its class states no `examples`."
            raise GPTZooError(f"{what} Give --options '{{{missing[0]}: ...}}'.")
        yield Subject(zoo, typed_part(zoo, entry.slot, entry.name, options), device)


def speak_up(model: nn.Module, seed: int) -> None:
    """Draw matrices with unit gain, and move every other parameter off its initial value."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            g = torch.Generator().manual_seed(stable_seed(seed, "loud", name))
            noise = torch.randn(parameter.shape, generator=g)
            if name.startswith("wte."):
                parameter.copy_(noise)
            elif parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * noise.to(parameter.dtype))


def watched(model: Model, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Run the model; return the embedding as a leaf, (B, T, C), and what `run` returned."""
    leaves: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handle = model.wte.register_forward_hook(hook)
    try:
        out = run()
    finally:
        handle.remove()
    return leaves[0], out


def _any_data(zoo: Zoo) -> str:
    return "python_source" if "python_source" in zoo.names("data") else zoo.names("data")[0]


def _base(zoo: Zoo) -> Recipe:
    if "_laws_base" not in zoo.__dict__:
        recipe = compose({"name": "laws", "data": {"name": _any_data(zoo), "tokenizer": "byte"}})
        zoo.__dict__["_laws_base"] = typed(recipe, zoo)
    return zoo.__dict__["_laws_base"]
