"""The ledger's costs as bars: what a run of each arm took, beside a run of the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from gptzoo.ablation.figures import INKS, WIDTH, colour_of, drawing, shortened
from gptzoo.ablation.findings import ArmFindings, Findings
from gptzoo.ablation.wording import TIMES, duration, memory, short

NAMES, VALUES = 108, 108  # units beside the bars, for names and for numbers
BAR, HEADING = 19, 30  # units from bar to bar, and for the heading of a quantity
PER_FIGURE = 3  # quantities, so that two figures stand side by side


@dataclass(frozen=True)
class Quantity:
    """What is compared.

    Args:
        name: In words.
        values: By the arm's place; the baseline is 0. Arms of which it is not known are left out.
        text: How a value is written.
    """

    name: str
    values: dict[int, float]
    text: Callable[[float | None], str]

    @property
    def equal(self) -> bool:
        """Whether there is nothing to compare: one bar stands for all."""
        return len(set(self.values.values())) == 1


def quantities(findings: Findings) -> list[Quantity]:
    """All that a run of an arm takes, and its tuning; those that the baseline has."""
    made = (
        Quantity("parameters", _of(findings, lambda arm: arm.costs.parameters), short),
        Quantity("training FLOPs", _of(findings, lambda arm: arm.costs.flops), short),
        Quantity("tokens trained on", _of(findings, lambda arm: arm.costs.tokens), short),
        Quantity("time of training", _of(findings, lambda arm: arm.costs.seconds), duration),
        Quantity("peak memory", _of(findings, lambda arm: arm.costs.peak_memory), memory),
        Quantity("tuning runs", _of(findings, lambda arm: _tuning_runs(findings, arm)), lambda n: f"{n or 0:g}"),
    )
    return [each for each in made if 0 in each.values]


def _of(findings: Findings, get: Callable[[ArmFindings], float | None]) -> dict[int, float]:
    return {row: float(value) for row, arm in enumerate(findings.arms) if (value := get(arm))}


def _tuning_runs(findings: Findings, arm: ArmFindings) -> int:
    return sum(len(tuned.runs) for tuned in findings.study.tuning if tuned.arm == arm.name)


def cost_bars(findings: Findings) -> list[str]:
    """Figures of up to `PER_FIGURE` quantities each; a bar of length 1 is the baseline's."""
    made = quantities(findings)
    parts = [made[start : start + PER_FIGURE] for start in range(0, len(made), PER_FIGURE)]
    return [_bars(findings, part, f"costs-{place}") for place, part in enumerate(parts)]


def _bars(findings: Findings, shown: Sequence[Quantity], name: str) -> str:
    height = sum(HEADING + BAR * (1 if each.equal else len(each.values)) for each in shown) + 8
    reach = max(1.0, *(value / each.values[0] for each in shown for value in each.values.values()))
    with drawing(name, 0, height=height) as (axes, svg):
        _spread_out(axes, height, reach)
        y = 0.0
        for each in shown:
            axes.text(0, y + HEADING - 12, each.name, transform=_across(axes), fontweight="bold", parse_math=False)
            y += HEADING
            start = y
            for row, value in _rows(each):
                _bar(axes, y, findings.arms[row or 0].name if row is not None else "every arm", row, value, each)
                y += BAR
            axes.plot([1, 1], [start - 3, y - 3], color=INKS["muted"], linewidth=1, linestyle=(0, (3, 2)), zorder=3)
    return svg()


def _rows(quantity: Quantity) -> Iterator[tuple[int | None, float]]:
    """The place of each arm and its value; None and the value of all where they are equal."""
    if quantity.equal:
        yield None, quantity.values[0]
    else:
        yield from quantity.values.items()


def _spread_out(axes: Axes, height: float, reach: float) -> None:
    """Axes over the whole figure: bars between names and numbers, no frame, units downwards."""
    axes.set_position((NAMES / WIDTH, 0, (WIDTH - NAMES - VALUES) / WIDTH, 1))
    axes.set_xlim(0, reach)
    axes.set_ylim(height, 0)
    axes.set_axis_off()


def _across(axes: Axes):  # type: ignore[no-untyped-def]  # matplotlib names no type for it
    """x in shares of the figure's width, y in units."""
    return blended_transform_factory(axes.figure.transFigure, axes.transData)


def _bar(axes: Axes, y: float, name: str, row: int | None, value: float, quantity: Quantity) -> None:
    colour = INKS["muted"] if row is None else INKS[f"arm-{colour_of(row)}"]
    mark: dict[str, Any] = {} if row is None else {"gid": f"arm:{row}"}
    ratio = value / quantity.values[0]
    axes.barh(y + BAR / 2 - 3, ratio, height=9, color=colour, linewidth=0, **mark)
    style = {"va": "center", "parse_math": False, **mark}
    axes.text(0, y + BAR / 2 - 3, shortened(name, 15), transform=_across(axes), color=INKS["muted"], **style)
    said = quantity.text(value) if row in (None, 0) else f"{TIMES}{_times(ratio)}, {quantity.text(value)}"
    axes.annotate(
        said, (max(ratio, 1.0), y + BAR / 2 - 3), (6, 0), textcoords="offset points", annotation_clip=False, **style
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.3g}"
