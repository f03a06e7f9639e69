"""From a plan to its cells: every arm typed and resolved, widths solved, each cell with the identity of its run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gptzoo.ablation.collecting import TOLERANCE
from gptzoo.ablation.ledger import differences
from gptzoo.ablation.past import Past
from gptzoo.ablation.plan import AA_ARM, AblationPlan, PlannedArm, base_files, relocated
from gptzoo.ablation.study import Arm
from gptzoo.ablation.tuning import Tries, Try, score_of, told, tune
from gptzoo.assembly import identity_of
from gptzoo.building import Plan, build_data, build_model, build_tokenizer, choose_device, place_of, with_vocab_size
from gptzoo.contracts import Tokenizer
from gptzoo.costs import Costs, costs
from gptzoo.environment import DECIDES, environment
from gptzoo.errors import GPTZooError, raise_all
from gptzoo.files import canonical_json
from gptzoo.loading import Loaded, explain_missing, load_plugins
from gptzoo.model import named_parameters
from gptzoo.recipe.compose import Composed, compose
from gptzoo.recipe.schema import Recipe
from gptzoo.recipe.typed import as_mapping, as_yaml, typed
from gptzoo.recipe.yaml_source import Node
from gptzoo.resolving import resolve
from gptzoo.running import run_identity
from gptzoo.runs.directory import slug

AA_SEEDS = 10_000
"""The first seed of the A/A arm, so that it never meets a confirm seed."""

WIDTH_STEP = 8
"""Solved widths are multiples of it."""


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
        expected: What will follow once these have ended, as good a guess as there is: for what a plan costs.
    """

    match: str
    arms: tuple[Arm, ...]
    costs: Mapping[str, Costs | None]
    cells: tuple[PlannedCell, ...]
    notes: tuple[str, ...]
    before: tuple[PlannedCell, ...] = ()
    expected: tuple[PlannedCell, ...] = ()


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
class _Made:
    """An arm, resolved: `made` is None if it is refused."""

    arm: Arm
    made: Plan | None = None
    note: str = ""


