"""Do the parts of a recipe fit together? One answer before anything is allocated, with every violation in it.

Parts are built on the meta device, where tensors have shapes and no memory, and asked what they need and can do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from gptzoo.assembly import construct, identity_of
from gptzoo.company import company_problems
from gptzoo.contracts import Abilities, Attention, Dims, Kernel, Position
from gptzoo.errors import GPTZooError, any_of, raise_all
from gptzoo.recipe.schema import LayerRecipe, ModelRecipe, Part, Recipe
from gptzoo.registry import Zoo

AUTO_KERNELS = ("sdpa", "naive")
"""What `kernel: auto` tries, on every device; torch's sdpa itself chooses its flash kernel where that can run."""


@dataclass(frozen=True)
class Demands:
    """What a recipe asks of its parts beside fitting one another.

    Args:
        device: Type of the device, `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`.
        training: Gradients are needed.
        documents: Rows hold several documents that must not see each other.
        dropout: Dropout is above 0.
    """

    device: str
    precision: str
    training: bool
    documents: bool
    dropout: bool


@dataclass(frozen=True)
class Violation:
    """Two parts that do not fit: the slot to blame, the other slot of the pair, and what is missing."""

    slot: str
    other: str
    what: str


@dataclass
class Layer:
    """The three parts of a layer that must fit, built on the meta device."""

    attention: Attention
    position: Position
    kernel: Kernel | None
    names: dict[str, str]
    own_position: bool


def resolve(
    recipe: Recipe,
    zoo: Zoo,
    device: str,
    where: Callable[[str], str] = lambda key: key,
    *,
    training: bool = True,
) -> Recipe:
    """The recipe with every `auto` kernel chosen.

    Args:
        recipe: A typed recipe.
        zoo: The registered parts.
        device: Type of the device that it shall run on.
        where: Turns a recipe key into a place, `recipe.yaml:7: model.position`.
        training: Whether gradients are needed.

    Raises:
        GPTZooError: The parts do not fit; all violations are listed with the parts that would work.
    """
    resolver = _Resolver(recipe, zoo, _demands(recipe, device, training), where)
    return resolver.resolve()


def admits(recipe: Recipe, zoo: Zoo, device: str, *, training: bool = True) -> bool:
    """Whether `resolve` would admit a recipe; without working out what to say if not."""
    resolver = _Resolver(recipe, zoo, _demands(recipe, device, training), lambda key: key)
    try:
        if any(company_problems(recipe, zoo, resolver.where)) or any(resolver.blocks_apart()):
            return False
        layers = [resolver.choose(layer) for layer in dict.fromkeys(recipe.model.layers)]
        return not any(True for layer in layers for _ in resolver.check(layer, resolver.is_own(layer)))
    except GPTZooError:
        return False


def dims_of(model: ModelRecipe, vocab_size: int) -> Dims:
    """The sizes that parts are built with."""
    head_dim = model.head_dim or model.n_embd // model.n_head
    return Dims(
        n_layer=model.n_layer,
        n_head=model.n_head,
        n_embd=model.n_embd,
        head_dim=head_dim,
        context_length=model.context_length,
        vocab_size=vocab_size,
        dropout=model.dropout,
        bias=model.bias,
    )


def _demands(recipe: Recipe, device: str, training: bool) -> Demands:
    documents = bool(recipe.data.options.get("documents"))
    return Demands(device, recipe.train.precision, training, documents, recipe.model.dropout > 0)


