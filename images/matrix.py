"""Draws the compatibility matrix: `python images/matrix.py` writes matrix.png and, beside it, what it was drawn from.

A test compares matrix.json with what `resolve` says, so that the picture cannot grow stale.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from gptzoo.loading import load_plugins
from gptzoo.testing.matrix import Matrix, letter, matrix

FOLDER = Path(__file__).resolve().parent
COLOURS = {"naive": "#6c7a89", "sdpa": "#2a6f97", "flash": "#c8553d", "flex": "#588157"}
OTHER = "#8d6a9f"


def draw(found: Matrix, picture: Path) -> None:
    """One square per kernel in each cell: full = trains, hollow = only runs."""
    rows, columns = len(found.attentions), len(found.positions)
    figure, axes = plt.subplots(1, 2, figsize=(0.62 * columns * 2 + 3.2, 0.42 * rows + 2.4), sharey=True)
    for ax, device in zip(axes, ("cpu", "cuda"), strict=True):
        _table(ax, found, device)
        trains, runs, refused = found.counts(device)
        ax.set_title(f"{device}: {trains} train, {runs} only run, {refused} refused", loc="left", fontsize=11, pad=10)
    axes[0].set_yticks(range(rows), found.attentions, fontsize=9)
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS.get(kernel, OTHER)) for kernel in found.kernels]
    handles += [Rectangle((0, 0), 1, 1, facecolor="none", edgecolor="#444444")]
    names = [*found.kernels, "runs, but cannot be trained"]
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(picture, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _table(ax: Axes, found: Matrix, device: str) -> None:
    rows, columns, size = len(found.attentions), len(found.positions), 0.8 / len(found.kernels)
    for y, attention in enumerate(found.attentions):
        for x, position in enumerate(found.positions):
            cell = found.cell(device, attention, position)
            for i, kernel in enumerate(found.kernels):
                colour, corner = COLOURS.get(kernel, OTHER), (x - 0.4 + i * size, y - 0.3)
                if letter(kernel).upper() in cell:
                    ax.add_patch(Rectangle(corner, size * 0.86, 0.6, color=colour, linewidth=0))
                elif letter(kernel) in cell:
                    ax.add_patch(Rectangle(corner, size * 0.8, 0.58, facecolor="none", edgecolor=colour, linewidth=1))
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    ax.set_xticks(range(columns), found.positions, rotation=55, ha="right", fontsize=9)
    ax.set_xticks([x - 0.5 for x in range(1, columns)], minor=True)
    ax.set_yticks([y - 0.5 for y in range(1, rows)], minor=True)
    ax.grid(which="minor", color="#dddddd", linewidth=0.6)
    ax.tick_params(which="both", length=0)
    for side in ax.spines.values():
        side.set_color("#bbbbbb")


def main() -> None:
    """Draw the matrix of all shipped parts."""
    found = matrix(load_plugins().zoo)
    draw(found, FOLDER / "matrix.png")
    (FOLDER / "matrix.json").write_text(json.dumps(found.as_json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
