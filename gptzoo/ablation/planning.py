"""From a plan to its cells: arms are matched, timed, tuned and confirmed, each stage as far as the past tells."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from gptzoo.ablation.arms import Made, Resolver
from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy
from gptzoo.ablation.confirmer import Confirmer
from gptzoo.ablation.making import CellMaker, Environments
from gptzoo.ablation.matching import Matcher
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import AblationPlan
from gptzoo.ablation.stages import Stage
from gptzoo.ablation.timer import Timer
from gptzoo.ablation.tuner import Tuner
from gptzoo.errors import GPTZooError
from gptzoo.loading import Loaded, load_plugins
from gptzoo.recipe.typed import as_yaml


def plan_cells(
    plan: AblationPlan,
    *,
    past: Past | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    strict: bool = False,
) -> PlannedStudy:
    """Type and resolve every arm of a plan. An arm whose parts do not fit is refused; the others go on.

    Args:
        plan: As read.
        past: What its cells have brought so far; nothing unless given.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        strict: A broken plugin is an error even if nothing needs it.

    Raises:
        GPTZooError: The base or an arm names something unknown, two arms are the same, or the baseline does not fit.
    """
    return Planner(plan, load_plugins(plugins, folders, strict=strict)).study(past)


@dataclass
class Planner:
    """Plans the cells of a study, stage by stage: a function of the plan and of the cells that have ended.

    Args:
        plan: As read.
        loaded: The plugins.
    """

    plan: AblationPlan
    loaded: Loaded
    _environments: Environments = field(default_factory=Environments)
    _matched: dict[str, Sequence[Made]] = field(default_factory=dict)

    @functools.cached_property
    def resolver(self) -> Resolver:
        return Resolver(self.plan, self.loaded)

    @functools.cached_property
    def matcher(self) -> Matcher:
        return Matcher(self.resolver)

    def study(self, past: Past | None = None) -> PlannedStudy:
        """All cells that can be known by now.

        Raises:
            GPTZooError: See `plan_cells`.
        """
        past = past or Past(None, self.plan.metric)
        base, mapping, _ = self.resolver.arms
        known: dict[str, PlannedCell] = {}
        sets = tuple(self.set_of(match, past, known) for match in self.plan.match)
        _refuse_shared_folders(sets)
        return PlannedStudy(self.plan, mapping, as_yaml(base), sets)

    def set_of(self, match: str, past: Past, known: dict[str, PlannedCell]) -> CellSet:
        """The arms, matched, timed, tuned and confirmed.

        Args:
            match: An entry of the plan's `match`.
            past: What cells have brought so far.
            known: The cells of the sets before, by identity; this one's are added.
        """
        maker = CellMaker(self.resolver, self._environments, match, known)
        matched = Stage(self.matched(match))
        timed = matched.then(Timer(self.matcher, past).timed, maker)
        tuned = timed.then(Tuner(self.resolver, past).tuned, maker)
        confirmed = tuned.then(Confirmer(self.plan, past).confirmed, maker)
        return CellSet(
            match,
            arms=tuple(each.arm for each in tuned.arms),
            costs={each.arm.name: self.resolver.counted(each.made) for each in tuned.arms if each.made},
            cells=confirmed.cells,
            notes=(*(each.note for each in tuned.arms if each.note), *tuned.notes),
            before=(*timed.cells, *tuned.cells),
            expected=(*tuned.expected, *confirmed.expected),
            told=(*tuned.told, *(confirmed.told if tuned.ended else ())),
        )

    def matched(self, match: str) -> Sequence[Made]:
        """The arms as alike as they can be made without a run: in their parameters, in their FLOPs.

        No run changes them, so that all stages of a study share them.
        """
        if match not in self._matched:
            _, base, arms = self.resolver.arms
            arms = self.matcher.params(base, arms) if "params" in match else arms
            self._matched[match] = self.matcher.flops(arms) if "flops" in match else arms
        return self._matched[match]


def _refuse_shared_folders(sets: Sequence[CellSet]) -> None:
    ids: dict[str, str] = {}
    for cell in (cell for each in sets for cell in (*each.before, *each.cells, *each.expected)):
        if ids.setdefault(cell.folder, cell.id) != cell.id:
            raise GPTZooError(f"two cells would share the folder {cell.folder!r}. Rename an arm.", "arms")
