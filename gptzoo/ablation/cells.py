"""From a plan to its cells: arms made alike, each cell with the identity of its run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gptzoo.ablation import timing
from gptzoo.ablation.arms import Made, Resolver
from gptzoo.ablation.matching import Matcher
from gptzoo.ablation.past import Ended, Past
from gptzoo.ablation.plan import AA_ARM, AblationPlan
from gptzoo.ablation.sequential import Rules
from gptzoo.ablation.stopping import Course, at_looks, limits, rung_step
from gptzoo.ablation.study import Arm
from gptzoo.ablation.timing import median_step, pace, windows
from gptzoo.ablation.tuning import Tries, Try, news, score_of, told, tune
from gptzoo.building import Plan
from gptzoo.costs import Costs
from gptzoo.environment import DECIDES, environment
from gptzoo.errors import GPTZooError
from gptzoo.files import canonical_json
from gptzoo.loading import Loaded, load_plugins
from gptzoo.recipe.typed import as_mapping, as_yaml
from gptzoo.running import run_identity
from gptzoo.runs.directory import slug

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


@dataclass(frozen=True)
class _Stage:
    """Arms with what timing, or tuning, finds for them.

    Args:
        arms: With the steps, or at the rates, that were found; as they were as long as the search goes on.
        ended: It does not go on.
        cells: The runs of all arms.
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


@dataclass(frozen=True)
class _Confirmed:
    """The confirm part of a set: cells to be run by now, those that may follow, and what looks brought."""

    cells: tuple[PlannedCell, ...]
    expected: tuple[PlannedCell, ...]
    told: tuple[str, ...]


