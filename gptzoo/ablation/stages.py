"""The stages of a set of cells: each goes on with the arms that the one before has found, or guesses until it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation.arms import Made
from gptzoo.ablation.cells import PlannedCell
from gptzoo.ablation.making import CellMaker


@dataclass(frozen=True)
class Stage:
    """Arms with what a stage finds for them.

    Args:
        arms: With the steps, or at the rates, that were found; as they were as long as the search goes on.
        ended: What it finds is known, so that the next stage can rest on it.
        cells: Runs of all arms that are known by now.
        expected: Those that are likely to follow.
        notes: What a reader should know.
        told: What became known, for whoever looks on.
    """

    arms: Sequence[Made]
    ended: bool = True
    cells: tuple[PlannedCell, ...] = ()
    expected: tuple[PlannedCell, ...] = ()
    notes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def then(self, stage: Callable[[Sequence[Made], CellMaker], Stage], maker: CellMaker) -> Stage:
        """The next stage; a guess as long as this one has not ended.

        Args:
            stage: From the arms as they are after this one, and what makes its cells.
            maker: Of the set.
        """
        return stage(self.arms, maker) if self.ended else stage(self.arms, maker.sketching()).guessed()

    def guessed(self) -> Stage:
        """Nothing is known yet, and everything is expected."""
        return replace(self, ended=False, cells=(), expected=(*self.cells, *self.expected))
