"""The loss of a model on held-out data: the same rows in the same order every time, whatever the batch size."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gptzoo.contracts import Batch, Data, Tokenizer
from gptzoo.errors import GPTZooError, NotFinite, did_you_mean, raise_all
from gptzoo.model import Loss, Model
from gptzoo.precision import autocast

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Scores:
    """How well a model predicts.

    Args:
        loss: Nats per target.
        perplexity: exp(loss); inf where that overflows.
        bits_per_byte: Bits per UTF-8 byte of the targets, which compares tokenizers; None if their bytes are unknown.
        tokens: Targets.
        sequences: Rows.
        added: Mean of each loss that parts add in training; not part of `loss`.
        exact_match: Share of problems that it solves; None where none were asked.
    """

    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    sequences: int
    added: dict[str, float]
    exact_match: float | None = None


def evaluate(
    model: Model,
    data: Data,
    *,
    split: str = "val",
    sequences: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
    should_stop: Callable[[], bool] | None = None,
) -> Scores:
    """The mean loss over the first rows of a split.

    Args:
        model: Any model; its training flags are left as they were.
        data: Tokenized for this model.
        split: `val` or `train`.
        sequences: Rows; all unless given, and no more than the split holds.
        batch_size: Rows at a time, which does not change the result.
        precision: `fp32`, `bf16` or `fp16`.
        should_stop: Asked before each batch. After a yes the scores are those of the rows seen until then; `sequences`
            counts them, and without any the loss is NaN.

    Raises:
        GPTZooError: An option is out of range, or the data does not suit the model.
        NotFinite: The loss of some rows is not a finite number.
    """
    check_options(split, sequences, batch_size)
    check_vocabulary(model, data.tokenizer)
    held = data.sequences(split)
    tally = _Tally(byte_lengths_of(data.tokenizer))
    with evaluating(model), autocast(model.wte.weight.device.type, precision):
        for batch in batches_of(data, split, held if sequences is None else min(sequences, held), batch_size):
            if should_stop is not None and should_stop():
                break
            tally.add(batch, _loss(model, batch), split)
    return tally.scores()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; every module's training flag is restored.

    Not `inference_mode`: a table that a part memoises in there could never be trained with again.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def check_vocabulary(model: Model, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer whose tokens the model does not all know.

    Raises:
        GPTZooError: It has more tokens than the model.
    """
    if tokenizer.vocab_size > model.dims.vocab_size:
        raise GPTZooError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.dims.vocab_size} (vocab_size). "
            "Use the tokenizer that the model was trained with."
        )


def check_options(split: str, sequences: int | None, batch_size: int) -> None:
    """Refuse a split that is none and numbers below 1.

    Raises:
        GPTZooError: An option is out of range.
    """
    problems = []
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS) or " Use val or train."
        problems.append(GPTZooError(f"no split is called {split!r}.{hint}", "--split"))
    if sequences is not None and sequences < 1:
        problems.append(GPTZooError(f"{sequences} is below 1. Leave it out to take all of the split.", "--sequences"))
    if batch_size < 1:
        problems.append(GPTZooError(f"{batch_size} is below 1.", "--batch-size"))
    raise_all(problems)


def byte_lengths_of(tokenizer: Tokenizer) -> np.ndarray | None:
    """Bytes that each token stands for; None where the tokenizer does not say."""
    return None if type(tokenizer).byte_lengths is Tokenizer.byte_lengths else tokenizer.byte_lengths()


def batches_of(data: Data, split: str, rows: int, batch_size: int) -> Iterator[Batch]:
    """The first rows of a split, in batches."""
    for step, start in enumerate(range(0, rows, batch_size)):
        yield data.batch(split, 0, step, batch_size).rows(0, rows - start)


def check_reach(model: Model, batch: Batch) -> None:
    """Refuse rows that pass the end of the model's positions.

    Raises:
        GPTZooError: They do.
    """
    limit, reach = model.max_length, int(batch.pos.max()) + 1
    if limit is not None and reach > limit:
        raise GPTZooError(
            f"rows of {reach} tokens do not fit the model, whose positions end at {limit} (context_length). "
            f"Use data with a context_length of at most {limit}."
        )


def _loss(model: Model, batch: Batch) -> Loss:
    check_reach(model, batch)
    device = model.wte.weight.device
    where = () if batch.plain else (batch.pos.to(device), batch.doc.to(device))
    return model.loss(batch.tokens.to(device), batch.targets.to(device), *where)


class _Tally:
    """Sums over batches, in float64."""

    def __init__(self, byte_lengths: np.ndarray | None) -> None:
        self.byte_lengths = byte_lengths
        self.loss, self.tokens, self.bytes, self.rows = 0.0, 0, 0, 0
        self.added: Counter[str] = Counter()

    def add(self, batch: Batch, loss: Loss, split: str) -> None:
        rows, total = len(batch.tokens), float(loss.total)
        if not math.isfinite(total):
            first, last = self.rows + 1, self.rows + rows
            raise NotFinite(f"the loss is not finite ({total}) in sequences {first} to {last} of {split}.")
        self.loss += total
        self.tokens += int(loss.tokens)
        self.rows += rows
        self.added.update({name: float(value) * rows for name, value in loss.added.items()})
        if self.byte_lengths is not None:
            self.bytes += int(self.byte_lengths[batch.targets[batch.targets != -100].numpy()].sum())

    def scores(self) -> Scores:
        added = {name: total / self.rows for name, total in self.added.items()}
        return scores_of(self.loss, self.tokens, self.bytes, self.rows, added)


def scores_of(total: float, tokens: int, size: int, rows: int, added: dict[str, float] | None = None) -> Scores:
    """Scores from sums: of the losses, of the targets, of their bytes (0 if unknown) and of the rows."""
    loss = total / tokens if tokens else math.nan
    return Scores(loss, _exp(loss), total / math.log(2) / size if size else None, tokens, rows, added or {})


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
