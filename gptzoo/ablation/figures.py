"""The figures of an ablation as SVG to be put into a page: drawn by matplotlib, coloured by the page.

A figure says its colours in CSS variables (`var(--ink)`, `var(--arm-2)`), so that light, dark and print are the page's
affair, and its text is text, in the page's font. The same study gives the same bytes: no clock, no random ids.

Every figure is `WIDTH` units wide and meant for 360 to 560 pixels, so that one drawing serves a phone and half a desk.
"""

from __future__ import annotations

import io
import math
import re
import statistics
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.special import stdtrit

from gptzoo.ablation.findings import ArmFindings, Findings, finite
from gptzoo.ablation.study import CellOutcome, Point
from gptzoo.ablation.wording import Numbers, badge, short

WIDTH, ROW, SIDE = 440, 40, 14  # units; one unit is one pixel at the natural size
COLOURS = 12  # --arm-0 .. --arm-11, the baseline being 0
FEW_SEEDS = 2  # up to this many, a band is from the lowest to the highest run; beyond, a 95% interval of the mean
LONGEST_NAME = 34  # columns

# Stand-ins that matplotlib takes for colours; `_page_colours` turns them into variables of the page.
INKS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "band": "#000004",
    "paper": "#000005",
    "better": "#000011",
    "worse": "#000012",
    "equivalent": "#000013",
    "undecided": "#000014",
    "diverged": "#000015",
    "no-verdict": "#000016",
    **{f"arm-{i}": f"#0000{0xA0 + i:02x}" for i in range(COLOURS)},
}
_VARIABLES = {stand_in: f"var(--{name})" for name, stand_in in INKS.items()}
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 12,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "text.color": INKS["ink"],
    "axes.labelcolor": INKS["muted"],
    "axes.edgecolor": INKS["line"],
    "xtick.color": INKS["line"],
    "ytick.color": INKS["line"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "figure.dpi": 72,
}
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)))


@dataclass(frozen=True)
class Band:
    """A learning curve of an arm: the mean over its runs, and how far they spread."""

    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def colour_of(index: int) -> int:
    """The colour of the arm at this place, the baseline being 0: the others share the rest in turn."""
    return 0 if index == 0 else 1 + (index - 1) % (COLOURS - 1)


def forest(findings: Findings, numbers: Numbers, name: str = "forest") -> str:
    """Differences from the baseline with their intervals, one row per arm; an empty string if there are none.

    Args:
        findings: What was found.
        numbers: How they are written.
        name: Of the figure on its page.
    """
    analysis = findings.analysis
    rows = [arm for arm in findings.arms[1:] if arm.verdict is not None and arm.verdict.difference is not None]
    if analysis is None or not rows:
        return ""
    aa = analysis.aa if analysis.aa is not None and analysis.aa.difference is not None else None
    with drawing(name, len(rows) + (aa is not None), top=22) as (axes, svg):
        _reach(axes, findings, rows)
        if aa is not None and aa.low is not None and aa.high is not None:
            axes.axvspan(aa.low, aa.high, color=INKS["band"], linewidth=0, zorder=0)
        _upright(axes, len(rows) + (aa is not None), 0.0, INKS["ink"], "solid")
        for edge in (-analysis.delta, analysis.delta) if analysis.delta else ():
            _upright(axes, len(rows) + (aa is not None), edge, INKS["muted"], (0, (3, 2)))
        for row, arm in enumerate(rows):
            verdict = arm.verdict
            assert verdict is not None
            assert verdict.difference is not None
            colour = INKS[verdict.verdict.replace(" ", "-")]
            _label(axes, row, arm.name, badge(arm), colour)
            place = findings.arms.index(arm)
            told = f"{arm.name}: {numbers.signed(verdict.difference)} {numbers.interval(verdict.low, verdict.high)}"
            _interval(axes, row, verdict.difference, verdict.low, verdict.high, colour, _link(f"cells-{place}", told))
        if aa is not None and aa.difference is not None:
            _label(axes, len(rows), aa.arm, "the baseline again", INKS["muted"])
            told = f"{aa.arm}: {numbers.signed(aa.difference)} {numbers.interval(aa.low, aa.high)}"
            link = _link(f"cells-{len(findings.arms)}", told)
            _interval(axes, len(rows), aa.difference, aa.low, aa.high, INKS["muted"], link)
        unit = f", {numbers.unit}" if numbers.unit else ""
        axes.set_xlabel(shortened(f"difference from {findings.study.baseline}", 44) + unit, parse_math=False)
        _directions(axes, findings.study.higher_is_better)
    return svg()


