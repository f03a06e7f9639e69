"""Figures of how the training went: the gradients' norms on the way, and the largest attention logits at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import yaml
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gptzoo.ablation.figures import INKS, drawing, stroke_of
from gptzoo.ablation.findings import ArmFindings, Findings
from gptzoo.ablation.study import CellOutcome

MOST_POINTS = 120
"""Of a line; where more steps were logged, a point is the mean over several that follow each other."""

SPREAD = 8.0
"""The ratio of the largest to the smallest logit from which on their axis is logarithmic."""

Line = tuple[list[float], list[float]]


def gradient_norms(findings: Findings) -> str:
    """The norm of the gradients over the steps, one line per arm: the mean over its runs. Empty if none is known."""
    lines = [(row, line, {}) for row, arm in enumerate(findings.arms) if (line := mean_norms(arm.cells))]
    lines += [(row, line, _BROKEN) for row, arm in enumerate(findings.arms) for line in _broken(arm)]
    if (seen := norms_seen(findings)) is None:
        return ""
    low, high = seen
    with drawing("gradients", 0, height=300) as (axes, svg):
        axes.set_yscale("log")
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        for row, (steps, norms), style in lines:
            axes.plot(steps, norms, **{"linewidth": 1.5, **stroke_of(row), **style})
        if (clip := clipped_to(findings)) is not None and low <= clip <= high:
            axes.axhline(clip, color=INKS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_ylim(low, high)
        axes.set_xlim(left=0)
        plain_logs(axes.yaxis, low, high)
        axes.set_xlabel("steps")
        axes.set_ylabel("norm of the gradients")
    return svg()


_BROKEN = {"linewidth": 1.0, "linestyle": (0, (1, 2))}


def norms_seen(findings: Findings) -> tuple[float, float] | None:
    """The lowest and the highest norm in the figure, a little apart; None if there are none."""
    lines = [line for arm in findings.arms for line in (mean_norms(arm.cells), *_broken(arm)) if line]
    values = [norm for _, norms in lines for norm in norms]
    return (min(values) / 1.12, max(values) * 1.12) if values else None


def _broken(arm: ArmFindings) -> list[Line]:
    """Runs that diverged or were killed, as far as they went."""
    known = [[each for each in cell.gradients if each[1] > 0] for cell in arm.cells if cell.status in _LOST]
    return [thinned([step for step, _ in each], [[norm for _, norm in each]]) for each in known if each]


_LOST = ("diverged", "killed")


def mean_norms(cells: Sequence[CellOutcome]) -> Line | None:
    """Steps and mean norms of the runs that were done, where all of them have one; None if they share no step."""
    runs = [dict(cell.gradients) for cell in cells if cell.status == "done" and cell.gradients]
    steps = sorted(step for step in (runs[0] if runs else ()) if all(run.get(step, 0) > 0 for run in runs))
    return thinned(steps, [[run[step] for step in steps] for run in runs]) if steps else None


def thinned(steps: Sequence[int], norms: Sequence[Sequence[float]]) -> Line:
    """Means over the runs, and over so many steps that follow each other that `MOST_POINTS` are left at most."""
    size = math.ceil(len(steps) / MOST_POINTS)
    mean = np.mean(norms, axis=0)
    starts = range(0, len(steps), size or 1)
    middles = [float(np.mean(steps[start : start + size])) for start in starts]
    return middles, [float(mean[start : start + size].mean()) for start in starts]


def steps_in_a_point(findings: Findings) -> int:
    """How many logged steps a point of the figure of gradients stands for, at most."""
    longest = max((len(cell.gradients) for arm in findings.arms for cell in arm.cells), default=0)
    return math.ceil(longest / MOST_POINTS)


def clipped_to(findings: Findings) -> float | None:
    """The norm that the gradients of all arms are clipped to; None if there is none, or arms differ in it."""
    try:
        recipe = yaml.safe_load(findings.study.base_recipe)
        clip = recipe["train"]["clip"]
    except (yaml.YAMLError, TypeError, KeyError):
        return None
    apart = any("train.clip" in arm.arm.differs for arm in findings.arms)
    return float(clip) if isinstance(clip, int | float) and clip > 0 and not apart else None


def attention_logits(findings: Findings) -> str:
    """The largest attention logit of each layer, one line per arm: the mean over its runs, and their range."""
    found = {row: made for row, arm in enumerate(findings.arms) if (made := logits_by_layer(arm))}
    if not found:
        return ""
    layers = sorted({layer for made in found.values() for layer in made})
    values = [value for made in found.values() for runs in made.values() for value in runs]
    with drawing("logits", 0, height=300) as (axes, svg):
        logs = min(values) > 0 and max(values) > SPREAD * min(values)
        axes.set_yscale("log" if logs else "linear")
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        step = min(0.07, 0.5 / len(found))  # side by side, so that no arm hides another
        for place, (row, made) in enumerate(found.items()):
            x = [layer + step * (place - (len(found) - 1) / 2) for layer in made]
            means = [float(np.mean(runs)) for runs in made.values()]
            stroke = stroke_of(row)
            axes.plot(x, means, linewidth=1, alpha=0.55, **stroke)
            ends = [(min(runs), max(runs)) for runs in made.values()]
            axes.vlines(x, *zip(*ends, strict=True), color=stroke["color"], linewidth=1.4, gid=stroke["gid"])
            dots = {"marker": "o", "markersize": 6, "markeredgecolor": INKS["paper"], "linestyle": "none"}
            axes.plot(x, means, **{**stroke, **dots})
        axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        if logs:
            low, high = min(values) / 1.2, max(values) * 1.2
            axes.set_ylim(low, high)
            plain_logs(axes.yaxis, low, high)
        else:
            axes.set_ylim(min(0.0, *values), 1.08 * max(0.0, *values) or 1)
        axes.set_xlabel("layer")
        axes.set_ylabel("largest attention logit")
    return svg()


def logits_by_layer(arm: ArmFindings) -> dict[int, list[float]]:
    """For each layer from 1 on that has logits, the largest one of each run that was done."""
    found: dict[int, list[float]] = {}
    for cell in arm.cells:
        for layer, value in enumerate(cell.logits if cell.status == "done" else (), 1):
            if value is not None:
                found.setdefault(layer, []).append(value)
    return dict(sorted(found.items()))


def without_logits(findings: Findings) -> list[str]:
    """Arms that were measured and have a layer without scores to show."""
    return [
        arm.name for arm in findings.arms if any(None in cell.logits for cell in arm.cells if cell.status == "done")
    ]


def plain_logs(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers, and enough of them where it spans little."""
    steps = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)
    axis.set_major_locator(LogLocator(subs=steps, numticks=12) if high > 2 * low else MaxNLocator(6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
