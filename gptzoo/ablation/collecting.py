"""From the files of a study to its outcome. Nothing here needs torch: a report can be made wherever the files are."""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptzoo.ablation.hindsight import copied_arms, failures, own_rates
from gptzoo.ablation.journal import JOURNAL, Journal
from gptzoo.ablation.ledger import (
    CELLS,
    LOGITS,
    CellRecord,
    Ledger,
    broken_seals,
    edited,
    hash_of,
    read_cell,
    study_at,
)
from gptzoo.ablation.plan import AA_ARM, AblationPlan, parse_plan
from gptzoo.ablation.positions import read_positions
from gptzoo.ablation.study import Arm, CellOutcome, Point, StudyOutcome
from gptzoo.ablation.tuning_runs import disagreements, how_far, tuned, tuning_run
from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.files import canonical_json
from gptzoo.recipe.yaml_source import read_file
from gptzoo.runs import Records, RunDirectory

LAST = 3
"""Evaluations at the end that the metric is the mean of."""

TOLERANCE = 0.005
"""Share of the baseline's parameters, or FLOPs, that an arm may differ by where they are matched."""

TOKENS_APART = 0.01
"""Share of its tokens that a run may differ by from one of another seed: rows of examples are not all full."""

WALL_APART = 0.1
"""Share of the baseline's training seconds that an arm's may differ by where they are matched."""

DECIDES = ("numerics", "torch", "threads", "cpu", "device", "device_name", "precision", "compile")
"""Facts of `environment.json` that cells under one verdict must share."""


def collect(folder: Path, match: str | None = None) -> StudyOutcome:
    """All that came of a study, from its folder alone.

    Args:
        folder: Of the study.
        match: Which of its sets of runs; the first unless given.

    Raises:
        GPTZooError: No study lies there, a file is damaged, or it has no such set.
    """
    folder = Path(folder)
    ledger = study_at(folder)
    return _Collector(folder, ledger, _set(ledger, match, folder)).outcome()


def matches(folder: Path) -> list[str]:
    """The ways of matching that a study has runs for.

    Raises:
        GPTZooError: No study lies there.
    """
    return [str(each["match"]) for each in study_at(Path(folder)).sets]


def runs_of_baseline(folder: Path) -> list[float]:
    """The metric of every run of a study's baseline, those on fresh seeds too: noise and nothing else.

    Raises:
        GPTZooError: No study lies there.
    """
    study = collect(folder)
    return [c.value for c in study.cells if c.arm in (study.baseline, AA_ARM) and c.value is not None]


def last_value(folder: Path, metric: str) -> float | None:
    """The metric of a cell as verdicts use it: the mean of its last three evaluations; None if there are none."""
    points = curve(folder, metric)
    return statistics.fmean(point.value for point in points[-LAST:]) if points else None


def curve(folder: Path, metric: str) -> list[Point]:
    """The metric at each evaluation, with the time that training had taken until then."""
    seconds = _Clock(folder)
    return [
        Point(int(record["step"]), int(record["tokens"]), seconds.at(int(record["step"])), float(record[metric]))  # type: ignore[call-overload,arg-type]
        for record in Records.read(folder / "metrics.jsonl")
        if metric in record
    ]


def gradients(folder: Path) -> list[tuple[int, float]]:
    """The norm of the gradients at each step that was logged; fp16 steps that overflowed have none."""
    records = Records.read(folder / "metrics.jsonl")
    return [(int(each["step"]), float(each["grad_norm"])) for each in records if "grad_norm" in each]  # type: ignore[call-overload,arg-type]


def logits(folder: Path) -> tuple[float | None, ...]:
    """The largest attention logit of each layer; none where a run has not measured it."""
    path = folder / LOGITS
    try:
        return tuple(json.loads(path.read_bytes()).get("largest", ())) if path.exists() else ()
    except ValueError as error:
        raise GPTZooError("this is no JSON. Remove the file, or restore it.", str(path)) from error