def seed_lines(findings: Findings, numbers: Numbers) -> str:
    """Every run as a dot, one row per arm; a line follows each seed through the arms."""
    values = [_by_seed(arm.cells) for arm in findings.arms]
    if not any(values):
        return ""
    with drawing("seeds", len(findings.everyone)) as (axes, svg):
        for seed in sorted({seed for row in values for seed in row}):
            xs = [row.get(seed, math.nan) for row in values]
            axes.plot(xs, range(len(xs)), color=INKS["muted"], linewidth=0.9, alpha=0.7, zorder=1)
        for row, arm in enumerate(findings.everyone):
            _dots(axes, row, arm, "muted" if arm is findings.aa else f"arm-{colour_of(row)}", numbers)
            _label(axes, row, arm.name, _lost(arm), INKS["worse"])
        axes.margins(x=0.06)
        axes.set_xlabel(numbers.heading, parse_math=False)
    return svg()


def learning_curves(findings: Findings, numbers: Numbers, over: str) -> str:
    """The metric over the training, one curve per arm; an empty string if there are no curves.

    Args:
        over: `tokens`, `flops` or `seconds`.
    """
    bands = {row: band for row, arm in enumerate(findings.arms) if (band := curve(arm.cells, over))}
    if not bands:
        return ""
    with drawing(over, 0, height=300) as (axes, svg):
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        for row, band in bands.items():
            _draw_band(axes, row, band)
        for row, arm in enumerate(findings.arms):
            for cell in arm.cells:
                if cell.status in ("diverged", "killed"):
                    _draw_broken(axes, row, cell, over)
        axes.set_ylim(*_late_range(list(bands.values())))
        axes.set_xlim(left=0)
        axes.set_xlabel(_ALONG[over])
        axes.set_ylabel(numbers.heading, parse_math=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    return svg()


_ALONG = {"tokens": "tokens trained on", "flops": "FLOPs spent on training", "seconds": "seconds of training"}


def _along(cell: CellOutcome, point: Point, over: str) -> float:
    """How far the training is at a point; not a number where nobody counted the FLOPs."""
    if over != "flops":
        return getattr(point, over)
    return cell.flops * point.tokens / cell.tokens if cell.flops and cell.tokens else math.nan


def stroke_of(row: int) -> dict[str, Any]:
    """How the lines of the arm at this place are drawn, and how the page finds them to hide them."""
    dash = _DASHES[(row - 1) // (COLOURS - 1) % len(_DASHES)] if row else "solid"
    return {"color": INKS[f"arm-{colour_of(row)}"], "linestyle": dash, "gid": f"arm:{row}"}


def curve(cells: Sequence[CellOutcome], over: str) -> Band | None:
    """Mean and spread of an arm's runs that were done, at the steps that all of them evaluated."""
    done = [cell for cell in cells if cell.status == "done" and cell.curve]
    runs = [{point.step: point for point in cell.curve} for cell in done]
    steps = sorted(step for step in (runs[0] if runs else ()) if all(step in run for run in runs))
    table = np.array([[run[step].value for step in steps] for run in runs])
    steps = [step for step, column in zip(steps, table.T, strict=True) if np.isfinite(column).all()] if steps else []
    if not steps:
        return None
    table = np.array([[run[step].value for step in steps] for run in runs])
    x = np.mean([[_along(c, run[step], over) for step in steps] for c, run in zip(done, runs, strict=True)], axis=0)
    if not np.isfinite(x).all():
        return None
    low, high = _spread(table)
    return Band(x.tolist(), table.mean(0).tolist(), low, high)


def _spread(table: np.ndarray) -> tuple[list[float], list[float]]:
    runs = len(table)
    if runs <= FEW_SEEDS:
        return table.min(0).tolist(), table.max(0).tolist()
    reach = stdtrit(runs - 1, 0.975) * table.std(0, ddof=1) / math.sqrt(runs)
    return (table.mean(0) - reach).tolist(), (table.mean(0) + reach).tolist()


def _late_range(bands: Sequence[Band]) -> tuple[float, float]:
    """The range of the curves after the first quarter: their beginning would flatten all that follows.

    So would a band far wider than most, that of an arm whose few runs lie apart: it leaves the figure.
    """
    late = [
        (mean, high - mean, mean - low)
        for band in bands
        for x, mean, low, high in zip(band.x, band.mean, band.low, band.high, strict=True)
        if x >= band.x[-1] / 4
    ]
    most = 3 * statistics.median(half for _, *halves in late for half in halves)
    low, high = (
        min(mean - min(below, most) for mean, _, below in late),
        max(m + min(above, most) for m, above, _ in late),
    )
    pad = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    return low - pad, high + pad


def _draw_band(axes: Axes, row: int, band: Band) -> None:
    colour = INKS[f"arm-{colour_of(row)}"]
    marker = {"marker": "o", "markersize": 4} if len(band.x) < 3 else {}
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.18, linewidth=0, gid=f"arm:{row}")
    axes.plot(band.x, band.mean, linewidth=1.8, **stroke_of(row), **marker)


def _draw_broken(axes: Axes, row: int, cell: CellOutcome, over: str) -> None:
    """A run that diverged or was killed: as far as it was a number, thin and dotted."""
    points = [point for point in cell.curve if finite(point.value) is not None]
    x, y = [_along(cell, point, over) for point in points], [point.value for point in points]
    colour = INKS[f"arm-{colour_of(row)}"]
    axes.plot(x, y, color=colour, linewidth=1, linestyle=(0, (1, 2)), gid=f"arm:{row}")


def _by_seed(cells: Sequence[CellOutcome]) -> dict[int, float]:
    known = ((cell.seed, finite(cell.value)) for cell in cells if cell.status == "done")
    return {seed: value for seed, value in known if value is not None}


def _dots(axes: Axes, row: int, arm: ArmFindings, colour: str, numbers: Numbers) -> None:
    if arm.mean is not None:
        axes.plot([arm.mean] * 2, [row - 0.2, row + 0.2], color=INKS["ink"], linewidth=1.6, zorder=4)
    style = {"markeredgecolor": INKS["paper"], "markeredgewidth": 1, "markersize": 8, "zorder": 3}
    for seed, value in _by_seed(arm.cells).items():
        link = _link(f"cell-{row}-{seed}", f"{arm.name}, seed {seed}: {numbers.plain(value)}")
        axes.plot([value], [row], "o", color=INKS[colour], url=link, **style)


def _link(anchor: str, told: str) -> str:
    """What a point leads to on its page, and what it says of itself; `_for_a_page` takes it apart."""
    return f"{_LINK}{anchor} {told}"


_LINK = "page:"


def _lost(arm: ArmFindings) -> str:
    """`1 diverged, 2 failed`."""
    return ", ".join(
        f"{n} {status}" for status in ("diverged", "killed", "failed", "missing") if (n := arm.count(status))
    )


def _reach(axes: Axes, findings: Findings, rows: Sequence[ArmFindings]) -> None:
    """The width of a forest plot: all points, and intervals as long as they are not absurd beside the rest."""
    analysis, verdicts = findings.analysis, [arm.verdict for arm in rows]
    assert analysis is not None
    known = [v for v in verdicts if v is not None and v.difference is not None]
    halves = [(v.high - v.low) / 2 for v in known if v.low is not None and v.high is not None]
    most = 3 * statistics.median(halves) if halves else math.inf
    ends = [0.0, 1.3 * (analysis.delta or 0.0), -1.3 * (analysis.delta or 0.0)]
    for verdict in known:
        half = 0.0 if verdict.low is None or verdict.high is None else min(most, (verdict.high - verdict.low) / 2)
        ends += [(verdict.difference or 0.0) - half, (verdict.difference or 0.0) + half]
    if analysis.aa is not None and analysis.aa.low is not None and analysis.aa.high is not None:
        ends += [max(analysis.aa.low, -most), min(analysis.aa.high, most)]
    low, high = min(ends), max(ends)
    pad = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - pad, high + pad)


