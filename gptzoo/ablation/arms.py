"""The arms of a plan, typed and resolved: recipes that fit, or the reason why they do not."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gptzoo.ablation.ledger import differences
from gptzoo.ablation.plan import AblationPlan, PlannedArm, base_files, relocated
from gptzoo.ablation.study import Arm
from gptzoo.assembly import identity_of
from gptzoo.building import Plan, build_data, build_model, build_tokenizer, choose_device, place_of, with_vocab_size
from gptzoo.contracts import Tokenizer
from gptzoo.costs import Costs, costs
from gptzoo.errors import GPTZooError, raise_all
from gptzoo.files import canonical_json
from gptzoo.loading import Loaded, explain_missing
from gptzoo.model import named_parameters
from gptzoo.parts.text import TokenStream
from gptzoo.recipe.compose import Composed, compose
from gptzoo.recipe.schema import Recipe
from gptzoo.recipe.typed import as_mapping, typed
from gptzoo.recipe.yaml_source import Node
from gptzoo.resolving import resolve


@dataclass(frozen=True)
class Made:
    """An arm, resolved.

    Args:
        arm: As the study has it.
        made: Its recipe; None if it is refused.
        note: What was solved for it, one line.
    """

    arm: Arm
    made: Plan | None = None
    note: str = ""


@dataclass
class Resolver:
    """Types and resolves the arms of a plan, and variants of them.

    Args:
        plan: As read.
        loaded: The plugins.
    """

    plan: AblationPlan
    loaded: Loaded
    _tokenized: dict[tuple[str, int], tuple[Tokenizer, str]] = field(default_factory=dict)
    _counted: dict[str, Costs | GPTZooError] = field(default_factory=dict)

    @functools.cached_property
    def arms(self) -> tuple[Recipe, dict[str, object], list[Made]]:
        """The base, typed and plain, and the arms as the plan has them."""
        base = self.base()
        mapping = as_mapping(base)
        return base, mapping, self.all_made(mapping)

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
        if plan.read_at > 1 and not self.is_text(recipe):
            what = f"it reads text beyond the context length, and data {recipe.data.name!r} is no text. Leave it out."
            raise GPTZooError(what, f"{plan.file.shown}: read_at")
        return replace(recipe, name=plan.name, seed=0)

    def is_text(self, recipe: Recipe) -> bool:
        factory = self.loaded.zoo.get("data", recipe.data.name).factory
        return isinstance(factory, type) and issubclass(factory, TokenStream)

    def inline_base(self, node: Node) -> Composed:
        tree = node.plain()
        assert isinstance(tree, dict)
        return compose({"name": self.plan.name, **tree})

    def all_made(self, base: Mapping[str, object]) -> list[Made]:
        """Every arm as the plan has it.

        Raises:
            GPTZooError: Mistakes in arms, all of them at once.
        """
        problems: list[GPTZooError] = []
        made: list[Made] = []
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

    def made(self, base: Mapping[str, object], arm: PlannedArm, more: Mapping[str, object]) -> Made:
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
            return Made(replace(named, refused=in_one_line(error)))
        return Made(named, made)

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

    def compared(self, each: Made, baseline: Plan) -> Made:
        if each.made is None:
            return each
        differs = differences(_comparable(baseline.recipe), _comparable(each.made.recipe))
        return replace(each, arm=replace(each.arm, differs=differs))

    def refuse_equals(self, arms: Sequence[Made]) -> None:
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

    # -- what they cost ----------------------------------------------------------------------------------------------

    def count(self, made: Plan) -> int:
        """Parameters, tied ones once."""
        return sum(each.tensor.numel() for each in named_parameters(build_model(made, meta=True)))

    def costs(self, made: Plan) -> Costs | GPTZooError:
        """What it costs to train, or why that cannot be counted: a part that looks at values."""
        train = made.recipe.train
        size = train.micro_batch_size or train.batch_size
        key = canonical_json([as_mapping(made.recipe)["model"], size, train.precision])
        if key not in self._counted:
            try:
                model = build_model(made, meta=True)
                self._counted[key] = costs(model, micro_batch_size=size, precision=train.precision)
            except GPTZooError as error:
                self._counted[key] = error
        return self._counted[key]

    def counted(self, made: Plan) -> Costs | None:
        """What it costs to train; None if that cannot be counted. Its run counts parameters all the same."""
        found = self.costs(made)
        return None if isinstance(found, GPTZooError) else found


def _comparable(recipe: Recipe) -> dict[str, object]:
    """What an arm is, apart from its name, seed, device and loggers."""
    train = replace(recipe.train, device="auto", loggers=())
    return as_mapping(replace(recipe, name="arm", seed=0, train=train))


def in_one_line(error: GPTZooError) -> str:
    """Why the parts do not fit: the recipe's keys, without the name of the mapping that the arm was composed from."""
    return " ".join(line.removeprefix("mapping: ") for line in error.lines)
