"""What the tuning of a study found, read from its ledger and its runs, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptzoo.ablation.study import CellOutcome, Tuned, TuningRun
from gptzoo.ablation.tuning import FIRST, Choice, Try, choose, score_of

RATE = "train.learning_rate"
OUTCOMES = ("done", "diverged", "killed")


def tuning_run(planned: Mapping[str, Any], outcome: CellOutcome) -> TuningRun:
    """A tuning run.

    Args:
        planned: As the ledger has it.
        outcome: What came of it.
    """
    o = outcome
    return TuningRun(o.arm, float(planned["rate"]), o.seed, o.id, o.path, o.status, o.value, o.tokens)


def tuned(kept: Mapping[str, Any], runs: Sequence[TuningRun], *, higher_is_better: bool) -> tuple[Tuned, ...]:
    """What tuning found for each arm that was tuned, in the plan's order.

    Args:
        kept: The ledger's set of cells. It has cells for verdicts as soon as tuning has ended.
        runs: Its tuning runs.
        higher_is_better: The metric's direction.
    """
    names = [arm["name"] for arm in kept["arms"]]
    by_arm = {name: tuple(run for run in runs if run.arm == name) for name in names}
    made = []
    for arm, own in zip(kept["arms"], by_arm.values(), strict=True):
        choice = choice_of(own, higher_is_better=higher_is_better)
        rate = arm["changes"].get(RATE) if kept["cells"] else None
        trouble = choice.trouble if choice is not None and rate is not None else ""
        made += [Tuned(arm["name"], own, rate, trouble)] if own else []
    return tuple(made)


def choice_of(runs: Sequence[TuningRun], *, higher_is_better: bool) -> Choice | None:
    """What the runs of an arm say; None if one is missing: every rate is tried on the first seed."""
    first = {run.rate for run in runs if run.seed == FIRST}
    if any(run.status not in OUTCOMES for run in runs) or not first or not {run.rate for run in runs} <= first:
        return None
    values = {Try(run.rate, run.seed): run.value if run.status == "done" else None for run in runs}
    return choose({each: score_of(value, higher_is_better=higher_is_better) for each, value in values.items()})


def disagreements(found: Sequence[Tuned], *, higher_is_better: bool) -> Iterable[str]:
    """Arms whose cells are not run at the rate that their tuning finds, one line each."""
    for arm in found:
        choice = choice_of(arm.runs, higher_is_better=higher_is_better)
        if arm.rate is None:
            continue
        if choice is None:
            yield f"{arm.arm}: a tuning run that its learning rate rests on is gone"
        elif choice.rate != arm.rate:
            yield f"{arm.arm}: its runs are at the learning rate {arm.rate:g}, and its tuning finds {choice.rate:g}"


def how_far(found: Sequence[Tuned]) -> str:
    """That tuning goes on, one sentence; empty if it does not."""
    runs = [run for arm in found for run in arm.runs]
    if not runs or all(arm.rate is not None for arm in found):
        return ""
    ended = sum(run.status in OUTCOMES for run in runs)
    return f"Tuning goes on: {ended} of {len(runs)} runs that are planned so far have ended."
