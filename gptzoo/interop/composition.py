"""A model's recipe with nothing left open, so that models of equal function look equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from gptzoo.assembly import as_plain
from gptzoo.building import Plan, build_model
from gptzoo.diffing import flat
from gptzoo.model import Model
from gptzoo.recipe.schema import LayerRecipe, Part

T = TypeVar("T")

_SAME = {"multi_head": "grouped_query", "multi_query": "grouped_query"}
"""Attentions that are another one with a certain `n_kv_head`."""


class Composition:
    """What a model computes from its weights, in the words of a recipe.

    Dropout, initial values and kernels are no part of it. Options that a recipe leaves to the component have the values
    that it chose.

    Args:
        made: The recipe, with the size of its vocabulary.
    """

    def __init__(self, made: Plan) -> None:
        self.made = made
        recipe = made.recipe.model
        self.model: Model = build_model(made, meta=True)
        dims = self.model.dims
        self.sizes = {
            name: getattr(dims, name)
            for name in ("n_layer", "n_head", "n_embd", "head_dim", "context_length", "vocab_size")
        }
        self.ends: dict[str, dict[str, object]] = {"norm": _plain(recipe.norm), "head": _plain(recipe.head)}
        self.bias = recipe.bias
        attentions = list(self.model.attentions)
        positions = [self.model.positions[used] for used in self.model.layer_positions]
        stacked = zip(recipe.layers, self.model.layers, attentions, positions, strict=True)
        self.layers = [self._layer(*parts) for parts in stacked]

    def _layer(
        self, layer: LayerRecipe, block: nn.Module, built: nn.Module, position: nn.Module
    ) -> dict[str, dict[str, object]]:
        parts = {slot: _plain(getattr(layer, slot)) for slot in ("attention", "position", "mlp", "norm", "block")}
        attention = parts["attention"]
        _close(attention, built)
        _close(parts["position"], position)
        _close(parts["mlp"], getattr(block, "mlp", None))
        if attention["name"] in _SAME:
            attention |= {"name": _SAME[str(attention["name"])], "n_kv_head": getattr(built, "n_kv_head", None)}
        if "bias" in attention and attention["bias"] is None:
            attention["bias"] = self.bias
        return parts

    def size(self, name: str) -> int:
        """`n_layer`, `n_head`, `n_embd`, `head_dim`, `context_length` or `vocab_size`."""
        return self.sizes[name]

    def name(self, slot: str, layer: int = 0) -> str:
        """The part that stands in a slot."""
        return str(self._part(slot, layer)["name"])

    def option(self, slot: str, name: str, default: T, layer: int = 0) -> T:
        """An option of the part in a slot, if it has one of this type."""
        value = self._part(slot, layer).get(name, default)
        if isinstance(default, float) and type(value) is int:
            return float(value)  # type: ignore[return-value]
        return value if type(value) is type(default) else default  # type: ignore[return-value]

    def _part(self, slot: str, layer: int) -> dict[str, object]:
        return self.ends[slot] if slot == "head" else self.layers[layer][slot]


def differences(ours: Composition, theirs: Composition) -> list[tuple[str, object, object]]:
    """Recipe keys in which two models compute something else, with both values; every layer's key once."""
    found: dict[str, tuple[object, object]] = {}
    for name, size in ours.sizes.items():
        if size != theirs.sizes[name]:
            found[f"model.{name}"] = (size, theirs.sizes[name])
    if ours.bias != theirs.bias:
        found["model.bias"] = (ours.bias, theirs.bias)
    for slot in ours.ends:
        found |= _between(ours.ends[slot], theirs.ends[slot], f"model.{slot}")
    for one, other in zip(ours.layers, theirs.layers, strict=False):
        for slot in one:
            for key, values in _between(one[slot], other[slot], f"model.{slot}").items():
                found.setdefault(key, values)
    return [(key, one, other) for key, (one, other) in found.items()]


def _between(one: Mapping[str, object], other: Mapping[str, object], key: str) -> dict[str, tuple[object, object]]:
    if one["name"] != other["name"]:
        return {key: (one["name"], other["name"])}
    first, second = flat(dict(one), key), flat(dict(other), key)
    pairs = {each: (first.get(each), second.get(each)) for each in {**first, **second}}
    return {each: pair for each, pair in pairs.items() if not _equal(*pair)}


def _equal(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return one == other


def _plain(part: Part) -> dict[str, object]:
    return {name: value for name, value in as_plain(part).items() if name != "chunk"}  # how a head's loss is computed


def _close(part: dict[str, object], built: object) -> None:
    """Give open options the values that the built part chose for itself."""
    for name, value in part.items():
        chosen = getattr(built, name, None)
        if value is None and type(chosen) in (int, float):
            part[name] = chosen