class _Clock:
    """Seconds of training by step: some steps are timed, and stand for those before them."""

    def __init__(self, folder: Path) -> None:
        timed = {int(r["step"]): float(r["seconds"]) for r in Records.read(folder / "timings.jsonl")}  # type: ignore[call-overload,arg-type]
        self.marks, total, before = [(0, 0.0)], 0.0, 0
        for step in sorted(timed):
            total, before = total + timed[step] * (step - before), step
            self.marks.append((step, total))

    def at(self, step: int) -> float:
        return max(seconds for mark, seconds in self.marks if mark <= step)

    @property
    def total(self) -> float:
        return self.marks[-1][1]


def _positions(folder: Path) -> int:
    """Positions that a cell was trained on, those without a target too; 0 if its recipe is damaged."""
    steps = max((int(r["step"]) for r in Records.read(folder / "metrics.jsonl")), default=0)  # type: ignore[call-overload]
    try:
        recipe: Any = read_file(folder / "recipe.yaml", "recipe.yaml").plain()
        return steps * int(recipe["train"]["batch_size"]) * int(recipe["model"]["context_length"])
    except (GPTZooError, KeyError, TypeError, ValueError):
        return 0


def _set(ledger: Ledger, match: str | None, folder: Path) -> Mapping[str, Any]:
    known = {str(each["match"]): each for each in ledger.sets}
    if match is None:
        return next(iter(known.values()))
    if match not in known:
        hint = did_you_mean(match, known) or f" It has {', '.join(known)}."
        raise GPTZooError(f"the study has no runs matched by {match!r}.{hint}", str(folder))
    return known[match]


@dataclass(frozen=True)
class _Cell:
    """A cell's outcome, and what is compared of it."""

    outcome: CellOutcome
    record: CellRecord | None
    faults: tuple[str, ...] = ()


