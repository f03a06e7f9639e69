"""The coordinate check of muP, with the standard parametrisation beside it, as a table and a picture.

`python -m tests.coordinates` prints the table, `python -m tests.coordinates images/coordinates.png` also draws it; half
a minute on one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch

from gptzoo.coordinates import Coordinates, coordinate_check, slopes

WIDTHS, SEEDS, LIMIT = (64, 128, 256, 512), (0, 1, 2, 3), 0.1

SMALL: Mapping[str, object] = {"model.n_layer": 2, "model.context_length": 32, "train.batch_size": 4}

STANDARD: Mapping[str, object] = {
    "model.attention": "multi_head",
    "model.init": "gpt2",
    "model.head": "tied",
    "train.optimizer": "adamw",
}
"""What makes of `mup-tiny` a GPT-2 in the standard parametrisation; at width 64 they differ in the scale of scores."""


def both(
    widths: tuple[int, ...] = WIDTHS, seeds: tuple[int, ...] = SEEDS, **more: object
) -> tuple[Coordinates, Coordinates]:
    """muP's coordinates and the standard parametrisation's."""
    small = {**SMALL, **more}
    mup = coordinate_check("mup-tiny", widths, seeds=seeds, overrides=small)
    return mup, coordinate_check("mup-tiny", widths, seeds=seeds, overrides={**small, **STANDARD})


def table(mup: Coordinates, standard: Coordinates, widths: tuple[int, ...] = WIDTHS) -> str:
    """A line per tensor: its size at each width and the slope, on either side."""
    rows = [f"root mean square after 10 steps, {len(SEEDS)} seeds; slope: d log size / d log width", ""]
    numbers = "".join(f"{width:>8}" for width in widths)
    rows += [f"{'':18}{'muP at width':<{len(numbers)}}   slope   {'standard at width':<{len(numbers)}}   slope"]
    rows += [f"{'':18}{numbers}           {numbers}"]
    sides = [(sizes, slopes(sizes, widths)) for sizes in (mup, standard)]
    for name in mup:
        cells = ["".join(f"{size:8.3f}" for size in sizes[name]) + f"  {slope[name]:+6.2f}" for sizes, slope in sides]
        rows.append(f"{name:18}{'   '.join(cells)}")
    steepest = [max(map(abs, slope.values())) for _, slope in sides]
    verdicts = ["passes" if each < LIMIT else "fails" for each in steepest]
    rows += [
        "",
        f"steepest: muP {steepest[0]:.2f}, {verdicts[0]}; standard {steepest[1]:.2f}, {verdicts[1]} (< {LIMIT})",
    ]
    return "\n".join(rows)


def draw(mup: Coordinates, standard: Coordinates, path: str) -> None:
    """Size over width, both axes logarithmic, a line per tensor."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True, layout="constrained")
    for ax, title, sizes in zip(axes, ("standard parametrisation", "muP"), (standard, mup), strict=True):
        for name, each in sizes.items():
            ax.plot(WIDTHS, each, marker="o", markersize=3, label=name)
        ax.set(xscale="log", yscale="log", xlabel="n_embd", title=title)
        ax.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
        ax.minorticks_off()
    axes[0].set_ylabel("root mean square after 10 steps")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = both()
    print(table(*found))
    if len(sys.argv) > 1:
        draw(*found, sys.argv[1])
