"""What a study is once it has run: cells with their outcomes, as plain values. Reports are made from this alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gptzoo.ablation.designs import Design

Status = Literal["done", "diverged", "killed", "failed", "missing"]


@dataclass(frozen=True)
class Point:
    """One evaluation of a cell.

    Args:
        step: After this many steps.
        tokens: Trained on so far.
        seconds: Of training so far.
        value: The metric.
    """

    step: int
    tokens: int
    seconds: float
    value: float


@dataclass(frozen=True)
class Positions:
    """The loss of a trained cell at each position of its evaluation's rows.

    Args:
        losses: Nats per target; None where there was none.
        targets: How many there were.
        trained: The length of rows in training.
        asked: The length that was asked for.
        trouble: Why it was not read so far, one line; empty if it was.
    """

    losses: tuple[float | None, ...]
    targets: tuple[int, ...]
    trained: int
    asked: int
    trouble: str = ""


@dataclass(frozen=True)
class CellOutcome:
    """One arm at one seed.

    Args:
        arm: The arm's name; `a/a` is the baseline on fresh seeds.
        seed: The seed.
        id: The run's identity, 12 hex digits.
        path: Its folder, relative to the study's.
        status: `diverged` and `killed` (at a rung, far behind) are outcomes, `failed` is not.
        reason: Why it failed, diverged or was killed, one line.
        value: The metric at the end; None unless done.
        curve: The metric over the training.
        gradients: Steps that were logged, with the norm of their gradients before clipping.
        logits: The largest attention logit at the end, layer by layer; None for a layer without a kernel. Empty where
            it was not measured.
        positions: The loss at each position; None where it was not read.
        parameters: All, and `non_embedding` without embeddings.
        non_embedding: See `parameters`.
        flops_per_token: Forward and backward.
        flops: Of the training, positions without a target included.
        body_flops: Of these, all but the output matrix's.
        tokens: Trained on.
        seconds: Of training, evaluation left out.
        peak_memory: Bytes.
        init_hash: Of the initial weights that the arm shares with the baseline.
        data_hash: Of the batches it saw, in order.
        data_key: Of the data and the tokenizer.
        environment: What bit-exactness depends on.
        exact_resumes: Whether it was resumed, and bit-exactly if so.
    """

    arm: str
    seed: int
    id: str
    path: str
    status: Status
    reason: str = ""
    value: float | None = None
    curve: tuple[Point, ...] = ()
    gradients: tuple[tuple[int, float], ...] = ()
    logits: tuple[float | None, ...] = ()
    positions: Positions | None = None
    parameters: int = 0
    non_embedding: int = 0
    flops_per_token: float = 0.0
    flops: float = 0.0
    body_flops: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    peak_memory: int = 0
    init_hash: str = ""
    data_hash: str = ""
    data_key: str = ""
    environment: Mapping[str, object] | None = None
    exact_resumes: bool = True


@dataclass(frozen=True)
class TuningRun:
    """A short run of an arm at one learning rate, on a seed that no other run has.

    Args:
        arm: The arm's name.
        rate: The learning rate.
        seed: From 20000 on.
        id: The run's identity.
        path: Its folder, relative to the study's.
        status: As a cell's.
        value: The metric at the end; None unless done.
        tokens: Trained on.
    """

    arm: str
    rate: float
    seed: int
    id: str
    path: str
    status: Status
    value: float | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Tuned:
    """What tuning found for an arm.

    Args:
        arm: The arm's name.
        runs: All that were planned for it.
        rate: The learning rate that its cells are run at; None as long as tuning goes on.
        trouble: Why the arm counts as untuned, one line: the best rate lies at the edge; empty if it does not.
    """

    arm: str
    runs: tuple[TuningRun, ...]
    rate: float | None
    trouble: str = ""


@dataclass(frozen=True)
class Arm:
    """One variant.

    Args:
        name: Its name.
        changes: Recipe keys and values, beside the base.
        differs: Keys of the resolved recipe that differ from the baseline's: key -> (baseline's value, its value).
        refused: Why its parts do not fit, or an empty string; a refused arm has no cells.
    """

    name: str
    changes: Mapping[str, object]
    differs: Mapping[str, tuple[object, object]]
    refused: str = ""


@dataclass(frozen=True)
class StudyOutcome:
    """A study: its plan and all that came of it.

    Args:
        name: Of the study.
        plan: The frozen plan, as it was written.
        plan_hash: sha256 of it.
        exploratory: Why its verdicts are exploratory, or an empty string.
        baseline: Name of the baseline arm.
        arms: In the plan's order.
        seeds: Confirm seeds, 0 .. seeds - 1.
        aa: Whether there is an A/A arm.
        match: What is equal across arms: `tokens`, `params`, `flops`, `wall`, or several: `tokens+params`.
        metric: `val_loss`, ...
        higher_is_better: The metric's direction.
        delta: Smallest difference of interest, or None.
        alpha: Error rate.
        base_recipe: The resolved base, YAML.
        cells: Every planned cell.
        mismatches: Ledger entries that block verdicts, one line each.
        notes: What a reader should know, one line each.
        design: How the arms are made of factors, or None.
        looks: Numbers of seeds at which the study is looked at; empty for one analysis.
        tuning: What tuning found, arm by arm; empty if the plan tunes nothing.
        rungs: Shares of the training at which arms that are far behind were killed; empty if none could be.
    """

    name: str
    plan: str
    plan_hash: str
    exploratory: str
    baseline: str
    arms: tuple[Arm, ...]
    seeds: int
    aa: bool
    match: str
    metric: str
    higher_is_better: bool
    delta: float | None
    alpha: float
    base_recipe: str
    cells: tuple[CellOutcome, ...]
    mismatches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    design: Design | None = None
    looks: tuple[int, ...] = ()
    tuning: tuple[Tuned, ...] = ()
    rungs: tuple[float, ...] = ()
