"""How many problems a model solves: it continues each prompt greedily, and the answer must be right to the letter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from gptzoo.contracts import Data, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.generation import Generated, generate
from gptzoo.model import Model

PROBLEMS = 1000
"""Problems that are solved unless a number is given."""

Problem = tuple[str, str]
"""A prompt, and what should follow it."""


def exact_match(
    model: Model,
    data: Data | Sequence[Problem],
    *,
    split: str = "val",
    problems: int = PROBLEMS,
    batch_size: int = 128,
    precision: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> float:
    """The share of problems that a model answers rightly.

    Args:
        model: With its tokenizer.
        data: Where the problems come from, or the problems themselves.
        split: `val` or `train`.
        problems: Most of them; the first ones of the split.
        batch_size: Most problems at a time, which does not change the result.
        precision: `fp32`, `bf16` or `fp16`; that of the weights unless given.
        should_stop: Asked before each batch. After a yes the share is that of the problems done, NaN if there are none.

    Raises:
        GPTZooError: The data asks nothing, the model has no tokenizer, or a prompt does not fit it.
    """
    asked = problems_of(data, split, problems) if isinstance(data, Data) else list(data)[:problems]
    if model.tokenizer is None:
        raise GPTZooError("this model has no tokenizer, and answers are text. Set model.tokenizer.")
    right = done = 0
    for group, tokens in _groups(asked, model.tokenizer, model.max_length, batch_size):
        if should_stop is not None and should_stop():
            break
        written = generate(model, [prompt for prompt, _ in group], tokens=tokens, greedy=True, precision=precision)
        texts = [_answered(each, answer, model.tokenizer) for each, (_, answer) in zip(written, group, strict=True)]
        right += sum(is_right(text, answer) for text, (_, answer) in zip(texts, group, strict=True))
        done += len(group)
    return right / done if done else math.nan


def problems_of(data: Data, split: str = "val", count: int = PROBLEMS) -> list[Problem]:
    """The first problems of a split, at least one.

    Raises:
        GPTZooError: The data has none.
    """
    found = data.problems(split, count)
    if not found:
        name = type(data).__name__
        raise GPTZooError(
            f"data {name} has no problems to solve. Ask for none, or use data that has, as algebra.", "data"
        )
    return found


def is_right(text: str, answer: str) -> bool:
    """Whether a continuation is the answer. Of several lines the last one counts: the others are the way there."""
    if "\n" in answer and "\n" in text:
        return text.rpartition("\n")[2] == answer.rpartition("\n")[2]
    return text == answer


def _answered(written: Generated, answer: str, tokenizer: Tokenizer) -> str:
    """What counts of a continuation: all up to the end token, or as much as was asked where there is none."""
    if tokenizer.end is not None:
        return written.text
    return tokenizer.decode(written.tokens[: len(tokenizer.encode(answer))])


def _groups(
    problems: Sequence[Problem], tokenizer: Tokenizer, limit: int | None, batch_size: int
) -> Iterator[tuple[list[Problem], int]]:
    """Problems to solve together, with the tokens that their answers take, an end included where it fits.

    Prompts of like length stand together, and no answer has less room because of a longer prompt beside it.
    """
    measured = sorted(
        (max(1, len(tokenizer.encode(prompt))), len(tokenizer.encode(answer)), index)
        for index, (prompt, answer) in enumerate(problems)
    )
    group: list[Problem] = []
    longest = most = 0
    for prompt, answer, index in measured:
        crowded = limit is not None and prompt + max(most, answer) > limit
        if group and (crowded or len(group) == batch_size):
            yield group, _room(most + 1, longest, limit)
            group, most = [], 0
        group.append(problems[index])
        longest, most = prompt, max(most, answer)
    if group:
        yield group, _room(most + 1, longest, limit)


def _room(tokens: int, prompt: int, limit: int | None) -> int:
    return tokens if limit is None else min(tokens, max(0, limit - prompt))
