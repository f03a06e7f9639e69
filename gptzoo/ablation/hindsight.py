"""What was known when a plan was written or changed: a verdict that was chosen with its result in sight is no test."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptzoo.ablation.journal import Journal
from gptzoo.ablation.ledger import CELL, CELLS, OUTCOMES, read_cell
from gptzoo.ablation.plan import AA_ARM, FIRST_LOOK, AblationPlan
from gptzoo.ablation.study import Arm, CellOutcome

Sets = Sequence[Mapping[str, Any]]
"""The sets of cells that a ledger keeps."""

RATE = "train.learning_rate"
MOST_NAMED = 4


def known_results(folder: Path) -> Iterator[str]:
    """Cells that had ended when the first plan was frozen."""
    ended = [path.parent.name for path in sorted((folder / CELLS).glob(f"*/{CELL}")) if _has_ended(path.parent)]
    if ended:
        yield f"{_named(ended)} had ended before the plan was frozen"


def added_seeds(folder: Path, sets: Sets, old: int, new: int) -> Iterator[str]:
    """Seeds that were added when the verdicts on fewer were there to be read: so often looked, so often wrong.

    Alpha was spent on the first verdicts, and nothing is left of it for others. Seeds that are added before all cells
    of the smaller plan have ended are a change of mind, not a second chance. One seed has no verdict.
    """
    if new > old > 1 and (_have_ended(folder, sets) or _had_ended(Journal(folder), sets)):
        looks = f"looks: [{old}, {new}] in a plan keeps its" if old >= FIRST_LOOK else "looks in a plan keep their"
        yield (
            f"seeds: {old} -> {new}, added when the verdicts on {old} were there to be read: testing again and again "
            f"finds what is not there ({looks} error rate)"
        )


def _have_ended(folder: Path, sets: Sets) -> bool:
    records = [read_cell(folder / CELLS / cell["folder"]) for each in sets for cell in each["cells"]]
    return bool(records) and all(record is not None and record.status != "running" for record in records)


def _had_ended(journal: Journal, sets: Sets) -> bool:
    """Whether all cells had ended once, before the plan got another arm that has not."""
    return any(_is_whole(each["cells"], known) for known in journal.known[1:] for each in sets)


def _is_whole(cells: Sequence[Mapping[str, Any]], known: Container[str]) -> bool:
    """Whether arms that had any result had all of them; seeds come one by one, so that others were not there yet."""
    by_arm: dict[str, list[bool]] = {}
    for cell in cells:
        by_arm.setdefault(cell["arm"], []).append(cell["id"] in known)
    fresh = by_arm.pop(AA_ARM, [])
    begun = [ended for ended in by_arm.values() if any(ended)]
    return len(begun) > 1 and all(map(all, [*begun, fresh]))


def replaced_runs(journal: Journal, before: Sets, now: Sets) -> Iterator[str]:
    """Cells that had ended and, the plan being the same, are other runs now."""
    then = {(each["match"], cell["arm"], cell["seed"]): cell["id"] for each in before for cell in each["cells"]}
    replaced = [
        cell["folder"]
        for each in now
        for cell in each["cells"]
        if (id_ := then.get((each["match"], cell["arm"], cell["seed"]), cell["id"])) != cell["id"]
        and id_ in journal.endings
    ]
    if replaced:
        yield f"{_named(replaced)} had ended and were replaced: data, plugins or GPTZoo changed in between"


def copied_arms(origins: Mapping[str, Iterable[str]], study: str, baseline: Sequence[str]) -> Iterator[str]:
    """Arms whose results another study had brought before this one was planned; the baseline's may be.

    Args:
        origins: Of each arm the cells that its own were copied from, `study/folder`.
        study: This one's name: what it takes from itself was set aside for a change of its plan, which is told.
        baseline: The arms that others are compared with.
    """
    for arm, cells in origins.items():
        studies = dict.fromkeys(name for cell in cells if (name := cell.split("/")[0]) != study)
        if studies and arm not in baseline:
            yield f"results of {arm} were known before this plan was: they are copied from {', '.join(studies)}"


def own_rates(plan: AblationPlan, arms: Mapping[str, Arm]) -> Iterator[str]:
    """Arms that bring a learning rate of their own beside what they are about: tuned, and the baseline is not."""
    if plan.design is not None:
        bundles = {name: changes for name, changes in plan.factors.items() if isinstance(changes, Mapping)}
    else:
        bundles = {arm.name: arm.changes for arm in plan.arms}
    for name, changes in bundles.items():
        written = list(_dotted(changes))
        differs = arms[name].differs if name in arms else dict.fromkeys(written, ("", ""))
        others = [key for key in differs if key != RATE and any(_overlap(key, each) for each in written)]
        if RATE in written and RATE in differs and others:
            base, rate = differs[RATE]
            rates = f" ({base:g} -> {rate:g})" if isinstance(base, float) and isinstance(rate, float) else ""
            own = f"{name} brings a {RATE} of its own{rates} beside {', '.join(others)}"
            yield f"{own}, and no tuning was spent alike on all arms"


def _dotted(changes: Mapping[str, object], before: str = "") -> Iterator[str]:
    """The keys of changes, `train: {learning_rate: ...}` as `train.learning_rate`."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"


def _overlap(one: str, other: str) -> bool:
    """Whether one of two keys is the other, or holds it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def failures(cells: Iterable[CellOutcome]) -> Iterator[str]:
    """Cells that failed, so that verdicts rest on the others."""
    failed = [cell.path for cell in cells if cell.status == "failed"]
    if failed:
        yield f"{_named(failed)} failed, and verdicts rest on the other runs"


def _has_ended(cell: Path) -> bool:
    record = read_cell(cell)
    return record is not None and record.status in OUTCOMES


def _named(cells: Sequence[str]) -> str:
    """`learned-0, none-0 and 4 other cells`."""
    names, more = ", ".join(cells[:MOST_NAMED]), len(cells) - MOST_NAMED
    return names if more <= 0 else f"{names} and {more} more"
