"""Foreign models as recipes and weights: `read_pretrained`, and `from_pretrained`, which also builds them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gptzoo.building import Overrides, Plan, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.contracts import Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.interop.config import CONFIG, Config, read_json
from gptzoo.interop.families import family_of
from gptzoo.interop.family import Family
from gptzoo.interop.folder import read_tensors
from gptzoo.interop.gguf import read_gguf
from gptzoo.interop.hub import located
from gptzoo.interop.tokenizers import tokenizer_of
from gptzoo.interop.unpickle import unpickled
from gptzoo.interop.weights import NameMap
from gptzoo.model import Model
from gptzoo.transfer import load_weights, misfits

TOKENIZER = "tokenizer"
"""The folder of a learned tokenizer's files, in what `HubModel` saves."""


@dataclass(frozen=True)
class Foreign:
    """A model as its makers describe it.

    Args:
        config: In transformers' words.
        tensors: By transformers' names, with or without the prefix of a model that has a head.
        name: Fit for a run.
        place: Where it lies, for messages.
        tokenizer: As in a recipe, or None.
    """

    config: Config
    tensors: dict[str, Tensor]
    name: str
    place: str
    tokenizer: object = None


@dataclass(frozen=True)
class Pretrained:
    """A model that others trained, in our words.

    Args:
        recipe: Its `name` and `model`, and `data.tokenizer` if that is known.
        tensors: The weights by their names here.
        tokenizer_folder: Where the files of a learned tokenizer lie, if they came with it.
    """

    recipe: dict[str, object]
    tensors: dict[str, Tensor]
    tokenizer_folder: Path | None = None


def from_pretrained(
    source: str | os.PathLike[str],
    /,
    *,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    dtype: torch.dtype | None = None,
    overrides: Overrides = (),
    **more: object,
) -> Model:
    """A model that others trained: `from_pretrained("gpt2-medium")`.

    It comes ready to generate: in evaluation mode, on the device of `train.device`, without dropout, with its
    tokenizer if that is known, else with `tokenizer` None unless `data.tokenizer` is given.

    Args:
        source: A name on the Hugging Face hub; a folder that transformers' `save_pretrained` or `gptzoo export` wrote.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        dtype: Of the weights; float32 unless given.
        overrides: Recipe keys, dotted, as pairs of raw YAML or a mapping: `{"model.kernel": "naive"}`.
        more: The same, as keywords.

    Raises:
        GPTZooError: There is no sound model of a known architecture, or no recipe can express it.
    """
    found = read_source(source)
    made = plan(found.recipe, more or overrides, plugins=plugins, folders=folders, training=False)
    model = _without_weights(made).to(dtype)  # before the weights come, so that float64 ones stay whole
    load_weights(model, found.tensors, source=str(source))
    model.tokenizer = tokenizer_for(made, found)
    return model.to(made.device).eval()


def _without_weights(made: Plan) -> Model:
    """The model, to be filled: initial values that nobody needs are not drawn."""
    model = build_model(made, meta=True)
    kept = model.state_dict()
    if any(name not in kept for name, _ in model.named_buffers()):
        return build_model(made)  # what a part computes for itself does not come with the weights
    return model.to_empty(device="cpu")


