"""The figure of tuning: what each arm scored over the learning rate, the parabola, and the rate that was taken."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gptzoo.ablation.bowls import Bowl
from gptzoo.ablation.figures import INKS, colour_of, drawing
from gptzoo.ablation.findings import Findings
from gptzoo.ablation.wording import Numbers

HIGHEST = 4.0
"""A score further above the best than so many times the middle one's distance is not drawn to scale."""


def bowls(findings: Findings, made: Sequence[Bowl], numbers: Numbers) -> str:
    """The bowls of all arms on one pair of axes; an empty string if nothing ended in a number."""
    rows = {arm.name: row for row, arm in enumerate(findings.arms)}
    shown = [bowl for bowl in made if bowl.arm in rows and math.isfinite(bowl.best)]
    if not shown:
        return ""
    with drawing("bowls", 0, height=320) as (axes, svg):
        axes.set_xscale("log")
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        top = _ceiling(shown)
        for bowl in shown:
            _draw(axes, rows[bowl.arm], bowl, top)
        low = min(bowl.best for bowl in shown)
        axes.set_ylim(low - 0.08 * (top - low), top + 0.05 * (top - low))
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.set_xlabel("learning rate")
        axes.set_ylabel(numbers.heading, parse_math=False)
    return svg()


def _ceiling(shown: Sequence[Bowl]) -> float:
    """The top of the figure: scores far above the rest are drawn there, as are runs that diverged."""
    finite = [level for bowl in shown for level in bowl.levels.values() if math.isfinite(level)]
    low, middle = min(finite), float(np.median(finite))
    return max(min(max(finite), low + HIGHEST * (middle - low)), low + 1e-3 * abs(low) + 1e-9)


def _draw(axes: Axes, row: int, bowl: Bowl, top: float) -> None:
    colour, gid = INKS[f"arm-{colour_of(row)}"], f"arm:{row}"
    inside = {rate: level for rate, level in bowl.levels.items() if level <= top}
    outside = [rate for rate, level in bowl.levels.items() if level > top]
    line = {rate: min(level, top) for rate, level in bowl.levels.items() if math.isfinite(level)}
    axes.plot(list(line), list(line.values()), color=colour, linewidth=0.9, alpha=0.55, zorder=1, gid=gid)
    axes.plot(list(inside), list(inside.values()), "o", color=colour, markersize=5.5, zorder=3, gid=gid)
    axes.plot(outside, [top] * len(outside), "^", color=colour, markersize=7, zorder=3, clip_on=False, gid=gid)
    if bowl.parabola is not None:
        rates = np.geomspace(bowl.parabola[3], bowl.parabola[4], 40)
        heights = [bowl.at(float(np.clip(rate, rates[0], rates[-1]))) for rate in rates]
        near = [(rate, y) for rate, y in zip(rates, heights, strict=True) if y is not None and y <= top]
        axes.plot(*zip(*near, strict=True), color=colour, linewidth=1.8, zorder=2, gid=gid)
    if bowl.rate is not None:
        _draw_choice(axes, bowl, bowl.rate, colour, gid)


def _draw_choice(axes: Axes, bowl: Bowl, rate: float, colour: str, gid: str) -> None:
    """The rate that was taken: a diamond, empty where it lies at the edge."""
    height = bowl.at(rate)
    height = min(bowl.levels.values()) if height is None else height
    style = {"markersize": 9, "markeredgewidth": 1.4, "zorder": 4, "gid": gid}
    if bowl.edge:
        axes.plot([rate], [height], "D", color=INKS["paper"], markeredgecolor=colour, **style)
    else:
        axes.plot([rate], [height], "D", color=colour, markeredgecolor=INKS["paper"], **style)
