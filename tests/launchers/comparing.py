"""What must be equal wherever the cells of a study ran: their numbers and weights, and the table of results."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from gptzoo.ablation.collecting import collect
from gptzoo.ablation.report import results_csv

MEASURED = ("seconds", "peak_memory")
"""Columns of results.csv that no two runs share."""


def results(folder: Path) -> list[dict[str, str]]:
    """results.csv, without what is measured."""
    rows = list(csv.DictReader(io.StringIO(results_csv(collect(folder)))))
    assert set(MEASURED) <= set(rows[0])
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    """The numbers and the weights of all cells."""
    return {**metrics(folder), **weights(folder)}


def metrics(folder: Path) -> dict[str, bytes]:
    """metrics.jsonl of every cell."""
    return _read(folder, "cells/*/metrics.jsonl")


def weights(folder: Path) -> dict[str, bytes]:
    """The tensors of every checkpoint of every cell: weights, the optimizer's state, generators."""
    return _read(folder, "cells/*/checkpoints/*/*.safetensors")


def _read(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}


def digest(contents: Mapping[str, bytes] | list[dict[str, str]]) -> str:
    """sha256 over what was read; equal if and only if all of it is."""
    if isinstance(contents, list):
        return hashlib.sha256(repr(contents).encode()).hexdigest()
    total = hashlib.sha256()
    for name, content in contents.items():
        total.update(f"{name} {len(content)} ".encode())
        total.update(content)
    return total.hexdigest()
