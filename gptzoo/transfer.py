"""Putting named tensors into a model: all of them, or, where asked, those that fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptzoo.errors import GPTZooError


@dataclass(frozen=True)
class Transfer:
    """What became of the weights.

    Args:
        taken: The model's weights that were given.
        initialised: Those that were not, and stay as they are.
        dropped: Weights given for nothing, each with the reason.
    """

    taken: tuple[str, ...]
    initialised: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], *, partial: bool = False, source: str = ""
) -> Transfer:
    """Copy tensors into the weights of the same names, in the model's own precision. Refused, it changes nothing.

    Args:
        model: Its names are those of its `state_dict`; a weight with several names goes by the first.
        tensors: By these names.
        partial: Take what fits by name and shape, leave the rest; otherwise each weight needs its tensor, and each
            tensor its weight.
        source: Where the tensors come from, for messages.

    Raises:
        GPTZooError: They do not fit, are not finite in the model's precision, or, with `partial`, none fits.
    """
    own = _weights_of(model)
    dropped = {name: why for name, tensor in tensors.items() if (why := _misfit(own.get(name), tensor))}
    taken = [name for name in own if name in tensors and name not in dropped]
    if not partial and (problem := misfits(own, tensors)):
        raise GPTZooError(f"the weights do not fit the model: {problem}.{_remedy(taken)}", source)
    if partial and not taken:
        raise GPTZooError(f"none of its {len(tensors)} weights fits the model: {misfits(own, tensors)}.", source)
    if infinite := _not_finite({name: own[name] for name in taken}, tensors):
        raise GPTZooError(f"weights are damaged: {_counted(infinite, 'not finite')}.", source)
    with torch.no_grad():
        for name in taken:
            own[name].copy_(tensors[name])
    return Transfer(tuple(taken), tuple(name for name in own if name not in taken), tuple(dropped.items()))


def misfits(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What keeps tensors from being just the wanted ones, in words; empty if nothing does.

    Args:
        wanted: Of these names, shapes, and precisions; their values do not matter.
        tensors: What there is.
    """
    common = {name: own for name, own in wanted.items() if name in tensors}
    fitting = {name: own for name, own in common.items() if not _misfit(own, tensors[name])}
    found = {
        "missing": [name for name in wanted if name not in tensors],
        "unknown here": [name for name in tensors if name not in wanted],
        "of another kind": [f"{n}: {_misfit(own, tensors[n])}" for n, own in common.items() if n not in fitting],
        "not finite": _not_finite(fitting, tensors),
    }
    return ", ".join(_counted(names, what) for what, names in found.items() if names)


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if first.setdefault(id(tensor), name) == name}


def _misfit(own: Tensor | None, tensor: Tensor) -> str:
    if own is None:
        return "unknown here"
    if own.shape != tensor.shape:
        return f"shape {tuple(tensor.shape)} is not {tuple(own.shape)}"
    if own.is_floating_point() != tensor.is_floating_point() or own.is_complex() != tensor.is_complex():
        return f"{_name(tensor.dtype)} is not {_name(own.dtype)}"
    return ""


def _not_finite(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if not bool(tensors[name].to(own[name].dtype).isfinite().all())]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _counted(names: Sequence[str], what: str) -> str:
    """`5 are missing (a, b, c, ...)`."""
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {'is' if len(names) == 1 else 'are'} {what} ({few})"


def _remedy(fitting: Sequence[str]) -> str:
    """What may be done about weights that only partly fit."""
    if not fitting:
        return " Build the model from the recipe that the weights were made with."
    return " To start from those that fit, train with train.init_from and partial: true."
