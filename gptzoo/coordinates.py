"""The coordinate check: how the size of what a model computes grows with its width, after a few steps of training.

In muP nothing grows or vanishes; whatever does, is parametrised wrongly for its width (arXiv:2203.03466, appendix D.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gptzoo.building import (
    RecipeLike,
    build_data,
    build_model,
    build_optimizer,
    build_tokenizer,
    plan,
    with_vocab_size,
)
from gptzoo.errors import GPTZooError
from gptzoo.model import Model

WATCHED = ("attention", "mlp")
"""What of each block is looked at, beside its output."""

Coordinates = Mapping[str, Sequence[float]]
"""For each tensor by name, its root mean square at each width."""


def coordinate_check(
    recipe: RecipeLike,
    widths: Sequence[int],
    *,
    steps: int = 10,
    seeds: Sequence[int] = (0,),
    overrides: Mapping[str, object] | None = None,
    plugins: Sequence[str] = (),
) -> dict[str, list[float]]:
    """The root mean square of each watched tensor at each width, after training; the mean of its log over seeds.

    Watched are the embedding, each block's attention, MLP and output, and the logits. Heads keep their width, so that
    there are more of them in wider models. Every step has the peak learning rate.

    Args:
        recipe: A path, a shipped name or a mapping.
        widths: Values of n_embd, multiples of the recipe's head_dim.
        steps: Updates before looking.
        seeds: Of the recipe.
        overrides: Recipe keys, dotted.
        plugins: Modules or files of plugins.

    Raises:
        GPTZooError: The recipe is wrong, or cannot have one of the widths.
    """
    first = plan(recipe, overrides or {}, plugins=plugins).recipe.model
    head_dim = first.head_dim or first.n_embd // first.n_head
    if misfit := [width for width in widths if width < 1 or width % head_dim]:
        raise GPTZooError(f"{misfit[0]} is not a multiple of head_dim {head_dim}.", "widths")
    logs: dict[str, list[float]] = {}
    for width in widths:
        sizes = {"model.n_embd": width, "model.n_head": width // head_dim, "model.head_dim": head_dim}
        found = [_after(recipe, {**(overrides or {}), **sizes, "seed": seed}, steps, plugins) for seed in seeds]
        for name in found[0]:
            logs.setdefault(name, []).append(float(np.mean([math.log(each[name]) for each in found])))
    return {name: [math.exp(log) for log in each] for name, each in logs.items()}


def slopes(coordinates: Coordinates, widths: Sequence[int]) -> dict[str, float]:
    """d log(root mean square) / d log(width) of each tensor, by least squares: 0 where width makes no difference."""
    x = np.log(widths)
    return {name: float(np.polyfit(x, np.log(sizes), 1)[0]) for name, sizes in coordinates.items()}


def _after(recipe: RecipeLike, overrides: Mapping[str, object], steps: int, plugins: Sequence[str]) -> dict[str, float]:
    made = plan(recipe, overrides, plugins=plugins)
    tokenizer = build_tokenizer(made)
    data = build_data(made, tokenizer)
    made = with_vocab_size(made, tokenizer)
    model = build_model(made).to(made.device).train()
    optimizer, train = build_optimizer(made, model), made.recipe.train
    for step in range(steps):
        batch = data.batch("train", made.recipe.seed, step, train.batch_size)
        loss = model.loss(batch.tokens.to(made.device), batch.targets.to(made.device))
        torch.stack([loss.total / loss.tokens, *loss.added.values()]).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), math.inf if train.clip is None else train.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    batch = data.batch("val", 0, 0, train.batch_size)
    with _watching(model.eval()) as sizes, torch.no_grad():
        model(batch.tokens.to(made.device))
    return sizes


@contextmanager
def _watching(model: Model) -> Iterator[dict[str, float]]:
    """The root mean squares of what the watched modules put out while inside."""
    sizes: dict[str, float] = {}
    watched: dict[str, nn.Module] = {"embedding": model.wte, "logits": model.head}
    for index, block in enumerate(model.layers):
        parts = {name: getattr(block, name) for name in WATCHED if isinstance(getattr(block, name, None), nn.Module)}
        watched |= {f"layer {index}": block, **{f"layer {index} {name}": part for name, part in parts.items()}}

    def hook(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            sizes[name] = float(output.double().square().mean().sqrt())

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in watched.items()]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