@dataclass(frozen=True)
class _Tuned:
    """Arms with their learning rates.

    Args:
        arms: At the rates that were found; as they were as long as tuning goes on.
        ended: It does not go on.
        cells: The runs of all arms.
        expected: Those that are likely to follow.
        notes: What a reader should know.
    """

    arms: Sequence[_Made]
    ended: bool = True
    cells: tuple[PlannedCell, ...] = ()
    expected: tuple[PlannedCell, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Planner:
    """Plans the cells of a study, stage by stage: a function of the plan and of the cells that have ended.

    Args:
        plan: As read.
        loaded: The plugins.
    """

    plan: AblationPlan
    loaded: Loaded
    _tokenized: dict[tuple[str, int], tuple[Tokenizer, str]] = field(default_factory=dict)

    def study(self, past: Past | None = None) -> PlannedStudy:
        """All cells that can be known by now.

        Raises:
            GPTZooError: See `plan_cells`.
        """
        past = past or Past(None, self.plan.metric)
        base, mapping, natural = self.resolved_arms
        sets: list[CellSet] = []
        for match in self.plan.match:
            arms = self.matched(mapping, natural) if "params" in match else natural
            known = {cell.id: cell for each in sets for cell in (*each.before, *each.cells, *each.expected)}
            sets.append(self.set_of(match, arms, past, known))
        _refuse_shared_folders(sets)
        return PlannedStudy(self.plan, mapping, as_yaml(base), tuple(sets))

    @functools.cached_property
    def resolved_arms(self) -> tuple[Recipe, dict[str, object], list[_Made]]:
        """The base, typed and plain, and the arms as the plan has them."""
        base = self.base()
        mapping = as_mapping(base)
        return base, mapping, self.arms(mapping)

    # -- recipes -----------------------------------------------------------------------------------------------------

    def base(self) -> Recipe:
        plan = self.plan
        try:
            if isinstance(plan.base.value, dict):
                composed = self.inline_base(plan.base)
            else:
                files = base_files(plan)
                composed = compose(files[0] if len(files) == 1 else {"base": [str(file) for file in files]})
            recipe = typed(composed, self.loaded.zoo)
        except GPTZooError as error:
            raise_all(relocated(explain_missing(self.loaded, error), plan.base, "base"))
            raise
        if plan.metric == "exact_match" and not recipe.train.eval_problems:
            what = "exact_match needs problems to solve. Write train: {eval_problems: 200} in the base."
            raise GPTZooError(what, f"{plan.file.shown}: metric")
        return replace(recipe, name=plan.name, seed=0)

    def inline_base(self, node: Node) -> Composed:
        tree = node.plain()
        assert isinstance(tree, dict)
        return compose({"name": self.plan.name, **tree})

    def arms(self, base: Mapping[str, object]) -> list[_Made]:
        """Every arm as the plan has it.

        Raises:
            GPTZooError: Mistakes in arms, all of them at once.
        """
        problems: list[GPTZooError] = []
        made: list[_Made] = []
        for arm in self.plan.arms:
            try:
                made.append(self.made(base, arm, {}))
            except GPTZooError as error:
                problems += getattr(error, "problems", [error])
        raise_all(list({str(each): each for each in problems}.values()))  # a factor is in several arms
        baseline = next(each for each in made if each.arm.name == self.plan.baseline)
        if baseline.made is None:
            raise GPTZooError(f"the baseline {self.plan.baseline!r} cannot run: {baseline.arm.refused}", self.place())
        made = [self.compared(each, baseline.made) for each in made]
        self.refuse_equals(made)
        return made

    def place(self) -> str:
        return f"{self.plan.base.place.file}: baseline"

    def made(self, base: Mapping[str, object], arm: PlannedArm, more: Mapping[str, object]) -> _Made:
        """The arm with some further changes.

        Raises:
            GPTZooError: A key, name or value is unknown.
        """
        changes = {**arm.changes, **more}
        try:
            composed = compose(base, changes)
            recipe = typed(composed, self.loaded.zoo)
        except GPTZooError as error:
            raise_all(relocated(explain_missing(self.loaded, error), arm.node, arm.key))
            raise
        named = Arm(arm.name, changes, {})
        try:
            made = self.resolved(recipe, composed)
            self.count(made)
        except GPTZooError as error:
            return _Made(replace(named, refused=_in_one_line(error)))
        return _Made(named, made)

    def resolved(self, recipe: Recipe, composed: Composed) -> Plan:
        device = choose_device(recipe.train.device)
        resolved = resolve(recipe, self.loaded.zoo, device.type, lambda key: place_of(composed, key))
        made = Plan(resolved, self.loaded, device, composed)
        return with_vocab_size(made, self.tokenized(made)[0])

    def tokenized(self, made: Plan) -> tuple[Tokenizer, str]:
        """The arm's tokenizer, and the key of its data; arms that share their data read it once."""
        key = (identity_of(made.recipe.data), made.recipe.model.context_length)
        if key not in self._tokenized:
            tokenizer = build_tokenizer(made)
            self._tokenized[key] = tokenizer, build_data(made, tokenizer).key
        return self._tokenized[key]

    def compared(self, each: _Made, baseline: Plan) -> _Made:
        if each.made is None:
            return each
        differs = differences(_comparable(baseline.recipe), _comparable(each.made.recipe))
        return replace(each, arm=replace(each.arm, differs=differs))

    def refuse_equals(self, arms: Sequence[_Made]) -> None:
        seen: dict[str, str] = {}
        problems = []
        nodes = {arm.name: arm.node for arm in self.plan.arms}
        for each in arms:
            if each.made is None:
                continue
            name = each.arm.name
            other = seen.setdefault(canonical_json(_comparable(each.made.recipe)), name)
            if other != name:
                what = f"its recipe is the same as that of {other!r}. Leave one of them out."
                problems.append(GPTZooError(what, f"{nodes[name].place}: arms.{name}"))
        raise_all(problems)

    # -- parameters --------------------------------------------------------------------------------------------------

    def count(self, made: Plan) -> int:
        """Parameters, tied ones once."""
        return sum(each.tensor.numel() for each in named_parameters(build_model(made, meta=True)))

    def matched(self, base: Mapping[str, object], arms: Sequence[_Made]) -> list[_Made]:
        """The arms with as many parameters as the baseline, by way of the free width."""
        baseline = next(each.made for each in arms if each.arm.name == self.plan.baseline)
        assert baseline is not None
        target = self.count(baseline)
        by_name = {arm.name: arm for arm in self.plan.arms}
        return [self.compared(self.solved(base, by_name[each.arm.name], each, target), baseline) for each in arms]

    def solved(self, base: Mapping[str, object], arm: PlannedArm, each: _Made, target: int) -> _Made:
        """The arm at the width that comes nearest to the target; as it is if it is near enough already."""
        free = self.plan.free
        assert free is not None
        if each.made is None or abs(self.count(each.made) - target) <= TOLERANCE * target:
            return each
        if free in arm.changes:
            what = f"the arm sets {free}, which match: params is to solve. Leave it out, or match tokens only."
            raise GPTZooError(what, f"{arm.node.place}: {arm.key}.{free}")
        at = {width: self.at_width(base, arm, width) for width in (WIDTH_STEP, 2 * WIDTH_STEP)}
        low, high = (made.made and self.count(made.made) for made in at.values())
        if not low or not high or high <= low:
            return replace(each, arm=replace(each.arm, refused=f"{free} does not change its parameters."), made=None)
        nearest = WIDTH_STEP * max(1, 1 + round((target - low) / (high - low)))
        tried = [
            self.at_width(base, arm, nearest + step) for step in (0, -WIDTH_STEP, WIDTH_STEP) if nearest + step > 0
        ]
        return self.nearest([made for made in tried if made.made], target)

    def at_width(self, base: Mapping[str, object], arm: PlannedArm, width: int) -> _Made:
        assert self.plan.free is not None
        return self.made(base, arm, {self.plan.free: width})

    def nearest(self, tried: Sequence[_Made], target: int) -> _Made:
        assert self.plan.free is not None
        counts = [self.count(each.made) if each.made else 0 for each in tried]
        best, count = min(zip(tried, counts, strict=True), key=lambda pair: abs(pair[1] - target))
        share, width = count / target - 1, best.arm.changes[self.plan.free]
        said = f"{self.plan.free} {width} gives {count:,} parameters, {share:+.2%} of the baseline's {target:,}"
        if abs(share) > TOLERANCE:
            what = f"its parameters cannot be matched: {said}, and {TOLERANCE:.1%} is allowed."
            return _Made(replace(best.arm, refused=what))
        return replace(best, note=f"{best.arm.name}: {said}.")

    # -- cells -------------------------------------------------------------------------------------------------------

    def set_of(self, match: str, arms: Sequence[_Made], past: Past, known: Mapping[str, PlannedCell]) -> CellSet:
        tuned = self.tuned(match, arms, past, known)
        arms = tuned.arms
        running = [each for each in arms if each.made is not None]
        counted = {each.arm.name: _costs(each.made) for each in running if each.made}
        cells = [
            self.cell(each, each.arm.name, seed, match, known) for seed in range(self.plan.seeds) for each in running
        ]
        if self.plan.aa:
            baseline = next(each for each in running if each.arm.name == self.plan.baseline)
            fresh = range(AA_SEEDS, AA_SEEDS + self.plan.seeds)
            cells += [self.cell(baseline, AA_ARM, seed, match, known) for seed in fresh]
        notes = (*(each.note for each in arms if each.note), *tuned.notes)
        planned = tuple(each.arm for each in arms)
        if not tuned.ended:
            return CellSet(match, planned, counted, (), notes, tuned.cells, (*tuned.expected, *cells))
        return CellSet(match, planned, counted, tuple(cells), notes, tuned.cells)

    def cell(
        self, each: _Made, name: str, seed: int, match: str, known: Mapping[str, PlannedCell], *, folder: str = ""
    ) -> PlannedCell:
        assert each.made is not None
        made = replace(each.made, recipe=replace(each.made.recipe, seed=seed))
        key = self.tokenized(made)[1]
        id_ = run_identity(made, key)
        if id_ in known:
            return replace(known[id_], arm=name)
        folder = folder or f"{self.stem(name, match)}-{seed}"
        here = environment(made.recipe, made.zoo, made.device, key)
        expected = {**{fact: here[fact] for fact in DECIDES}, "threads": 1}
        recipe = as_mapping(replace(made.recipe, name=folder))
        return PlannedCell(name, seed, folder, id_, recipe, expected)

    def stem(self, name: str, match: str) -> str:
        """What the folders of an arm's cells begin with."""
        return f"{slug(name)}.{slug(match)}" if match != self.plan.match[0] else slug(name)

    # -- tuning ------------------------------------------------------------------------------------------------------

    def tuned(self, match: str, arms: Sequence[_Made], past: Past, known: Mapping[str, PlannedCell]) -> _Tuned:
        """The arms at the learning rates that tuning finds, and its runs, as far as the past tells."""
        if self.plan.tune is None:
            return _Tuned(arms)
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
        notes = tuple(filter(None, [told(progress, self.plan.tune)]))
        if progress.choices is not None:
            arms = self.at_rates(arms, {name: choice.rate for name, choice in progress.choices.items()})
        return _Tuned(arms, progress.choices is not None, cells(progress.tries), cells(progress.expected), notes)

    def tuning_cell(self, each: _Made, try_: Try, match: str, known: Mapping[str, PlannedCell]) -> PlannedCell:
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

    def at_rates(self, arms: Sequence[_Made], rates: Mapping[str, float]) -> list[_Made]:
        """The arms at the learning rates that were found for them."""
        made = [self.at_rate(each, rates[each.arm.name]) if each.made else each for each in arms]
        baseline = next(each.made for each in made if each.arm.name == self.plan.baseline)
        assert baseline is not None
        return [self.compared(each, baseline) for each in made]

    def at_rate(self, each: _Made, rate: float) -> _Made:
        assert each.made is not None
        recipe = replace(each.made.recipe, train=replace(each.made.recipe.train, learning_rate=rate))
        arm = replace(each.arm, changes={**each.arm.changes, "train.learning_rate": rate})
        return replace(each, arm=arm, made=replace(each.made, recipe=recipe))


def _part(steps: int, share: float) -> int:
    """A share of some steps; 0 stays 0, which means never."""
    return max(1, round(share * steps)) if steps else 0


def _comparable(recipe: Recipe) -> dict[str, object]:
    """What an arm is, apart from its name, seed, device and loggers."""
    train = replace(recipe.train, device="auto", loggers=())
    return as_mapping(replace(recipe, name="arm", seed=0, train=train))


def _costs(made: Plan) -> Costs | None:
    train = made.recipe.train
    size = train.micro_batch_size or train.batch_size
    try:
        return costs(build_model(made, meta=True), micro_batch_size=size, precision=train.precision)
    except GPTZooError:
        return None  # a part that looks at values; its run counts parameters all the same


def _in_one_line(error: GPTZooError) -> str:
    """Why the parts do not fit: the recipe's keys, without the name of the mapping that the arm was composed from."""
    return " ".join(line.removeprefix("mapping: ") for line in error.lines)


def _refuse_shared_folders(sets: Sequence[CellSet]) -> None:
    ids: dict[str, str] = {}
    for cell in (cell for each in sets for cell in (*each.before, *each.cells, *each.expected)):
        if ids.setdefault(cell.folder, cell.id) != cell.id:
            raise GPTZooError(f"two cells would share the folder {cell.folder!r}. Rename an arm.", "arms")
