"""Questions with several answers, of which the model is to find one the likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptzoo.errors import GPTZooError
from gptzoo.model import Model
from gptzoo.scoring import log_likelihoods


@dataclass(frozen=True)
class Question:
    """A prompt and the texts that might follow it.

    Args:
        prompt: What stands before; empty stands for the end token.
        choices: At least two, none of them empty.
        answer: The index of the right one.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Choices:
    """How often the right choice was the likeliest.

    Args:
        accuracy: By the log-likelihood of the whole choice, which favours short ones.
        accuracy_per_token: By that per token.
        accuracy_per_byte: By that per UTF-8 byte, which compares tokenizers.
        questions: How many there were.
    """

    accuracy: float
    accuracy_per_token: float
    accuracy_per_byte: float
    questions: int


def multiple_choice(
    model: Model, questions: Sequence[Question], *, batch_size: int = 8, precision: str = "fp32"
) -> Choices:
    """Answer questions by the likelihood of their choices. Prompt and choice are tokenized apart, as in generation.

    Raises:
        GPTZooError: There are no questions, one is malformed or does not fit the model, or there is no tokenizer.
    """
    if model.tokenizer is None:
        raise GPTZooError("this model has no tokenizer, and questions are text. Set model.tokenizer.")
    if not questions:
        raise GPTZooError("there are no questions.")
    for number, question in enumerate(questions, start=1):
        _check(question, f"question {number}")
    encode, end = model.tokenizer.encode, model.tokenizer.end
    first = [] if end is None else [end]
    pairs = [(encode(q.prompt) or first, encode(choice)) for q in questions for choice in q.choices]
    likelihoods = iter(log_likelihoods(model, pairs, batch_size=batch_size, precision=precision))
    right = [0, 0, 0]
    for question in questions:
        own = [next(likelihoods) for _ in question.choices]
        sizes = [len(choice.encode()) for choice in question.choices]
        whole = [each.logprob for each in own]
        per_token = [each.logprob / each.tokens for each in own]
        per_byte = [each.logprob / size for each, size in zip(own, sizes, strict=True)]
        for way, ranked in enumerate((whole, per_token, per_byte)):
            right[way] += ranked.index(max(ranked)) == question.answer
    return Choices(*(each / len(questions) for each in right), questions=len(questions))


def _check(question: Question, place: str) -> None:
    if len(question.choices) < 2 or not all(isinstance(each, str) and each for each in question.choices):
        raise GPTZooError("it needs two choices or more, each a text that is not empty.", place)
    if not 0 <= question.answer < len(question.choices):
        raise GPTZooError(f"its answer {question.answer} is no index of its {len(question.choices)} choices.", place)
