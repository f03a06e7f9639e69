"""Likelihoods of given texts and losses by windows, against one plain forward per token."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import gptzoo
from gptzoo.curves import by_position
from gptzoo.errors import GPTZooError
from gptzoo.evaluation import evaluate
from gptzoo.multiple_choice import Question, multiple_choice
from gptzoo.scoring import log_likelihoods, rolling, rolling_scores, spans_of

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 12}


def gpt(**parts: object) -> gptzoo.Model:
    model = gptzoo.build({"model": SIZES | {"init": {"name": "gpt2", "std": 0.5}}}, overrides=parts).double()
    model.tokenizer = gptzoo.Byte()
    return model


MODEL, ROPE = gpt(), gpt(**{"model.position": "rope"})


def logprobs(model: gptzoo.Model, tokens: list[int]) -> torch.Tensor:
    """float64 (V,): what comes after these tokens."""
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens]))[0, -1].log_softmax(-1)


text = st.lists(st.integers(0, 256), min_size=1, max_size=6)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=5), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_a_likelihood_is_that_of_plain_forwards_token_by_token(
    pairs: list[tuple[list[int], list[int]]], size: int
) -> None:
    for (context, continuation), found in zip(pairs, log_likelihoods(MODEL, pairs, batch_size=size), strict=True):
        steps = [logprobs(MODEL, context + continuation[:count]) for count in range(len(continuation))]
        expected = sum(float(step[token]) for step, token in zip(steps, continuation, strict=True))
        assert found.logprob == pytest.approx(expected, rel=1e-10)
        assert found.greedy == all(int(step.argmax()) == t for step, t in zip(steps, continuation, strict=True))
        assert found.tokens == len(continuation)


def test_what_greedy_decoding_writes_is_called_greedy() -> None:
    (done,) = gptzoo.generate(MODEL, [[5, 6]], tokens=6, greedy=True, stop_at_end=False, logprobs=0)
    (found,) = log_likelihoods(MODEL, [([5, 6], done.tokens)])
    assert found.greedy
    assert done.logprobs is not None
    assert found.logprob == pytest.approx(sum(done.logprobs), rel=1e-10)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [1]), "text 1 of 1: its context is empty. Begin with the end token."),
        (
            ([1] * 9, [2] * 5),
            "text 1 of 1: its 13 tokens do not fit: the model's positions end at 12 (context_length). Shorten it.",
        ),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused(pair: tuple[list[int], list[int]], message: str) -> None:
    with pytest.raises(GPTZooError) as refusal:
        log_likelihoods(MODEL, [pair])
    assert str(refusal.value) == message


@given(st.integers(0, 60), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_windows_score_each_token_once_with_the_context_that_is_promised(
    length: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    scored = [place for start, stop, first in spans_of(length, window, stride) for place in range(first, stop)]
    assert scored == list(range(length - 1))
    for start, stop, first in spans_of(length, window, stride):
        assert start <= first < stop <= start + window
        assert first - start >= min(first, window - stride)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_rolling_losses_are_those_of_plain_forwards(length: int, stride: int, batch_size: int) -> None:
    tokens = torch.randint(257, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    losses = rolling(MODEL, tokens, window=12, stride=stride, batch_size=batch_size)
    for start, stop, first in spans_of(length, 12, stride):
        for place in range(first, stop):
            expected = -float(logprobs(MODEL, tokens[start : place + 1])[tokens[place + 1]])
            assert losses[place] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("stride", [0, 13])
def test_a_stride_beyond_the_window_is_refused(stride: int) -> None:
    with pytest.raises(GPTZooError) as refusal:
        rolling(MODEL, [1, 2, 3], window=12, stride=stride)
    assert str(refusal.value) == f"--stride: {stride} is not from 1 to 12, the tokens in a window."


class Numbers(gptzoo.TokenStream):
    """Some numbers as text."""

    def read_documents(self):  # type: ignore[no-untyped-def]
        yield " ".join(str(n * n) for n in range(150))


def test_a_stride_of_the_whole_window_is_plain_evaluation() -> None:
    data = Numbers(gptzoo.Byte(), 12)
    plain, windows = evaluate(MODEL, data), rolling_scores(MODEL, data, stride=12, sequences=data.sequences("val"))
    assert windows.tokens == plain.tokens
    assert windows.loss == pytest.approx(plain.loss, rel=1e-12)
    assert windows.bits_per_byte == pytest.approx(plain.bits_per_byte, rel=1e-12)


def test_data_whose_rows_do_not_follow_one_another_have_no_stride() -> None:
    with pytest.raises(GPTZooError) as refusal:
        rolling_scores(MODEL, Numbers(gptzoo.Byte(), 12, documents=True), stride=4)
    assert str(refusal.value) == "--stride: the rows of data Numbers do not follow one another. Leave it out."


# The curve over positions


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("length", [5, 12, 40])
def test_a_curve_is_the_mean_loss_at_each_position(length: int, documents: bool) -> None:
    data = Numbers(gptzoo.Byte(), length, documents=documents, val_fraction=0.5)
    curve = by_position(ROPE, data, batch_size=3)
    batch = data.batch("val", 0, 0, data.sequences("val"))
    with torch.no_grad():
        losses = -ROPE.eval()(batch.tokens, batch.pos, batch.doc).log_softmax(-1)
    for position in range(length):
        own = [
            float(losses[row, place, batch.targets[row, place]])
            for row, place in ((batch.pos == position) & (batch.targets != -100)).nonzero().tolist()
        ]
        assert curve.targets[position] == len(own)
        assert curve.losses[position] == (pytest.approx(np.mean(own), rel=1e-10) if own else None)
    total = evaluate(ROPE, data)
    assert curve.mean(0, length) == pytest.approx(total.loss, rel=1e-10)


def test_spans_cover_the_curve_and_break_where_training_ended() -> None:
    curve = by_position(ROPE, Numbers(gptzoo.Byte(), 40), sequences=1)
    assert list(curve.spans()) == [(0, 8), (8, 12), (12, 16), (16, 24), (24, 32), (32, 40)]
    assert curve.trained == 12


def test_learned_positions_end_where_they_end() -> None:
    with pytest.raises(GPTZooError) as refusal:
        by_position(MODEL, Numbers(gptzoo.Byte(), 13))
    assert str(refusal.value) == (
        "rows of 13 tokens do not fit the model, whose positions end at 12 (context_length). "
        "Use data with a context_length of at most 12."
    )


# Multiple choice


def test_the_likeliest_choice_counts_as_a_whole_per_token_and_per_byte() -> None:
    questions = [Question("ab", ("c", "defg", "é"), answer) for answer in range(3)] + [Question("", ("x", "yz"), 0)]
    found = multiple_choice(MODEL, questions, batch_size=2)
    right = [0, 0, 0]
    for question in questions:
        context = list(question.prompt.encode()) or [256]
        totals, tokens = [], []
        for choice in question.choices:
            spelled = list(choice.encode())
            steps = [float(logprobs(MODEL, context + spelled[:n])[spelled[n]]) for n in range(len(spelled))]
            totals.append(sum(steps))
            tokens.append(len(spelled))
        ways = (totals, *([t / n for t, n in zip(totals, tokens, strict=True)],) * 2)  # a byte is a token here
        right = [r + (int(np.argmax(way)) == question.answer) for r, way in zip(right, ways, strict=True)]
    assert [found.accuracy, found.accuracy_per_token, found.accuracy_per_byte] == [r / 4 for r in right]
    assert found.questions == 4


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("a", ("b",), 0), "question 1: it needs two choices or more, each a text that is not empty."),
        (Question("a", ("b", ""), 0), "question 1: it needs two choices or more, each a text that is not empty."),
        (Question("a", ("b", "c"), 2), "question 1: its answer 2 is no index of its 2 choices."),
    ],
)
def test_a_malformed_question_is_refused(question: Question, message: str) -> None:
    with pytest.raises(GPTZooError) as refusal:
        multiple_choice(MODEL, [question])
    assert str(refusal.value) == message
