"""What a study runs: its cells, each with the identity of its run, in one set for each way of matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gptzoo.ablation.plan import AA_ARM, AblationPlan
from gptzoo.ablation.study import Arm
from gptzoo.costs import Costs

AA_SEEDS = 10_000
"""The first seed of the A/A arm, so that it never meets a confirm seed."""

Purpose = Literal["confirm", "tuning", "timing"]


@dataclass(frozen=True)
class PlannedCell:
    """One run of a study.

    Args:
        arm: The arm's name.
        seed: The recipe's seed.
        folder: Its folder's name, under `cells/`.
        id: The run's identity.
        recipe: Resolved, plain.
        environment: What bit-exactness depends on, as a worker of this machine will have it.
        purpose: `confirm` for verdicts; `tuning` and `timing` come before, and verdicts do not see their numbers.
        limits: The metric at a step beyond which the cell is killed there, by step; see `rungs`.
        rate: The learning rate that a tuning cell tries.
    """

    arm: str
    seed: int
    folder: str
    id: str
    recipe: dict[str, object]
    environment: dict[str, object]
    purpose: Purpose = "confirm"
    limits: Mapping[int, float] = field(default_factory=dict)
    rate: float | None = None

    @property
    def place(self) -> int:
        """Of a cell for verdicts: which of its arm's seeds it is."""
        return self.seed - AA_SEEDS if self.arm == AA_ARM else self.seed

    @property
    def train(self) -> Mapping[str, Any]:
        """The recipe's `train`."""
        train = self.recipe["train"]
        assert isinstance(train, Mapping)
        return train

    @property
    def steps(self) -> int:
        return int(self.train["steps"])

    @property
    def eval_every(self) -> int:
        return int(self.train["eval_every"])

    @property
    def tokens_per_step(self) -> int:
        model = self.recipe["model"]
        assert isinstance(model, Mapping)
        return int(self.train["batch_size"]) * int(model["context_length"])


@dataclass(frozen=True)
class CellSet:
    """The runs that one way of matching asks for, as far as they can be known yet.

    Args:
        match: `tokens`, `params`, ..., or several joined by `+`.
        arms: In the plan's order, refused ones too.
        costs: Of each arm that runs; None where they cannot be counted.
        cells: Those that verdicts rest on, seed by seed, so that an interrupted study has whole blocks.
        notes: What a reader should know.
        before: Cells for timing and tuning, in the order in which they became known.
        expected: What may follow once these have ended, as good a guess as there is: for what a plan costs.
        told: What became known since the first cells ended, one line each: what tuning and looks brought.
    """

    match: str
    arms: tuple[Arm, ...]
    costs: Mapping[str, Costs | None]
    cells: tuple[PlannedCell, ...]
    notes: tuple[str, ...]
    before: tuple[PlannedCell, ...] = ()
    expected: tuple[PlannedCell, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStudy:
    """A plan with everything that can be known of its runs by now.

    Args:
        plan: The plan.
        base: The base, typed, with every default written out; `auto` is still auto.
        base_recipe: The same as YAML.
        sets: One for each entry of the plan's `match`.
    """

    plan: AblationPlan
    base: dict[str, object]
    base_recipe: str
    sets: tuple[CellSet, ...]

    @property
    def cells(self) -> list[PlannedCell]:
        """The distinct runs of all sets."""
        return list({cell.folder: cell for each in self.sets for cell in (*each.before, *each.cells)}.values())
