"""Plans of ablations: what is compared with what, on how many seeds, and what would count as a difference.

A plan is read as strictly as a recipe is, and all that is wrong with it is said at once. Reading one builds nothing.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from gptzoo.ablation.designs import KINDS, Design, check_size, two_level
from gptzoo.ablation.stopping import MARGINS
from gptzoo.ablation.tuning import Tuning, problems_of
from gptzoo.errors import GPTZooError, any_of, did_you_mean, raise_all
from gptzoo.recipe.library import Library, RecipeFile, shipped_folder
from gptzoo.recipe.yaml_source import Node, Path_, Place, parse, problem, read_file, shown
from gptzoo.registry import RESERVED
from gptzoo.runs.directory import slug

KEYS = (
    *("base", "baseline", "arms", "grid", "factors", "design", "generators"),
    *("seeds", "looks", "rungs", "aa", "match", "free", "tune", "read_at", "metric", "delta", "alpha"),
)
WAYS = ("arms", "grid", "factors")
"""How a plan names its arms: one of these."""

MATCHES = ("tokens", "params", "flops", "wall", "tokens+params", "params+flops", "params+wall")
STEPS_OF = MappingProxyType(
    {
        "tokens": "all take the baseline's steps",
        "flops": "an arm that costs more takes fewer steps",
        "wall": "a slower arm takes fewer steps",
    }
)
"""What each way of matching says of the steps: two of them contradict each other."""

AA_ARM = "a/a"
FIRST_LOOK = 3
"""Seeds that the first look has at least."""

FARTHEST_READ = 64
"""How far beyond the context length losses by position can be read."""

MOST_CELLS = 10_000

_RATE = "train.learning_rate"

HIGHER_IS_BETTER: Mapping[str, bool] = MappingProxyType(
    {"val_loss": False, "bits_per_byte": False, "exact_match": True}
)
"""The metrics, and which way each is good."""

_NOT_AN_ARMS = MappingProxyType(
    {
        "seed": "seeds are the plan's. Write seeds: 3 beside arms",
        "name": "a cell is named after its arm. Leave it out",
        "base": "all arms share the plan's base. Leave it out",
        "train.device": "an arm cannot choose its device. Set it in the base",
        "train.loggers": "loggers change no result. Set them in the base",
    }
)


@dataclass(frozen=True)
class PlannedArm:
    """A variant as the plan has it.

    Args:
        name: Its name.
        changes: Recipe keys, dotted, and their values.
        node: Where the changes were written.
        key: What stands before a change in the plan: `arms.rope`, `grid`, `factors`.
    """

    name: str
    changes: Mapping[str, object]
    node: Node
    key: str


@dataclass(frozen=True)
class AblationPlan:
    """A plan, read; its recipes are not typed yet.

    Args:
        name: The study's name: the file's stem.
        file: Where it was read; bases are looked up beside it.
        base: A recipe's name, a list of names, or a recipe.
        baseline: The arm that all others are compared with.
        arms: In the order of the file; a grid's in the order of its product.
        seeds: How many: 0, 1, ...; with looks the last one's.
        looks: Numbers of seeds at which the study is looked at, and arms are stopped; empty for one analysis.
        aa: Whether the baseline runs on fresh seeds too.
        match: What is equal across arms; each entry is a set of runs of its own.
        free: The width that `params` is matched by, a recipe key.
        metric: What is compared.
        delta: The smallest difference that matters.
        alpha: Error rate of the verdicts together.
        design: How the arms are made of factors; None where they are listed.
        factors: The design's factors as they were written: changes, or for a grid the values of a key.
        tune: The budget for tuning each arm's learning rate; None where all have the base's.
        rungs: Shares of the training at which runs that are far behind are killed; empty for none.
        read_at: How far the loss by position is read at the end of a cell, in times the context length.
    """

    name: str
    file: RecipeFile
    base: Node
    baseline: str
    arms: tuple[PlannedArm, ...]
    seeds: int
    aa: bool
    match: tuple[str, ...]
    free: str | None
    metric: str
    delta: float | None
    alpha: float
    design: Design | None = None
    factors: Mapping[str, object] = field(default_factory=dict)
    looks: tuple[int, ...] = ()
    tune: Tuning | None = None
    rungs: tuple[float, ...] = ()
    read_at: int = 1

    @property
    def higher_is_better(self) -> bool:
        return HIGHER_IS_BETTER[self.metric]

    @property
    def described(self) -> dict[str, object]:
        """The plan as plain values, all keys written out and without its base."""
        match = self.match[0] if len(self.match) == 1 else list(self.match)
        return {
            "baseline": self.baseline,
            **self.described_arms,
            "seeds": self.seeds,
            **({"looks": list(self.looks)} if self.looks else {}),
            **({"rungs": list(self.rungs)} if self.rungs else {}),
            "aa": self.aa,
            "match": match,
            **({"free": self.free} if self.free else {}),
            **({"tune": asdict(self.tune)} if self.tune else {}),
            **({"read_at": self.read_at} if self.read_at > 1 else {}),
            "metric": self.metric,
            "delta": self.delta,
            "alpha": self.alpha,
        }

    @property
    def described_arms(self) -> dict[str, object]:
        """The keys that name the arms."""
        design = self.design
        if design is None:
            return {"arms": {arm.name: dict(arm.changes) for arm in self.arms}}
        if not self.is_switched:
            return {"grid": dict(self.factors)}
        generators = {name: list(product) for name, product in design.generators.items()}
        more = {"generators": generators} if generators else {}
        return {"factors": dict(self.factors), "design": design.kind, **more}

    @property
    def is_switched(self) -> bool:
        """Whether the factors are changes, made or not, rather than keys with values."""
        return all(isinstance(each, Mapping) for each in self.factors.values())


def read_plan(plan: str | os.PathLike[str], *, name: str = "") -> AblationPlan:
    """Read a plan.

    Args:
        plan: A path or a shipped name, `ablations/positions`.
        name: The study's name; the file's stem unless given.

    Raises:
        GPTZooError: There is no such file, or it is no plan; all problems at once, each with file, line and key.
    """
    file = Library(shipped_folder()).typed(plan)
    return _read(read_file(file.path, file.shown), file, name or slug(file.path.stem))


def parse_plan(text: str, called: str, name: str) -> AblationPlan:
    """A plan from its text.

    Args:
        text: YAML.
        called: The file's name in messages.
        name: The study's name.

    Raises:
        GPTZooError: It is no plan.
    """
    return _read(parse(text, called), RecipeFile(Path(called), called, Path(called).parent), name)


def _read(node: Node, file: RecipeFile, name: str) -> AblationPlan:
    reader = _Reader(node)
    made = reader.plan(name, file)
    raise_all(reader.problems)
    assert made is not None, "a plan without problems is whole"
    return made


class _Reader:
    """Takes a plan's values apart and collects what is wrong with them."""

    def __init__(self, node: Node) -> None:
        self.node, self.given = node, node.items
        self.problems: list[GPTZooError] = []

    def report(self, path: Path_, what: str, place: Place | None = None) -> None:
        top = self.given.get(str(path[0])) if path else None
        self.problems.append(problem(place or (top or self.node).place, path, what))

    def plan(self, name: str, file: RecipeFile) -> AblationPlan | None:
        self.check_keys()
        if self.problems:
            return None
        self.design: Design | None = None
        arms = self.arms()
        match, metric, looks, tune = self.match(), self.metric(), self.looks(), self.tune()
        made = AblationPlan(
            name=name,
            file=file,
            base=self.base(),
            baseline=self.baseline(arms),
            arms=arms,
            seeds=self.seeds(looks),
            aa=self.boolean("aa", True),
            match=match,
            free=self.free(match),
            metric=metric,
            delta=self.number("delta", None, above=0.0),
            alpha=self.number("alpha", 0.05, above=0.0, below=1.0) or 0.05,
            design=self.design,
            factors=self.factors() if self.design else {},
            looks=looks,
            read_at=self.read_at(),
            tune=tune,
            rungs=self.rungs(),
        )
        before = tune.most_runs if tune else 0
        if not self.problems and len(match) * (made.seeds + before) * (len(arms) + 1) > MOST_CELLS:
            self.report(("seeds",), f"these are more than {MOST_CELLS:,} cells. Take fewer seeds or arms.")
        return made

    def check_keys(self) -> None:
        if {"model", "data", "train"} & self.given.keys():
            key = next(key for key in ("model", "data", "train") if key in self.given)
            self.report((key,), "this is a recipe, not the plan of an ablation. Use it with gptzoo train.")
            return
        for key in self.given:
            if key not in KEYS:
                self.report((key,), f"there is no such key.{did_you_mean(key, KEYS)}")
        if "base" not in self.given:
            self.report(("base",), "it is missing. Name the recipe that all arms change: base: gpt2-tiny.")
        ways = [key for key in self.given if key in WAYS]
        if len(ways) > 1:
            self.report((ways[-1],), f"{' and '.join(sorted(ways))} are both given. Keep one.")
        elif not ways:
            self.report(("arms",), "it is missing. Name two arms.")
        for key in ("design", "generators"):
            if key in self.given and "factors" not in self.given:
                self.report((key,), "it says how factors are crossed, and there are none. Write factors: {rope: ...}.")

    def base(self) -> Node:
        node = self.given["base"]
        named = node.value if isinstance(node.value, list) else [node]
        if not isinstance(node.value, dict) and not (
            named and all(isinstance(n.value, str) and n.value for n in named)
        ):
            self.report(("base",), f"{shown(node.plain())} is not a recipe's name, a list of names or a recipe.")
        return node

    # -- arms --------------------------------------------------------------------------------------------------------

    def arms(self) -> tuple[PlannedArm, ...]:
        ways = {"arms": self.listed, "grid": self.grid, "factors": self.switched}
        arms = tuple(next(make for key, make in ways.items() if key in self.given)())
        slugs: dict[str, str] = {}
        for arm in arms:
            other = slugs.setdefault(slug(arm.name), arm.name)
            if other != arm.name:
                what = f"it would share the folder {slug(arm.name)!r} with {other!r}. Choose another name."
                self.report(("arms", arm.name), what, arm.node.place)
        if not self.problems and len(arms) < 2:
            key = next(key for key in WAYS if key in self.given)
            self.report((key,), "there is only one arm: nothing to compare. Add a second one.")
        return arms

    def listed(self) -> Iterator[PlannedArm]:
        arms = self.given["arms"]
        if not isinstance(arms.value, dict):
            self.report(("arms",), f"{shown(arms.plain())} is not a mapping of names to changes.")
            return
        for name, node in arms.items.items():
            if node.value is not None and not isinstance(node.value, dict):
                self.report(
                    ("arms", name), f"{shown(node.plain())} is not a mapping of recipe keys. Write {{}}.", node.place
                )
                continue
            self.check_name(("arms", name), node)
            self.check_changes(node, ("arms", name))
            yield PlannedArm(name, {key: each.plain() for key, each in node.items.items()}, node, f"arms.{name}")

    def check_name(self, path: Path_, node: Node) -> None:
        name = str(path[-1])
        if name == AA_ARM:
            self.report(path, "this name is taken: it is the baseline on fresh seeds. Write aa: true.", node.place)
        elif not name.isprintable() or name != name.strip() or len(name) > 60 or not any(c.isalnum() for c in name):
            self.report(path, f"{shown(name)} cannot name an arm. Use letters and digits, at most 60.", node.place)
        elif slug(name) == slug(AA_ARM):
            what = f"it would share the folder {slug(name)!r} with {AA_ARM!r}. Choose another name."
            self.report(path, what, node.place)

    def check_changes(self, node: Node, path: Path_) -> None:
        """Keys that an arm cannot change, and the shorthand that would change two."""
        for key, each in node.items.items():
            where = (*path, key)
            top = key.split(".")[0]
            refused = next((k for k in _NOT_AN_ARMS if key == k or key.startswith(f"{k}.")), None)
            if refused:
                self.report(where, f"{_NOT_AN_ARMS[refused]}.", each.place)
            elif top not in ("model", "data", "train") or "" in key.split("."):
                hint = did_you_mean(top, ("model", "data", "train")) or " Write recipe keys: model.position: rope."
                self.report(where, f"there is no such key.{hint}", each.place)
            for word in _shorthands(key, each):
                what = f"{word.value} changes attention and kernel at once. Write model.kernel: {word.value}."
                self.report(where, what, word.place)

    def grid(self) -> Iterator[PlannedArm]:
        grid = self.given["grid"]
        if not isinstance(grid.value, dict) or not grid.value:
            self.report(("grid",), f"{shown(grid.plain())} is not a mapping of recipe keys to lists.")
            return
        for key, node in grid.items.items():
            if not isinstance(node.value, list) or not node.value:
                self.report(("grid", key), f"{shown(node.plain())} is not a list of values.", node.place)
            else:
                for each in node.value:
                    self.check_changes(Node({key: each}, node.place), ("grid",))
        if self.problems:
            return
        if math.prod(len(node.value) for node in grid.items.values()) > MOST_CELLS:  # type: ignore[arg-type]
            self.report(("grid",), f"these are more than {MOST_CELLS:,} cells. Take fewer values.")
            return
        yield from self.product(grid)

    def product(self, grid: Node) -> Iterator[PlannedArm]:
        keys, levels = list(grid.items), [list(node.value) for node in grid.items.values()]  # type: ignore[arg-type]
        rows: dict[str, tuple[int, ...]] = {}
        for row in itertools.product(*(range(len(each)) for each in levels)):
            values = [each[index] for each, index in zip(levels, row, strict=True)]
            name = "+".join(_label(value) for value in values)
            if name in rows:
                self.report(("grid",), f"two arms would be called {name!r}. Write them out under arms.")
                return
            rows[name] = row
            node = Node(dict(zip(keys, values, strict=True)), values[0].place)
            yield PlannedArm(name, {key: value.plain() for key, value in zip(keys, values, strict=True)}, node, "grid")
        labels = tuple(tuple(map(_label, each)) for each in levels)
        self.design = Design("grid", tuple(keys), labels, rows)

    # -- factors -----------------------------------------------------------------------------------------------------

    def factors(self) -> dict[str, object]:
        """The factors as they were written."""
        node = self.given["factors" if "factors" in self.given else "grid"]
        return {name: each.plain() for name, each in node.items.items()}

    def switched(self) -> Iterator[PlannedArm]:
        """The arms of a design whose factors are changes, made or not."""
        self.check_factors()
        kind, generators = self.kind(), self.generators()
        if self.problems:
            return
        factors = self.given["factors"]
        try:
            self.design = two_level(kind, list(factors.items), generators)
        except ValueError as error:
            about = "generators" if "resolution" in str(error) or "product" in str(error) else "factors"
            self.report((about if about in self.given else "factors",), str(error))
            return
        for name, row in self.design.arms.items():
            chosen = [node for node, level in zip(factors.items.values(), row, strict=True) if level]
            node = Node({key: each for node in chosen for key, each in node.items.items()}, factors.place)
            yield PlannedArm(name, {key: each.plain() for key, each in node.items.items()}, node, "factors")

    def check_factors(self) -> None:
        factors = self.given["factors"]
        if not isinstance(factors.value, dict) or not factors.value:
            self.report(("factors",), f"{shown(factors.plain())} is not a mapping of names to changes.")
            return
        owners: dict[str, str] = {}
        for name, node in factors.items.items():
            path = ("factors", name)
            self.check_name(path, node)
            if "+" in name:
                self.report(path, f"{shown(name)} has a '+', which joins factors. Choose another name.", node.place)
            if not isinstance(node.value, dict) or not node.value:
                given = "it changes nothing." if node.value == {} else f"{shown(node.plain())} is not a mapping."
                what = f"{given} Write recipe keys: {{model.position: rope}}."
                self.report(path, what, node.place)
                continue
            self.check_changes(node, path)
            for key, each in node.items.items():
                other = next(
                    (
                        owner
                        for k, owner in owners.items()
                        if f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}.")
                    ),
                    None,
                )
                if other is not None and other != name:
                    what = f"factor {other!r} changes it too, so the two cannot be crossed. Use grid for its values."
                    self.report((*path, key), what, each.place)
                owners.setdefault(key, name)

    def kind(self) -> str:
        value = self.given["design"].plain() if "design" in self.given else None
        if value not in KINDS:
            known = f" Write one of {', '.join(KINDS)}."
            hint = did_you_mean(value, KINDS) if isinstance(value, str) else ""
            said = "it is missing." if value is None else f"no design is called {shown(value)}."
            place = self.given["factors"].place if "design" not in self.given else None
            self.report(("design",), f"{said}{hint or known}", place)
            return KINDS[0]
        count = len(self.given["factors"].items) if isinstance(self.given["factors"].value, dict) else 0
        try:
            check_size(str(value), count)
        except ValueError as error:
            self.report(("design",), str(error))
        return str(value)

    def generators(self) -> dict[str, list[str]] | None:
        """As written: each factor that is a product, and those whose product it is."""
        node = self.given.get("generators")
        if node is None:
            return None
        value = node.plain()
        lists = isinstance(value, dict) and all(
            isinstance(each, list) and each and all(isinstance(name, str) for name in each) for each in value.values()
        )
        if not lists or not value:
            what = "it is not a mapping of factors to lists of factors. Write {d: [a, b, c]}."
            self.report(("generators",), what)
            return None
        if self.given["design"].plain() != "fractional" if "design" in self.given else True:
            self.report(("generators",), "only a fraction has generators. Write design: fractional.")
            return None
        assert isinstance(value, dict)
        return value  # type: ignore[return-value]

    # -- the baseline ------------------------------------------------------------------------------------------------

    def baseline(self, arms: Sequence[PlannedArm]) -> str:
        names = [arm.name for arm in arms]
        if (node := self.given.get("baseline")) is None:
            return names[0] if names else ""
        if node.value not in names and names:
            hint = did_you_mean(str(node.value), names) or f" The arms are {any_of(names)}."
            self.report(("baseline",), f"no arm is called {shown(node.plain())}.{hint}")
        return str(node.value)

    # -- values ------------------------------------------------------------------------------------------------------

    def looks(self) -> tuple[int, ...]:
        if "looks" not in self.given:
            return ()
        value = self.given["looks"].plain()
        looks = [each for each in value if type(each) is int] if isinstance(value, list) else []
        rising = isinstance(value, list) and looks == value and all(a < b for a, b in itertools.pairwise(looks))
        if not rising or len(looks) < 2:
            said = "these are" if isinstance(value, list) else f"{shown(value)} is"
            self.report(("looks",), f"{said} not two or more numbers of seeds that increase. Write [3, 5, 8].")
        elif looks[0] < FIRST_LOOK:
            what = f"the first look is at {looks[0]} seeds, and fewer than {FIRST_LOOK} do not show the noise."
            self.report(("looks",), f"{what} Write [3, 5, 8].")
        else:
            return tuple(looks)
        return ()

    def rungs(self) -> tuple[float, ...]:
        node = self.given.get("rungs")
        value = None if node is None else node.plain()
        if value is None or value is False:
            return ()
        rungs = list(MARGINS) if value is True else value
        known = [each for each in MARGINS if each in rungs] if isinstance(rungs, list) else []
        if not known or known != rungs:
            some = ", ".join(f"{each:g}" for each in MARGINS)
            self.report(("rungs",), f"it is neither true nor some of {some} in their order. Write true.")
        elif not self.boolean("aa", True):
            self.report(("rungs",), "what noise is, is seen from the A/A arm, and there is none. Write aa: true.")
        return tuple(known)

    def seeds(self, looks: tuple[int, ...]) -> int:
        value = self.given["seeds"].plain() if "seeds" in self.given else looks[-1] if looks else 3
        if isinstance(value, list):
            what = f"it is a count, not a list. Write {len(value) or 3}: seeds 0, 1, ... are used."
            self.report(("seeds",), what)
        elif type(value) is not int or not 1 <= value < 10_000:
            self.report(("seeds",), f"{shown(value)} is not a count. Write 3: seeds 0, 1 and 2 are used.")
        elif looks and value != looks[-1]:
            self.report(("seeds",), f"the last look is at {looks[-1]} seeds, not {value}. Leave seeds out.")
        else:
            return value
        return 3

    def match(self) -> tuple[str, ...]:
        value = self.given["match"].plain() if "match" in self.given else "tokens"
        matches = value if isinstance(value, list) else [value]
        for each in matches:
            if each not in MATCHES:
                self.report(("match",), _not_a_match(each))
        if not matches or len(set(map(str, matches))) < len(matches):
            self.report(("match",), f"the list {'is empty' if not matches else 'says one thing twice'}. Write tokens.")
        return tuple(str(each) for each in matches)

    def tune(self) -> Tuning | None:
        node = self.given.get("tune")
        if node is None or node.value is None or node.value is False:
            return None
        if node.value is not True and not isinstance(node.value, dict):
            self.report(
                ("tune",), f"{shown(node.plain())} is neither true nor a mapping. Write true, or {{points: 5}}."
            )
            return None
        self.refuse_rates()
        options = {key: each.plain() for key, each in node.items.items()}
        wrong = problems_of(options)
        for key, what in wrong.items():
            self.report(("tune", key), what, node.items[key].place)
        return None if wrong else Tuning(**options)  # type: ignore[arg-type]

    def refuse_rates(self) -> None:
        """With tuning, no arm sets its own learning rate."""
        way = next(key for key in self.given if key in WAYS)
        inner = 1 if way == "grid" else 2
        for path, each in self.given[way].walk((way,)):
            if ".".join(map(str, path[inner:])) == _RATE:
                what = "tune finds the rate of every arm. Leave this out, or leave out tune."
                self.report((*path[:inner], _RATE), what, each.place)

    def free(self, match: Sequence[str]) -> str | None:
        wanted = any("params" in each for each in match)
        if (node := self.given.get("free")) is None or node.value is None:
            if wanted:
                what = "it is missing, and params needs a width to change. Write free: model.mlp.hidden."
                self.report(("free",), what, self.given["match"].place)
            return None
        if not isinstance(node.value, str) or not node.value.startswith("model."):
            self.report(("free",), f"{shown(node.plain())} is not a key of the model. Write model.mlp.hidden.")
        elif not wanted:
            self.report(
                ("free",), f"match {' and '.join(match)} changes no width. Leave it out, or write match: params."
            )
        return str(node.value)

    def metric(self) -> str:
        value = self.given["metric"].plain() if "metric" in self.given else "val_loss"
        if value not in HIGHER_IS_BETTER:
            known = list(HIGHER_IS_BETTER)
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            self.report(("metric",), f"no metric is called {shown(value)}.{hint or f' Known: {any_of(known)}.'}")
            return "val_loss"
        return str(value)

    def read_at(self) -> int:
        value = self.given["read_at"].plain() if "read_at" in self.given else 1
        if type(value) is not int or not 1 <= value <= FARTHEST_READ:
            what = f"{shown(value)} is not a whole number from 1 to {FARTHEST_READ}, times the context length. Write 4."
            self.report(("read_at",), what)
            return 1
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.given[key].plain() if key in self.given else default
        if not isinstance(value, bool):
            self.report((key,), f"{shown(value)} is not true or false.")
        return bool(value)

    def number(self, key: str, default: float | None, above: float, below: float = math.inf) -> float | None:
        value = self.given[key].plain() if key in self.given else default
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
            limits = f"a number above {above:g}" + (f" and below {below:g}" if below < math.inf else "")
            self.report((key,), f"{shown(value)} is not {limits}.")
            return default
        return float(value)


