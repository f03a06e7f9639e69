"""Makes cells from arms and seeds. A run that several sets ask for is one cell, with one identity and one folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gptzoo.ablation.arms import Made, Resolver
from gptzoo.ablation.cells import PlannedCell
from gptzoo.building import Plan
from gptzoo.environment import DECIDES, environment
from gptzoo.files import canonical_json
from gptzoo.recipe.typed import as_mapping
from gptzoo.running import run_identity
from gptzoo.runs.directory import slug


@dataclass
class Environments:
    """What bit-exactness depends on, found out once for all seeds of an arm."""

    _found: dict[str, dict[str, object]] = field(default_factory=dict)

    def of(self, made: Plan, recipe: Mapping[str, object], key: str) -> dict[str, object]:
        """As a worker of this machine will have it.

        Args:
            made: The arm.
            recipe: Its recipe, plain.
            key: Of its data.
        """
        arm = canonical_json({**recipe, "name": "", "seed": 0})
        if arm not in self._found:
            here = environment(made.recipe, made.zoo, made.device, key)
            self._found[arm] = {**{fact: here[fact] for fact in DECIDES}, "threads": 1}
        return self._found[arm]


@dataclass(frozen=True)
class CellMaker:
    """Makes the cells of a set.

    Args:
        resolver: Of the plan.
        environments: Of all its arms.
        match: The set's.
        known: The runs of the sets before and of this one, by identity. What is made is added.
    """

    resolver: Resolver
    environments: Environments
    match: str
    known: dict[str, PlannedCell]

    def cell(self, each: Made, seed: int, *, arm: str = "", folder: str = "") -> PlannedCell:
        """The run of an arm with a seed.

        Args:
            each: The arm; not one that is refused.
            seed: The recipe's.
            arm: Whose cell it is, unless the arm's own.
            folder: Its folder's name if the run is not known yet; made of the arm's and the seed unless given.
        """
        assert each.made is not None
        arm = arm or each.arm.name
        made = replace(each.made, recipe=replace(each.made.recipe, seed=seed))
        key = self.resolver.tokenized(made)[1]
        id_ = run_identity(made, key)
        if id_ in self.known:
            return replace(self.known[id_], arm=arm)
        folder = folder or f"{self.stem(arm)}-{seed}"
        recipe = as_mapping(replace(made.recipe, name=folder))
        self.known[id_] = PlannedCell(arm, seed, folder, id_, recipe, self.environments.of(made, recipe, key))
        return self.known[id_]

    def stem(self, arm: str) -> str:
        """What the folders of an arm's cells begin with; the first set's have the plain name."""
        first = self.match == self.resolver.plan.match[0]
        return slug(arm) if first else f"{slug(arm)}.{slug(self.match)}"

    def sketching(self) -> CellMaker:
        """One that knows as much, and whose cells no set is going to know."""
        return replace(self, known=dict(self.known))

    def keep(self, cells: Iterable[PlannedCell]) -> None:
        """Cells of a sketch that are to be run after all."""
        self.known.update((cell.id, cell) for cell in cells)
