"""What a run was made with: versions, threads, device, kernels, plugins. Numbers are comparable where these agree."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gptzoo import NUMERICS_VERSION, __version__
from gptzoo.contracts import Kernel
from gptzoo.model import Model
from gptzoo.precision import autocast
from gptzoo.recipe.schema import Part, Recipe
from gptzoo.registry import Owner, Zoo

FUSED = {
    "_scaled_dot_product_flash_attention_for_cpu": "flash (cpu)",
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_fused_attention_overrideable": "fused",
}
"""torch's fused attention operators, and what `Sdpa.backend` calls them. Where none ran, the plain formula did."""


def environment(recipe: Recipe, zoo: Zoo, device: torch.device, data_key: str) -> dict[str, object]:
    """Everything beside the recipe that the numbers of a run may depend on, plain JSON."""
    return {
        "gptzoo": __version__,
        "numerics": NUMERICS_VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("numpy", "safetensors", "tiktoken")},
        "libraries": {name: metadata.version(name) for name in libraries(recipe, zoo)},
        "threads": torch.get_num_threads(),
        "cpu": _cpu(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "precision": recipe.train.precision,
        "compile": recipe.train.compile,
        "data_key": data_key,
        "plugins": [_as_json(owner) for owner in owners(recipe, zoo)],
        "git": _git(),
    }


DECIDES = ("numerics", "torch", "threads", "cpu", "device", "precision", "compile")
"""What bit-exactness depends on, beside the libraries of parts: a resume under another value of these is warned of."""


def changes(before: dict[str, object], now: dict[str, object]) -> list[str]:
    """`torch threads 2 -> 1`, for everything that bit-exactness depends on."""
    first, second = _decisive(before), _decisive(now)
    return [f"{key} {first.get(key)} -> {value}" for key, value in second.items() if first.get(key) != value]


def _decisive(environment: Mapping[str, object]) -> dict[str, object]:
    libraries = environment.get("libraries", {})
    assert isinstance(libraries, Mapping), "as it is written"
    return {**{key: environment.get(key) for key in DECIDES}, **libraries}


def parts_of(recipe: Recipe) -> Iterator[Part]:
    """Every component that a recipe names, the nested ones too."""
    model, train = recipe.model, recipe.train
    tops: list[Part] = [model.attention, model.kernel, model.position, model.norm, model.mlp, model.block, model.head]
    tops += [model.init, recipe.data, train.optimizer, train.schedule, *train.loggers]
    for layer in model.layers:
        tops += [layer.attention, layer.kernel, layer.position, layer.mlp, layer.norm, layer.block]
    yield from _with_nested(tops)


def _with_nested(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from _with_nested(value for value in part.options.values() if isinstance(value, Part))


def owners(recipe: Recipe, zoo: Zoo) -> list[Owner]:
    """The plugins whose components a recipe uses, sorted."""
    found = {zoo.get(part.slot, part.name).owner for part in parts_of(recipe) if part.name != "auto"}
    return sorted(found, key=lambda owner: (owner.origin, owner.plugin))


def libraries(recipe: Recipe, zoo: Zoo) -> list[str]:
    """The packages that compute for a recipe's components, sorted."""
    entries = [zoo.get(part.slot, part.name) for part in parts_of(recipe) if part.name != "auto"]
    return sorted({name for entry in entries for name in entry.libraries})


def _as_json(owner: Owner) -> dict[str, str]:
    return {"plugin": owner.plugin, "origin": owner.origin, "version": owner.version, "sha256": owner.sha256}


class Operators(TorchDispatchMode):
    """Notes which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # torch's own signature
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Watched(Kernel):
    """A kernel, and what it came down to each time it ran."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ran: list[str] = []

    def __call__(self, q: Tensor, *args: Any, **kwargs: Any) -> Any:
        told = self.kernel.runs_as(q.device.type)
        if told is not None:
            self.ran.append(told)
            return self.kernel(q, *args, **kwargs)
        with Operators() as operators:
            out = self.kernel(q, *args, **kwargs)
        fused = [FUSED[name] for name in operators.names if name in FUSED]
        self.ran.append(fused[0] if fused else "plain")
        return out


def kernels_that_run(model: Model, precision: str) -> list[str]:
    """For each layer, its kernel and what that comes down to here: `sdpa: flash (cpu)`, `naive: plain`.

    One row of full length goes through the model as in training, watched operator by operator.
    """
    kernels, device = list(model.kernels), model.wte.weight.device
    watched = [kernel and _Watched(kernel) for kernel in kernels]
    model.kernels = list(watched)
    try:
        with torch.random.fork_rng(devices=[]), autocast(device.type, precision):
            model.train().hidden(torch.zeros(1, model.dims.context_length, dtype=torch.int64, device=device))
    finally:
        model.kernels = kernels
    return [_description(each) if each else "none" for each in watched]


def _description(watched: _Watched) -> str:
    return f"{watched.kernel.name}: {', '.join(dict.fromkeys(watched.ran))}"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git(command: Sequence[str] = ("git", "describe", "--always", "--dirty", "--abbrev=12")) -> str | None:
    """The state of the checkout that gptzoo runs from, if it is one."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.isdir(os.path.join(folder, ".git")):
        return None
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
