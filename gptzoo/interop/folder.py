"""Folders that transformers writes: `config.json`, and the weights as safetensors in one file or in several."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gptzoo.errors import GPTZooError
from gptzoo.interop.config import one_line, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder by the names in its files.

    Raises:
        GPTZooError: They are missing, damaged, or pickles.
    """
    if (folder / SINGLE).exists():
        return _load(folder / SINGLE)
    if (folder / INDEX).exists():
        return dict(_load_parts(folder))
    pickles = sorted(file.name for file in folder.glob("pytorch_model*.bin"))
    if len(pickles) == 1:
        raise GPTZooError(
            f"{pickles[0]} is a pickle, which can run code when it is read. Have its tensors alone read, apart from "
            f"all else: gptzoo import {folder / pickles[0]} --out RUN. Or ask its author for {SINGLE}.",
            str(folder),
        )
    if pickles:
        raise GPTZooError(
            f"{pickles[0]} is a pickle, which can run code when it is read. Ask its author for {SINGLE}, or, if you "
            "trust it, have transformers write one: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder).",
            str(folder),
        )
    raise GPTZooError(f"it holds neither {SINGLE} nor {INDEX}.", str(folder))


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise GPTZooError(f"there is no such file, and {INDEX} names it. Copy it again.", str(file)) from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise GPTZooError(f"it is damaged ({one_line(error)}). Copy it again.", str(file)) from error


def _load_parts(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model in several files, each from the one file that the index gives for it."""
    where = f"{folder / INDEX}: weight_map"
    parts = read_json(folder / INDEX).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(file, str) for file in parts.values()):
        raise GPTZooError("it does not say which file holds which weight.", where)
    files = sorted(set(parts.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise GPTZooError(f"{name!r} is not a safetensors file of this folder.", where)
    for name in files:
        tensors = _load(folder / name)
        if strange := sorted(tensors.keys() ^ {weight for weight, file in parts.items() if file == name}):
            raise GPTZooError(f"it and {name} disagree on {strange[0]!r}. Copy them again.", where)
        yield from tensors.items()


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write weights as transformers reads them; several files and an index where one would be too large."""
    from huggingface_hub import save_torch_state_dict  # late: it costs time, and only writing needs it

    save_torch_state_dict(dict(tensors), folder, metadata={"format": "pt"})


def write_json(file: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object for readers."""
    file.write_text(f"{json.dumps(values, indent=2)}\n", encoding="utf-8")
