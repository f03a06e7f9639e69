"""How likely a model finds given texts: continuations of contexts, and whole texts by windows that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gptzoo.errors import GPTZooError, NotFinite, raise_all
from gptzoo.evaluation import Scores, byte_lengths_of, check_options, check_vocabulary, evaluating, scores_of
from gptzoo.model import Model
from gptzoo.parts.text import TokenStream
from gptzoo.precision import autocast


@dataclass(frozen=True)
class Likelihood:
    """What a model thinks of a continuation.

    Args:
        logprob: The sum of its tokens' log-probabilities, in nats.
        greedy: Whether it is what greedy decoding would write.
        tokens: How many tokens it has.
    """

    logprob: float
    greedy: bool
    tokens: int


def token_losses(model: Model, tokens: Tensor, targets: Tensor, *where: Tensor) -> Tensor:
    """float64 (B, T) on the CPU: the loss of each target in nats, 0 where there is none."""
    device = model.wte.weight.device
    logits = model(tokens.to(device), *(each.to(device) for each in where))
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits.mT, targets.to(device), ignore_index=-100, reduction="none").double().cpu()
    if not bool(losses.isfinite().all()):
        raise NotFinite("the loss of some tokens is not finite. Use an earlier checkpoint.")
    return losses


def log_likelihoods(
    model: Model,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int = 8,
    precision: str = "fp32",
) -> list[Likelihood]:
    """The likelihood of each continuation after its context, by plain forwards of whole rows.

    Args:
        model: Any model.
        pairs: Tokens of the context, at least one, and of what follows it.
        batch_size: Rows at a time, which does not change the result.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: A row does not fit the model's positions.
    """
    for number, (context, continuation) in enumerate(pairs, start=1):
        _check_pair(model, context, continuation, f"text {number} of {len(pairs)}")
    order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))  # like lengths share a batch
    found: dict[int, Likelihood] = {}
    with evaluating(model), autocast(model.wte.weight.device.type, precision):
        for start in range(0, len(order), batch_size):
            group = order[start : start + batch_size]
            found.update(zip(group, _likelihoods(model, [pairs[index] for index in group]), strict=True))
    return [found[index] for index in range(len(pairs))]


def _check_pair(model: Model, context: Sequence[int], continuation: Sequence[int], place: str) -> None:
    length, limit = len(context) + len(continuation) - 1, model.max_length
    if not context:
        raise GPTZooError("its context is empty. Begin with the end token.", place)
    if limit is not None and length > limit:
        what = f"its {length} tokens do not fit: the model's positions end at {limit} (context_length). Shorten it."
        raise GPTZooError(what, place)


def _likelihoods(model: Model, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[Likelihood]:
    """Rows are filled up on the right, where nothing that counts can see it."""
    longest = max(len(context) + len(continuation) - 1 for context, continuation in pairs)
    tokens = torch.zeros(len(pairs), longest, dtype=torch.int64)
    for row, (context, continuation) in zip(tokens, pairs, strict=True):
        whole = [*context, *continuation][:-1]
        row[: len(whole)] = torch.tensor(whole)
    logits = model(tokens.to(model.wte.weight.device))
    for row, (context, continuation) in zip(logits, pairs, strict=True):
        own = row[len(context) - 1 : len(context) - 1 + len(continuation)]
        own = (own if own.dtype == torch.float64 else own.float()).log_softmax(-1).double().cpu()
        index = torch.tensor(continuation, dtype=torch.int64)
        logprobs = own.gather(1, index[:, None])[:, 0]
        if not bool(logprobs.isfinite().all()):
            raise NotFinite("the score of a text is not finite. Use an earlier checkpoint.")
        yield Likelihood(float(logprobs.sum()), bool((own.argmax(-1) == index).all()), len(index))


def rolling(
    model: Model,
    tokens: Sequence[int] | np.ndarray,
    *,
    window: int,
    stride: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
) -> np.ndarray:
    """float64 (T - 1,): the loss of each token but the first, once, in windows that move on by `stride`.

    A token is predicted from at least `window - stride` tokens before it, as far as there are so many.

    Args:
        model: Any model.
        tokens: The text.
        window: Tokens in a forward.
        stride: By how many a window is ahead of the one before; `window` unless given.
        batch_size: Windows at a time, which does not change the result.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: A window does not fit the model's positions, or the stride is not from 1 to `window`.
    """
    stride, limit = window if stride is None else stride, model.max_length
    problems = []
    if not 1 <= stride <= window:
        problems.append(GPTZooError(f"{stride} is not from 1 to {window}, the tokens in a window.", "--stride"))
    if limit is not None and window > limit:
        problems.append(GPTZooError(f"windows of {window} tokens pass the model's limit of {limit} (context_length)."))
    raise_all(problems)
    text = np.asarray(tokens, np.int64)
    losses = np.zeros(max(0, len(text) - 1))
    spans = list(spans_of(len(text), window, stride))
    with evaluating(model), autocast(model.wte.weight.device.type, precision):
        for first in range(0, len(spans), batch_size):
            _fill(losses, model, text, spans[first : first + batch_size])
    return losses


def spans_of(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, scored) of each window: its inputs, and from which target on it scores; each target once."""
    scored = start = 0
    while scored < length - 1:
        stop = min(start + window, length - 1)
        yield start, stop, scored
        scored, start = stop, start + stride


