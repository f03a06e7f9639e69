"""The figure of losses by position: one line per arm, and a line where the training's rows ended."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gptzoo.ablation.figures import INKS, colour_of, drawing
from gptzoo.ablation.findings import Findings
from gptzoo.ablation.positions import spans
from gptzoo.ablation.wording import short


def by_position(findings: Findings) -> str:
    """Mean loss over the position, in spans; an empty string where no run was read."""
    known = {row: made for row, arm in enumerate(findings.arms) if (made := spans(arm.cells))}
    if not known:
        return ""
    trained = next(c.positions.trained for arm in findings.arms for c in arm.cells if c.positions is not None)
    with drawing("positions", 0, height=300) as (axes, svg):
        axes.set_xscale("log", base=2)
        axes.grid(axis="y", color=INKS["line"], linewidth=0.6)
        for row, made in known.items():
            colour, gid = INKS[f"arm-{colour_of(row)}"], f"arm:{row}"
            x = [((span.start + 1) * span.stop) ** 0.5 for span in made]
            low, high = [span.low for span in made], [span.high for span in made]
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, gid=gid)
            axes.plot(x, [span.mean for span in made], "o-", color=colour, linewidth=1.6, markersize=4, gid=gid)
        if any(made[-1].stop > trained for made in known.values()):
            axes.axvline(trained, color=INKS["muted"], linewidth=1, linestyle=(0, (3, 2)))
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
        axes.set_xlabel("position in the row")
        axes.set_ylabel("loss, nats per token")
    return svg()