class _Resolver:
    def __init__(self, recipe: Recipe, zoo: Zoo, demands: Demands, where: Callable[[str], str]) -> None:
        self.recipe, self.zoo, self.demands, self.where = recipe, zoo, demands, where
        self.dims = dims_of(recipe.model, vocab_size=1)
        self.built: dict[tuple[str, ...], object] = {}

    def resolve(self) -> Recipe:
        problems: dict[str, GPTZooError] = {}
        layers = []
        for layer in self.recipe.model.layers:
            try:
                layers.append(self.choose(layer))
            except GPTZooError as error:
                problems.setdefault(str(error), error)
                continue
            for violation in self.check(layers[-1], self.is_own(layer)):
                error = self.explain(violation, layer)
                problems.setdefault(str(error), error)
        company = company_problems(self.recipe, self.zoo, self.where)
        raise_all([*problems.values(), *self.blocks_apart(), *company])
        return replace(self.recipe, model=self.with_kernels(layers))

    def blocks_apart(self) -> Iterator[GPTZooError]:
        """A block that widens the stream cannot stand beside another, to which it would hand the wide one."""
        blocks = {identity_of(layer.block): layer.block.name for layer in self.recipe.model.layers}
        wide = [name for name in blocks.values() if hasattr(self.zoo.get("block", name).factory, "widen")]
        if wide and len(blocks) > 1:
            what = f"block {wide[0]!r} widens the stream, so that every layer must have it, with equal options."
            yield GPTZooError(what, self.where("model.block"))

    def with_kernels(self, layers: list[LayerRecipe]) -> ModelRecipe:
        model = self.recipe.model
        chosen = [layer.kernel for layer in layers if layer.kernel.name != "auto"]
        kernel = chosen[0] if model.kernel.name == "auto" and chosen else model.kernel
        # A layer that mixes by itself has no kernel: it carries the model's, which is skipped.
        layers = [replace(layer, kernel=kernel) if layer.kernel.name == "auto" else layer for layer in layers]
        return replace(model, kernel=kernel, layers=tuple(layers))

    def choose(self, layer: LayerRecipe) -> LayerRecipe:
        """The layer with its kernel: the first of the fixed order that fits, where it says `auto`."""
        if layer.kernel.name != "auto" or self.attention(layer).kernels == ():
            return layer
        tried = [replace(layer, kernel=Part("kernel", name, self.defaults("kernel", name))) for name in AUTO_KERNELS]
        fitting = [each for each in tried if not any(True for _ in self.check(each, self.is_own(layer)))]
        return fitting[0] if fitting else tried[-1]

    def is_own(self, layer: LayerRecipe) -> bool:
        """Whether the layer has a position of its own, rather than the model's."""
        return identity_of(layer.position) != identity_of(self.recipe.model.position)

    def check(self, layer: LayerRecipe, own: bool) -> Iterator[Violation]:
        """Everything that keeps the parts of a layer from fitting; `own`: its position is not the model's."""
        attention, position = self.attention(layer), self.position(layer, self.attention(layer))
        names = {"attention": layer.attention.name, "position": layer.position.name, "kernel": layer.kernel.name}
        kernel = None if attention.kernels == () else self.kernel(layer)
        return violations(Layer(attention, position, kernel, names, own), self.demands, self.recipe.model.kernel)

    def attention(self, layer: LayerRecipe) -> Attention:
        built = self.meta(layer.attention, self.dims)
        assert isinstance(built, Attention), f"{layer.attention.name} is no gptzoo.Attention"
        return built

    def position(self, layer: LayerRecipe, attention: Attention) -> Position:
        built = self.meta(layer.position, self.dims, attention.rotate_dim)
        assert isinstance(built, Position), f"{layer.position.name} is no gptzoo.Position"
        return built

    def kernel(self, layer: LayerRecipe) -> Kernel:
        built = self.meta(layer.kernel)
        assert isinstance(built, Kernel), f"{layer.kernel.name} is no gptzoo.Kernel"
        return built

    def meta(self, part: Part, *wiring: object) -> object:
        """The part on the meta device, built once for equal options."""
        key = (part.slot, identity_of(part), *map(str, wiring))
        if key not in self.built:
            with torch.device("meta"), torch.random.fork_rng(devices=[]):
                self.built[key] = construct(part, self.zoo, *wiring, where=self.where(f"model.{part.slot}"))
        return self.built[key]

    def defaults(self, slot: str, name: str) -> dict[str, object]:
        return {k: p.default for k, p in self.zoo.get(slot, name).options.items()}

    def explain(self, violation: Violation, layer: LayerRecipe) -> GPTZooError:
        """The violation as one line, with the parts that would work in either place."""
        ways = [self.working(slot, layer) for slot in dict.fromkeys([violation.slot, violation.other]) if slot]
        ways = [any_of(names) for names in ways if names]
        remedy = f" Use {'; or '.join(ways)}." if ways else " No registered part would work."
        return GPTZooError(violation.what + remedy, self.where(f"model.{violation.slot}"))

    def working(self, slot: str, layer: LayerRecipe) -> list[str]:
        """Names that would leave no violation in the layer, with their default options."""
        return [name for name in self.zoo.names(slot) if self.would_fit(slot, name, layer)]

    def would_fit(self, slot: str, name: str, layer: LayerRecipe) -> bool:
        options = self.defaults(slot, name)
        if inspect.Parameter.empty in options.values():
            return False  # it needs an option that only the user can choose
        try:
            other = self.choose(replace(layer, **{slot: Part(slot, name, options)}))
            return not any(True for _ in self.check(other, self.is_own(layer)))
        except GPTZooError:
            return False  # its constructor refuses these sizes


def violations(layer: Layer, demands: Demands, model_kernel: Part) -> Iterator[Violation]:
    """Everything that keeps three parts from fitting each other and the demands."""
    yield from _position_and_attention(layer)
    yield from _attention_and_demands(layer, demands)
    if layer.kernel is None:
        if layer.names["kernel"] != model_kernel.name:
            what = f"attention {layer.names['attention']!r} mixes by itself and takes no kernel."
            yield Violation("kernel", "attention", what)
        return
    allowed = layer.attention.kernels
    if allowed is not None and layer.names["kernel"] not in allowed:
        what = f"attention {layer.names['attention']!r} runs with kernel {any_of(allowed)} only."
        yield Violation("kernel", "attention", what)
    yield from _kernel_and_parts(layer, layer.kernel.abilities_on(demands.device), demands)
    yield from _kernel_and_demands(layer, layer.kernel.abilities_on(demands.device), demands)