@dataclass
class Planner:
    """Plans the cells of a study, stage by stage: a function of the plan and of the cells that have ended.

    Args:
        plan: As read.
        loaded: The plugins.
    """

    plan: AblationPlan
    loaded: Loaded
    _environments: dict[str, dict[str, object]] = field(default_factory=dict)

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
        base, mapping, natural = self.resolver.arms
        sets: list[CellSet] = []
        known: dict[str, PlannedCell] = {}
        for match in self.plan.match:
            arms = self.matcher.params(mapping, natural) if "params" in match else natural
            sets.append(self.set_of(match, arms, past, known))
        _refuse_shared_folders(sets)
        return PlannedStudy(self.plan, mapping, as_yaml(base), tuple(sets))

    def set_of(self, match: str, arms: Sequence[Made], past: Past, known: dict[str, PlannedCell]) -> CellSet:
        timed = self.lengthened(match, arms, past, known)
        tuned = self.tuned(match, timed.arms, past, known if timed.ended else dict(known))
        arms = tuned.arms
        running = [each for each in arms if each.made is not None]
        counted = {each.arm.name: self.resolver.counted(each.made) for each in running if each.made}
        notes = (*(each.note for each in arms if each.note), *tuned.notes)
        settled = timed.ended and tuned.ended
        confirm = self.confirmed(match, running, past, known if settled else dict(known))
        before, cells, expected = (*timed.cells, *tuned.cells), confirm.cells, (*tuned.expected, *confirm.expected)
        if not settled:
            cells, expected = (), (*tuned.expected, *confirm.cells, *confirm.expected)
        if not timed.ended:
            before, expected = timed.cells, (*tuned.cells, *expected)
        planned = tuple(each.arm for each in arms)
        lines = (*tuned.told, *(confirm.told if settled else ()))
        return CellSet(match, planned, counted, cells, notes, before, expected, lines)

    def cell(
        self, each: Made, name: str, seed: int, match: str, known: dict[str, PlannedCell], *, folder: str = ""
    ) -> PlannedCell:
        assert each.made is not None
        made = replace(each.made, recipe=replace(each.made.recipe, seed=seed))
        key = self.resolver.tokenized(made)[1]
        id_ = run_identity(made, key)
        if id_ in known:
            return replace(known[id_], arm=name)
        folder = folder or f"{self.stem(name, match)}-{seed}"
        recipe = as_mapping(replace(made.recipe, name=folder))
        known[id_] = PlannedCell(name, seed, folder, id_, recipe, self.environment_of(made, recipe, key))
        return known[id_]

    def environment_of(self, made: Plan, recipe: Mapping[str, object], key: str) -> dict[str, object]:
        """What bit-exactness depends on; the same for all seeds of an arm."""
        arm = canonical_json({**recipe, "name": "", "seed": 0})
        if arm not in self._environments:
            here = environment(made.recipe, made.zoo, made.device, key)
            self._environments[arm] = {**{fact: here[fact] for fact in DECIDES}, "threads": 1}
        return self._environments[arm]

    def stem(self, name: str, match: str) -> str:
        """What the folders of an arm's cells begin with."""
        return f"{slug(name)}.{slug(match)}" if match != self.plan.match[0] else slug(name)

    # -- the confirm part --------------------------------------------------------------------------------------------

    def confirmed(self, match: str, arms: Sequence[Made], past: Past, known: dict[str, PlannedCell]) -> _Confirmed:
        """The cells that verdicts rest on: all of them, or as far as the next look that can be taken.

        With rungs, the cells of arms wait until those of the baseline and the A/A arm, which set their limits.
        """
        cells = self.all_seeds(match, arms, known)
        self.check_rungs(cells)
        limits = self.limits(cells, past)
        cells = [replace(cell, limits=limits.get(cell.folder) or {}) for cell in cells]
        ended = {cell.folder: each for cell in cells if (each := past.of(cell.folder, cell.id))}
        ended = {cell.folder: ended[cell.folder] for cell in cells if self.is_over(cell, ended.get(cell.folder))}
        course = self.course(cells, ended)
        wanted, expected = [], []
        for cell in cells:
            last = course.seeds[self.plan.baseline if cell.arm == AA_ARM else cell.arm]
            may_run = self.place_of(cell) < last
            if cell.folder in ended or (may_run and limits.get(cell.folder, {}) is not None):
                wanted.append(cell)
            elif may_run or cell.arm in (*course.live, *([self.plan.baseline, AA_ARM] if course.live else [])):
                expected.append(cell)
        return _Confirmed(tuple(wanted), tuple(expected), course.lines)

    def is_over(self, cell: PlannedCell, ended: Ended | None) -> bool:
        return ended is not None and not ended.is_killed_beyond(cell.limits)

    def place_of(self, cell: PlannedCell) -> int:
        """Which of its arm's seeds it is."""
        return cell.seed - AA_SEEDS if cell.arm == AA_ARM else cell.seed

    def check_rungs(self, cells: Sequence[PlannedCell]) -> None:
        """Refuse rungs that no evaluation can see.

        Raises:
            GPTZooError: Some arm is not evaluated between a rung and its end.
        """
        for cell in cells:
            steps, every = cell.steps, cell.eval_every
            blind = [f"{rung:.0%}" for rung in self.plan.rungs if rung_step(rung, steps, every) is None]
            if blind:
                often = f"every {every}" if every else "at the end only"
                what = f"{cell.arm} trains for {steps} steps and is evaluated {often}"
                remedy = f"Write train: {{eval_every: {max(1, steps // 8)}}} in the base"
                what = f"{what}: never between {' or '.join(blind)} of them and the end. {remedy}, or fewer rungs."
                raise GPTZooError(what, f"{self.plan.file.shown}: rungs")

    def limits(self, cells: Sequence[PlannedCell], past: Past) -> dict[str, dict[int, float] | None]:
        """By folder, the limits of each cell of an arm; None if the cells that set them have not ended.

        The noise is that of the seeds up to the cell's own look, so that later seeds move no limit.
        """
        plan = self.plan
        if not plan.rungs:
            return {}
        setters = [cell for cell in cells if cell.arm in (plan.baseline, AA_ARM)]
        ended = {(cell.arm, self.place_of(cell)): past.of(cell.folder, cell.id) for cell in setters}
        steps = setters[0].steps
        curves = {key: each.shares(steps) for key, each in ended.items() if each and each.status == "done"}
        found: dict[str, dict[int, float] | None] = {}
        for cell in cells:
            if cell.arm in (plan.baseline, AA_ARM):
                continue
            until = next((look for look in plan.looks if cell.seed < look), plan.seeds)
            early = [key for key in ended if key[1] < until]
            found[cell.folder] = None
            if all(ended[key] for key in early):
                controls = [curves[key] for key in early if key in curves]
                own = curves.get((plan.baseline, cell.seed), [])
                found[cell.folder] = limits(
                    plan.rungs, cell.steps, cell.eval_every, own, controls, plan.higher_is_better
                )
        return found

    def all_seeds(self, match: str, arms: Sequence[Made], known: dict[str, PlannedCell]) -> list[PlannedCell]:
        """Every cell that the confirm part may come to, seed by seed, the A/A arm last."""
        cells = [self.cell(each, each.arm.name, seed, match, known) for seed in range(self.plan.seeds) for each in arms]
        if self.plan.aa:
            baseline = next(each for each in arms if each.arm.name == self.plan.baseline)
            fresh = range(AA_SEEDS, AA_SEEDS + self.plan.seeds)
            cells += [self.cell(baseline, AA_ARM, seed, match, known) for seed in fresh]
        return cells

    def course(self, cells: Sequence[PlannedCell], ended: Mapping[str, Ended]) -> Course:
        """How far each arm is to go by now."""
        plan, names = self.plan, list(dict.fromkeys(cell.arm for cell in cells if cell.arm != AA_ARM))
        if not plan.looks or len(names) < 2:
            return Course(dict.fromkeys(names, plan.seeds))
        names = [plan.baseline, *(name for name in names if name != plan.baseline)]
        over = [(cell, ended[cell.folder]) for cell in cells if cell.folder in ended and cell.arm != AA_ARM]
        results = [result for cell, each in over if (result := each.result(cell.arm, cell.seed))]
        return at_looks(names, results, Rules(plan.looks, plan.alpha, plan.delta), plan.higher_is_better)

    # -- steps -------------------------------------------------------------------------------------------------------

    def lengthened(self, match: str, arms: Sequence[Made], past: Past, known: dict[str, PlannedCell]) -> _Stage:
        """The arms with the steps that make them alike, and the runs that time them, as far as the past tells."""
        if "flops" in match:
            return _Stage(self.matcher.flops(arms))
        if "wall" not in match:
            return _Stage(arms)
        self.matcher.refuse_steps(arms)
        if any(cell.purpose == "timing" and past.of(cell.folder, cell.id) is None for cell in known.values()):
            return _Stage(arms, ended=False)  # another set's arms are timed before, so that nothing runs beside them
        return self.timed(match, arms, past, known)

    def timed(self, match: str, arms: Sequence[Made], past: Past, known: dict[str, PlannedCell]) -> _Stage:
        running = {each.arm.name: each for each in arms if each.made is not None}
        baseline, looked_at = self.plan.baseline, dict(known)

        def cell(arm: str, window: int) -> PlannedCell:
            return self.timing_cell(running[arm], window, match, looked_at)

        def result(arm: str, window: int) -> Ended | None:
            planned = cell(arm, window)
            return past.of(planned.folder, planned.id)

        def step(arm: str, window: int) -> float | None:
            ended = result(arm, window)
            return median_step(ended.step_seconds) if ended else None

        others = [name for name in running if name != baseline]
        found = windows(baseline, others, lambda arm, window: result(arm, window) is not None)
        cells = tuple(cell(arm, window) for arm, window in found.runs)
        known |= {each.id: each for each in cells}
        if not found.ended:
            return _Stage(arms, ended=False, cells=cells)
        if others and not any(step(arm, window) for arm, window in found.runs if arm == baseline):
            what = f"the baseline {baseline!r} diverged before its steps could be timed. Lower train.learning_rate."
            raise GPTZooError(what, f"{self.plan.file.shown}: match")
        paces = {arm: pace(arm, baseline, found.of[arm], step) for arm in others}
        return _Stage(self.matcher.wall(arms, paces), cells=cells)

    def timing_cell(self, each: Made, window: int, match: str, known: dict[str, PlannedCell]) -> PlannedCell:
        """A few steps of the arm, and next to nothing else."""
        assert each.made is not None
        train = each.made.recipe.train
        never = dict.fromkeys(("eval_every", "eval_problems", "save_every", "sample_every"), 0)
        short = replace(train, steps=timing.STEPS, eval_sequences=1, log_every=1, loggers=(), **never)
        made = replace(each.made, recipe=replace(each.made.recipe, train=short))
        seed = timing.SEEDS + window
        name = each.arm.name
        stem = slug(name) if name == self.plan.baseline else self.stem(name, match)  # all sets share its runs
        cell = self.cell(replace(each, made=made), name, seed, match, known, folder=f"time-{stem}-{seed}")
        return replace(cell, purpose="timing")

    # -- tuning ------------------------------------------------------------------------------------------------------

    def tuned(self, match: str, arms: Sequence[Made], past: Past, known: dict[str, PlannedCell]) -> _Stage:
        """The arms at the learning rates that tuning finds, and its runs, as far as the past tells."""
        if self.plan.tune is None:
            return _Stage(arms)
        running = {each.arm.name: each for each in arms if each.made is not None}
        starts = {name: each.made.recipe.train.learning_rate for name, each in running.items() if each.made}

        def score(arm: str, each: Try) -> float | None:
            cell = self.tuning_cell(running[arm], each, match, known)
            ended = past.of(cell.folder, cell.id)
            return ended and score_of(ended.value, higher_is_better=self.plan.higher_is_better)

        def cells(tries: Tries) -> tuple[PlannedCell, ...]:
            """The first runs of all arms come before the second ones of any."""
            return tuple(
                self.tuning_cell(running[arm], own[number], match, known)
                for number in range(max(map(len, tries.values()), default=0))
                for arm, own in tries.items()
            )

        progress = tune(starts, self.plan.tune, score)
        notes, lines = tuple(filter(None, [told(progress, self.plan.tune)])), tuple(news(progress))
        if progress.choices is not None:
            arms = self.at_rates(arms, {name: choice.rate for name, choice in progress.choices.items()})
        return _Stage(arms, progress.choices is not None, cells(progress.tries), cells(progress.expected), notes, lines)

    def tuning_cell(self, each: Made, try_: Try, match: str, known: dict[str, PlannedCell]) -> PlannedCell:
        """A run of the arm as it is, only shorter; its evaluations are as many."""
        assert each.made is not None
        assert self.plan.tune is not None
        share, train = self.plan.tune.share, each.made.recipe.train
        few = {"steps": _part(train.steps, share), "eval_every": _part(train.eval_every, share), "sample_every": 0}
        short = replace(train, learning_rate=try_.rate, **few)
        made = replace(each.made, recipe=replace(each.made.recipe, train=short))
        name = f"tune-{self.stem(each.arm.name, match)}-{try_.rate:g}"
        cell = self.cell(replace(each, made=made), each.arm.name, try_.seed, match, known, folder=f"{name}-{try_.seed}")
        return replace(cell, purpose="tuning", rate=try_.rate)

    def at_rates(self, arms: Sequence[Made], rates: Mapping[str, float]) -> list[Made]:
        """The arms at the learning rates that were found for them."""
        made = [self.at_rate(each, rates[each.arm.name]) if each.made else each for each in arms]
        baseline = next(each.made for each in made if each.arm.name == self.plan.baseline)
        assert baseline is not None
        return [self.resolver.compared(each, baseline) for each in made]

    def at_rate(self, each: Made, rate: float) -> Made:
        assert each.made is not None
        recipe = replace(each.made.recipe, train=replace(each.made.recipe.train, learning_rate=rate))
        arm = replace(each.arm, changes={**each.arm.changes, "train.learning_rate": rate})
        return replace(each, arm=arm, made=replace(each.made, recipe=recipe))


def _part(steps: int, share: float) -> int:
    """A share of some steps; 0 stays 0, which means never."""
    return max(1, round(share * steps)) if steps else 0


def _refuse_shared_folders(sets: Sequence[CellSet]) -> None:
    ids: dict[str, str] = {}
    for cell in (cell for each in sets for cell in (*each.before, *each.cells, *each.expected)):
        if ids.setdefault(cell.folder, cell.id) != cell.id:
            raise GPTZooError(f"two cells would share the folder {cell.folder!r}. Rename an arm.", "arms")