def _interval(
    axes: Axes, row: int, value: float, low: float | None, high: float | None, colour: str, link: str
) -> None:
    """A dot with its interval; an arrowhead where it leaves the figure."""
    left, right = axes.get_xlim()
    if low is not None and high is not None:
        axes.plot([max(low, left), min(high, right)], [row, row], color=colour, linewidth=2.4, zorder=2)
        for outside, edge, marker in ((low < left, left, "<"), (high > right, right, ">")):
            if outside:
                axes.plot([edge], [row], marker, color=colour, markersize=7, clip_on=False, zorder=2)
    known = low is not None
    face = colour if known else INKS["paper"]
    edge = INKS["paper"] if known else colour
    style = {"markersize": 9, "markeredgecolor": edge, "markeredgewidth": 1.2, "zorder": 3}
    axes.plot([value], [row], "o", color=face, url=link, **style)


def _upright(axes: Axes, rows: int, x: float, colour: str, dash: object) -> None:
    """A vertical line, with gaps where the labels stand."""
    for row in range(rows):
        axes.plot([x, x], [row - 0.27, row + 0.33], color=colour, linewidth=1, linestyle=dash, zorder=1)


def _label(axes: Axes, row: int, name: str, remark: str, colour: str) -> None:
    """Over the row, so that a long name costs no width: the name on the left, a remark on the right."""
    across = axes.get_yaxis_transform()
    room = LONGEST_NAME if len(remark) < 24 else LONGEST_NAME - 10
    axes.text(0, row - 0.3, shortened(name, room), transform=across, va="bottom", parse_math=False)
    if remark:
        axes.text(1, row - 0.3, remark, transform=across, va="bottom", ha="right", color=colour, parse_math=False)


