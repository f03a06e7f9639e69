"""`gptzoo show`: a component, a recipe with what it will cost, or a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gptzoo.building import Overrides, Plan, build_data, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.costs import Costs, costs
from gptzoo.diffing import flat, results
from gptzoo.errors import GPTZooError, any_of
from gptzoo.listing import describe, listing
from gptzoo.loading import load_plugins
from gptzoo.recipe.compose import shipped_names
from gptzoo.recipe.typed import as_mapping, as_yaml
from gptzoo.registry import Zoo
from gptzoo.runs import RunDirectory


def show(
    what: str,
    overrides: Overrides = (),
    *,
    as_json: bool = False,
    config_only: bool = False,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> str:
    """What the name stands for, as text or JSON.

    Args:
        what: A component (`rope`, `position.rope`), a recipe (path or shipped name) or the folder of a run.
        overrides: Recipe keys, dotted.
        as_json: As JSON.
        config_only: The resolved recipe alone, as YAML that loads as a recipe.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.

    Raises:
        GPTZooError: Nothing bears this name, or several things do; or the recipe is wrong.
    """
    if Path(what).is_dir():
        return _show_run(Path(what), overrides, as_json, config_only, plugins, folders)
    if _is_component(what, load_plugins(plugins, folders).zoo, config_only):
        entry = load_plugins(plugins, folders).zoo.find(what)
        return (
            json.dumps(listing_of(entry.slot, entry.name, plugins, folders), indent=2) if as_json else describe(entry)
        )
    made = with_size(plan(what, overrides, plugins=plugins, folders=folders))
    if config_only:
        return as_yaml(made.recipe).rstrip("\n")
    return json.dumps(as_data(made), indent=2) if as_json else as_text(made)


def listing_of(slot: str, name: str, plugins: Sequence[str], folders: Sequence[str]) -> dict:
    """What `list --json` says of one component."""
    return next(row for row in listing(load_plugins(plugins, folders).zoo, slot) if row["name"] == name)


def _is_component(what: str, zoo: Zoo, config_only: bool) -> bool:
    """Whether the name is a component's; a name that is also a shipped recipe's is refused."""
    if os.sep in what or what.endswith((".yaml", ".yml")) or config_only:
        return False
    slots = [entry.slot for entry in zoo.entries() if what in (entry.name, *entry.aliases)]
    if slots and what in shipped_names():
        names = [f"{slot}.{what}" for slot in slots]
        raise GPTZooError(f"{what!r} is a component and a recipe. Write {any_of([*names, f'./{what}.yaml'])}.")
    if slots or ("." in what and what not in shipped_names()):
        return True
    if what in shipped_names():
        return False
    zoo_error = _not_found(what, zoo)
    raise zoo_error


def _not_found(what: str, zoo: Zoo) -> GPTZooError:
    from gptzoo.errors import did_you_mean

    known = [word for entry in zoo.entries() for word in (entry.name, *entry.aliases)] + list(shipped_names())
    return GPTZooError(f"no component, recipe or run is called {what!r}.{did_you_mean(what, known)}")


def with_size(made: Plan) -> Plan:
    """The plan with its vocabulary's size; a learned tokenizer has to read its data for that."""
    if made.recipe.model.vocab_size != "auto":
        return made
    tokenizer = build_tokenizer(made)
    if tokenizer.learned:
        build_data(made, tokenizer)
    return with_vocab_size(made, tokenizer)


def costs_of(made: Plan) -> Costs:
    """Parameters, FLOPs and memory of a recipe, counted on the meta device."""
    train = made.recipe.train
    size = train.micro_batch_size or train.batch_size
    return costs(build_model(made, meta=True), micro_batch_size=size, precision=train.precision)


def as_data(made: Plan) -> dict[str, object]:
    """A resolved recipe with the place that set each value, and what it costs, as plain JSON."""
    recipe = as_mapping(made.recipe)
    sources = {key: source_of(made, key) for key in flat(recipe)}
    return {"recipe": recipe, "sources": sources, "kernels": kernels(made), "costs": asdict(costs_of(made))}


def source_of(made: Plan, key: str) -> str:
    """The file and line that set a key, or `default`."""
    places, path = made.composed.places, _as_composed(made, key)
    if path not in places and path[-1] == "name" and path[:-1] in places:
        named: Any = made.composed.tree
        for word in path[:-1]:
            named = named[word]
        path = path if isinstance(named, Mapping) else path[:-1]  # `position: rope` names it without a mapping
    return str(places[path]) if path in places else "default"