def _fill(losses: np.ndarray, model: Model, text: np.ndarray, spans: Sequence[tuple[int, int, int]]) -> None:
    longest = max(stop - start for start, stop, _ in spans)
    inputs = torch.zeros(len(spans), longest, dtype=torch.int64)
    targets = torch.full_like(inputs, -100)
    for row, (start, stop, scored) in enumerate(spans):
        inputs[row, : stop - start] = torch.from_numpy(text[start:stop])
        targets[row, scored - start : stop - start] = torch.from_numpy(text[scored + 1 : stop + 1])
    found = token_losses(model, inputs, targets).numpy()
    for row, (start, stop, scored) in enumerate(spans):
        losses[scored:stop] = found[row, scored - start : stop - start]


def rolling_scores(
    model: Model,
    data: TokenStream,
    *,
    stride: int,
    split: str = "val",
    sequences: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
) -> Scores:
    """`evaluate` by windows that overlap: each token of a split but its first, after more context than rows give.

    Args:
        model: Any model.
        data: A stream of tokens whose documents are not kept apart.
        stride: By how many tokens a window of `context_length` is ahead of the one before.
        split: `val` or `train`.
        sequences: Take so many rows' tokens from the beginning; all unless given.
        batch_size: Windows at a time.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: The data is no stream, or an option is out of range.
    """
    if not isinstance(data, TokenStream) or data.documents:
        name = type(data).__name__
        raise GPTZooError(f"the rows of data {name} do not follow one another. Leave it out.", "--stride")
    check_options(split, sequences, batch_size)
    check_vocabulary(model, data.tokenizer)
    stream = data.tokens.stream
    stream = stream[: data.train_tokens] if split == "train" else stream[data.train_tokens :]
    stream = stream if sequences is None else stream[: sequences * data.context_length + 1]
    return text_scores(
        model, stream, window=data.context_length, stride=stride, batch_size=batch_size, precision=precision
    )


def text_scores(
    model: Model,
    tokens: Sequence[int] | np.ndarray,
    *,
    window: int,
    stride: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
) -> Scores:
    """Loss, perplexity and bits per byte of a text in the tokens of the model's tokenizer; see `rolling`."""
    losses = rolling(model, tokens, window=window, stride=stride, batch_size=batch_size, precision=precision)
    lengths = None if model.tokenizer is None else byte_lengths_of(model.tokenizer)
    size = 0 if lengths is None else int(lengths[np.asarray(tokens)[1:].astype(np.int64)].sum())
    windows = sum(1 for _ in spans_of(len(tokens), window, window if stride is None else stride))
    return scores_of(float(losses.sum()), len(losses), size, windows)
