"""Models of the Hugging Face hub, downloaded once into its own cache."""

from __future__ import annotations

import re
from pathlib import Path

from gptzoo.errors import GPTZooError
from gptzoo.interop.config import one_line

PREFIX = "hf:"

_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_FILES = ("*.json", "model*.safetensors", "merges.txt", "tokenizer/*")


def located(source: str) -> Path:
    """Where a model lies: a path, or `hf:NAME`, or a hub's name that is no path here.

    Raises:
        GPTZooError: There is no such path, and the hub cannot give it.
    """
    name = source.removeprefix(PREFIX)
    if Path(name).exists():
        return Path(name)
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise GPTZooError("there is no such file or folder, and this is no name on the hub.", name)
    return _downloaded(name)


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download  # late: it costs time

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    except Exception as error:  # of huggingface_hub, its HTTP library or the disk
        what = f"there is no such path here, and the hub does not give it: {one_line(error)}."
        raise GPTZooError(f"{what} Check the name and the network, or name a folder.", name) from error