def read_pretrained(source: str | os.PathLike[str]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """A model that others trained, as a recipe and its weights by their names here.

    Raises:
        GPTZooError: There is no sound model of a known architecture, or no recipe can express it.
    """
    found = read_source(source)
    return found.recipe, found.tensors


def read_source(source: str | os.PathLike[str], *, pickles: bool = False) -> Pretrained:
    """`read_pretrained`, with where its tokenizer lies.

    Args:
        source: As `from_pretrained` takes it.
        pickles: Whether the tensors of a pickle may be read, in a process of their own.

    Raises:
        GPTZooError: There is no sound model of a known architecture, or no recipe can express it.
    """
    path = located(os.fspath(source))
    if path.suffix == ".gguf":
        config, tensors, tokenizer = read_gguf(path)
        return translated(Foreign(config, tensors, name_of(path.with_suffix("")), str(path), tokenizer))
    if path.is_file() and path.suffix in PICKLES:
        return _pickled(path, allowed=pickles)
    if not path.is_dir():
        raise GPTZooError(f"this is no model that can be read. Name {SOURCES}.", str(path))
    values = read_json(path / CONFIG)
    if is_hub_model(values):
        return _hub_model(values, path)
    config = Config(values, str(path / CONFIG))
    family_of(config)  # before the weights are read
    return translated(Foreign(config, read_tensors(path), name_of(path), str(path), tokenizer_of(path, config)))


SOURCES = "a folder that transformers' save_pretrained wrote, or a .gguf file"


PICKLES = (".pt", ".pth", ".bin", ".ckpt")
"""How files are called that torch.save wrote."""


def _pickled(file: Path, *, allowed: bool) -> Pretrained:
    """nanoGPT's checkpoint, or weights beside a `config.json`."""
    if not allowed:
        what = "this is a pickle, which can run code when it is read. Have its tensors alone read, apart from all else"
        raise GPTZooError(f"{what}: gptzoo import {file} --out RUN.", str(file))
    with tempfile.TemporaryDirectory() as scratch:
        unpickled(file, Path(scratch))
        own, beside = Path(scratch, CONFIG), file.parent / CONFIG
        if not own.exists() and not beside.exists():
            raise GPTZooError(f"it does not describe its model, and there is no {CONFIG} beside it.", str(file))
        config = (
            Config(read_json(own), f"{file}: model_args") if own.exists() else Config(read_json(beside), str(beside))
        )
        family_of(config)
        tokenizer = _nanogpt_tokenizer(config) if own.exists() else tokenizer_of(file.parent, config)
        return translated(
            Foreign(config, read_tensors(Path(scratch)), name_of(file.with_suffix("")), str(file), tokenizer)
        )


def _nanogpt_tokenizer(config: Config) -> object:
    """GPT-2's, whose vocabulary nanoGPT fills up to a multiple of 64; of another, a pickle beside it would tell."""
    return "gpt2" if config.values.get("vocab_size", 50304) in (50257, 50304) else None


def is_hub_model(config: Mapping[str, object]) -> bool:
    """Whether a `config.json` is a `HubModel`'s."""
    return isinstance(config.get("recipe"), dict) and "model_type" not in config


def _hub_model(values: dict[str, object], folder: Path) -> Pretrained:
    """What `HubModel` saved: its recipe, its weights as those of `model`, and a learned tokenizer's files."""
    recipe, tensors = values["recipe"], read_tensors(folder)
    assert isinstance(recipe, dict), "is_hub_model has looked"
    if strange := [name for name in tensors if not name.startswith("model.")]:
        raise GPTZooError(f"{strange[0]!r} is no weight of the model that its {CONFIG} describes.", str(folder))
    plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return Pretrained(recipe, plain, folder / TOKENIZER if (folder / TOKENIZER).is_dir() else None)


def name_of(path: Path) -> str:
    """A file's or folder's name, made fit for a run's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.absolute().name).strip("-")[:100] or "model"


def translated(foreign: Foreign) -> Pretrained:
    """A foreign model as a recipe and its weights by their names here.

    Raises:
        GPTZooError: No recipe can express it, or its weights do not fit its description.
    """
    family = family_of(foreign.config)
    model = family.model_of(foreign.config)
    foreign.config.raise_problems()
    tensors = _named_plainly(family, foreign)
    model["head"] = _head(family, foreign, tensors, model["head"])
    recipe: dict[str, object] = {"name": foreign.name, "model": model}
    made = build_model(plan(recipe, training=False), meta=True)
    names = NameMap(family.table(made.dims), made.state_dict(), made.dims.n_layer)
    assert not names.uncovered, f"{family.model_type} has no names for {names.uncovered}"
    if problem := misfits(names.wanted, tensors):
        raise GPTZooError(f"its weights do not fit its {Path(foreign.config.where).name}: {problem}.", foreign.place)
    if foreign.tokenizer is not None:
        recipe["data"] = {"tokenizer": foreign.tokenizer}
    return Pretrained(recipe, names.ours(tensors))


def _named_plainly(family: Family, foreign: Foreign) -> dict[str, Tensor]:
    """Without the prefix that a model with a head adds, the head under one name, and without stored constants."""
    plain: dict[str, Tensor] = {}
    for name, tensor in foreign.tensors.items():
        short = family.heads[0] if name in family.heads else name.removeprefix(family.prefix)
        if short in plain:
            raise GPTZooError(f"it holds both {short!r} and {family.prefix + short!r}.", foreign.place)
        if not family.constants.fullmatch(short):
            plain[short] = tensor
    return plain


def _head(family: Family, foreign: Foreign, tensors: dict[str, Tensor], head: object) -> object:
    """The head that the weights allow. A matrix that is the embedding's is dropped, or stands for it.

    Raises:
        GPTZooError: The config says one thing, and the weights another.
    """
    name, untied = family.heads[0], head == "untied"
    matrix = tensors.get(name)
    if matrix is not None and torch.equal(matrix, tensors.setdefault(family.embedding, matrix)):
        del tensors[name]
        return "tied" if untied else head
    if untied == (matrix is not None):
        return head
    said = f"false, and there is no {name}" if untied else f"true, and {name} is not {family.embedding}"
    raise GPTZooError(f"it is {said}.", f"{foreign.config.where}: tie_word_embeddings")


def tokenizer_for(made: Plan, found: Pretrained) -> Tokenizer | None:
    """The recipe's tokenizer, if it names one: the default belongs to data that this model has never seen.

    Raises:
        GPTZooError: It cannot be read, has to learn, or has more tokens than the model.
    """
    data = made.composed.tree.get("data")
    if not isinstance(data, Mapping) or "tokenizer" not in data:
        return None
    tokenizer = build_tokenizer(made)
    if tokenizer.learned and found.tokenizer_folder is not None:
        tokenizer.load(found.tokenizer_folder)
    elif tokenizer.learned and not hasattr(tokenizer, "vocab_size"):
        raise GPTZooError("it has to learn from a corpus, and there is none here.", made.where("data.tokenizer"))
    with_vocab_size(made, tokenizer)  # refuses one that is too large
    return tokenizer
