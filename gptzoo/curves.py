"""The loss at each position of a row, up to and beyond the length that a model was trained at."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gptzoo.contracts import Data
from gptzoo.evaluation import batches_of, check_options, check_reach, check_vocabulary, evaluating
from gptzoo.model import Model
from gptzoo.precision import autocast
from gptzoo.scoring import token_losses


@dataclass(frozen=True)
class Curve:
    """Mean losses by position, counted from the first token of a document in its row.

    Args:
        losses: Nats per target; None where there was none.
        targets: How many there were.
        trained: The length that the model was trained at.
    """

    losses: tuple[float | None, ...]
    targets: tuple[int, ...]
    trained: int

    def mean(self, start: int, stop: int) -> float | None:
        """Of all targets at positions from `start` up to `stop`."""
        pairs = [
            (x, n) for x, n in zip(self.losses[start:stop], self.targets[start:stop], strict=True) if x is not None
        ]
        total = sum(count for _, count in pairs)
        return sum(loss * count for loss, count in pairs) / total if total else None

    def spans(self) -> Iterator[tuple[int, int]]:
        """Spans of positions that double in length, broken at the trained length and its multiples of two."""
        edges = {0, len(self.losses), *(2**power for power in range(3, len(self.losses).bit_length()))}
        edges |= {edge for times in (1, 2, 4, 8) if (edge := times * self.trained) < len(self.losses)}
        yield from itertools.pairwise(sorted(edges))


def by_position(
    model: Model,
    data: Data,
    *,
    split: str = "val",
    sequences: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
) -> Curve:
    """The mean loss at each position over the first rows of a split; `data` may have longer rows than in training.

    Args:
        model: Any model.
        data: Its `context_length` is the length of the curve.
        split: `val` or `train`.
        sequences: Rows; all unless given.
        batch_size: Rows at a time, which does not change the result.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: The rows pass the end of the model's positions, or an option is out of range.
    """
    check_options(split, sequences, batch_size)
    check_vocabulary(model, data.tokenizer)
    total = torch.zeros(data.context_length, dtype=torch.float64)
    count = torch.zeros(data.context_length, dtype=torch.int64)
    held = data.sequences(split)
    with evaluating(model), autocast(model.wte.weight.device.type, precision):
        for batch in batches_of(data, split, held if sequences is None else min(sequences, held), batch_size):
            check_reach(model, batch)
            where = () if batch.plain else (batch.pos, batch.doc)
            losses = token_losses(model, batch.tokens, batch.targets, *where)
            there = batch.targets != -100
            total.index_add_(0, batch.pos[there], losses[there])
            count.index_add_(0, batch.pos[there], torch.ones_like(batch.pos[there]))
    means = [None if not n else x / n for x, n in zip(total.tolist(), count.tolist(), strict=True)]
    return Curve(tuple(means), tuple(count.tolist()), model.dims.context_length)


def as_text(curve: Curve) -> str:
    """A line per span of positions."""
    lines = []
    for start, stop in curve.spans():
        mean = curve.mean(start, stop)
        beyond = "  beyond the trained length" if start >= curve.trained else ""
        lines.append(f"positions {start:>6}-{stop - 1:<6} " + ("no target" if mean is None else f"{mean:.4f}{beyond}"))
    return "\n".join(lines)


def picture(curve: Curve, kind: str = "svg") -> bytes:
    """The curve as a picture, `svg` or `png`: every position faint, the spans bold, a line at the trained length."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "curve", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([math.nan if x is None else x for x in curve.losses], color="#9db8d9", linewidth=0.7)
        for start, stop in curve.spans():
            if (mean := curve.mean(start, stop)) is not None:
                axes.plot([start, stop], [mean, mean], color="#1f4e9c", linewidth=2.2)
        axes.axvline(curve.trained, color="#888888", linestyle="--", linewidth=1)
        axes.set_xlabel("position in the document")
        axes.set_ylabel("loss (nats per token)")
        axes.spines[["top", "right"]].set_visible(False)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return drawn.getvalue()
