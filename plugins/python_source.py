"""The Python standard library as a corpus: real text that is on every machine already."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import gptzoo

EXCLUDED = frozenset({"site-packages", "dist-packages", "test", "tests"})


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("python_source", PythonSource)


class PythonSource(gptzoo.TokenStream):
    """The running interpreter's standard library: its `.py` files, sorted by path, without tests.

    Another version of Python is another corpus. Files that are not UTF-8 are passed over.

    Args:
        max_bytes: Bytes of source, at most; the last file is cut.
        documents: Keep files apart, rather than treat each row as one document.
        val_fraction: Share of the tokens, the last ones, that is kept for validation.

    Raises:
        GPTZooError: The library's sources are not on this machine, or too little of them is asked for.
    """

    source = "the standard library's source"

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        max_bytes: int = 2_000_000,
        documents: bool = False,
        val_fraction: float = 0.1,
    ) -> None:
        if max_bytes < 1:
            raise gptzoo.GPTZooError(f"{max_bytes} is not at least 1.", "data.max_bytes")
        self.max_bytes = max_bytes
        self.folder = Path(sysconfig.get_path("stdlib"))
        super().__init__(tokenizer, context_length, documents, val_fraction)

    def read_documents(self) -> Iterator[str]:
        left = self.max_bytes
        for file in source_files(self.folder):
            if left == 0:
                return
            data = file.read_bytes()
            if is_text(data):
                data = data[:left]
                left -= len(data)
                yield data.decode(errors="ignore")  # a cut may go through a character


def source_files(folder: Path) -> list[Path]:
    """The `.py` files below a folder, by relative path; tests and installed packages are left out."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in EXCLUDED]
        found += [Path(parent, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
