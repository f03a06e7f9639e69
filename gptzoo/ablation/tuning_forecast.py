"""What tuning is going to be: how many short runs each arm gets, and what is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptzoo.ablation.cells import CellSet, PlannedCell
from gptzoo.ablation.tuning import MORE, Tuning
from gptzoo.ablation.tuning_runs import RATE


@dataclass(frozen=True)
class TuningForecast:
    """The tuning of all arms.

    Args:
        runs: Of each arm.
        rates: Learning rates that are tried of each arm.
        share: Of the steps that a run takes.
        widened: There are more than usual, because a best rate lay at the edge of those tried.
        cells: Runs of all arms.
        to_run: Of these, those that have not ended.
        tokens: Of these.
        found: The learning rate of each arm; empty as long as tuning goes on.
    """

    runs: int
    rates: int
    share: float
    widened: bool
    cells: int
    to_run: int
    tokens: int
    found: dict[str, float]

    @property
    def line(self) -> str:
        """For the terminal."""
        what = f"tuning {self.runs} runs of {self.share:.0%} of the steps for each arm"
        if self.found:
            return f"{what} found {', '.join(f'{rate:g} for {arm}' for arm, rate in self.found.items())}"
        again = f"{self.rates} learning rates, {self.runs - self.rates} of them on a second seed"
        more = "" if self.widened else f"; {MORE} or {2 * MORE} runs more if a best rate lies at the edge"
        return f"{what} ({self.tokens:,} tokens): {again}{more}"


def tuning_cells(each: CellSet) -> list[PlannedCell]:
    """The tuning runs of a set, those that are only expected too."""
    return [cell for cell in (*each.before, *each.expected) if cell.purpose == "tuning"]


def forecast_tuning(tuning: Tuning, each: CellSet, to_run: int, tokens: int) -> TuningForecast:
    """What the tuning of a set is going to be.

    Args:
        tuning: The plan's.
        each: The set.
        to_run: How many of its tuning runs have not ended.
        tokens: Of these.
    """
    cells = tuning_cells(each)
    own = _of_one_arm(cells)
    rates = len({cell.rate for cell in own})
    found = {arm.name: float(str(arm.changes[RATE])) for arm in each.arms if each.cells and RATE in arm.changes}
    return TuningForecast(
        runs=len(own),
        rates=rates,
        share=tuning.share,
        widened=rates > tuning.points,
        cells=len(cells),
        to_run=to_run,
        tokens=tokens,
        found=found,
    )


def _of_one_arm(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """All arms have as many."""
    return [cell for cell in cells if cell.arm == cells[0].arm]