def _as_composed(made: Plan, key: str) -> tuple[str | int, ...]:
    """The path of a key in the files: `layers` is shown as the shortest pattern, which may be another than theirs."""
    path: list[Any] = [int(word) if word.isdigit() else word for word in key.split(".")]
    tree: Any = made.composed.tree
    written = tree.get("model", {}).get("layers") or []
    if path[0] == "model" and path[1] == "layers" and len(path) > 2:
        shown: Any = as_mapping(made.recipe)["model"]
        entries = [index for index, entry in enumerate(written) for _ in range(entry.get("repeat", 1))]
        layer = sum(entry["repeat"] for entry in shown["layers"][: path[2]])
        path[2] = entries[layer % len(entries)]
    elif path[0] == "model" and written and all(path[1] in entry for entry in written):
        path[1:1] = ["layers", 0]  # what all layers share is shown as the model's
    return tuple(path)


def kernels(made: Plan) -> list[str]:
    """The kernel of each layer; `none` where the attention mixes by itself."""
    attentions = build_model(made, meta=True).attentions
    pairs = zip(made.recipe.model.layers, attentions, strict=True)
    return ["none" if attention.kernels == () else layer.kernel.name for layer, attention in pairs]


def as_text(made: Plan) -> str:
    """The same for a reader."""
    values = flat(as_mapping(made.recipe))
    width = max(map(len, values))
    rows = [(f"{key:{width}}  {_value(value)}", source_of(made, key)) for key, value in values.items()]
    column = min(72, max(len(row) for row, _ in rows))
    lines = [f"{row:{column}}  {source}".rstrip() for row, source in rows]
    return "\n".join([*lines, "", *_kernel_lines(made), *_cost_lines(made)])


def _value(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kernel_lines(made: Plan) -> list[str]:
    found = kernels(made)
    if len(set(found)) == 1:
        return [f"kernel             {found[0]} in all layers, on {made.device.type}"]
    return [f"kernel             layer {index}: {name}, on {made.device.type}" for index, name in enumerate(found)]


def _cost_lines(made: Plan) -> list[str]:
    counted, train = costs_of(made), made.recipe.train
    slots = ", ".join(f"{slot} {count:,}" for slot, count in counted.by_slot.items() if count)
    tokens = train.steps * train.batch_size * made.recipe.model.context_length
    body = counted.flops_per_token - counted.head_flops_per_token
    return [
        f"parameters         {counted.parameters:,} ({slots})",
        f"FLOPs per token    {counted.flops_per_token:,.4g} forward and backward, of which {body:,.4g} are not the "
        "output matrix's",
        f"training           {tokens:,} tokens, {counted.flops_per_token * tokens:,.4g} FLOPs",
        f"memory             about {counted.memory_bytes / 2**30:.2f} GiB, of which activations "
        f"{counted.activation_bytes / 2**30:.2f} GiB (estimate)",
    ]


def _show_run(
    path: Path,
    overrides: Overrides,
    as_json: bool,
    config_only: bool,
    plugins: Sequence[str],
    folders: Sequence[str],
) -> str:
    directory = RunDirectory.at(path, lock=False)
    if config_only:
        return directory.recipe_path.read_text().rstrip("\n")
    made = plan(directory.recipe_path, overrides, plugins=plugins, folders=folders, training=False)
    environment, last = directory.read_environment(), results(directory)
    if as_json:
        run = {"environment": environment, "results": last, "checkpoints": directory.steps()}
        return json.dumps({**as_data(made), **run}, indent=2)
    steps = ", ".join(map(str, directory.steps())) or "none"
    lines = [as_text(made), f"checkpoints        {steps}"]
    lines += [f"{name:18} {_figure(value)}" for name, value in last.items()]
    lines += [f"{key:18} {environment[key]}" for key in ("torch", "threads", "device", "git") if key in environment]
    ran = environment.get("kernels", [])
    lines += [f"kernels that ran   {', '.join(sorted(set(ran)))}"] if ran else []  # type: ignore[arg-type,call-overload]
    return "\n".join(lines)


def _figure(value: object) -> str:
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
