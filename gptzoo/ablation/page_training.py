"""The page's figures of training and of costs, with what stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from gptzoo.ablation.figures import learning_curves
from gptzoo.ablation.figures_compute import gain_figure
from gptzoo.ablation.figures_costs import cost_bars
from gptzoo.ablation.figures_training import (
    attention_logits,
    clipped_to,
    gradient_norms,
    norms_seen,
    steps_in_a_point,
    without_logits,
)
from gptzoo.ablation.findings import Findings
from gptzoo.ablation.wording import Numbers, listed


@dataclass(frozen=True)
class Shown:
    """A figure on the page.

    Args:
        name: Its own among all.
        title: A few words, or none.
        about: How to read it.
        svg: The drawing; empty where words are all there is to show.
    """

    name: str
    title: str
    about: str
    svg: Markup


NO_LOGITS = "None to show: every layer mixes without a kernel."


def of_training(findings: Findings, numbers: Numbers) -> list[Shown]:
    """What stands beside the curves over tokens and seconds; what nothing is known of is left out."""
    return [each for each in _training(findings, numbers) if each.svg or each.about == NO_LOGITS]


def _training(findings: Findings, numbers: Numbers) -> Iterator[Shown]:
    yield Shown("flops", "Over FLOPs", "", Markup(learning_curves(findings, numbers, "flops")))
    yield Shown("compute", "Gains in compute", about_gains(findings), Markup(gain_figure(findings, numbers)))
    yield Shown("gradients", "Gradients", about_gradients(findings), Markup(gradient_norms(findings)))
    logits = Markup(attention_logits(findings))
    about = about_logits(findings) if logits or not without_logits(findings) else NO_LOGITS
    yield Shown("logits", "Attention logits", about, logits)


def of_costs(findings: Findings) -> list[Shown]:
    """The bars of the ledger."""
    about = about_costs(findings)
    return [Shown(f"costs-{n}", "", about, Markup(svg)) for n, svg in enumerate(cost_bars(findings))]


def about_gains(findings: Findings) -> str:
    """How to read the figure of gains in compute."""
    base = findings.study.baseline
    return (
        f"Dots are the mean of {base}'s runs, the line is its fit, dashed beyond what was trained. An arm's dot is its "
        f"final loss at the compute it spent; its line leads to where {base} has that loss, and its length is the gain."
    )


def about_gradients(findings: Findings) -> str:
    """How to read the figure of gradients."""
    size, clip = steps_in_a_point(findings), clipped_to(findings)
    words = "The norm before clipping, mean over the runs of an arm."
    if size > 1:
        words += f" A point is the mean of {size} logged steps."
    if clip is None or (seen := norms_seen(findings)) is None:
        return words
    drawn = seen[0] <= clip <= seen[1]
    return f"{words} Gradients are clipped to {clip:g}{', the dashed line' if drawn else ''}."


def about_logits(findings: Findings) -> str:
    """How to read the figure of attention logits, and whose are missing."""
    without = without_logits(findings)
    words = (
        "The largest score that a query gives to a key it may see, before a position's bias, over one batch of the "
        "evaluation at the end of the training. Dots are means over runs, strokes their range."
    )
    return f"{words} Not shown: {listed(without)}, where layers mix without a kernel." if without else words


def about_costs(findings: Findings) -> str:
    """How to read the bars."""
    return f"Of one run, beside {findings.study.baseline} (the dashed line)."
