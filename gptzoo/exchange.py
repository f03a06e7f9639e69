"""`gptzoo import` and `gptzoo export`: from others' files to a run, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from gptzoo.errors import GPTZooError, any_of

if TYPE_CHECKING:
    from gptzoo.building import Overrides, Plan
    from gptzoo.contracts import Tokenizer

FORMATS = ("transformers", "hub-mixin", "gguf")
NewParser = Callable[[str], ArgumentParser]


@dataclass(frozen=True)
class Imported:
    """A run made from others' weights.

    Args:
        path: Its folder.
        parameters: How many there are.
        tokenizer: Its name in the recipe.
    """

    path: Path
    parameters: int
    tokenizer: str


def import_run(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    overrides: Overrides = (),
) -> Imported:
    """Make a run of a model that others trained: recipe, weights and tokenizer. It is whole or not there.

    Generate from it, evaluate it, or start a training from it with `train.init_from`.

    Args:
        source: As `from_pretrained` takes it, or a checkpoint of nanoGPT: of a pickle, the tensors alone are read.
        out: The run's folder, which must not exist.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        overrides: Recipe keys, dotted, as pairs of raw YAML or a mapping.

    Raises:
        GPTZooError: There is no such model, no recipe can express it, or the folder cannot be written.
    """
    from gptzoo.building import build_model, plan
    from gptzoo.interop.exporting import new_folder
    from gptzoo.interop.pretrained import read_source, tokenizer_for
    from gptzoo.transfer import misfits

    found, out = read_source(source, pickles=True), Path(out)
    made = plan(found.recipe, overrides, plugins=plugins, folders=folders, training=False)
    tokenizer = tokenizer_for(made, found)
    if tokenizer is None:
        raise GPTZooError("its tokenizer is not known. Name one: --data.tokenizer gpt2, or byte.", str(source))
    wanted = build_model(made, meta=True).state_dict()
    if problem := misfits(wanted, found.tensors):
        raise GPTZooError(f"its weights do not fit the model: {problem}. Leave out what changes it.", str(source))
    if tokenizer.learned:
        made = _with_tokenizer_at(made, out / "tokenizer")
    with new_folder(out, need=sum(tensor.nbytes for tensor in found.tensors.values())) as folder:
        _write_run(folder, made, found.tensors, tokenizer, str(source))
    part = made.recipe.data.options["tokenizer"]
    return Imported(out, sum(tensor.numel() for tensor in wanted.values()), getattr(part, "name", ""))


def _with_tokenizer_at(made: Plan, folder: Path) -> Plan:
    """The recipe with the run's own copy of the tokenizer, for those that name a file."""
    from gptzoo.recipe.schema import Part

    data = made.recipe.data
    part = data.options["tokenizer"]
    assert isinstance(part, Part)
    if "path" not in part.options:
        return made
    own = replace(part, options={**part.options, "path": str(folder)})
    return replace(made, recipe=replace(made.recipe, data=replace(data, options={**data.options, "tokenizer": own})))


def _write_run(folder: Path, made: Plan, tensors: dict, tokenizer: Tokenizer, source: str) -> None:
    from gptzoo.environment import environment
    from gptzoo.recipe.typed import as_yaml
    from gptzoo.runs import RunDirectory
    from gptzoo.runs.checkpoint import Checkpoint

    optimizer: dict[str, object] = {"state": {}, "param_groups": []}
    with RunDirectory.create(folder) as run:
        facts = environment(made.recipe, made.zoo, made.device, data_key="")
        run.write_environment({**facts, "imported": source, "changes": []})
        run.save(Checkpoint(0, tensors, {}, optimizer, {}, {"imported": source}))
        if tokenizer.learned:
            run.tokenizer_path.mkdir()
            tokenizer.save(run.tokenizer_path)
        run.write_recipe(as_yaml(made.recipe))
    (folder / ".lock").unlink()  # names a process that held another name of this folder


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "transformers",
    step: int | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> str:
    """Write a trained model in a form that others read. It is whole or not there.

    Args:
        run: The folder of a run.
        out: The new folder, or file.
        format: `transformers`: the architecture of theirs that computes the same, with its tokenizer, for
            `AutoModelForCausalLM.from_pretrained`; `hub-mixin`: any composition, for `gptzoo.from_pretrained`;
            `gguf`: one file for llama.cpp.
        step: Which checkpoint; the newest unless given.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.

    Returns:
        The architecture.

    Raises:
        GPTZooError: The format cannot express the model: slot and key are named; or it cannot be written.
    """
    from gptzoo.interop.exporting import write_transformers
    from gptzoo.running import load_with_plan

    if format not in FORMATS:
        raise GPTZooError(f"there is no format {format!r}. Use {any_of(FORMATS)}.", "--format")
    model, made = load_with_plan(run, step=step, plugins=plugins, folders=folders)
    if format == "hub-mixin":
        from gptzoo.interop.hub_model import write_hub_model

        write_hub_model(model, made, Path(out))
        return "gptzoo"
    if format == "gguf":
        from gptzoo.interop.gguf import write_gguf

        return write_gguf(model, made, Path(out))
    return write_transformers(model, made, Path(out)).model_type


# -- the command line ------------------------------------------------------------------------------------------------


def import_parser(new: NewParser) -> ArgumentParser:
    """The parser of `gptzoo import`."""
    parser = new("Make a run of a model that others trained: recipe, weights and tokenizer.")
    parser.add_argument(
        "source", type=str, help="hf:NAME, a folder that transformers or gptzoo export wrote, a .gguf, or nanoGPT's .pt"
    )
    parser.add_argument("--out", type=str, required=True, help="the run's folder, which must not exist yet")
    return parser


def export_parser(new: NewParser) -> ArgumentParser:
    """The parser of `gptzoo export`."""
    parser = new("Write a trained model in a form that others read.")
    parser.add_argument("run", type=str, help="the folder of a run")
    parser.add_argument("--out", type=str, required=True, help="the folder or file to write, which must not exist yet")
    parser.add_argument("--format", type=str, default="transformers", help=any_of(FORMATS))
    parser.add_argument("--step", type=int | None, default=None, help="use the checkpoint of this step")
    return parser


def run_import(options: Namespace, overrides: list[tuple[str, str]]) -> int:
    """`gptzoo import`."""
    done = import_run(options.source, options.out, plugins=options.plugin, folders=options.plugins, overrides=overrides)
    print(f"wrote {done.path}: {done.parameters:,} parameters, recipe in {done.path / 'recipe.yaml'}")
    print(f'tokenizer {done.tokenizer}; try it: gptzoo generate {done.path} "Once upon a time" --greedy')
    return 0


def run_export(options: Namespace) -> int:
    """`gptzoo export`."""
    kind = export(
        options.run,
        options.out,
        format=options.format,
        step=options.step,
        plugins=options.plugin,
        folders=options.plugins,
    )
    print(f"wrote {options.out} as {kind}")
    return 0
