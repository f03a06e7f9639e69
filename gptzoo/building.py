"""From a resolved recipe to its model, data and optimizer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from gptzoo.assembly import construct, factory, identity_of
from gptzoo.contracts import Attention, Data, Dims, Kernel, Position, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.loading import Loaded, explain_missing, load_plugins
from gptzoo.model import InitFunction, Model, initialise, named_parameters
from gptzoo.recipe.compose import Composed, compose
from gptzoo.recipe.schema import LayerRecipe, Part, Recipe
from gptzoo.recipe.typed import typed
from gptzoo.registry import Zoo
from gptzoo.resolving import dims_of, resolve

RecipeLike = str | os.PathLike[str] | Mapping[str, Any]
Overrides = Sequence[tuple[str, str]] | Mapping[str, object]


@dataclass(frozen=True)
class Plan:
    """A recipe that fits, with all that is needed to build it.

    Args:
        recipe: Typed and resolved; `vocab_size` may still be `auto`.
        loaded: The plugins.
        device: `cpu`, `cuda`, ...
        composed: Where each value came from.
    """

    recipe: Recipe
    loaded: Loaded
    device: torch.device
    composed: Composed

    @property
    def zoo(self) -> Zoo:
        return self.loaded.zoo

    def where(self, key: str) -> str:
        """A recipe key as a place: `recipe.yaml:7: model.position`."""
        return place_of(self.composed, key)


def place_of(composed: Composed, key: str) -> str:
    """A recipe key with the file and line that set it, if one did."""
    path: tuple[str | int, ...] = tuple(key.split("."))
    while path and path not in composed.places:
        path = path[:-1]
    return f"{composed.places[path]}: {key}" if path else key


def plan(
    recipe: RecipeLike,
    overrides: Overrides = (),
    *,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    strict: bool = False,
    training: bool = True,
) -> Plan:
    """Compose, type and resolve a recipe.

    Raises:
        GPTZooError: Whatever is wrong with it, all problems at once.
    """
    return plan_with(load_plugins(plugins, folders, strict=strict), recipe, overrides, training=training)


def plan_with(loaded: Loaded, recipe: RecipeLike, overrides: Overrides = (), *, training: bool = True) -> Plan:
    """`plan` with plugins that are loaded already.

    Raises:
        GPTZooError: Whatever is wrong with the recipe, all problems at once.
    """
    composed = compose(recipe, overrides, defer=True)
    try:
        recipe_ = typed(composed, loaded.zoo)
        device = choose_device(recipe_.train.device)
        resolved = resolve(recipe_, loaded.zoo, device.type, lambda key: place_of(composed, key), training=training)
    except GPTZooError as error:
        raise explain_missing(loaded, error) from None
    return Plan(resolved, loaded, device, composed)


def choose_device(wanted: str) -> torch.device:
    """`auto` is the accelerator if there is one, else the CPU.

    Raises:
        GPTZooError: The device does not exist here.
    """
    if wanted == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        torch.empty(0, device=wanted)
        return torch.device(wanted)
    except (RuntimeError, AssertionError) as error:
        raise GPTZooError(f"there is no device {wanted!r} here. Use auto or cpu.", "train.device") from error


def build(
    recipe: RecipeLike,
    /,
    *,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    training: bool = True,
    overrides: Overrides = (),
    **more: object,
) -> Model:
    """Compose a model: `build("gpt2-tiny", **{"model.position": "rope"})`.

    Args:
        recipe: A path, a shipped name or a mapping.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        training: Whether it must be able to learn; False admits kernels without a backward.
        overrides: Recipe keys, dotted; as pairs of raw YAML, or a mapping.
        more: The same, as keywords.

    Raises:
        GPTZooError: The recipe is wrong or its parts do not fit.
    """
    made = plan(recipe, more or overrides, plugins=plugins, folders=folders, training=training)
    tokenizer = build_tokenizer(made)
    if made.recipe.model.vocab_size == "auto" and tokenizer.learned:
        build_data(made, tokenizer)  # a learned tokenizer knows its size once it has seen the corpus
    return build_model(with_vocab_size(made, tokenizer))


def build_tokenizer(made: Plan) -> Tokenizer:
    """The recipe's tokenizer; a learned one is not fitted yet."""
    part = made.recipe.data.options["tokenizer"]
    assert isinstance(part, Part)
    tokenizer = construct(part, made.zoo, where=made.where("data.tokenizer"))
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def build_data(made: Plan, tokenizer: Tokenizer) -> Data:
    """The recipe's data, tokenized; fits a learned tokenizer that is not fitted yet."""
    recipe = made.recipe
    data = construct(recipe.data, made.zoo, tokenizer, recipe.model.context_length, where=made.where("data"))
    assert isinstance(data, Data)
    return data


