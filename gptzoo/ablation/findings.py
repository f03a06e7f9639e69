"""From a study's cells to what its report says: verdicts, and why some are withheld, costs, and the fairness ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gptzoo.ablation import fairness
from gptzoo.ablation.analysis import AA_ARM, analyse
from gptzoo.ablation.compute_gain import LOSSES, ComputeCurve, Gain, fit_curve
from gptzoo.ablation.factorial import Effects, effects_of
from gptzoo.ablation.fairness import Entry
from gptzoo.ablation.study import Arm, CellOutcome, StudyOutcome
from gptzoo.ablation.verdicts import Analysis, ArmVerdict, Cell

BLOCKED = "the ledger has a mismatch"


@dataclass(frozen=True)
class Costs:
    """What a run of an arm costs: means over its runs that were done, None where nobody knows.

    Args:
        parameters: All of them; `non_embedding` without embeddings.
        non_embedding: See `parameters`.
        flops_per_token: Forward and backward.
        flops: Of the training.
        body_flops: Of these, all but the output matrix's.
        tokens: Trained on.
        seconds: Of training.
        peak_memory: Bytes, the largest of the runs.
    """

    parameters: float | None = None
    non_embedding: float | None = None
    flops_per_token: float | None = None
    flops: float | None = None
    body_flops: float | None = None
    tokens: float | None = None
    seconds: float | None = None
    peak_memory: float | None = None


@dataclass(frozen=True)
class ArmFindings:
    """All there is to say of one arm.

    Args:
        arm: As planned.
        cells: Its cells, by seed.
        mean: Of its runs that were done; None if there are none.
        costs: Of one run.
        verdict: None for the baseline, and for an arm without a single result.
        gain: What the difference is worth in compute; None where there is no verdict, or nothing to read it off.
    """

    arm: Arm
    cells: tuple[CellOutcome, ...]
    mean: float | None
    costs: Costs
    verdict: ArmVerdict | None
    gain: Gain | None = None

    @property
    def name(self) -> str:
        return self.arm.name

    def count(self, status: str) -> int:
        """Cells with this status."""
        return sum(cell.status == status for cell in self.cells)


@dataclass(frozen=True)
class Findings:
    """A study, understood.

    Args:
        study: As it came out, with mismatches of its tuning among the others.
        analysis: None if there is nothing to analyse. If the ledger blocks the verdicts, they are `no verdict` here.
        trouble: Why there is no analysis, one sentence.
        arms: In the plan's order, the baseline first, without the A/A arm and refused ones.
        aa: The A/A arm, if there is one.
        refused: Arms whose parts do not fit.
        curve: What compute is worth to the baseline; None where its runs do not tell.
        effects: What the factors of the design do; None without a design, or where verdicts are withheld.
    """

    study: StudyOutcome
    analysis: Analysis | None
    trouble: str
    arms: tuple[ArmFindings, ...]
    aa: ArmFindings | None
    refused: tuple[Arm, ...]
    ledger: tuple[Entry, ...]
    effects: Effects | None = None
    curve: ComputeCurve | None = None

    @property
    def baseline(self) -> ArmFindings:
        return self.arms[0]

    @property
    def everyone(self) -> tuple[ArmFindings, ...]:
        """The arms, and the A/A arm last."""
        return (*self.arms, *([self.aa] if self.aa else []))


def find(study: StudyOutcome) -> Findings:
    """Analyse a study. Never fails for what its cells hold: trouble is told in words."""
    study = replace(study, mismatches=(*study.mismatches, *fairness.tuning_mismatches(study)))
    study = replace(study, notes=(*study.notes, *filter(None, [_selected(study)])))
    baseline = next((arm for arm in study.arms if arm.name == study.baseline), Arm(study.baseline, {}, {}))
    others = [arm for arm in study.arms if arm.name not in (study.baseline, AA_ARM)]
    running = [baseline, *(arm for arm in others if not arm.refused)]
    analysis, trouble = _analysis(study, [arm.name for arm in running])
    verdicts = {arm.arm: arm for arm in analysis.arms} if analysis else {}
    arms = tuple(_arm(study, arm, verdicts.get(arm.name)) for arm in running)
    curve = _curve(study)
    arms = tuple(replace(arm, gain=_gain(curve, arm, arms[0])) for arm in arms)
    aa = _arm(study, Arm(AA_ARM, {}, {}), None)
    refused = tuple(arm for arm in others if arm.refused)
    ledger = tuple(_ledger(study, arms))
    fresh = aa if aa.cells else None
    return Findings(study, analysis, trouble, arms, fresh, refused, ledger, _effects(study), curve)


def finite(value: float | None) -> float | None:
    """The number, or None if it is none."""
    return value if value is not None and math.isfinite(value) else None


def _curve(study: StudyOutcome) -> ComputeCurve | None:
    """The baseline's loss over its training, from all of its runs, those on fresh seeds too."""
    own = [cell for cell in study.cells if cell.arm in (study.baseline, AA_ARM)]
    runs = [{point.step: point.value for point in cell.curve} for cell in own if cell.status == "done" and cell.curve]
    if study.metric not in LOSSES or study.higher_is_better or not runs:
        return None
    steps = sorted(step for step in runs[0] if step and all(step in run for run in runs))
    if not steps or any(max(run) != steps[-1] for run in runs):
        return None
    return fit_curve([step / steps[-1] for step in steps], [[run[step] for step in steps] for run in runs])