def _not_a_match(value: object) -> str:
    """What is wrong with an entry of `match`."""
    parts = [part.strip() for part in value.split("+")] if isinstance(value, str) else []
    steps = [part for part in dict.fromkeys(parts) if part in STEPS_OF]
    if len(steps) > 1 and set(parts) <= {*STEPS_OF, "params"}:
        why = "; ".join(f"{part}: {STEPS_OF[part]}" for part in steps)
        return f"{' and '.join(steps)} cannot be matched in the same runs ({why}). Write [{', '.join(steps)}]."
    hint = did_you_mean(value, MATCHES) if isinstance(value, str) else ""
    return f"{shown(value)} is not supported. Supported: {', '.join(MATCHES)}, and a list of them.{hint}"


def _shorthands(key: str, node: Node) -> Iterator[Node]:
    """Where an arm writes `attention: sdpa`, at any depth."""
    for path, each in node.walk(tuple(key.split("."))):
        is_word = isinstance(each.value, str) and each.value in RESERVED["attention"] - {"auto"}
        if is_word and (path[-1] == "attention" or path[-2:] == ("attention", "name")):
            yield each


def _label(node: Node) -> str:
    """A value of a grid as it stands in an arm's name."""
    value = node.plain()
    if isinstance(value, dict):
        options = ",".join(f"{key}={each}" for key, each in value.items() if key != "name")
        return f"{value.get('name', '')}({options})" if options else str(value.get("name", "{}"))
    return shown(value) if not isinstance(value, str) else value