def _directions(axes: Axes, higher_is_better: bool) -> None:
    """Which side of zero is which, over the axis."""
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    style = {"transform": axes.transAxes, "color": INKS["muted"], "fontsize": 11, "va": "bottom"}
    axes.text(0, 1.0, f"\N{LEFTWARDS ARROW} {left}", ha="left", **style)
    axes.text(1, 1.0, f"{right} \N{RIGHTWARDS ARROW}", ha="right", **style)


def shortened(name: str, columns: int) -> str:
    """A name cut in its middle, as ends tell long names apart. East Asian letters take two columns."""
    if _columns(name) <= columns:
        return name
    head, tail = name, ""
    while _columns(head) > columns // 2:
        head = head[:-1]
    while _columns(name[-len(tail) - 1 :]) <= columns - columns // 2 - 1:
        tail = name[-len(tail) - 1 :]
    return f"{head}\N{HORIZONTAL ELLIPSIS}{tail}"


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@contextmanager
def drawing(name: str, rows: int, height: int = 0, top: int = 6) -> Iterator[tuple[Axes, _Drawing]]:
    """Axes for `rows` labelled rows, row 0 on top, or of a height; the drawing is made when the block ends."""
    bottom = 44
    height = height or rows * ROW + top + bottom
    # A user's matplotlibrc must not change a report, and a report must not change a user's notebook.
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": name}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # the page has fonts
        figure = Figure(figsize=(WIDTH / 72, height / 72), frameon=False)
        left = 4 if rows else 58
        box = (left / WIDTH, bottom / height, 1 - (left + SIDE) / WIDTH, 1 - (top + bottom) / height)
        axes = figure.add_axes(box, frameon=True)
        axes.patch.set_visible(False)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        if rows:
            axes.set_ylim(rows - 0.5, -0.9)
            axes.set_yticks([])
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6))
            axes.tick_params(axis="y", length=0)
        drawing = _Drawing()
        yield axes, drawing
        drawing.text = _svg(figure, name)


class _Drawing:
    """The finished figure: called, it gives the SVG."""

    text = ""

    def __call__(self) -> str:
        return self.text


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _for_a_page(buffer.getvalue(), name)


def _for_a_page(document: str, name: str) -> str:
    """An SVG document as an element of a page: no header, no ids that clash, no fonts and colours of its own."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size, "matplotlib states a viewBox"
    svg = re.sub(
        r"^<svg[^>]*>", f'<svg class="figure {name}" role="img" aria-labelledby="about-{name}" {size[0]}>', svg
    )
    svg = re.sub(r' id="arm:(\d+)"', r' data-arm="\1"', svg)
    svg = _own_ids(svg, name)
    svg = re.sub(rf'<a xlink:href="{_LINK}(\S+) ([^"]*)"[^>]*>', r'<a href="#\1"><title>\2</title>', svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: (?:[a-z]+ )*([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return _page_colours(re.sub(r"\s*\n\s*", " ", svg)) + "\n"


def _own_ids(svg: str, name: str) -> str:
    """Keep the ids that something refers to, under the figure's name."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def keep(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', keep, svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)


def _page_colours(svg: str) -> str:
    return re.sub(r"#0000[0-9a-f]{2}\b", lambda match: _VARIABLES.get(match[0], match[0]), svg)


def legend(findings: Findings) -> list[Mapping[str, object]]:
    """For each arm with a curve: its row, name, colour and whether it is dashed."""
    return [
        {"row": row, "name": arm.name, "colour": colour_of(row), "dashed": row >= COLOURS}
        for row, arm in enumerate(findings.arms)
        if curve(arm.cells, "tokens")
    ]
