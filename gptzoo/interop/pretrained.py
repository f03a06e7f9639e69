"""Foreign models as recipes and weights: `read_pretrained`, and `from_pretrained`, which also builds them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gptzoo.building import Overrides, Plan, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.errors import GPTZooError
from gptzoo.interop.config import CONFIG, Config, read_json
from gptzoo.interop.families import family_of
from gptzoo.interop.family import Family
from gptzoo.interop.folder import read_tensors
from gptzoo.interop.tokenizers import tokenizer_of
from gptzoo.interop.weights import NameMap
from gptzoo.model import Model
from gptzoo.transfer import load_weights, misfits


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
        source: A folder that transformers' `save_pretrained` wrote.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        dtype: Of the weights; float32 unless given.
        overrides: Recipe keys, dotted, as pairs of raw YAML or a mapping: `{"model.kernel": "naive"}`.
        more: The same, as keywords.

    Raises:
        GPTZooError: There is no sound model of a known architecture, or no recipe can express it.
    """
    mapping, tensors = read_pretrained(source)
    made = plan(mapping, more or overrides, plugins=plugins, folders=folders, training=False)
    model = build_model(made).to(dtype)  # before the weights come, so that float64 ones stay whole
    load_weights(model, tensors, source=str(source))
    _add_tokenizer(model, made)
    return model.to(made.device).eval()


def read_pretrained(source: str | os.PathLike[str]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """A model that others trained, as a recipe and its weights by their names here.

    Raises:
        GPTZooError: There is no sound model of a known architecture, or no recipe can express it.
    """
    return translated(read_foreign(source))


def read_foreign(source: str | os.PathLike[str]) -> Foreign:
    """A model that others trained, as they describe it.

    Raises:
        GPTZooError: There is none.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise GPTZooError("there is no such folder. Name one that transformers' save_pretrained wrote.", str(folder))
    config = Config(read_json(folder / CONFIG), str(folder / CONFIG))
    family_of(config)  # before the weights are read
    return Foreign(config, read_tensors(folder), name_of(folder), str(folder), tokenizer_of(folder, config))


def name_of(path: Path) -> str:
    """A file's or folder's name, made fit for a run's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.absolute().name).strip("-")[:100] or "model"


def translated(foreign: Foreign) -> tuple[dict[str, object], dict[str, Tensor]]:
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
    return recipe, names.ours(tensors)


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


def _head(family: Family, foreign: Foreign, tensors: dict[str, Tensor], wanted: object) -> object:
    """The head that the weights allow. A matrix that is the embedding's is dropped, or stands for it.

    Raises:
        GPTZooError: The config says one thing, and the weights another.
    """
    name = family.heads[0]
    head = tensors.get(name)
    if head is not None and torch.equal(head, tensors.setdefault(family.embedding, head)):
        del tensors[name]
        return "tied" if wanted == "untied" else wanted
    if (wanted == "untied") == (head is not None):
        return wanted
    said = "true" if head is not None else "false"
    what = f"{name} is not {family.embedding}" if head is not None else f"there is no {name}"
    raise GPTZooError(f"it is {said}, and {what}.", f"{foreign.config.where}: tie_word_embeddings")


def _add_tokenizer(model: Model, made: Plan) -> None:
    """The recipe's tokenizer, if it names one: the default belongs to data that this model has never seen."""
    data = made.composed.tree.get("data")
    if not isinstance(data, Mapping) or "tokenizer" not in data:
        return
    tokenizer = build_tokenizer(made)
    if tokenizer.learned and not hasattr(tokenizer, "vocab_size"):
        raise GPTZooError("it has to learn from a corpus, and there is none here.", made.where("data.tokenizer"))
    with_vocab_size(made, tokenizer)  # refuses one that is too large
    model.tokenizer = tokenizer
