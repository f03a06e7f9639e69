"""The figure that gains in compute are read off: the baseline's loss over its compute, its fit, and where arms end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gptzoo.ablation.analysis import AA_ARM
from gptzoo.ablation.compute_gain import FARTHEST, FROM, ComputeCurve
from gptzoo.ablation.figures import INKS, curve, drawing, shortened, stroke_of
from gptzoo.ablation.findings import ArmFindings, Findings
from gptzoo.ablation.wording import Numbers, gain_short, short

LEFT, RIGHT = 0.35, 1.3 * FARTHEST  # ends of the axis, in trainings of the baseline, if no arm needs more
HEIGHT, LINE = 340, 15  # units: of the figure, and between two labels


def gain_figure(findings: Findings, numbers: Numbers) -> str:
    """Loss over compute, logarithmic: an arm's gain is the length of its line to the baseline's curve.

    Empty where no arm has a gain.
    """
    fit, arms = findings.curve, [(row, arm) for row, arm in enumerate(findings.arms) if arm.gain is not None]
    if fit is None or not arms:
        return ""
    with drawing("compute", 0, height=HEIGHT) as (axes, svg):
        axes.set_xscale("log")
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        ends = [(row, arm, *_line(findings, arm, fit)) for row, arm in arms]
        reached = [x for *_, start, stop, _ in ends for x in (start, stop)]
        left, right = min(LEFT, min(reached) / 1.2), max(RIGHT, max(reached) * 1.2)
        axes.set_xlim(left, right)
        axes.set_ylim(*_range(fit, left, [y for *_, y in ends]))
        _fit(axes, fit)
        _points(axes, findings, left)
        for row, arm, start, stop, y in ends:
            _draw_gain(axes, row, arm, start, stop, y)
        _labels(axes, ends, loss_at(fit, 1))
        _ticks(axes, findings)
        axes.set_ylabel(numbers.heading, parse_math=False)
    return svg()


def loss_at(fit: ComputeCurve, compute: float) -> float:
    """The baseline's loss as gains read it: on the fitted curve up to 1, beyond it along the last doubling."""
    if compute <= 1:
        return fit.floor + fit.scale * compute**-fit.exponent
    slope = fit.scale * (2**fit.exponent - 1) / math.log(2)
    return fit.floor + fit.scale - slope * math.log(compute)


def _fit(axes: Axes, fit: ComputeCurve) -> None:
    stroke = stroke_of(0)
    for start, stop, dash in ((FROM, 1.0, "solid"), (1.0, FARTHEST, (0, (4, 2)))):
        x = np.geomspace(start, stop, 60)
        axes.plot(x, [loss_at(fit, each) for each in x], **{**stroke, "linestyle": dash, "linewidth": 1.8})


def _points(axes: Axes, findings: Findings, left: float) -> None:
    """The mean of the baseline's runs at each evaluation."""
    own = [cell for cell in findings.study.cells if cell.arm in (findings.study.baseline, AA_ARM)]
    band = curve(own, "tokens")
    assert band is not None, "the fit rests on it"
    shares = [x / band.x[-1] for x in band.x]
    shown = [(x, y) for x, y in zip(shares, band.mean, strict=True) if x >= left]
    style = {"marker": "o", "markersize": 4.5, "markeredgewidth": 0, "linestyle": "none", "alpha": 0.75}
    axes.plot(*zip(*shown, strict=True), **{**stroke_of(0), **style})


def _line(findings: Findings, arm: ArmFindings, fit: ComputeCurve) -> tuple[float, float, float]:
    """From the compute that an arm spent to what the baseline needs for its loss, and that loss."""
    base, own = findings.baseline.costs.flops, arm.costs.flops
    start = own / base if base and own else 1.0
    assert arm.gain is not None
    assert arm.verdict is not None
    return start, arm.gain.estimate.value * start, fit.floor + fit.scale + (arm.verdict.difference or 0.0)


