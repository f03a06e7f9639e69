"""What a study will cost and what it will be able to see, before it runs."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptzoo.ablation import power
from gptzoo.ablation.calibration import Shape, printed_equality, printed_power
from gptzoo.ablation.cells import CellSet, PlannedCell, PlannedStudy
from gptzoo.ablation.designs import as_lines
from gptzoo.ablation.ledger import ENDED, ended_cells, read_cell
from gptzoo.ablation.plan import AA_ARM, AblationPlan
from gptzoo.ablation.pool import run_jobs
from gptzoo.ablation.sequential import increments
from gptzoo.ablation.stopping import reach
from gptzoo.ablation.timing_forecast import at_likely_pace, timing_line
from gptzoo.ablation.trials import noise_of
from gptzoo.ablation.tuning_forecast import TuningForecast, forecast_tuning, tuning_cells
from gptzoo.ablation.worker import Job
from gptzoo.runs import Records

PROBE_STEPS, WARM_UP = 8, 3


@dataclass(frozen=True)
class ArmForecast:
    """What an arm costs.

    Args:
        arm: Its name.
        parameters: All; None if they cannot be counted, or if it is refused.
        share: Of the baseline's parameters, minus 1.
        steps: Of one cell that verdicts rest on.
        flops: Of its training.
        step_seconds: Of one step; None if it was not measured.
        cell_seconds: Of one cell that verdicts rest on, evaluations included.
        to_run: Cells that have not ended, those for tuning and timing too.
        said: Why it is refused, or what was solved.
    """

    arm: str
    parameters: int | None
    share: float | None
    steps: int | None
    flops: float | None
    step_seconds: float | None
    cell_seconds: float | None
    to_run: int
    said: str = ""


@dataclass(frozen=True)
class Cost:
    """What some cells cost that have not ended.

    Args:
        cells: How many there are, those that have ended included.
        to_run: Those that have not.
        seconds: On so many workers; None if it was not measured.
        tokens: Trained on.
    """

    cells: int
    to_run: int
    seconds: float | None
    tokens: int


@dataclass(frozen=True)
class Forecast:
    """What a study costs and can see.

    Args:
        arms: The A/A arm is the last, if there is one.
        cells: Up to the next look, if there are looks; those that have ended included.
        to_run: Of these, cells that have not ended.
        seconds: For these, on these workers; None if it was not measured.
        tokens: Of these.
        most: The same figures for all that may ever be run.
        sigma: Noise of the metric from cells that have ended; None if too few have.
        mde_in_sds: The smallest difference found 80% of the time, in SDs of the noise.
        power: Probability of calling a difference of delta; None without delta or noise.
        equivalence: Probability of calling equal arms equivalent.
        design: How the arms are made of factors, line by line, aliases included.
        looks: When the study is looked at, how many cells that saves, and when runs are killed, line by line.
        next_look: At so many seeds; None if no cells are left to run up to one.
        tuning: The short runs before, which are among the cells too; None if the plan tunes nothing.
        timing: The timed runs before, which are among the cells too, one line; empty if nothing is timed.
    """

    name: str
    match: str
    arms: tuple[ArmForecast, ...]
    cells: int
    to_run: int
    workers: int
    seconds: float | None
    tokens: int
    most: Cost
    sigma: float | None
    mde_in_sds: float
    power: float | None
    equivalence: float | None
    design: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    next_look: int | None = None
    tuning: TuningForecast | None = None
    timing: str = ""


def forecast(
    study: PlannedStudy,
    *,
    runs: Path,
    workers: int,
    probe: bool = True,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> list[Forecast]:
    """One forecast for each set of runs. Nothing is written; arms without an ended cell are timed for a few steps.

    Args:
        study: Planned.
        runs: Where studies stand; cells that ended there cost nothing.
        workers: How many processes would run it.
        probe: False does not time anything.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
    """
    ended = ended_cells(runs)
    for cell in study.cells:
        if cell.purpose == "timing":  # another study's is no use
            ended[cell.id] = [path for path in ended.get(cell.id, []) if path.parent.parent.name == study.plan.name]
    ended = {id_: paths for id_, paths in ended.items() if paths}
    speeds = _known_speeds(study, ended)
    if probe:
        cells = [cell for each in study.sets for cell in (*each.before, *each.cells, *each.expected)]
        slow = {_speed_key(cell): cell for cell in cells if _speed_key(cell) not in speeds}
        speeds |= _probed(slow, workers, plugins, folders)
    sigma = noise_of(runs / study.plan.name, study.plan.metric)
    return [_forecast(study, each, set(ended), speeds, workers, sigma) for each in study.sets]


def as_text(made: Forecast) -> str:
    """A table for the terminal."""
    head = ("arm", "parameters", "", "steps", "FLOPs per cell", "ms per step", "s per cell", "to run", "")
    rows = [head, *(_row(arm) for arm in made.arms)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            c.ljust(w) if i in (0, len(head) - 1) else c.rjust(w)
            for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    ]
    return "\n".join([_title(made), *(line.rstrip() for line in lines), *made.design, *_totals(made)])


def _title(made: Forecast) -> str:
    until = f" up to the look at {made.next_look} seeds" if made.next_look else ""
    most = f", {made.most.cells} at most" if made.most.cells > made.cells else ""
    return f"{made.name}: {made.cells} cells{until}{most}, {made.to_run} of them to run, matched by {made.match}"


def _row(arm: ArmForecast) -> tuple[str, ...]:
    def said(value: float | None, form: str, scale: float = 1) -> str:
        return "-" if value is None else format(value * scale, form)

    share = "" if arm.share is None else f"{arm.share:+.2%}"
    figures = (
        said(arm.steps, ",d"),
        said(arm.flops, ".3g"),
        said(arm.step_seconds, ".1f", 1000),
        said(arm.cell_seconds, ".1f"),
    )
    return arm.arm, said(arm.parameters, ",.0f"), share, *figures, str(arm.to_run), arm.said


def _totals(made: Forecast) -> list[str]:
    many = f"{made.workers} worker{'' if made.workers == 1 else 's'}"

    def said(seconds: float | None, tokens: int) -> str:
        return f"{'not measured' if seconds is None else f'about {_clock(seconds)} on {many}'}, {tokens:,} tokens"

    measured = said(made.most.seconds, made.most.tokens).removeprefix("not measured, ")
    most = f"; at most {measured}" if made.most.to_run > made.to_run else ""
    lines = [f"cost   {said(made.seconds, made.tokens)}{most}", *made.looks]
    if made.tuning is not None:
        lines.insert(1, made.tuning.line)
    if made.timing:
        lines.insert(1, made.timing)
    if math.isinf(made.mde_in_sds):
        return [*lines, "sees   nothing: one seed says nothing about the noise. Write seeds: 3."]
    seen = f"{made.mde_in_sds:.2f} SDs of the noise"
    if made.sigma is not None:
        seen = f"{made.mde_in_sds * made.sigma:.4f} ({seen}, which is {made.sigma:.4f} in the cells that have ended)"
    lines.append(f"sees   differences of {seen} in 80% of studies like this")
    if made.power is not None and made.equivalence is not None:
        lines.append(
            f"power  {made.power:.0%} for a difference of delta, {made.equivalence:.0%} to call equal arms equivalent"
        )
    return lines


def _forecast(
    study: PlannedStudy,
    each: CellSet,
    ended: set[str],
    speeds: Mapping[str, float],
    workers: int,
    sigma: float | None,
) -> Forecast:
    plan = study.plan
    each = at_likely_pace(each, plan.baseline, lambda cell: speeds.get(_speed_key(cell)))
    everything = list({cell.folder: cell for cell in (*each.before, *each.cells, *each.expected)}.values())
    look = _next_look(plan.looks, [cell for cell in everything if cell.id not in ended])
    present = [cell for cell in everything if look is None or _place(cell) < look]
    now, most, tuning = (_cost(cells, ended, speeds, workers) for cells in (present, everything, tuning_cells(each)))
    compared = max(2, len([arm for arm in each.arms if not arm.refused]))
    sees = sigma is not None and plan.delta is not None and plan.seeds > 1
    delta = plan.delta / sigma if sees and plan.delta and sigma else None
    shape = Shape(compared, plan.seeds, plan.alpha, plan.looks, delta)
    levels = increments(plan.looks, plan.alpha) if plan.looks else [plan.alpha]
    return Forecast(
        name=plan.name,
        match=each.match,
        arms=tuple(_arm(each, name, plan.baseline, present, ended, speeds) for name in _names(each, everything)),
        cells=now.cells,
        to_run=now.to_run,
        workers=max(1, min(workers, now.to_run)),
        seconds=now.seconds,
        tokens=now.tokens,
        most=most,
        sigma=sigma,
        mde_in_sds=power.minimum_detectable_effect(
            power.Noise.blocked(1.0, compared), plan.seeds, levels[-1], compared - 1
        ),
        power=printed_power(delta, shape).found if delta else None,
        equivalence=printed_equality(shape).found if delta else None,
        design=tuple(as_lines(plan.design, plan.seeds)) if plan.design else (),
        looks=(*(_looks_lines(shape, plan.aa) if plan.looks else ()), *_rungs_lines(plan)),
        next_look=look,
        tuning=None if plan.tune is None else forecast_tuning(plan.tune, each, tuning.to_run, tuning.tokens),
        timing=timing_line(each, sum(cell.purpose == "timing" and cell.id not in ended for cell in each.before)),
    )


def _cost(cells: Sequence[PlannedCell], ended: set[str], speeds: Mapping[str, float], workers: int) -> Cost:
    to_run = [cell for cell in cells if cell.id not in ended]
    alone = [cell for cell in to_run if cell.purpose == "timing"]
    first, rest = _seconds(alone, speeds, 1), _seconds([c for c in to_run if c not in alone], speeds, workers)
    time = None if first is None or rest is None else first + rest
    return Cost(len(cells), len(to_run), time, sum(_tokens(cell) for cell in to_run))


def _seconds(cells: Sequence[PlannedCell], speeds: Mapping[str, float], workers: int) -> float | None:
    """Of all of them, on so many workers; None if that of any is not known."""
    seconds = [_cell_seconds(cell, speeds) for cell in cells]
    known = [second for second in seconds if second is not None]
    busy = max(1, min(workers, len(cells)))
    return max(sum(known) / busy, max(known, default=0.0)) if len(known) == len(seconds) else None


def _next_look(looks: Sequence[int], waiting: Sequence[PlannedCell]) -> int | None:
    """The first look that some of these cells are run for."""
    return next((look for look in looks if any(_place(cell) < look for cell in waiting)), None)


def _place(cell: PlannedCell) -> int:
    """Which of its arm's seeds it is; what comes before is at none."""
    return cell.place if cell.purpose == "confirm" else -1


