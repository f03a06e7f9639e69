"""The words of an analysis: cells in, verdicts out, as plain data and as a table for the terminal."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

LARGEST = 1e100  # a value beyond this has diverged: no loss is, and its powers are not numbers
MOST_SEEDS = 200  # beyond this the honest answer is "too many", not a number

Verdict = Literal["better", "worse", "equivalent", "undecided", "diverged", "no verdict"]


@dataclass(frozen=True)
class Cell:
    """The result of one arm at one seed. A NaN or an infinity is a run that diverged.

    Args:
        arm: Its name.
        seed: The seed.
        value: The metric at the end; NaN where the run was killed.
        killed: It was stopped at a rung, far behind.
    """

    arm: str
    seed: int
    value: float
    killed: bool = False

    @property
    def diverged(self) -> bool:
        """The run did not end in a number."""
        return not self.killed and not abs(self.value) <= LARGEST

    @property
    def ended(self) -> bool:
        """The run ended in a number."""
        return not self.killed and not self.diverged


@dataclass(frozen=True)
class ArmVerdict:
    """One arm against the baseline. Everything is in units of the metric; None where it cannot be known.

    Args:
        n: Runs that ended in a number; means and differences are over these.
        std: Standard deviation of the arm's runs over seeds.
        difference: Arm minus baseline; from the blocked model if the table has holes.
        low: Lower end of the 1 - alpha interval of the difference, for this arm alone.
        high: Its upper end.
        p: Two-sided p-value of the difference.
        p_holm: The same, corrected for all arms.
        verdict: Holds for all arms together at level alpha.
        reason: Why there is no verdict; empty if there is one.
        method: `blocked`, or why Welch's test stands in.
        more_seeds: More seeds per arm that would settle an undecided arm with probability 80%, if the truth is what was
            observed. None if decided, or if more than `MOST_SEEDS` seeds would be needed.
        diverged: Runs that diverged.
        diverged_interval: Clopper-Pearson interval of the share that diverges; None if none did.
        hedges_g: The difference in SDs, corrected for small samples.
        probability_better: Of the arm beating the baseline on a new seed, were the estimates true.
        variance_ratio: What pairing by seed gains: Var(arm) + Var(baseline) over Var(difference). 1 is no gain.
        level: What p_holm is held against, and 1 - level is the interval's; with looks what the arm's look spends.
        stopped: At how many seeds a look stopped it; None if none did.
        killed: Runs that were killed at a rung, far behind: those that ended are a choice of the lucky ones.
    """

    arm: str
    n: int
    mean: float | None
    std: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: Verdict
    reason: str
    method: str
    more_seeds: int | None
    diverged: int
    diverged_interval: tuple[float, float] | None
    hedges_g: float | None
    probability_better: float | None
    variance_ratio: float | None
    level: float = 0.05
    stopped: int | None = None
    killed: int = 0


@dataclass(frozen=True)
class ArmSummary:
    """An arm by itself."""

    arm: str
    n: int
    mean: float | None
    std: float | None
    diverged: int
    diverged_interval: tuple[float, float] | None
    killed: int = 0


@dataclass(frozen=True)
class AACheck:
    """The baseline on fresh seeds against the baseline, by Welch: a difference here is a fault of the study.

    Args:
        std: Its spread, an estimate of the noise that no other arm touches.
        sound: The difference is within noise, p >= alpha; None if it could not be tested.
    """

    arm: str
    n: int
    mean: float | None
    std: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    sound: bool | None
    diverged: int


@dataclass(frozen=True)
class Place:
    """One arm in the ranking, the best first.

    Args:
        difference: Arm minus baseline, metric units; 0 for the baseline.
        letters: Arms that share a letter are not separable: Holm over all pairs.
        chances: Probability of the first, second, ... place.
    """

    arm: str
    difference: float
    letters: str
    chances: tuple[float, ...]


@dataclass(frozen=True)
class Stop:
    """An arm that a look stopped.

    Args:
        arm: Its name.
        why: `better`, `worse`, `equivalent`, `diverged`, `killed`, `untuned` (the arm, or the baseline), `no sound
            baseline` or `unlikely to be settled`.
        hope: The probability that it would have been settled at the last look; None where it was settled.
    """

    arm: str
    why: str
    hope: float | None


@dataclass(frozen=True)
class LookTaken:
    """A look that was taken.

    Args:
        seeds: That every arm had which was left.
        level: Of alpha, spent here.
        arms: That were tested.
        stops: That it made.
    """

    seeds: int
    level: float
    arms: int
    stops: tuple[Stop, ...]


@dataclass(frozen=True)
class Analysis:
    """What an ablation says.

    Args:
        arms: Every arm but the baseline and the A/A arm, in the order of the cells.
        sigma: Noise pooled over arms, seed effects taken out; None if it cannot be known.
        df: Its degrees of freedom.
        mde: The smallest true difference this study would find with probability 80%, corrected for all arms.
        icc: Share of the variance that the seed explains; a small negative estimate means none.
        ranking: All arms that have two runs or more, none that diverged or was killed, and no verdict withheld, the
            best first.
        looks: Those that were taken, of `planned_looks`; empty without looks.
        planned_looks: Numbers of seeds.
    """

    baseline: str
    baseline_arm: ArmSummary
    alpha: float
    delta: float | None
    higher_is_better: bool
    arms: tuple[ArmVerdict, ...]
    sigma: float | None
    df: int | None
    mde: float | None
    icc: float | None
    aa: AACheck | None
    ranking: tuple[Place, ...]
    notes: tuple[str, ...]
    looks: tuple[LookTaken, ...] = ()
    planned_looks: tuple[int, ...] = ()


def to_json(analysis: Analysis) -> dict[str, object]:
    """The analysis as plain data: no NaN, no infinity, so that strict JSON readers take it."""
    return asdict(analysis)


def to_text(analysis: Analysis) -> str:
    """The analysis as a table for the terminal, and what one must know beside it."""
    digits = _digits(analysis.sigma or analysis.baseline_arm.std)
    interval = "interval at its look" if analysis.looks else f"{100 * (1 - analysis.alpha):.4g}% interval"
    head = (
        "arm",
        "n",
        "mean",
        "difference",
        interval,
        "p (Holm)",
        "verdict",
        "method",
    )
    table = _table([head, *(_row(arm, digits) for arm in analysis.arms)]) if analysis.arms else []
    return "\n".join([_baseline_line(analysis, digits), *table, *_noise_lines(analysis, digits), *analysis.notes])


def _baseline_line(analysis: Analysis, digits: int) -> str:
    base, better = analysis.baseline_arm, "higher" if analysis.higher_is_better else "lower"
    mean, std = _number(base.mean, digits), _number(base.std, digits)
    return f"baseline {base.arm}: mean {mean}, SD {std}, n {base.n}; {better} is better"


def _row(arm: ArmVerdict, digits: int) -> tuple[str, ...]:
    interval = f"[{_number(arm.low, digits, '+')}, {_number(arm.high, digits, '+')}]" if arm.low is not None else "-"
    p = "-" if arm.p_holm is None else f"{arm.p_holm:.2g}"
    mean, difference = _number(arm.mean, digits), _number(arm.difference, digits, "+")
    return arm.arm, str(arm.n), mean, difference, interval, p, _verdict(arm), arm.method


def _verdict(arm: ArmVerdict) -> str:
    if arm.verdict == "undecided" and not arm.reason:
        count = f"more than {MOST_SEEDS}" if arm.more_seeds is None else str(arm.more_seeds)
        return f"undecided (needs {count} more seed{'' if arm.more_seeds == 1 else 's'})"
    return f"{arm.verdict} ({arm.reason})" if arm.reason else arm.verdict


def _noise_lines(analysis: Analysis, digits: int) -> list[str]:
    lines = [_look_line(look) for look in analysis.looks]
    if analysis.sigma is not None:
        line = f"noise {_number(analysis.sigma, digits)} ({counted(analysis.df or 0, 'degree')} of freedom)"
        line += (
            f", smallest difference found 80% of the time {_number(analysis.mde, digits)}"
            if analysis.mde is not None
            else ""
        )
        lines.append(line + (f", seeds explain {max(0.0, analysis.icc):.0%}" if analysis.icc is not None else ""))
    aa = analysis.aa
    if aa is not None:
        outcome = {True: "within noise", False: "NOT within noise", None: "not tested"}[aa.sound]
        lines.append(f"A/A {aa.arm}: difference {_number(aa.difference, digits, '+')}, n {aa.n}, {outcome}")
    if analysis.ranking:
        lines.append("ranking: " + ", ".join(f"{place.arm} {place.letters}" for place in analysis.ranking))
    return lines


def _look_line(look: LookTaken) -> str:
    stops = ", ".join(f"{stop.arm} {stop.why}" for stop in look.stops) or "none"
    return f"look at {look.seeds} seeds, level {look.level:.2g}, {counted(look.arms, 'arm')}: stopped {stops}"


def counted(count: int, word: str) -> str:
    """`1 arm`, `2 arms`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns aligned: names and verdicts left, numbers right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = (0, len(widths) - 2, len(widths) - 1)
    lines = [
        [cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return ["  ".join(line).rstrip() for line in lines]


def _digits(noise: float | None) -> int:
    """Decimals that show two digits of the noise, 0 to 8; 4 if there is none."""
    return min(8, max(0, 1 - math.floor(math.log10(noise)))) if noise else 4


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"
