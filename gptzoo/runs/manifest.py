"""Manifests: what makes a folder a checkpoint. Everything is checked before anything is unpacked.

A checkpoint is a folder with exactly the files of `FILES` and a `MANIFEST.json` that gives the size and sha256 of each
and of itself. All JSON is canonical, so that no byte of it can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from gptzoo.errors import CheckpointError, GPTZooError
from gptzoo.files import canonical_json

FORMAT = 1
MANIFEST = "MANIFEST.json"
MODEL, OPTIMIZER, RNG, STATE = "model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"
FILES = (MODEL, OPTIMIZER, RNG, STATE)
JSON_LIMIT = 2 << 20  # bytes; a hostile text of this size unpacks to less than 64 MB


@dataclass(frozen=True)
class Manifest:
    """What `MANIFEST.json` says.

    Args:
        step: The step after which the checkpoint was taken.
        aliases: Tied names of the model -> the name under which the weight is stored.
        files: File name -> (size in bytes, sha256 in hex).
    """

    step: int
    aliases: Mapping[str, str]
    files: Mapping[str, tuple[int, str]]

    def to_bytes(self) -> bytes:
        """The content of `MANIFEST.json`."""
        files = {name: {"size": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        content = {"format": FORMAT, "step": self.step, "aliases": dict(self.aliases), "files": files}
        return canonical_bytes({**content, "sha256": _digest_of(content)})


def folder_name(step: int) -> str:
    """`step-000500`."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """The step that a folder's name states; None if it is not a checkpoint's name."""
    match = re.fullmatch(r"step-([0-9]{6,18})", name)
    step = int(match[1]) if match else -1
    return step if folder_name(step) == name else None


def verify(folder: Path) -> Manifest:
    """Check every byte of a checkpoint.

    Raises:
        CheckpointError: It is not sound; file and reason are named.
    """
    manifest = read_manifest(folder)
    for name, (_, digest) in manifest.files.items():
        with opened(folder / name) as file:
            _check_digest(folder / name, hashlib.file_digest(file, "sha256").hexdigest(), digest)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; names, kinds and sizes of its files are checked, their content is not.

    Raises:
        CheckpointError: It is not sound; file and reason are named.
    """
    _check_names(folder)
    manifest = _parse_manifest(folder / MANIFEST)
    if step_of(folder.name) not in (None, manifest.step):
        raise damaged(folder / MANIFEST, f"is of step {manifest.step}, the folder is called {folder.name}")
    for name, (size, _) in manifest.files.items():
        with opened(folder / name) as file:
            actual = os.fstat(file.fileno()).st_size
        if actual != size:
            raise damaged(folder / name, f"has {actual} bytes, the manifest says {size}")
    return manifest


def read_verified(folder: Path, name: str, manifest: Manifest) -> bytes:
    """The content of one file of a checkpoint, checked against its manifest.

    Raises:
        CheckpointError: It is not what was written.
    """
    size, digest = manifest.files[name]
    with opened(folder / name) as file:
        data = file.read(size)
    _check_digest(folder / name, hashlib.sha256(data).hexdigest(), digest)
    return data


def read_state_file(folder: Path, manifest: Manifest) -> tuple[object, dict[str, object]]:
    """The two parts of `state.json`: the optimizer's structure and the trainer's own state.

    Raises:
        CheckpointError: It is not what was written.
    """
    if manifest.files[STATE][0] > JSON_LIMIT:
        raise damaged(folder / STATE, f"has {manifest.files[STATE][0]} bytes, at most {JSON_LIMIT} are read")
    content = parse_canonical(folder / STATE, read_verified(folder, STATE, manifest))
    state = content.get("state")
    if set(content) != {"optimizer", "state"} or not isinstance(state, dict):
        raise damaged(folder / STATE, "does not hold 'optimizer' and 'state'")
    return content["optimizer"], state


def read_state(folder: Path) -> dict[str, object]:
    """The trainer's state in a checkpoint (`val_loss` and the like), without unpacking a tensor.

    Raises:
        CheckpointError: Manifest, sizes or state are not sound.
    """
    return read_state_file(folder, read_manifest(folder))[1]


