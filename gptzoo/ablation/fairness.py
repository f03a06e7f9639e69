"""What tuning and unlucky runs mean for fairness: lines of the ledger, and what blocks every verdict.

An arm that was tuned longer than its rivals, or on seeds that its results use, is not better: it was favoured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gptzoo.ablation.study import CellOutcome, StudyOutcome, Tuned

SPENT = ("done", "diverged", "killed")
"""States of a run that was spent: it cannot be had again."""

NONE = "\N{EN DASH}"

TOKENS_APART = 0.01
"""Share of its tokens that a tuning run may differ by from another arm's: rows of examples are not all full."""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Args:
        quantity: What is compared.
        required: Fairness, or the study's `match`, asks that it be equal.
        equal: It is, over all arms; None if unknown.
        detail: The values, or where they differ most.
        words: For equal, and for not.
    """

    quantity: str
    required: bool
    equal: bool | None
    detail: str
    words: tuple[str, str] = ("equal", "differs")


def tuning_mismatches(study: StudyOutcome) -> Iterable[str]:
    """What was unfair in the tuning, one line each; nothing as long as it goes on."""
    if not tuning_ended(study):
        return
    tuned = of_arms(study)
    base = tuned[study.baseline]
    for arm, own in tuned.items():
        if spent(own) != spent(base):
            yield f"{arm}: {_runs(own)}, the baseline had {_runs(base)}"
        one, two = _tokens(own), _tokens(base)
        if "tokens" in study.match.split("+") and one and two and abs(one - two) > TOKENS_APART * two:
            yield f"{arm}: tuning runs of {one:,} tokens, the baseline's had {two:,}"
        leaked = sorted({run.seed for run in own.runs} & {cell.seed for cell in study.cells})
        if leaked:
            seeds = f"seed{'' if len(leaked) == 1 else 's'} {', '.join(map(str, leaked))}"
            yield f"{arm}: tuned on {seeds}, which its results use"


def tuning_ended(study: StudyOutcome) -> bool:
    """Whether there was any, and every arm has a rate, or none to be had."""
    return bool(study.tuning) and all(each.rate is not None or each.trouble for each in study.tuning)


def of_arms(study: StudyOutcome) -> Mapping[str, Tuned]:
    """What tuning found for each arm that was run, the baseline first; an arm that nobody tuned has no runs."""
    found = {each.arm: each for each in study.tuning}
    names = [study.baseline, *(arm.name for arm in study.arms if arm.name != study.baseline and not arm.refused)]
    return {name: found.get(name, Tuned(name, (), None)) for name in names}


def untuned(study: StudyOutcome) -> Mapping[str, str]:
    """Why arms count as untuned, by name: `untuned: the best rate lies at the edge`."""
    return {each.arm: f"untuned: {each.trouble.rstrip('.')}" for each in study.tuning if each.trouble}


def entries(study: StudyOutcome) -> Iterable[Entry]:
    """The lines of the ledger on tuning, and on runs that did not end in a number."""
    yield from _tuning_entries(study)
    yield _lost(study, "diverged")
    if study.rungs or any(cell.status == "killed" for cell in study.cells):
        yield _lost(study, "killed")


def _tuning_entries(study: StudyOutcome) -> Iterable[Entry]:
    if not study.tuning:
        yield Entry("tuning runs", True, True, "none for any arm")
        return
    tuned, ended = of_arms(study), tuning_ended(study)
    yield _counts("tuning runs", tuned, spent, True, ended)
    required = "tokens" in study.match.split("+")
    yield _counts("tokens of all tuning runs", tuned, lambda own: sum(run.tokens for run in own.runs), False, ended)
    yield _counts("tokens of the longest tuning run", tuned, _tokens, required, ended)
    seeds = {run.seed for own in tuned.values() for run in own.runs}
    apart = not seeds & {cell.seed for cell in study.cells}
    told = f"seed{'' if len(seeds) == 1 else 's'} {_listed(sorted(seeds))}"
    yield Entry("tuning seeds that no result uses", True, apart, told, ("yes", "no"))
    rates = [f"{name} {own.rate:.3g}" for name, own in tuned.items() if own.rate is not None]
    yield Entry("learning rate chosen", False, _same(own.rate for own in tuned.values()), ", ".join(rates))
    edge = [f"{name}: {own.trouble.rstrip('.')}" for name, own in tuned.items() if own.trouble]
    inside, quantity = not edge if ended else None, "best learning rate inside the tried ones"
    yield Entry(quantity, True, inside, _listed(edge) or "for every arm", ("yes", "no"))


def _counts(
    quantity: str, tuned: Mapping[str, Tuned], count: Callable[[Tuned], int], required: bool, ended: bool
) -> Entry:
    values = {name: count(own) for name, own in tuned.items()}
    if not ended:
        return Entry(quantity, required, None, "tuning goes on")
    if len(set(values.values())) == 1:
        return Entry(quantity, required, True, f"{next(iter(values.values())):,} for every arm")
    return Entry(quantity, required, False, _listed(f"{name} {value:,}" for name, value in values.items()))


def _lost(study: StudyOutcome, status: str) -> Entry:
    lost: dict[str, list[CellOutcome]] = {}
    for cell in study.cells:
        lost.setdefault(cell.arm, []).append(cell)
    counts = {arm: sum(cell.status == status for cell in cells) for arm, cells in lost.items()}
    told = [f"{count} of {len(lost[arm])} of {arm}" for arm, count in counts.items() if count]
    quantity = f"runs that {'were ' if status == 'killed' else ''}{status}"
    return Entry(quantity, False, not told, _listed(told) or NONE, ("none", "some"))


def killed_at(study: StudyOutcome, cells: Sequence[CellOutcome]) -> str:
    """` at 25% of training`: the rungs at which runs were killed; an empty string where nobody knows."""
    whole = [_budget(study, cell) for cell in study.cells if cell.arm == study.baseline and cell.status == "done"]
    if not study.rungs or not whole or not sum(whole):
        return ""
    share = {_budget(study, cell) / (sum(whole) / len(whole)) for cell in cells if cell.status == "killed"}
    rungs = sorted({min(study.rungs, key=lambda rung: abs(rung - each)) for each in share})
    return f" at {' and '.join(f'{rung:.0%}' for rung in rungs)} of training" if rungs else ""


def _budget(study: StudyOutcome, cell: CellOutcome) -> float:
    """How far a run got, in what is matched."""
    matched = study.match.split("+")
    if "flops" in matched:
        return cell.flops
    return cell.seconds if "wall" in matched else cell.tokens


def spent(tuned: Tuned) -> int:
    """How many tuning runs of an arm have ended in a result."""
    return sum(run.status in SPENT for run in tuned.runs)


def _runs(tuned: Tuned) -> str:
    count = spent(tuned)
    return f"{count or 'no'} tuning run{'' if count == 1 else 's'}"


def _tokens(tuned: Tuned) -> int:
    """Of the longest run; those that diverged or were killed are shorter by nature."""
    return max((run.tokens for run in tuned.runs), default=0)


def _same(values: Iterable[object]) -> bool:
    return len(set(values)) == 1


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