def _looks_lines(shape: Shape, aa: bool) -> Iterator[str]:
    """What looks spend of alpha, and how many cells they save."""
    levels = ", ".join(f"{level:.2g}" for level in increments(shape.looks, shape.alpha))
    yield f"looks  at {', '.join(map(str, shape.looks))} seeds, spending {levels} of alpha"
    none, two = printed_power(0.0, shape), printed_power(2.0, shape)
    first, last = ((shape.arms + aa) * seeds for seeds in (shape.looks[0], shape.looks[-1]))
    without, one = (found.runs + aa * found.baseline for found in (none, two))
    yield (
        f"cells  {first} up to the first look, {last} at most; on average {without:.0f} if no arm has an effect, "
        f"{one:.0f} if one differs by 2 SDs"
    )
    yield (
        f"seeds  an arm without an effect is settled at {none.seeds:.1f} on average, "
        f"one that differs by 2 SDs at {two.seeds:.1f}"
    )


def _rungs_lines(plan: AblationPlan) -> Iterator[str]:
    """How far behind is too far; cells of arms wait for those that show the noise."""
    if plan.rungs:
        first = plan.looks[0] if plan.looks else plan.seeds
        far = ", ".join(f"{reach(rung, 2 * first):.1f}" for rung in plan.rungs)
        shares = ", ".join(f"{rung:.0%}" for rung in plan.rungs)
        yield (
            f"rungs  a run is killed if it is behind by {far} SDs of the noise at {shares} of its training; "
            f"the baseline and {AA_ARM} come first, and show the noise"
        )