def _position_and_attention(layer: Layer) -> Iterator[Violation]:
    position, able = layer.position, layer.attention.abilities
    names = f"position {layer.names['position']!r} {{}}, and attention {layer.names['attention']!r} {{}}."
    if layer.own_position and type(position).embed is not Position.embed:
        what = f"position {layer.names['position']!r} is added to the embedding and cannot be a single layer's."
        yield Violation("position", "", what)
    if type(position).rotate is not Position.rotate and able.rotate is False:
        yield Violation("position", "attention", names.format("rotates queries and keys", "has none to rotate"))
    if position.temperature != 1.0 and able.temperature is False:
        yield Violation("position", "attention", names.format("divides the scores", "has no scores"))
    if position.bias is not None and able.bias is not None and not able.bias & bias_views(position):
        yield Violation("position", "attention", names.format("adds a score bias", "has no scores"))


def bias_views(position: Position) -> frozenset[str]:
    """The views of its bias that a position offers."""
    if position.bias is None:
        return frozenset()
    views = {"dense", "pointwise"} | ({"slopes"} if hasattr(position, "slopes") else set())
    declared = position.abilities.bias
    return frozenset(views if declared is None else views & declared)


def _attention_and_demands(layer: Layer, demands: Demands) -> Iterator[Violation]:
    able, name = layer.attention.abilities, layer.names["attention"]
    if demands.documents and able.documents is False:
        yield Violation("attention", "", f"attention {name!r} cannot keep documents apart (data.documents).")
    yield from _runs_on("attention", name, able, demands)


def _runs_on(slot: str, name: str, able: Abilities, demands: Demands) -> Iterator[Violation]:
    if able.forward is not None and demands.device not in able.forward:
        yield Violation(slot, "", f"{slot} {name!r} does not run on {demands.device}.")
    elif demands.training and able.backward is not None and demands.device not in able.backward:
        yield Violation(slot, "", f"{slot} {name!r} cannot be trained on {demands.device}.")
    if able.dtypes is not None and demands.precision not in able.dtypes:
        yield Violation(slot, "", f"{slot} {name!r} does not take {demands.precision} on {demands.device}.")


def _kernel_and_parts(layer: Layer, able: Abilities, demands: Demands) -> Iterator[Violation]:
    kernel, attention, position = (layer.names[slot] for slot in ("kernel", "attention", "position"))
    needs, on = layer.attention.needs(), f"kernel {kernel!r} on {demands.device}"
    asks = f"attention {attention!r} {{}}, which {on} cannot do."
    for needed, has, what in (
        (needs.gqa, able.gqa, "has fewer key/value heads than query heads"),
        (needs.window, able.window, "has a mask of its own"),
        (needs.softcap, able.softcap, "caps its scores"),
        (needs.ready_bias, able.ready_bias, "adds a bias of its own"),
        (needs.bias_grad and demands.training, able.bias_grad, "learns a bias of its own"),
        (needs.lse, able.lse, "reads the log-sum-exp"),
        (needs.v_width, able.v_width, "has values of another width than its keys"),
    ):
        if needed and not has:
            yield Violation("kernel", "attention", asks.format(what))
    if position_bias := bias_views(layer.position):
        if not position_bias & (able.bias or frozenset()):
            yield Violation("kernel", "position", f"position {position!r} adds a score bias, which {on} cannot do.")
        elif layer.position.bias_has_weights and demands.training and not able.bias_grad:
            what = f"position {position!r} learns its score bias, which {on} gives no gradient."
            yield Violation("kernel", "position", what)


def _kernel_and_demands(layer: Layer, able: Abilities, demands: Demands) -> Iterator[Violation]:
    name, head_dim = layer.names["kernel"], layer.attention.needs().head_dim
    stated = replace(able, forward=able.forward or frozenset(), backward=able.backward or frozenset())
    yield from _runs_on("kernel", name, replace(stated, dtypes=able.dtypes or frozenset()), demands)
    on = f"kernel {name!r} on {demands.device}"
    if demands.documents and not able.documents:
        yield Violation("kernel", "", f"{on} cannot keep documents apart (data.documents).")
    if demands.dropout and demands.training and not able.dropout:
        yield Violation("kernel", "", f"{on} has no dropout (model.dropout).")
    if able.max_head_dim is not None and head_dim > able.max_head_dim:
        yield Violation("kernel", "", f"{on} takes heads of at most {able.max_head_dim}, not {head_dim}.")
    if able.head_dim_multiple is not None and head_dim % able.head_dim_multiple:
        what = f"{on} takes heads whose width is a multiple of {able.head_dim_multiple}, {head_dim} is not."
        yield Violation("kernel", "", what)