def relocated(error: GPTZooError, node: Node, prefix: str) -> list[GPTZooError]:
    """What composing a plan's own mapping complained of, at the place in the plan where it was written.

    Args:
        error: Its places are `mapping: KEY`.
        node: The mapping as the plan has it; its keys may be dotted.
        prefix: What stands before KEY in the plan, `arms.rope`.
    """
    problems: list[GPTZooError] = list(getattr(error, "problems", [error]))
    return [_relocated(each, node, prefix) for each in problems]


def _relocated(error: GPTZooError, node: Node, prefix: str) -> GPTZooError:
    origin, _, key = error.where.partition(": ")
    if origin != "mapping":
        return GPTZooError(error.what, error.where)
    place, path = _written_at(node, key)
    return GPTZooError(error.what, f"{place}: {prefix}.{path}" if path else f"{place}: {prefix}")


def _written_at(node: Node, key: str) -> tuple[Place, str]:
    """The innermost place that a dotted key leads to, and the key."""
    place, rest = node.place, key
    while rest and isinstance(node.value, dict):
        found = next((k for k in sorted(node.items, key=len, reverse=True) if f"{rest}.".startswith(f"{k}.")), None)
        if found is None:
            break
        node, rest = node.items[found], rest[len(found) + 1 :]
        place = node.place
    return place, key


def base_files(plan: AblationPlan) -> list[Path]:
    """The files of the recipes that a plan names as its base.

    Raises:
        GPTZooError: One of them is not there, or lies where a plan may not read.
    """
    library = Library(shipped_folder())
    nodes = plan.base.value if isinstance(plan.base.value, list) else [plan.base]
    return [library.base(str(node.value), plan.file, node.place).path for node in nodes]
