"""A data set to share, from a generator: shards that `datasets.load_dataset` reads, and a card that says what it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import yaml

from gptzoo import __version__
from gptzoo.errors import GPTZooError
from gptzoo.files import make_folder, remove, sync_folder, temporary_name, write_atomically, writing
from gptzoo.registry import Zoo

SPLITS = ("train", "test")
SHARD = 250_000
"""Rows of a shard, at most."""


class Source(Protocol):
    """What can be made into a data set; what a data component's `dataset(rows, seed)` returns.

    Attributes:
        title: The data set's name for people.
        license: As the hub writes it, `mit`.
        columns: Each column, all of text, with what it holds.
    """

    title: str
    license: str
    columns: Mapping[str, str]

    def count(self, split: str) -> int:
        """Rows of a split, `train` or `test`."""
        ...

    def records(self, split: str) -> Iterator[Mapping[str, str]]:
        """The rows of a split by column: the same ones at each call."""
        ...

    def description(self) -> str:
        """How it was made, in Markdown."""
        ...


@dataclass(frozen=True)
class Made:
    """A data set on disk.

    Args:
        folder: Where it lies; `datasets.load_dataset(folder)` reads it.
        rows: Rows of each split.
    """

    folder: Path
    rows: Mapping[str, int]


def make_dataset(name: str, zoo: Zoo, folder: str | os.PathLike[str], *, rows: int, seed: int = 0) -> Made:
    """Write a data set into a new folder: Parquet shards and a card, all of it or nothing.

    Args:
        name: A registered data component with `dataset(rows, seed)`.
        zoo: Where the name is looked up.
        folder: Must not exist yet.
        rows: Rows of all splits.
        seed: Of the generator.

    Raises:
        GPTZooError: The folder exists, the component cannot make a data set, or not of so many rows.
        NoSpace: The disk is full.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise GPTZooError("it exists already. Name a folder that does not, or remove it.", str(folder))
    source = _generator(name, zoo)(rows, seed)
    temporary = temporary_name(folder)
    with writing(folder, undo=lambda: remove(temporary)):
        make_folder(temporary / "data")
        with _without_progress_bars():
            for split in SPLITS:
                _write_shards(source, split, temporary / "data")
        card = _card(source, name, rows, seed)
        write_atomically(temporary / "README.md", card.encode())
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    return Made(folder, {split: source.count(split) for split in SPLITS})


def _generator(name: str, zoo: Zoo) -> Callable[[int, int], Source]:
    found = getattr(zoo.get("data", name).factory, "dataset", None)
    if found is None:
        able = [entry.name for entry in zoo.entries("data") if hasattr(entry.factory, "dataset")]
        raise GPTZooError(f"data {name!r} reads what exists and makes nothing. Use {' or '.join(able)}.")
    return found


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """One per shard would only flicker."""
    import datasets

    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not quiet:
            datasets.enable_progress_bars()


def _write_shards(source: Source, split: str, folder: Path) -> None:
    from datasets import Dataset, Features, Value  # late: it costs a second

    records, total = source.records(split), -(-source.count(split) // SHARD)
    features = Features({column: Value("string") for column in source.columns})
    for index in range(total):
        part = list(islice(records, SHARD))
        columns = {column: [record[column] for record in part] for column in source.columns}
        path = folder / f"{split}-{index:05}-of-{total:05}.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(path)


def _card(source: Source, name: str, rows: int, seed: int) -> str:
    examples = "\n\n".join(_example(record) for record in islice(source.records("train"), 3))
    columns = "\n".join(f"| `{column}` | {meaning} |" for column, meaning in source.columns.items())
    splits = "\n".join(f"| {split} | {source.count(split):,} |" for split in SPLITS)
    return f"""---
{yaml.safe_dump(_header(source), sort_keys=False)}---

# {source.title}

{source.description()}

Made by GPTZoo {__version__} with seed {seed}; the same command gives the same rows:

```
gptzoo data make {name} --rows {rows} --seed {seed} --out FOLDER
```

| column | |
|---|---|
{columns}

| split | rows |
|---|---|
{splits}

Three rows:

{examples}

License: {source.license}.
"""


def _header(source: Source) -> dict[str, object]:
    """What the hub and `load_dataset` read at the top of the card."""
    files = [{"split": split, "path": f"data/{split}-*"} for split in SPLITS]
    features = [{"name": column, "dtype": "string"} for column in source.columns]
    return {
        "license": source.license,
        "pretty_name": source.title,
        "task_categories": ["text-generation"],
        "size_categories": [_size_category(sum(map(source.count, SPLITS)))],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"config_name": "default", "features": features},
    }


def _size_category(rows: int) -> str:
    """`100K<n<1M`, in the hub's words."""
    words = ["1K", "10K", "100K", "1M", "10M", "100M"]
    above = [word for index, word in enumerate(words) if rows >= 10 ** (index + 3)]
    return f"{above[-1]}<n<{words[len(above)]}" if above else "n<1K"


def _example(record: Mapping[str, str]) -> str:
    lines = [f"{column}: {value}" if "\n" not in value else f"{column}:\n{value}" for column, value in record.items()]
    return "\n".join(["```", *lines, "```"])
