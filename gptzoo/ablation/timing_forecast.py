"""What timing is going to cost, and the steps that arms are likely to get from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gptzoo.ablation import timing
from gptzoo.ablation.cells import CellSet, PlannedCell

GUESSED = "steps are a guess until it is timed"


def timing_line(each: CellSet, to_run: int) -> str:
    """For the terminal; empty if nothing is timed."""
    runs = sum(cell.purpose == "timing" for cell in each.before)
    if not runs:
        return ""
    waiting = f", {to_run} of them to run, before all others" if to_run else ", all ended"
    return f"timing {runs} runs of {timing.STEPS} steps, one at a time{waiting}"


def at_likely_pace(each: CellSet, baseline: str, step_seconds: Callable[[PlannedCell], float | None]) -> CellSet:
    """The set with what it expects at the steps that a few probed ones suggest, where arms are still to be timed.

    Args:
        each: Of a study.
        baseline: The arm that the others are as fast as.
        step_seconds: Of a run, if known.
    """
    noted = {note.partition(": ")[0] for note in each.notes}
    beside = next((cell for cell in each.expected if cell.arm == baseline and cell.purpose == "confirm"), None)
    base = step_seconds(beside) if beside else None
    if "wall" not in each.match or each.cells or not base:
        return each

    def paced(cell: PlannedCell) -> PlannedCell:
        own = step_seconds(cell)
        return _with_pace(cell, own / base) if own and cell.arm not in (baseline, *noted) else cell

    notes = [f"{arm.name}: {GUESSED}." for arm in each.arms if not arm.refused and arm.name not in (baseline, *noted)]
    return replace(each, expected=tuple(map(paced, each.expected)), notes=(*each.notes, *notes))


def _with_pace(cell: PlannedCell, ratio: float) -> PlannedCell:
    train: Any = cell.recipe["train"]
    assert isinstance(train, Mapping)
    scaled = {key: max(1, round(train[key] / ratio)) if train[key] else 0 for key in ("steps", "eval_every")}
    return replace(cell, recipe={**cell.recipe, "train": {**train, **scaled}})