@dataclass
class _Collector:
    folder: Path
    ledger: Ledger
    set: Mapping[str, Any]

    def outcome(self) -> StudyOutcome:
        plan = self.plan
        arms = tuple(self.arm(each) for each in self.set["arms"])
        cells = self.with_init_hashes([self.cell(each, plan.metric) for each in self.set["cells"]], arms, plan)
        ledger = _Comparison(plan, self.set["match"], {arm.name: arm for arm in arms}, cells)
        short = [
            (each, self.cell(each, plan.metric)) for each in self.set.get("before", ()) if each["purpose"] == "tuning"
        ]
        higher = plan.higher_is_better
        tuning = tuned(self.set, [tuning_run(each, cell.outcome) for each, cell in short], higher_is_better=higher)
        faults = [
            *disagreements(tuning, higher_is_better=higher),
            *(fault for _, cell in short for fault in cell.faults),
        ]
        return StudyOutcome(
            name=self.folder.resolve().name,
            plan=self.ledger.plan,
            plan_hash=hash_of(self.ledger.plan),
            exploratory="; ".join(self.exploratory(arms, cells)),
            baseline=plan.baseline,
            arms=arms,
            seeds=plan.seeds,
            aa=plan.aa,
            match=self.set["match"],
            metric=plan.metric,
            higher_is_better=plan.higher_is_better,
            delta=plan.delta,
            alpha=plan.alpha,
            base_recipe=self.ledger.base_recipe,
            cells=tuple(cell.outcome for cell in cells),
            mismatches=(*self.tampering(), *ledger.mismatches(), *faults),
            notes=(*self.set["notes"], *filter(None, [how_far(tuning)]), *ledger.notes()),
            design=plan.design,
            looks=plan.looks,
            rungs=plan.rungs,
            tuning=tuning,
        )

    def exploratory(self, arms: Iterable[Arm], cells: Sequence[_Cell]) -> Iterable[str]:
        """What was changed since the plan was frozen, or known before."""
        yield from self.ledger.exploratory
        if edit := edited(self.folder, self.ledger) or self.swapped():
            yield edit
        yield from copied_arms(_origins(cells), self.folder.resolve().name, (self.plan.baseline, AA_ARM))
        yield from own_rates(self.plan, {arm.name: arm for arm in arms})
        yield from failures(cell.outcome for cell in cells)

    def swapped(self) -> str:
        """Says that the plan is not the one that the journal has last, or nothing."""
        same = not self.journal.plan or self.journal.plan == hash_of(self.ledger.plan)
        return "" if same else "study.json has another plan than the one that was frozen last"

    def tampering(self) -> Iterable[str]:
        """What was done to cells after they had ended."""
        if self.ledger.journal and not self.journal.path.exists():
            yield f"{JOURNAL} is gone"
        yield from self.journal.faults([*self.set.get("before", ()), *self.set["cells"]])

    @functools.cached_property
    def journal(self) -> Journal:
        return Journal(self.folder)

    @functools.cached_property
    def plan(self) -> AblationPlan:
        """The plan as it was frozen, even if the file beside it was edited."""
        return parse_plan(self.ledger.plan, str(self.folder / "plan.yaml"), self.folder.resolve().name)

    def arm(self, kept: Mapping[str, Any]) -> Arm:
        differs = {key: (pair[0], pair[1]) for key, pair in kept["differs"].items()}
        return Arm(kept["name"], kept["changes"], differs, kept["refused"])

    def cell(self, planned: Mapping[str, Any], metric: str) -> _Cell:
        path = self.folder / CELLS / planned["folder"]
        outcome = CellOutcome(
            planned["arm"], planned["seed"], planned["id"], f"{CELLS}/{planned['folder']}", "missing", "it has not run"
        )
        record = read_cell(path)
        if record is None or record.id != planned["id"]:
            return _Cell(outcome, None)
        if record.copied_from and self.journal.has_run(record):
            record = replace(record, copied_from="")  # set aside, and taken back: it is the study's own
        if record.status == "running":
            return _Cell(replace(outcome, reason="it has not ended"), None)
        if record.status == "failed" or not (path / "recipe.yaml").exists():
            return _Cell(replace(outcome, status="failed", reason=record.reason or "its files are gone"), None)
        return self.ended(outcome, record, path, metric)

    def ended(self, outcome: CellOutcome, record: CellRecord, path: Path, metric: str) -> _Cell:
        environment = RunDirectory.at(path, lock=False).read_environment()
        points = curve(path, metric)
        changed = broken_seals(path, record)
        faults = tuple(f"{outcome.path}/{name} was changed after the run" for name in changed)
        costs = self.costs_of(outcome.arm)
        per_token = float(costs["flops_per_token"]) if costs else 0.0
        head = float(costs.get("head_flops_per_token", per_token)) if costs else 0.0  # an old ledger does not know it
        positions = _positions(path)
        done = record.status == "done"
        made = replace(
            outcome,
            status=record.status if record.status in ("done", "killed") else "diverged",
            reason=record.reason,
            value=statistics.fmean(p.value for p in points[-LAST:]) if done and points else None,
            curve=tuple(points),
            gradients=tuple(gradients(path)),
            logits=logits(path),
            positions=read_positions(path),
            parameters=record.parameters,
            non_embedding=record.non_embedding,
            flops_per_token=per_token,
            flops=per_token * positions,
            body_flops=(per_token - head) * positions,
            tokens=max((int(r["tokens"]) for r in Records.read(path / "metrics.jsonl")), default=0),  # type: ignore[call-overload]
            seconds=_Clock(path).total,
            peak_memory=record.peak_memory,
            data_hash=record.data_hash,
            data_key=str(environment.get("data_key", "")),
            environment={key: environment.get(key) for key in DECIDES},
            exact_resumes=not any("environment" in each for each in environment.get("changes", [])),  # type: ignore[union-attr]
        )
        if done and made.value is None:
            made = replace(made, status="failed", reason=f"its evaluations have no {metric}")
        return _Cell(made, record, faults)

    def costs_of(self, arm: str) -> Mapping[str, Any] | None:
        """What the arm was counted to cost; the A/A arm is the baseline."""
        name = self.plan.baseline if arm == AA_ARM else arm
        return next((each["costs"] for each in self.set["arms"] if each["name"] == name), None)

    def with_init_hashes(self, cells: Sequence[_Cell], arms: Iterable[Arm], plan: AblationPlan) -> list[_Cell]:
        """Each cell with the hash of those initial weights that its arm shares with the baseline."""
        differs = {arm.name: arm.differs for arm in arms}
        baseline = {c.outcome.seed: c.record for c in cells if c.outcome.arm == plan.baseline and c.record}
        made = []
        for cell in cells:
            base = baseline.get(cell.outcome.seed)
            if cell.record is None or base is None:
                made.append(cell)
                continue
            paths = shared_paths(base.init, cell.record.init, differs.get(cell.outcome.arm, {}))
            made.append(replace(cell, outcome=replace(cell.outcome, init_hash=_hash(cell.record.init, paths))))
        return made