def _range(fit: ComputeCurve, left: float, losses: Sequence[float]) -> tuple[float, float]:
    """All arms, the curve as far as it is shown, and room below its end for the names of arms with gains."""
    low, end, high = min(*losses, loss_at(fit, FARTHEST)), loss_at(fit, 1), max(*losses, loss_at(fit, max(FROM, left)))
    share = min(0.7, LINE * sum(loss <= end for loss in losses) / (0.8 * HEIGHT))
    low = min(low, end - share / (1 - share) * (high - end))
    pad = 0.07 * (high - low) or 1.0
    return low - pad, high + pad


def _draw_gain(axes: Axes, row: int, arm: ArmFindings, start: float, stop: float, y: float) -> None:
    stroke = stroke_of(row)
    assert arm.gain is not None
    axes.plot([start, stop], [y, y], **{**stroke, "linewidth": 1.6})
    if arm.gain.estimate.side:  # beyond what is known: an arrowhead in place of the curve
        marker = ">" if arm.gain.estimate.side > 0 else "<"
        axes.plot([stop], [y], marker, markersize=6, color=stroke["color"], gid=stroke["gid"])
    dot = {"markersize": 8, "markeredgecolor": INKS["paper"], "markeredgewidth": 1.2, "zorder": 4}
    axes.plot([start], [y], "o", color=stroke["color"], gid=stroke["gid"], **dot)


def _labels(axes: Axes, ends: Sequence[tuple[int, ArmFindings, float, float, float]], end: float) -> None:
    """Names and gains on the side that the curve does not pass: a gain's on the left, a loss's on the right."""
    unit = (axes.get_ylim()[1] - axes.get_ylim()[0]) / (axes.bbox.height * 72 / axes.figure.dpi)
    for better in (True, False):
        mine = sorted((each for each in ends if (each[3] >= each[2]) == better), key=lambda each: each[4])
        room = (axes.get_ylim()[0] + LINE * unit / 2, end) if better else (end, math.inf)
        heights = spread([each[4] for each in mine], LINE * unit, *room)
        for (row, arm, start, _, y), height in zip(mine, heights, strict=True):
            stroke = stroke_of(row)
            shift = start / 1.07 if better else start * 1.07
            axes.plot([start, shift], [y, height], color=stroke["color"], linewidth=0.7, alpha=0.7, gid=stroke["gid"])
            text = f"{shortened(arm.name, 18)} {gain_short(arm.gain)}" if better else gain_short(arm.gain)
            text = text if better else f"{text} {shortened(arm.name, 10)}"
            style = {"ha": "right" if better else "left", "va": "center", "parse_math": False}
            axes.text(shift, height, text, color=stroke["color"], gid=stroke["gid"], **style)


def spread(heights: Sequence[float], apart: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Rising heights, moved as little as it takes for neighbours to lie `apart` at least.

    They keep within `low` and `high`; if there are too many for that, they rise above it.
    """
    last = len(heights) - 1
    heights = [min(height, high - (last - place) * apart) for place, height in enumerate(heights)]
    heights = [max(height, low + place * apart) for place, height in enumerate(heights)]
    groups: list[tuple[float, int]] = []  # of labels that touch: where the lowest one stands, and how many they are
    for height in heights:
        lowest, count = height, 1
        while groups and groups[-1][0] + groups[-1][1] * apart > lowest:
            under, several = groups.pop()
            lowest = (several * under + count * (lowest - several * apart)) / (several + count)
            count += several
        groups.append((lowest, count))
    return [lowest + place * apart for lowest, count in groups for place in range(count)]


def _ticks(axes: Axes, findings: Findings) -> None:
    spent, base = findings.baseline.costs.flops, findings.study.baseline
    ticks = [2.0**power for power in range(-6, 7)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    if spent:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: short(share * spent)))
        axes.set_xlabel("training FLOPs")
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_xlabel(f"compute, in trainings of {shortened(base, 24)}", parse_math=False)