def with_vocab_size(made: Plan, tokenizer: Tokenizer) -> Plan:
    """The plan with `vocab_size: auto` replaced by the tokenizer's.

    Raises:
        GPTZooError: The recipe's number is smaller than the tokenizer's.
    """
    wanted = made.recipe.model.vocab_size
    if wanted != "auto" and wanted < tokenizer.vocab_size:
        raise GPTZooError(
            f"{wanted} is smaller than the tokenizer's {tokenizer.vocab_size}. Write auto.",
            made.where("model.vocab_size"),
        )
    size = tokenizer.vocab_size if wanted == "auto" else wanted
    return replace(made, recipe=replace(made.recipe, model=replace(made.recipe.model, vocab_size=size)))


def build_model(made: Plan, *, meta: bool = False) -> Model:
    """The model, initialised from the recipe's seed, on the CPU; on the meta device for counting.

    Raises:
        GPTZooError: A part's constructor refuses its options.
    """
    model = made.recipe.model
    assert model.vocab_size != "auto", "the tokenizer's size comes first"
    dims = dims_of(model, model.vocab_size)
    with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
        assembled = _assemble(made, dims)
        if not meta:
            initialise(assembled, _init(made), made.recipe.seed)
    return assembled


def _init(made: Plan) -> InitFunction:
    init = construct(made.recipe.model.init, made.zoo, where=made.where("model.init"))
    assert callable(init)
    return cast(InitFunction, init)


def _assemble(made: Plan, dims: Dims) -> Model:
    model, zoo = made.recipe.model, made.zoo
    positions = _Positions(made, dims)
    layers, used, kernels = [], [], []
    for index, layer in enumerate(model.layers):
        attention = _attention(made, layer, dims.at(index))
        mlp = construct(layer.mlp, zoo, dims.at(index), where=made.where("model.mlp"))
        norm = factory(layer.norm, zoo, made.where("model.norm"))
        block = construct(layer.block, zoo, dims.at(index), attention, mlp, norm, where=made.where("model.block"))
        assert isinstance(block, nn.Module)
        layers.append(block)
        used.append(positions.index_of(layer.position, attention.rotate_dim, index))
        kernels.append(None if attention.kernels == () else _kernel(made, layer))
    norm_f = factory(model.norm, zoo, made.where("model.norm"))(dims.n_embd)
    assert isinstance(norm_f, nn.Module)
    head = factory(model.head, zoo, made.where("model.head"))
    return Model(
        dims,
        layers=layers,
        positions=positions.modules,
        layer_positions=used,
        embedding_position=positions.embedding,
        kernels=kernels,
        norm_f=norm_f,
        head=head,  # type: ignore[arg-type]
    )


def _attention(made: Plan, layer: LayerRecipe, dims: Dims) -> Attention:
    attention = construct(layer.attention, made.zoo, dims, where=made.where("model.attention"))
    assert isinstance(attention, Attention)
    attention.key = identity_of(layer.attention)  # type: ignore[assignment]  # equal layers share their dense masks
    return attention


def _kernel(made: Plan, layer: LayerRecipe) -> Kernel:
    kernel = construct(layer.kernel, made.zoo, where=made.where("model.kernel"))
    assert isinstance(kernel, Kernel)
    kernel.name = layer.kernel.name
    return kernel


class _Positions:
    """Equal positional encodings are one module, unless they are `shared: false`."""

    def __init__(self, made: Plan, dims: Dims) -> None:
        self.made, self.dims = made, dims
        self.modules: list[Position] = []
        self.known: dict[tuple[str, int, int], int] = {}
        self.embedding: int | None = None

    def index_of(self, part: Part, rotate_dim: int, layer: int) -> int:
        """Where the layer's encoding stands in `modules`; it is made if it is new."""
        key = (identity_of(part), rotate_dim, -1 if part.options.get("shared", True) else layer)
        if key not in self.known:
            self.known[key] = len(self.modules)
            self.modules.append(self._make(part, rotate_dim, layer))
        if self.embedding is None and identity_of(part) == identity_of(self.made.recipe.model.position):
            self.embedding = self.known[key]  # the model's own encoding, which alone may embed
        return self.known[key]

    def _make(self, part: Part, rotate_dim: int, layer: int) -> Position:
        where = self.made.where("model.position")
        position = construct(part, self.made.zoo, self.dims.at(layer), rotate_dim, where=where)
        assert isinstance(position, Position)
        return position


def build_optimizer(made: Plan, model: Model) -> torch.optim.Optimizer:
    """The recipe's optimizer over the model's parameters, each once."""
    train = made.recipe.train
    where = made.where("train.optimizer")
    optimizer = construct(train.optimizer, made.zoo, named_parameters(model), train.learning_rate, where=where)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer
