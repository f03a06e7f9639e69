"""Writing files so that a crash, a power cut or a full disk never leaves half of one behind.

Whatever must survive goes through here: written to a temporary name, synced, renamed, the folder synced. Each boundary
carries a fail-point, at which the crash tests kill the process.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gptzoo.errors import GPTZooError, NoSpace, did_you_mean

TEMPORARY = ".tmp-"  # <final name>.tmp-<unique>: swept by the next holder of the folder
FAILPOINTS = (
    "write.started",  # the temporary file exists, empty
    "write.partial",  # its first part is written
    "write.synced",  # it is complete and on disk
    "write.renamed",  # it bears its name, the folder is not yet synced
    "append.started",
    "append.written",
    "truncate.done",
    "checkpoint.started",  # the temporary folder exists, empty
    "checkpoint.file",  # one more of its files is on disk
    "checkpoint.complete",  # the manifest too; the folder still has its temporary name
    "checkpoint.replaced",  # an older checkpoint of the same step is set aside
    "checkpoint.renamed",  # the folder bears its name, its parent is not yet synced
    "checkpoint.verified",  # read back; pruning follows
    "prune.renamed",  # an old checkpoint is set aside
    "prune.removed",
    "sweep.removed",
)
_FULL_DISK = {errno.ENOSPC: None, errno.EFBIG: resource.RLIMIT_FSIZE, errno.EDQUOT: None}


def failpoint(name: str) -> None:
    """Kill this process here, if `GPTZOO_FAILPOINT=name[:nth]` says so. For crash tests.

    Raises:
        GPTZooError: The variable names no fail-point.
    """
    assert name in FAILPOINTS, name
    wanted, _, nth = os.environ.get("GPTZOO_FAILPOINT", "").partition(":")
    if wanted and wanted not in FAILPOINTS:
        raise GPTZooError(f"no fail-point is called {wanted!r}.{did_you_mean(wanted, FAILPOINTS)}", "GPTZOO_FAILPOINT")
    if wanted != name:
        return
    if nth and not nth.isdecimal():
        raise GPTZooError(f"{nth!r} is not a count. Write {name}:2 for the second hit.", "GPTZOO_FAILPOINT")
    if int(nth or 1) <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ["GPTZOO_FAILPOINT"] = f"{name}:{int(nth) - 1}"  # the variable is the counter: no state in the module


def write_atomically(path: Path, data: bytes) -> None:
    """Give `path` the content `data`: after a crash it holds the old content or the new, never a part.

    Raises:
        NoSpace: The disk is full; the old file stands, the temporary one is removed.
        GPTZooError: The file cannot be written.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with writing(path, need=len(data), undo=lambda: remove(temporary)):
        write_new(temporary, [data[: len(data) // 2], data[len(data) // 2 :]])
        os.replace(temporary, path)
        failpoint("write.renamed")
        sync_folder(path.parent)


def write_new(path: Path, parts: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file that must not exist yet, and sync it. Returns its size in bytes and its sha256.

    The caller syncs the folder and translates `OSError`: see `writing`.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        failpoint("write.started")
        for index, part in enumerate(parts):
            file.write(part)
            digest.update(part)
            size += len(part)
            if index == 0:
                file.flush()
                failpoint("write.partial")
        file.flush()
        os.fsync(file.fileno())
    failpoint("write.synced")
    return size, digest.hexdigest()


def append_line(path: Path, line: str) -> None:
    """Append one line and sync it. A last line torn by a crash is dropped first. One writer at a time.

    Raises:
        NoSpace: The disk is full; the file is as it was.
        GPTZooError: The file cannot be written.
    """
    path = Path(path)
    with writing(path, need=len(line) + 1):
        new = not path.exists()
        descriptor = open_for_appending(path)
        try:
            drop_torn_line(descriptor)
            write_line(descriptor, path, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(path.parent)


def open_for_appending(path: Path) -> int:
    """A descriptor that reads anywhere and writes at the end; the file is created if need be."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def write_line(descriptor: int, path: Path, line: str) -> None:
    """Append one line to an open file, without syncing; if it does not fit, the file is as it was.

    Raises:
        NoSpace: The disk is full.
    """
    assert "\n" not in line, "one record is one line"
    data = memoryview(f"{line}\n".encode())
    before = os.fstat(descriptor).st_size
    with writing(path, need=len(data), undo=lambda: os.ftruncate(descriptor, before)):
        failpoint("append.started")
        while data:  # a nearly full disk takes a part first and fails at the rest
            data = data[os.write(descriptor, data) :]
        failpoint("append.written")


def truncate(descriptor: int, length: int) -> None:
    """Cut an open file to `length` bytes, and sync it."""
    os.ftruncate(descriptor, length)
    os.fsync(descriptor)
    failpoint("truncate.done")


def drop_torn_line(descriptor: int) -> int:
    """Cut a last line that has no newline, and return the length in bytes: a record is whole or was never written."""
    length = os.fstat(descriptor).st_size
    start, sound = length, 0
    while start > 0 and not sound:
        block = min(start, 65536)
        start -= block
        sound = start + os.pread(descriptor, block, start).rfind(b"\n") + 1
        sound = sound if sound > start else 0
    if sound < length:
        truncate(descriptor, sound)
    return sound


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably, if it is not there.

    Raises:
        GPTZooError: It cannot be created.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder with all it holds; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def temporary_name(path: Path, kind: str = "") -> Path:
    """A unique name beside `path`, which `sweep` recognises."""
    return path.with_name(f"{path.name}{TEMPORARY}{kind}{uuid.uuid4().hex}")


def sweep(folder: Path) -> None:
    """Remove what a killed process left under temporary names. Only for the holder of the folder's lock."""
    for stale in sorted(folder.glob(f"*{TEMPORARY}*")):
        remove(stale)
        failpoint("sweep.removed")


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII.

    Raises:
        GPTZooError: A number in it is not finite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise GPTZooError(f"cannot be stored as JSON: {error}") from error


def check_space(path: Path, need: int) -> None:
    """Refuse early what the disk cannot hold.

    Args:
        path: An existing folder on that disk.
        need: Bytes about to be written.

    Raises:
        NoSpace: Less is free.
    """
    have = shutil.disk_usage(path).free
    if have < need:
        raise _no_space(path, need, have)


@contextmanager
def writing(path: Path, need: int = 0, undo: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Undo what failed, and tell a full disk (`NoSpace`) or a forbidden write (`GPTZooError`) in one line.

    Args:
        path: What is being written.
        need: Its size in bytes.
        undo: Called on every failure, an interruption included.
    """
    try:
        yield
    except BaseException as error:
        undo()
        if not isinstance(error, OSError):
            raise
        if error.errno in _FULL_DISK:
            raise _no_space(path, need, _room(path, _FULL_DISK[error.errno])) from error
        raise GPTZooError(f"cannot be written: {error.strerror or error}.", str(path)) from error


def human_size(size: int) -> str:
    """`1.5 kB`."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _no_space(path: Path, need: int, have: int) -> NoSpace:
    return NoSpace(f"no space: need {human_size(need)}, have {human_size(have)}", str(path))


def _room(path: Path, limit: int | None) -> int:
    """Bytes that would have fitted: the process's file size limit, or what is free on the disk."""
    bytes_allowed = resource.RLIM_INFINITY if limit is None else resource.getrlimit(limit)[0]
    if bytes_allowed != resource.RLIM_INFINITY:
        return bytes_allowed
    path = path.absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