def canonical_bytes(value: object) -> bytes:
    """The one way in which JSON is written in a checkpoint."""
    return f"{canonical_json(value)}\n".encode()


def parse_canonical(path: Path, data: bytes) -> dict[str, object]:
    """Parse a JSON object and require that its text is the canonical one: no repeated keys, nothing unseen.

    Raises:
        CheckpointError: It is not.
    """
    try:
        value = json.loads(data)
        if isinstance(value, dict) and canonical_bytes(value) == data:
            return value
    except (ValueError, RecursionError, GPTZooError):
        pass
    raise damaged(path, "is not the JSON that was written")


def damaged(path: Path, reason: str) -> CheckpointError:
    """The error for a file of a checkpoint that is not sound."""
    return CheckpointError(f"{reason}.", str(path))


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file for reading; never through a link, never waiting for a pipe.

    Raises:
        CheckpointError: It is missing, unreadable or something else.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise damaged(path, "is not a regular file")
            yield file
    except FileNotFoundError as error:
        raise damaged(path, "is missing") from error
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from error


def _check_names(folder: Path) -> None:
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise damaged(folder, "is not a folder")
        with os.scandir(folder) as entries:
            kinds = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except FileNotFoundError as error:
        raise damaged(folder, "is missing") from error
    except OSError as error:
        raise damaged(folder, f"cannot be read ({error.strerror or error})") from error
    for name in sorted({MANIFEST, *FILES} - set(kinds)):  # the manifest sorts first: without it nothing else matters
        raise damaged(folder / name, "is missing")
    for name in sorted(set(kinds) - {MANIFEST, *FILES}):
        raise damaged(folder / _printable(name), "does not belong to a checkpoint")
    for name in sorted(name for name, regular in kinds.items() if not regular):
        raise damaged(folder / name, "is not a regular file")


def _parse_manifest(path: Path) -> Manifest:
    with opened(path) as file:
        data = file.read(JSON_LIMIT + 1)
    if len(data) > JSON_LIMIT:
        raise damaged(path, f"has more than {JSON_LIMIT} bytes")
    content = parse_canonical(path, data)
    if content.pop("sha256", None) != _digest_of(content):
        raise damaged(path, "does not match its own sha256")
    if content.get("format") != FORMAT:
        what = f"is of checkpoint format {_printable(str(content.get('format')))}, this GPTZoo reads {FORMAT}"
        raise damaged(path, f"{what}. Use the GPTZoo that wrote it, or upgrade")
    manifest = _manifest_of(content)
    if manifest is None:
        raise damaged(path, "does not have the fields of a manifest")
    return manifest


def _manifest_of(content: dict[str, object]) -> Manifest | None:
    step, aliases, files = content.get("step"), content.get("aliases"), content.get("files")
    if set(content) != {"format", "step", "aliases", "files"} or type(step) is not int or step < 0:
        return None
    if not isinstance(aliases, dict) or not all(isinstance(name, str) for name in aliases.values()):
        return None
    if not isinstance(files, dict) or set(files) != set(FILES):
        return None
    entries = {name: _entry_of(files[name]) for name in FILES}
    sound = {name: entry for name, entry in entries.items() if entry is not None}
    return Manifest(step, aliases, sound) if len(sound) == len(FILES) else None


def _entry_of(entry: object) -> tuple[int, str] | None:
    if not isinstance(entry, dict) or set(entry) != {"size", "sha256"}:
        return None
    size, digest = entry["size"], entry["sha256"]
    return (size, digest) if type(size) is int and size >= 0 and isinstance(digest, str) else None


def _check_digest(path: Path, actual: str, wanted: str) -> None:
    if actual != wanted:
        size = path.stat().st_size if path.exists() else 0
        raise damaged(path, f"is damaged: the sha256 of its {size} bytes is not the manifest's")


def _digest_of(content: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _printable(name: str) -> str:
    """A name from outside, made fit for one line of a terminal."""
    return ascii(name)[1:-1][:80]
