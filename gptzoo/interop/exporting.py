"""Our models in transformers' form: the architecture that computes the same, its config and its weights.

A config is written as well as it can be, and read again: only if that gives the same model may it leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from gptzoo.building import Plan, plan_with
from gptzoo.contracts import Tokenizer
from gptzoo.errors import GPTZooError, Problems
from gptzoo.files import check_space, make_folder, remove, sync_folder, temporary_name, writing
from gptzoo.interop.composition import Composition, differences
from gptzoo.interop.config import CONFIG, Config, one_line
from gptzoo.interop.families import FAMILIES
from gptzoo.interop.family import Family
from gptzoo.interop.folder import write_json, write_tensors
from gptzoo.interop.tokenizers import write_tokenizer
from gptzoo.interop.weights import NameMap
from gptzoo.model import Model

REMEDY = "Change it, or use --format hub-mixin, which takes everything."


def write_transformers(model: Model, made: Plan, folder: Path) -> Family:
    """Write a model as a folder that `AutoModelForCausalLM.from_pretrained` reads. The folder is whole or not there.

    Args:
        model: With its tokenizer, if it has one.
        made: The recipe that it was built from, with the size of its vocabulary.
        folder: Must not exist.

    Returns:
        The architecture.

    Raises:
        GPTZooError: No architecture of transformers computes this, or the folder cannot be written.
    """
    family, values = expressed(made)
    names = NameMap(family.table(model.dims), model.state_dict(), model.dims.n_layer)
    assert not names.uncovered, f"{family.model_type} has no names for {names.uncovered}"
    weights = {family.full_name(name): tensor.contiguous() for name, tensor in names.theirs(_on_cpu(model)).items()}
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    with new_folder(folder, need=sum(tensor.nbytes for tensor in weights.values())) as made_folder:
        ends = end_tokens(model.tokenizer)
        config = {"architectures": [family.architecture], "model_type": family.model_type, **values, **ends}
        write_json(made_folder / CONFIG, {**config, "torch_dtype": dtype})
        write_tensors(made_folder, weights)
        if model.tokenizer is not None:
            write_tokenizer(model.tokenizer, made_folder, model.dims.context_length)
    return family


def expressed(made: Plan) -> tuple[Family, dict[str, object]]:
    """The first architecture of transformers that computes what a recipe does, with its config.

    Raises:
        GPTZooError: There is none; the keys that keep it from being the nearest one are named.
    """
    composition = Composition(made)
    trials = []
    for family in FAMILIES:
        trials.append(_trial(family, composition))
        if not trials[-1].distance:
            return family, trials[-1].values
    nearest = min(trials, key=lambda trial: trial.distance)
    raise Problems(nearest.problems(made))


@dataclass
class _Trial:
    """A composition as one architecture: what is lost on the way there and back."""

    family: Family
    values: dict[str, object]
    lost: list[tuple[str, object, object]] = field(default_factory=list)
    refused: list[GPTZooError] = field(default_factory=list)

    @property
    def distance(self) -> int:
        return 1000 if self.refused else len(self.lost)  # after a refusal nobody knows what else is lost

    def problems(self, made: Plan) -> list[GPTZooError]:
        kind = f"{self.family.model_type}, the nearest of transformers' architectures"
        found = [
            GPTZooError(f"{_shown(ours)} cannot leave as {kind}, which has {_shown(theirs)}. {REMEDY}", made.where(key))
            for key, ours, theirs in self.lost
        ]
        return found + [GPTZooError(f"it cannot leave as {kind}: {each} {REMEDY}", "model") for each in self.refused]


def _trial(family: Family, composition: Composition) -> _Trial:
    values = family.config_of(composition)
    trial = _Trial(family, values)
    config = Config(values, CONFIG)
    model = family.model_of(config)
    try:
        config.raise_problems()
        back = Composition(plan_with(composition.made.loaded, {"name": "back", "model": model}, training=False))
    except GPTZooError as error:
        trial.refused.append(error)
        return trial
    trial.lost = differences(composition, back)
    return trial


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value)


def _on_cpu(model: Model) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu") for name, tensor in model.state_dict().items()}


def end_tokens(tokenizer: Tokenizer | None) -> dict[str, object]:
    """What begins and ends a text; null says that nothing does, where transformers would take a number of its own."""
    end = None if tokenizer is None else tokenizer.end
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": None}


@contextmanager
def new_folder(folder: Path, need: int = 0) -> Iterator[Path]:
    """A folder to write into, which takes its name when all is written, or leaves no trace.

    Args:
        folder: Must not exist.
        need: Bytes about to be written.

    Raises:
        GPTZooError: It exists, or cannot be written.
        NoSpace: The disk is full.
    """
    with new_path(folder, need) as temporary:
        make_folder(temporary)
        yield temporary


@contextmanager
def new_path(path: Path, need: int = 0) -> Iterator[Path]:
    """A name to write a file or folder under, which becomes its own when all is written; or nothing is left of it.

    Raises:
        GPTZooError: The path exists, or cannot be written.
        NoSpace: The disk is full.
    """
    if path.exists() or path.is_symlink():
        raise GPTZooError("it exists already. Name another, or remove it.", str(path))
    parent = path.absolute().parent
    make_folder(parent)
    temporary = temporary_name(path)
    with writing(path, need, undo=lambda: remove(temporary)):
        check_space(parent, need)
        try:
            yield temporary
        except SafetensorError as error:  # how it tells a full disk
            raise GPTZooError(f"cannot be written: {one_line(error)}.", str(path)) from error
        for file in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
        os.rename(temporary, path)
        sync_folder(parent)