def _origins(cells: Iterable[_Cell]) -> dict[str, list[str]]:
    """Of each arm, the cells of other studies that its own were copied from."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell.record is not None and cell.record.copied_from:
            found.setdefault(cell.outcome.arm, []).append(cell.record.copied_from)
    return found


def shared_paths(
    base: Mapping[str, Sequence[object]], own: Mapping[str, Sequence[object]], differs: Iterable[str]
) -> list[str]:
    """The weights that two arms must start from alike: of equal path and shape, in parts that do not differ."""
    touched = set(differs)
    if any(key.startswith(_CHANGES_INIT) for key in touched):
        return []
    slots = {key.split(".")[1] for key in touched if key.startswith("model.")}
    return [path for path in base if path in own and base[path][0] == own[path][0] and not _owners(path) & slots]


_CHANGES_INIT = ("model.init", "model.n_layer", "model.layers", "train.init_from")


def _owners(path: str) -> set[str]:
    """The slots that may have made a weight; a block owns all that is in it."""
    top, *rest = path.split(".")
    if top != "layers":
        return {{"positions": "position", "norm_f": "norm", "head": "head"}.get(top, "embedding")}
    return {rest[1] if rest[1] in ("attention", "mlp") else "norm", "block"}


def _hash(init: Mapping[str, Sequence[object]], paths: Iterable[str]) -> str:
    shared = {path: init[path] for path in paths}
    return hashlib.sha256(canonical_json(shared).encode()).hexdigest() if shared else ""


@dataclass(frozen=True)
class _Comparison:
    """What must be equal across the cells of a verdict, and what is not."""

    plan: AblationPlan
    match: str
    arms: Mapping[str, Arm]
    cells: Sequence[_Cell]

    @property
    def ended(self) -> list[CellOutcome]:
        return [cell.outcome for cell in self.cells if cell.record is not None]

    @property
    def baseline(self) -> dict[int, CellOutcome]:
        return {cell.seed: cell for cell in self.ended if cell.arm == self.plan.baseline}

    def mismatches(self) -> Iterable[str]:
        yield from (fault for cell in self.cells for fault in cell.faults)
        yield from self.environments()
        yield from self.inexact()
        for arm in self.by_arm():
            yield from self.of_arm(arm)

    def by_arm(self) -> list[str]:
        names = [name for name in self.arms if name != self.plan.baseline]
        return [*names, AA_ARM] if self.plan.aa else names

    def environments(self) -> Iterable[str]:
        known = [cell for cell in self.ended if cell.environment]
        for key in DECIDES:
            values: dict[str, CellOutcome] = {}
            for cell in known:
                if key not in self.chosen(cell):
                    values.setdefault(str((cell.environment or {}).get(key)), cell)
            if len(values) > 1:
                (one, first), (two, second) = list(values.items())[:2]
                yield f"environment: {key} is {one} in {first.path} and {two} in {second.path}"

    def chosen(self, cell: CellOutcome) -> list[str]:
        """Facts that differ because the arm is about them."""
        arm = self.arms.get(cell.arm)
        return [key for key in ("precision", "compile") if arm and f"train.{key}" in arm.differs]

    def inexact(self) -> Iterable[str]:
        yield from (f"{c.path} was resumed where that is not bit-exact" for c in self.ended if not c.exact_resumes)

    def of_arm(self, arm: str) -> Iterable[str]:
        own = [cell for cell in self.ended if cell.arm == arm]
        pairs = [(self.any_baseline(cell.seed), cell) for cell in own]
        found: dict[str, str] = {}
        for base, cell in pairs:
            if base is not None:
                for what, said in self.between(base, cell):
                    found.setdefault(what, f"{arm}: {said}")
        yield from found.values()
        if "wall" in self.match:
            yield from self.of_time(arm, own)

    def of_time(self, arm: str, own: Sequence[CellOutcome]) -> Iterable[str]:
        """Whether the arm's runs took the baseline's seconds: single runs are at the mercy of the machine."""
        mine, beside = (
            [cell.seconds for cell in cells if cell.status == "done"] for cells in (own, self.baseline.values())
        )
        if mine and beside:
            seconds, base = statistics.median(mine), statistics.median(beside)
            if abs(seconds - base) > WALL_APART * base:
                said = f"trained for {seconds:.3g} s, the baseline for {base:.3g} s"
                yield f"{arm}: {said}: {seconds / base - 1:+.0%}, and {WALL_APART:.0%} is allowed"

    def any_baseline(self, seed: int) -> CellOutcome | None:
        return self.baseline.get(seed) or next(iter(self.baseline.values()), None)

    def between(self, base: CellOutcome, cell: CellOutcome) -> Iterable[tuple[str, str]]:
        """What two cells should share and do not: the kind of it, and the words."""
        differs = self.arms[cell.arm].differs if cell.arm in self.arms else {}
        about_data = any(key == "data" or key.startswith("data.") for key in differs)
        if cell.data_key != base.data_key and (not about_data or self.plan.metric != "exact_match"):
            own = " It changes data, and its losses are of another text" if about_data else ""
            yield "data", f"its data are not the baseline's.{own}"
        if "params" in self.match and abs(cell.parameters - base.parameters) > TOLERANCE * base.parameters:
            yield "params", f"{cell.parameters:,} parameters, the baseline has {base.parameters:,}"
        both_done = cell.status == base.status == "done"
        allowed = 0 if cell.seed == base.seed else TOKENS_APART * base.tokens
        if "tokens" in self.match and both_done and abs(cell.tokens - base.tokens) > allowed:
            yield "tokens", f"trained on {cell.tokens:,} tokens, the baseline on {base.tokens:,}"
        if "flops" in self.match and both_done and abs(cell.flops - base.flops) > TOLERANCE * base.flops:
            yield "flops", f"trained with {cell.flops:.4g} FLOPs, the baseline with {base.flops:.4g}"
        if cell.seed != base.seed:
            return
        if cell.data_hash != base.data_hash and not about_data and "tokens" in self.match:
            yield "order", "its batches are not the baseline's, or come in another order"
        if cell.init_hash and cell.init_hash != self.shared_hash(base, cell):
            yield "init", "the initial weights that it shares with the baseline are not equal"

    def shared_hash(self, base: CellOutcome, cell: CellOutcome) -> str:
        records = {(c.outcome.arm, c.outcome.seed): c.record for c in self.cells}
        one, two = records[base.arm, base.seed], records[cell.arm, cell.seed]
        assert one is not None
        assert two is not None
        return _hash(one.init, shared_paths(one.init, two.init, self.arms[cell.arm].differs))

    def notes(self) -> Iterable[str]:
        for arm in self.arms.values():
            if arm.refused:
                yield f"{arm.name} was refused: {arm.refused}"
            elif any(key == "data" or key.startswith("data.") for key in arm.differs):
                yield f"{arm.name} changes data, so its batches differ from the baseline's by design."
        if _uses_dropout(self.plan):
            yield "With dropout, arms share its noise only where their graphs are equal."
        copied = [c.outcome.path for c in self.cells if c.record is not None and c.record.copied_from]
        if copied:
            yield f"Copied from other studies: {', '.join(copied)}."
        missing = sum(cell.outcome.status == "missing" for cell in self.cells)
        if missing:
            yield f"{missing} of {len(self.cells)} cells have not ended."


def _uses_dropout(plan: AblationPlan) -> bool:
    base: Any = plan.base.plain()
    return bool(isinstance(base, Mapping) and base.get("model", {}).get("dropout"))
