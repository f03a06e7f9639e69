"""Name maps: which of their tensors hold which of ours, and in what form. Each form can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """One tensor of theirs as one of ours, as it is. Subclasses say what else it may be."""

    def split(self, theirs: Tensor, parts: int) -> Sequence[Tensor]:
        """Their tensor as our `parts` ones."""
        return [theirs]

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """Our tensors as their one: the inverse."""
        return ours[0]


@dataclass(frozen=True)
class Columns(Form):
    """GPT-2's Conv1D: a matrix stored as (in, out), with q, k and v side by side."""

    def split(self, theirs: Tensor, parts: int) -> Sequence[Tensor]:
        return theirs.t().chunk(parts)  # .t() leaves a vector as it is

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(ours)).t()


@dataclass(frozen=True)
class Rows(Form):
    """Matrices one below the other, as (out, in)."""

    def split(self, theirs: Tensor, parts: int) -> Sequence[Tensor]:
        return theirs.chunk(parts)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(ours))


@dataclass(frozen=True)
class HeadByHead(Form):
    """q, k and v of the first head, then those of the second, and so on, as in GPT-NeoX.

    Args:
        n_head: Heads.
    """

    n_head: int

    def split(self, theirs: Tensor, parts: int) -> Sequence[Tensor]:
        apart = rearrange(theirs, "(h n d) ... -> n (h d) ...", h=self.n_head, n=parts)
        return list(apart)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return rearrange(torch.stack(list(ours)), "n (h d) ... -> (h n d) ...", h=self.n_head)


@dataclass(frozen=True)
class Linear(Form):
    """Ours = (theirs + offset) * factor, in float32 at least: what an architecture computes from its weight each time.

    Args:
        offset: 1 for a norm that scales by 1 + w.
        factor: For an embedding that is scaled.
    """

    offset: float = 0.0
    factor: float = 1.0

    def split(self, theirs: Tensor, parts: int) -> Sequence[Tensor]:
        return [(_raised(theirs) + self.offset) * self.factor]

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        return _raised(ours[0]) / self.factor - self.offset


def _raised(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True)
class Weight:
    """One tensor of theirs and what it holds of ours; `{}` in a name stands for the layer.

    Args:
        theirs: Its name, without the prefix that a model with a head adds.
        ours: One name, or several that are fused there.
        form: How.
    """

    theirs: str
    ours: tuple[str, ...]
    form: Form = Form()

    def at(self, layer: int) -> Weight:
        """The same for one layer."""
        return replace(self, theirs=self.theirs.format(layer), ours=tuple(name.format(layer) for name in self.ours))


def modules(table: Mapping[str, str | tuple[str, ...]], form: Form = Form()) -> list[Weight]:
    """Weight and bias of modules: their name -> ours, or those of ours that are fused there."""
    named = {theirs: (ours,) if isinstance(ours, str) else ours for theirs, ours in table.items()}
    return [
        Weight(f"{theirs}.{kind}", tuple(f"{name}.{kind}" for name in ours), form)
        for theirs, ours in named.items()
        for kind in ("weight", "bias")
    ]


class NameMap:
    """A family's table applied to one model.

    Args:
        table: The family's weights.
        own: The model's weights by name; they may be on the meta device.
        n_layer: Its layers.
    """

    def __init__(self, table: Sequence[Weight], own: Mapping[str, Tensor], n_layer: int) -> None:
        layers = [w.at(layer) for w in table if "{}" in w.theirs for layer in range(n_layer)]
        known = [w for w in table if "{}" not in w.theirs] + layers
        self.weights = {w.theirs: w for w in known if all(name in own for name in w.ours)}
        covered = {name for w in self.weights.values() for name in w.ours}
        self.uncovered = [name for name in own if name not in covered]
        self.wanted = self.theirs(own)

    def theirs(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our weights in their form."""
        return {name: w.form.join([own[each] for each in w.ours]) for name, w in self.weights.items()}

    def ours(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their weights, which must be the wanted ones, in our form."""
        made: dict[str, Tensor] = {}
        for name, w in self.weights.items():
            made |= zip(w.ours, w.form.split(tensors[name], len(w.ours)), strict=True)
        return made