def _names(each: CellSet, cells: Sequence[PlannedCell]) -> list[str]:
    names = [arm.name for arm in each.arms]
    return [*names, AA_ARM] if any(cell.arm == AA_ARM for cell in cells) else names


def _arm(
    each: CellSet,
    name: str,
    baseline: str,
    present: Sequence[PlannedCell],
    ended: set[str],
    speeds: Mapping[str, float],
) -> ArmForecast:
    cells = [cell for cell in present if cell.arm == name]
    arm = next((arm for arm in each.arms if arm.name == name), None)
    counted, base = each.costs.get(baseline if name == AA_ARM else name), each.costs.get(baseline)
    said = next((note.partition(": ")[2] for note in each.notes if note.startswith(f"{name}: ")), "")
    to_run = sum(cell.id not in ended for cell in cells)
    if not cells:
        return ArmForecast(name, None, None, None, None, None, None, 0, f"refused: {arm.refused if arm else ''}")
    whole = next((cell for cell in cells if cell.purpose == "confirm"), cells[0])
    return ArmForecast(
        arm=name,
        parameters=counted.parameters if counted else None,
        share=counted.parameters / base.parameters - 1 if counted and base and name not in (baseline, AA_ARM) else None,
        steps=whole.steps if whole.purpose == "confirm" else None,
        flops=counted.flops_per_token * _tokens(whole) if counted else None,
        step_seconds=speeds.get(_speed_key(whole)),
        cell_seconds=_cell_seconds(whole, speeds),
        to_run=to_run,
        said=said,
    )


