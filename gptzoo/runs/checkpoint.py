"""Checkpoints: all that a training needs to go on bit for bit, as safetensors and JSON. No pickle, in or out.

A checkpoint is written under a temporary name, every file synced, the manifest last, and then renamed: under its own
name it is whole or not there. The manifest is in `gptzoo.runs.manifest`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from gptzoo.errors import CheckpointError, GPTZooError
from gptzoo.files import check_space, failpoint, human_size, remove, sync_folder, temporary_name, write_new, writing
from gptzoo.runs import manifest as manifests
from gptzoo.runs.manifest import FILES, JSON_LIMIT, MANIFEST, MODEL, OPTIMIZER, RNG, STATE, Manifest, damaged

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # as safetensors names them
_HEADER_LIMIT = 4 << 20  # bytes; some 40,000 tensors


@dataclass
class Checkpoint:
    """A training between two steps.

    Args:
        step: Updates made so far.
        model: The model's weights and buffers, tied ones once.
        aliases: Tied names -> the name in `model` under which the weight is stored.
        optimizer: The optimizer's `state_dict()`.
        rng: Generator states, uint8.
        state: All else, plain JSON: tokens, applied steps, scaler, `val_loss`, lengths of the record files and so on.
    """

    step: int
    model: dict[str, torch.Tensor]
    aliases: dict[str, str]
    optimizer: dict
    rng: dict[str, torch.Tensor]
    state: dict[str, object]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all. One of the same content already there is kept, any other replaced.

    Args:
        folder: Where it is to stand, `.../step-000500`; the parent exists.
        checkpoint: What to write.

    Raises:
        NoSpace: The disk is full; what stood there before still stands.
        GPTZooError: Something in it cannot be stored, or the folder cannot be written.
    """
    folder = Path(folder)
    tensors, state = _contents(checkpoint)
    need = sum(tensor.nbytes for group in tensors.values() for tensor in group.values()) + len(state) + (64 << 10)
    temporary = temporary_name(folder)
    with writing(folder, need, undo=lambda: remove(temporary)):
        check_space(folder.parent, need)
        _write_files(temporary, checkpoint, tensors, state)
        _put_in_place(temporary, folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, each file checked against the manifest before it is unpacked.

    Raises:
        CheckpointError: It is not sound; file and reason are named in one line.
    """
    folder = Path(folder)
    manifest = manifests.read_manifest(folder)
    structure, state = manifests.read_state_file(folder, manifest)
    model, optimizer_tensors, rng = (_read_tensors(folder, name, manifest) for name in (MODEL, OPTIMIZER, RNG))
    if any(tensor.dtype != torch.uint8 for tensor in rng.values()):
        raise damaged(folder / RNG, "holds something other than generator states")
    optimizer = _Reader(folder / STATE, optimizer_tensors).read(structure)
    return Checkpoint(manifest.step, model, _aliases_of(folder, manifest, model), optimizer, rng, state)


def read_model(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The model's weights and its aliases (tied name -> stored name), checked; the other files are not read.

    Raises:
        CheckpointError: Manifest or weights are not sound; file and reason are named in one line.
    """
    folder = Path(folder)
    manifest = manifests.read_manifest(folder)
    model = _read_tensors(folder, MODEL, manifest)
    return model, _aliases_of(folder, manifest, model)


def _contents(checkpoint: Checkpoint) -> tuple[dict[str, dict[str, torch.Tensor]], bytes]:
    """The tensors by file name, and the bytes of `state.json`."""
    assert all(tensor.dtype == torch.uint8 for tensor in checkpoint.rng.values()), "generator states are uint8"
    writer = _Writer()
    structure = writer.write(checkpoint.optimizer, "optimizer")
    tensors = {MODEL: checkpoint.model, OPTIMIZER: writer.tensors, RNG: checkpoint.rng}
    for group in tensors.values():
        _header(group)  # refuses what cannot be stored while nothing is written yet
    _check_ties(checkpoint.model, checkpoint.aliases)
    state = manifests.canonical_bytes({"optimizer": structure, "state": checkpoint.state})
    assert json.loads(state)["state"] == checkpoint.state, "the state must be plain JSON, or it would come back changed"
    if len(state) > JSON_LIMIT:
        size, limit = human_size(len(state)), human_size(JSON_LIMIT)
        raise GPTZooError(f"the optimizer's options and the trainer's state take {size} of JSON, at most {limit} fit.")
    return tensors, state


def _check_ties(model: Mapping[str, torch.Tensor], aliases: Mapping[str, str]) -> None:
    """Every tie is declared, or it would be silently untied by the way through the disk."""
    for alias, name in aliases.items():
        assert name in model, f"{alias} -> {name}: an alias stands for a stored weight"
        assert alias not in model, f"{alias} -> {name}: a tied weight is stored once"
    seen: dict[tuple[object, ...], str] = {}
    for name, tensor in model.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        other = seen.setdefault(place, name) if tensor.numel() else name
        if other != name:
            raise GPTZooError(f"weights {other!r} and {name!r} are one tensor: name one of them an alias.")


def _write_files(
    folder: Path, checkpoint: Checkpoint, tensors: dict[str, dict[str, torch.Tensor]], state: bytes
) -> None:
    folder.mkdir()
    failpoint("checkpoint.started")
    files = {}
    for name in FILES:
        files[name] = write_new(folder / name, [state] if name == STATE else _safetensors(tensors[name]))
        failpoint("checkpoint.file")
    manifest = Manifest(checkpoint.step, checkpoint.aliases, files)
    write_new(folder / MANIFEST, [manifest.to_bytes()])
    sync_folder(folder)
    failpoint("checkpoint.complete")


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename a complete checkpoint to its name.

    A folder cannot take another's place in one move. A crash between the two moves leaves both complete under temporary
    names, and the next holder of the run puts one back.
    """
    aside = None
    if folder.exists() or folder.is_symlink():
        if _same(temporary, folder):
            remove(temporary)
            return
        aside = temporary_name(folder, "replaced-")
        folder.rename(aside)
        failpoint("checkpoint.replaced")
    temporary.rename(folder)
    failpoint("checkpoint.renamed")
    sync_folder(folder.parent)
    if aside is not None:
        remove(aside)


def _same(temporary: Path, folder: Path) -> bool:
    try:
        return manifests.verify(folder) == manifests.read_manifest(temporary)
    except CheckpointError:
        return False


def _safetensors(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The parts of a safetensors file, one tensor at a time, so that saving needs no second copy of the model."""
    yield _header(tensors)
    for _, tensor in _in_file_order(tensors):
        if tensor.numel():
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            yield data.numpy().data


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The one header we write for these tensors: a file with another one is not ours."""
    entries, start = {}, 0
    for name, tensor in _in_file_order(tensors):
        dtype = _dtype_of(name, tensor)
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, start + tensor.nbytes]}
        start += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensor data is aligned to 8 bytes
    if len(text) > _HEADER_LIMIT:
        raise GPTZooError(f"{len(tensors)} tensors need a header of {human_size(len(text))}: too many.")
    return len(text).to_bytes(8, "little") + text


def _in_file_order(tensors: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """Wide dtypes first, which keeps each tensor aligned; by name within a width."""
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _dtype_of(name: str, tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided or tensor.is_meta:
        raise GPTZooError(f"tensor {name!r} is {'meta' if tensor.is_meta else tensor.layout}: it cannot be stored.")
    if tensor.dtype not in _DTYPES:
        raise GPTZooError(f"tensor {name!r} is of dtype {tensor.dtype}: it cannot be stored.")
    return _DTYPES[tensor.dtype]


def _read_tensors(folder: Path, name: str, manifest: Manifest) -> dict[str, torch.Tensor]:
    data = manifests.read_verified(folder, name, manifest)
    if int.from_bytes(data[:8], "little") > _HEADER_LIMIT:
        raise damaged(folder / name, f"has a header of more than {_HEADER_LIMIT} bytes")
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the library raises its own errors and builtin ones alike, and all mean the same here
        raise damaged(
            folder / name, f"is not safetensors ({str(error).splitlines()[0] if str(error) else 'empty'})"
        ) from error
    if not all(tensor.dtype in _DTYPES for tensor in tensors.values()) or not data.startswith(_header(tensors)):
        raise damaged(folder / name, "does not have the header that GPTZoo writes")
    return tensors


def _aliases_of(folder: Path, manifest: Manifest, model: Iterable[str]) -> dict[str, str]:
    names = set(model)
    for alias, name in manifest.aliases.items():
        if name not in names or alias in names:
            raise damaged(folder / MANIFEST, f"has an alias {alias!r} for {name!r} that does not fit the weights")
    return dict(manifest.aliases)


class _Writer:
    """Turns nested Python values into JSON and a flat set of tensors.

    A JSON object always has one key, the kind: `tensor`, `tuple`, `dict` (pairs, for keys may be numbers) or `float`
    (the ones that JSON lacks). Everything else stands for itself.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}

    def write(self, value: object, path: str) -> object:
        """The JSON of a value; its tensors are collected under names that start with `path`.

        Raises:
            GPTZooError: Something in it is neither a number, a string, a container nor a tensor.
        """
        if isinstance(value, torch.Tensor):
            return {"tensor": self._add(path, value)}
        if isinstance(value, tuple):
            return {"tuple": [self.write(item, f"{path}.{index}") for index, item in enumerate(value)]}
        if isinstance(value, list):
            return [self.write(item, f"{path}.{index}") for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {"dict": [self._pair(key, item, path) for key, item in value.items()]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(float(value))}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise GPTZooError(f"{path} is a {type(value).__name__}: it cannot be stored.")

    def _pair(self, key: object, item: object, path: str) -> list[object]:
        if type(key) not in (int, str):
            raise GPTZooError(f"{path} has a key of type {type(key).__name__}: it cannot be stored.")
        return [key, self.write(item, f"{path}.{key}")]

    def _add(self, path: str, tensor: torch.Tensor) -> str:
        while path in self.tensors:  # {"a": {"b": x}, "a.b": y}
            path += "'"
        self.tensors[path] = tensor
        return path


class _Reader:
    """The inverse of `_Writer`. Every tensor must be used once."""

    def __init__(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
        self._path = path
        self._tensors = dict(tensors)

    def read(self, structure: object) -> dict:
        """The optimizer's `state_dict`.

        Raises:
            CheckpointError: The JSON does not describe one, or not with these tensors.
        """
        try:
            value = self._value(structure)
        except RecursionError as error:
            raise self._malformed() from error
        if not isinstance(value, dict) or self._tensors:
            raise self._malformed()
        return value

    def _value(self, node: object) -> object:
        if isinstance(node, list):
            return [self._value(item) for item in node]
        if not isinstance(node, dict):
            return node
        if len(node) != 1:
            raise self._malformed()
        ((kind, content),) = node.items()
        if kind in ("tuple", "dict") and isinstance(content, list):
            return tuple(map(self._value, content)) if kind == "tuple" else dict(map(self._pair, content))
        if kind == "tensor" and isinstance(content, str) and content in self._tensors:
            return self._tensors.pop(content)
        if kind == "float" and content in ("nan", "inf", "-inf"):
            return float(content)
        raise self._malformed()

    def _pair(self, node: object) -> tuple[int | str, object]:
        if not isinstance(node, list) or len(node) != 2 or type(node[0]) not in (int, str):
            raise self._malformed()
        return node[0], self._value(node[1])

    def _malformed(self) -> CheckpointError:
        return damaged(self._path, "does not describe the optimizer's state")