def _gain(curve: ComputeCurve | None, arm: ArmFindings, base: ArmFindings) -> Gain | None:
    verdict = arm.verdict
    if curve is None or verdict is None or verdict.verdict in ("diverged", "no verdict"):
        return None
    if verdict.difference is None or verdict.low is None or verdict.high is None:
        return None
    one, two = base.costs.flops, arm.costs.flops
    return curve.gain(verdict.difference, verdict.low, verdict.high, one / two if one and two else 1.0)


def _analysis(study: StudyOutcome, names: Sequence[str]) -> tuple[Analysis | None, str]:
    cells = [_result(cell) for name in [*names, AA_ARM] for cell in _cells_of(study, name) if _has_result(cell)]
    present = {cell.arm for cell in cells}
    if study.baseline not in present:
        return None, f"The baseline {study.baseline} has no result, so there is nothing to compare with."
    if len(present) < 2:
        return None, f"Only the baseline {study.baseline} has results, so there is nothing to compare."
    analysis = analyse(
        cells,
        baseline=study.baseline,
        alpha=study.alpha,
        delta=study.delta,
        higher_is_better=study.higher_is_better,
        aa_arm=AA_ARM if AA_ARM in present else None,
        looks=study.looks,
        withheld=fairness.untuned(study),
    )
    analysis = replace(analysis, arms=tuple(_told_when_killed(study, arm) for arm in analysis.arms))
    if study.mismatches:
        return _blocked(analysis), ""
    return (_unread(analysis, waiting) if (waiting := unfinished(study)) else analysis), ""


def unfinished(study: StudyOutcome) -> str:
    """Why it is too early for verdicts: a plan without looks is read once, when all of its cells have ended."""
    missing = sum(cell.status == "missing" for cell in study.cells)
    if study.looks or not missing:
        return ""
    return f"the study has not ended ({missing} of {len(study.cells)} cells are missing), and the plan has no looks"


def _told_when_killed(study: StudyOutcome, arm: ArmVerdict) -> ArmVerdict:
    at = fairness.killed_at(study, _cells_of(study, arm.arm)) if arm.killed else ""
    return replace(arm, reason=arm.reason.replace(" were killed,", f" were killed{at},")) if at else arm


def _effects(study: StudyOutcome) -> Effects | None:
    if study.design is None or study.mismatches or unfinished(study) or fairness.untuned(study) or _selected(study):
        return None
    return effects_of(study.design, [_result(cell) for cell in study.cells if _has_result(cell)], study.alpha)


def _selected(study: StudyOutcome) -> str:
    """Why runs that a design's effects would rest on are a choice by their results; an empty string if they are not."""
    design = study.design
    if design is None or not (design.is_crossed or design.kind == "both"):
        return ""
    why = ""
    if study.looks:
        why = "looks stop arms for what they show, so that the runs that are left are chosen"
    elif any(cell.status == "killed" and cell.arm in design.arms for cell in study.cells):
        why = "runs were killed, far behind, and those that are left are the lucky ones"
    return f"Effects of factors are not told: {why}." if why else ""


def _blocked(analysis: Analysis) -> Analysis:
    """The numbers stay; verdicts and ranking go. A divergence stays what it is."""
    arms = tuple(
        arm if arm.verdict == "diverged" else replace(arm, verdict="no verdict", reason=BLOCKED, more_seeds=None)
        for arm in analysis.arms
    )
    notes = tuple(note for note in analysis.notes if not note.startswith(("Intervals are for one arm", "More seeds:")))
    looks = tuple(replace(look, stops=()) for look in analysis.looks)
    return replace(analysis, arms=arms, ranking=(), notes=notes, looks=looks)


def _unread(analysis: Analysis, reason: str) -> Analysis:
    """As blocked, and without what a verdict could be guessed from: a test that is peeked at is another test."""
    arms = tuple(
        arm if arm.verdict == "diverged" else replace(arm, reason=reason, low=None, high=None, p=None, p_holm=None)
        for arm in _blocked(analysis).arms
    )
    return replace(_blocked(analysis), arms=arms)


def _has_result(cell: CellOutcome) -> bool:
    return cell.status in ("diverged", "killed") or (cell.status == "done" and cell.value is not None)


def _result(cell: CellOutcome) -> Cell:
    value = cell.value if cell.status == "done" and cell.value is not None else math.nan
    return Cell(cell.arm, cell.seed, value, killed=cell.status == "killed")