# -- time ------------------------------------------------------------------------------------------------------------


def _speed_key(cell: PlannedCell) -> str:
    """Equal for cells that differ only in the seed, or in how long and how fast they learn."""
    train = {key: value for key, value in cell.train.items() if key not in _AS_FAST}
    return str({**cell.recipe, "seed": 0, "name": "", "train": train})


_AS_FAST = (
    *("steps", "learning_rate", "eval_every", "eval_sequences", "eval_problems"),
    *("sample_every", "save_every", "log_every", "loggers"),
)
"""Keys of a training that change no step."""


def _tokens(cell: PlannedCell) -> int:
    return cell.steps * cell.tokens_per_step


def _cell_seconds(cell: PlannedCell, speeds: Mapping[str, float]) -> float | None:
    """Steps, and evaluations at a third of a step per token: they have no backward pass."""
    step = speeds.get(_speed_key(cell))
    if step is None:
        return None
    train = cell.train
    evaluations = train["steps"] // train["eval_every"] + 1 if train["eval_every"] else 1
    return step * (train["steps"] + evaluations * train["eval_sequences"] / train["batch_size"] / 3)


def _known_speeds(study: PlannedStudy, ended: Mapping[str, Sequence[Path]]) -> dict[str, float]:
    """Seconds per step from cells that have ended."""
    speeds: dict[str, list[float]] = {}
    for cell in study.cells:
        for folder in ended.get(cell.id, [])[:1]:
            speeds.setdefault(_speed_key(cell), []).append(_median_step(folder, 0))
    return {key: statistics.median(each) for key, each in speeds.items()}


def _probed(
    cells: Mapping[str, PlannedCell], workers: int, plugins: Sequence[str], folders: Sequence[str]
) -> dict[str, float]:
    """Seconds per step, from a few real steps of each; none of a cell that cannot take them."""
    with tempfile.TemporaryDirectory(prefix="gptzoo-probe-") as folder:
        places = {key: Path(folder) / str(number) for number, key in enumerate(cells)}
        jobs = [Job(str(places[key]), "", _short(cell), list(plugins), list(folders)) for key, cell in cells.items()]
        run_jobs(jobs, workers, _Nobody())
        done = [key for key, place in places.items() if (cell := read_cell(place)) and cell.status in ENDED]
        return {key: _median_step(places[key], WARM_UP) for key in done}


def _short(cell: PlannedCell) -> dict[str, object]:
    few = {
        "steps": PROBE_STEPS,
        "eval_every": 0,
        "save_every": 0,
        "sample_every": 0,
        "log_every": 1,
        "eval_sequences": 1,
    }
    return {**cell.recipe, "train": {**cell.train, **few}}


def _median_step(folder: Path, skip: int) -> float:
    seconds = [float(record["seconds"]) for record in Records.read(folder / "timings.jsonl")]  # type: ignore[arg-type]
    return statistics.median(seconds[skip:] or seconds or [0.0])


class _Nobody:
    """Hears of jobs and says nothing."""

    def started(self, job: int) -> None: ...
    def stepped(self, job: int, step: int, steps: int, loss: float) -> None: ...
    def again(self, job: int, why: str) -> None: ...
    def ended(self, job: int, status: str, reason: str) -> None: ...
    def tick(self) -> None: ...


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} hours" if hours else f"{minutes}:{rest:02} minutes"
