"""The one place where a pickle is read: `python -m gptzoo.interop.unpickle FILE FOLDER`, a process of its own.

It takes tensors and plain numbers from a checkpoint that `torch.save` wrote, with `weights_only=True` and a limit on
its memory, and leaves them as safetensors and JSON. Whatever else is in the file is left where it is.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from gptzoo.errors import GPTZooError

SECONDS = 600
"""How long reading may take."""

_ROOM = 1 << 30  # bytes beside four times the file's size


def unpickled(file: Path, folder: Path) -> None:
    """Write what a pickle holds into a folder: `model.safetensors`, and `config.json` if it describes a model.

    Raises:
        GPTZooError: It holds no model, or more than tensors and numbers, or does not end in time.
    """
    command = [sys.executable, "-P", "-m", "gptzoo.interop.unpickle", str(file), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise GPTZooError(f"reading it took longer than {SECONDS} seconds.", str(file)) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it ended without a word; its memory is limited"]
        raise GPTZooError(f"no tensors can be read from it: {said[-1][:300].rstrip('.')}.", str(file))


def main(file: Path, folder: Path) -> None:
    """Read one and write the other. Runs in the process of its own."""
    import torch
    from safetensors.torch import save_file

    _refuse_bombs(file)
    _limit_memory(file.stat().st_size)
    content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ValueError("it holds no mapping of names to tensors")
    config, state = content.get("model_args"), content.get("model", content)
    tensors = {
        str(name).removeprefix("_orig_mod."): tensor.detach().clone().contiguous()
        for name, tensor in (state.items() if isinstance(state, Mapping) else ())
        if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
    }
    if not tensors:
        raise ValueError("it holds no mapping of names to tensors")
    save_file(tensors, folder / "model.safetensors")
    if isinstance(config, Mapping):
        plain = {str(key): value for key, value in config.items() if isinstance(value, bool | int | float | None)}
        (folder / "config.json").write_text(json.dumps({"model_type": "nanogpt", **plain}), encoding="utf-8")


def _refuse_bombs(file: Path) -> None:
    """A file may unpack to no more than its own size, which torch.save never exceeds."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no file that torch.save writes since version 1.6")
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > file.stat().st_size:
            raise ValueError("it is compressed, which torch.save never does")


def _limit_memory(size: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + 4 * size + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # whatever the file makes torch raise becomes one line for the parent
        print(" ".join(str(error).split())[:300] or type(error).__name__, file=sys.stderr)
        sys.exit(1)
