"""The loss of an arm by position: means over its runs, in spans of positions that double in length."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptzoo.ablation.ledger import POSITIONS
from gptzoo.ablation.study import CellOutcome, Positions
from gptzoo.errors import GPTZooError

SHORT = 16
"""Positions that are each shown by themselves."""


@dataclass(frozen=True)
class Span:
    """Positions `start` up to `stop`: the mean loss over runs, and the lowest and the highest run."""

    start: int
    stop: int
    mean: float
    low: float
    high: float


def read_positions(folder: Path) -> Positions | None:
    """What a cell wrote; None where it wrote nothing.

    Raises:
        GPTZooError: The file is damaged.
    """
    path = folder / POSITIONS
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_bytes())
        losses, targets = tuple(kept.get("losses", ())), tuple(kept.get("targets", ()))
        return Positions(losses, targets, int(kept["trained"]), int(kept["asked"]), str(kept["trouble"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GPTZooError("these are no losses by position. Remove the file, or restore it.", str(path)) from error


def edges(length: int, trained: int) -> list[int]:
    """Where spans begin and end: every position where they are few, else powers of two and multiples of the length."""
    if length <= SHORT:
        return list(range(length + 1))
    found = {0, length, *(2**power for power in range(length.bit_length()) if 2**power < length)}
    return sorted(found | {edge for times in (1, 2, 4, 8) if (edge := times * trained) < length})


def spans(cells: Iterable[CellOutcome]) -> list[Span]:
    """Of the runs of an arm that were done."""
    known = [c.positions for c in cells if c.status == "done" and c.positions is not None and c.positions.losses]
    if not known:
        return []
    length = min(len(each.losses) for each in known)
    found = []
    for start, stop in itertools.pairwise(edges(length, known[0].trained)):
        means = [mean for each in known if (mean := _mean(each, start, stop)) is not None]
        if means:
            found.append(Span(start, stop, statistics.fmean(means), min(means), max(means)))
    return found


def ends(cells: Sequence[CellOutcome]) -> str:
    """`read up to 64: its positions end at 64`; an empty string for an arm that was read as far as was asked."""
    short = [c.positions for c in cells if c.positions is not None and c.positions.trouble]
    if not short:
        return ""
    return f"read up to position {min(len(each.losses) for each in short)}: {short[0].trouble.rstrip('.')}"


def _mean(positions: Positions, start: int, stop: int) -> float | None:
    pairs = [
        (loss, count)
        for loss, count in zip(positions.losses[start:stop], positions.targets[start:stop], strict=True)
        if loss is not None and count
    ]
    total = sum(count for _, count in pairs)
    return math.fsum(loss * count for loss, count in pairs) / total if total else None