def _cells_of(study: StudyOutcome, arm: str) -> list[CellOutcome]:
    return sorted((cell for cell in study.cells if cell.arm == arm), key=lambda cell: cell.seed)


def _arm(study: StudyOutcome, arm: Arm, verdict: ArmVerdict | None) -> ArmFindings:
    cells = tuple(_cells_of(study, arm.name))
    mean = _mean(finite(cell.value) for cell in cells if cell.status == "done")
    return ArmFindings(arm, cells, mean, _costs(cells), verdict)


def _costs(cells: Sequence[CellOutcome]) -> Costs:
    done = [cell for cell in cells if cell.status == "done"]
    if not done:
        return Costs()
    return Costs(
        parameters=_mean(cell.parameters or None for cell in done),
        non_embedding=_mean(cell.non_embedding or None for cell in done),
        flops_per_token=_mean(cell.flops_per_token or None for cell in done),
        flops=_mean(cell.flops or None for cell in done),
        body_flops=_mean(cell.body_flops or None for cell in done),
        tokens=_mean(cell.tokens or None for cell in done),
        seconds=_mean(cell.seconds or None for cell in done),
        peak_memory=max(cell.peak_memory for cell in done) or None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


_QUANTITIES: tuple[tuple[str, str, Callable[[Costs], float | None]], ...] = (
    ("tokens trained on", "tokens", lambda costs: costs.tokens),
    ("parameters", "params", lambda costs: costs.parameters),
    ("parameters without embeddings", "", lambda costs: costs.non_embedding),
    ("training FLOPs", "flops", lambda costs: costs.flops),
    ("training FLOPs without the output matrix", "", lambda costs: costs.body_flops),
    ("training seconds", "wall", lambda costs: costs.seconds),
    ("peak memory", "", lambda costs: costs.peak_memory),
)


def _ledger(study: StudyOutcome, arms: Sequence[ArmFindings]) -> Iterable[Entry]:
    matched = study.match.split("+")
    for quantity, key, of in _QUANTITIES:
        yield _quantity(quantity, key in matched, arms, of)
    done = [cell for arm in arms for cell in arm.cells if cell.status == "done"]
    yield _same("data and tokenizer", [cell.data_key for cell in done], "the same for all runs")
    yield _batches(done, required="tokens" in matched)
    yield _environments(done)
    yield _resumes(done)
    yield from fairness.entries(study)


def _quantity(quantity: str, required: bool, arms: Sequence[ArmFindings], of: Callable[[Costs], float | None]) -> Entry:
    base = of(arms[0].costs)
    known = [(value, arm.name) for arm in arms[1:] if (value := of(arm.costs)) is not None]
    if base is None or not known:
        return Entry(quantity, required, None, "not known")
    value, name = max(known, key=lambda pair: abs(pair[0] - base))
    if value == base:
        return Entry(quantity, required, True, "the same for all arms")
    apart = f"{(value - base) / base:+.2%}".replace("-", "\N{MINUS SIGN}")
    return Entry(quantity, required, False, f"at most {apart} from the baseline ({name})")


def _same(quantity: str, values: Sequence[str], detail: str) -> Entry:
    different = len(set(values))
    if not different or "" in values:
        return Entry(quantity, True, None, "not known")
    return Entry(quantity, True, different == 1, detail if different == 1 else f"{different} different ones")


def _batches(cells: Sequence[CellOutcome], required: bool) -> Entry:
    quantity, by_seed = "batches and their order, at each seed", dict[int, set[str]]()
    for cell in cells:
        by_seed.setdefault(cell.seed, set()).add(cell.data_hash)
    if not by_seed or any("" in hashes for hashes in by_seed.values()):
        return Entry(quantity, required, None, "not known")
    apart = sorted(seed for seed, hashes in by_seed.items() if len(hashes) > 1)
    if not apart:
        return Entry(quantity, required, True, "the same for all arms")
    return Entry(quantity, required, False, f"differ at seed {', '.join(map(str, apart))}")


def _environments(cells: Sequence[CellOutcome]) -> Entry:
    quantity = "environment (versions, threads, device)"
    found: list[Mapping[str, object]] = [cell.environment for cell in cells if cell.environment]
    if not found or len(found) < len(cells):
        return Entry(quantity, True, None, "not known")
    keys = sorted({key for environment in found for key in environment})
    differ = [key for key in keys if any(other.get(key) != found[0].get(key) for other in found)]
    return Entry(quantity, True, not differ, f"differs: {', '.join(differ)}" if differ else "the same for all runs")


def _resumes(cells: Sequence[CellOutcome]) -> Entry:
    quantity, inexact = "runs never stopped, or resumed bit-exactly", sum(not cell.exact_resumes for cell in cells)
    if not cells:
        return Entry(quantity, True, None, "not known")
    but = f"all but {inexact} run{'' if inexact == 1 else 's'}"
    return Entry(quantity, True, not inexact, but if inexact else "all runs")
