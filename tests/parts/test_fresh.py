"""Examples of several questions, and examples without end: what is asked, what is held out, what is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations, product
from math import factorial
from typing import Any

import numpy as np
import pytest
import torch

import gptzoo
from gptzoo.generation import Generated
from gptzoo_plugins.symbols import Symbols

SEVERAL = [("1 2 ", "3", " 4 ", "5", " 6"), ("7 ", "8"), ("1 ", "2", " ", "3", " ", "4 5")]


class Several(gptzoo.Examples):
    """A few examples, of which some ask several times."""

    needs_end = False

    def __init__(self, tokenizer: gptzoo.Tokenizer, context_length: int, loss_on: gptzoo.LossOn = "answer") -> None:
        super().__init__(tokenizer, context_length, loss_on)
        self.pack()

    def read_examples(self, split: str) -> Iterator[gptzoo.Example]:
        return iter(SEVERAL)


class Letters(gptzoo.FreshExamples):
    """Letters to write in capitals."""

    def __init__(self, tokenizer: gptzoo.Tokenizer, context_length: int = 16, letters: int = 2, **options: Any) -> None:
        super().__init__(tokenizer, context_length, **{"val_examples": 4, **options})
        self.letters = letters
        self.pack()

    @property
    def alphabet(self) -> str:
        return "abcdefghABCDEFGH:"

    def draw(self, draws: gptzoo.Draws, split: str) -> gptzoo.Example:
        return self._example(draws.below(8, draws.between(1, self.letters)))

    def longest(self) -> gptzoo.Example:
        return self._example([7] * self.letters)

    def _example(self, letters: list[int]) -> gptzoo.Example:
        word = "".join("abcdefgh"[number] for number in letters)
        return f"{word}:", word.upper()


def questions(data: gptzoo.FreshExamples, seed: int, steps: int) -> Counter[str]:
    """What the first batches of a training ask, read from their tokens."""
    found: Counter[str] = Counter()
    for step in range(steps):
        batch = data.batch("train", seed, step, 4)
        for tokens, pos in zip(batch.tokens.tolist(), batch.pos.tolist(), strict=True):
            starts = [place for place, at in enumerate(pos) if at == 0]
            texts = (bytes(tokens[a:b]).decode() for a, b in zip(starts, [*starts[1:], None], strict=True))
            found.update(text.partition(":")[0] for text in texts if text.strip("\0"))
    return found


# several questions in an example


def test_the_loss_is_on_every_answer_and_on_nothing_else() -> None:
    data = Several(Symbols(), 6)
    assert data.tokenizer.encode("1 2 8") == [0, 1, 7]
    batch = data.batch("val", 0, 0, 3)
    assert batch.tokens.tolist() == [[0, 1, 2, 3, 4, 6], [0, 1, 2, 3, 0, 0]]
    assert batch.targets.tolist() == [[-100, 2, -100, 4, -100, 7], [1, 2, 3, 4, -100, -100]]
    assert batch.doc.tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, -1, -1]]
    assert batch.pos.tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 0, 0]]


def test_the_loss_may_be_on_all() -> None:
    targets = Several(Symbols(), 6, "all").batch("val", 0, 0, 3).targets
    assert targets.tolist() == [[1, 2, 3, 4, 5, 7], [1, 2, 3, 4, -100, -100]]


def test_a_tokenizer_with_an_end_token_ends_every_example() -> None:
    batch = Several(gptzoo.Byte(), 11).batch("val", 0, 0, 1)
    end, none = gptzoo.Byte.end, -100
    assert bytes(batch.tokens[0].tolist()).decode() == "1 2 3 4 5 6"
    assert batch.targets[0].tolist() == [none, none, none, ord("3"), none, none, none, ord("5"), none, none, end]


def test_each_answer_is_asked_in_its_turn() -> None:
    assert Several(Symbols(), 6).problems("val", 3) == [("1 2 ", "3"), ("7 ", "8"), ("1 2 3 ", "4 5")]


def test_only_answers_that_fit_are_asked() -> None:
    assert Several(Symbols(), 5).problems("val", 3)[2] == ("1 2 3 ", "4 5")
    data = Several(Symbols(), 5)
    data.context_length = 4
    assert data.problems("val", 3)[2] == ("1 ", "2")


def test_where_only_the_end_of_an_example_ends_an_answer_the_last_one_is_asked() -> None:
    assert Several(gptzoo.Byte(), 11).problems("val", 3)[0] == ("1 2 3 4 ", "5")


def test_without_an_end_token_as_much_counts_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptzoo.exact_match import exact_match

    data = Several(Symbols(), 6)
    model = gptzoo.build({"model": {"n_layer": 1, "n_head": 1, "n_embd": 8, "context_length": 8}})
    model.tokenizer = data.tokenizer

    def writes(model: gptzoo.Model, prompts: list[str], **options: Any) -> list[Generated]:
        known = {"1 2 ": (2, 7, 7), "7 ": (6, 7), "1 2 3 ": (3, 4, 0)}  # right, wrong, right, and each goes on
        return [Generated(prompt, data.tokenizer.decode(known[prompt]), known[prompt]) for prompt in prompts]

    monkeypatch.setattr("gptzoo.exact_match.generate", writes)
    assert exact_match(model, data) == 2 / 3


# held out


def test_training_never_asks_what_validation_asks() -> None:
    data = Letters(gptzoo.Byte(), held_out=0.3)
    asked = {prompt[:-1] for prompt, _ in data.problems("val", 100)}
    assert len(asked) == 4
    trained = set(questions(data, 0, 100)) | set(questions(data, 1, 100))
    assert not trained & asked
    words = {a + b for a in "abcdefgh" for b in ("", *"abcdefgh")}
    held_out = {word for word in words if data.is_held_out((f"{word}:", word.upper()))}
    assert asked <= held_out
    assert trained == words - held_out  # all the rest was seen, so that the test cannot pass by chance
    assert 0.1 < len(held_out) / len(words) < 0.5


def test_what_is_held_out_is_the_same_everywhere() -> None:
    assert [prompt for prompt, _ in Letters(gptzoo.Byte()).problems("val", 4)] == ["fb:", "bd:", "ee:", "bh:"]


def test_validation_depends_on_the_data_alone() -> None:
    data = Letters(gptzoo.Byte())
    one, other = data.batch("val", 0, 0, 1), Letters(gptzoo.Byte()).batch("val", 5, 0, 1)
    assert torch.equal(one.tokens, other.tokens)
    assert len(set(data.problems("val", 9))) == 4


# drawn


def test_a_batch_is_a_pure_function_of_its_arguments() -> None:
    one, other = Letters(gptzoo.Byte()), Letters(gptzoo.Byte())
    other.batch("train", 1, 400, 4)
    for step in (0, 1, 300):
        first, second = one.batch("train", 0, step, 4), other.batch("train", 0, step, 4)
        assert torch.equal(first.tokens, second.tokens)
        assert torch.equal(first.targets, second.targets)
    tokens = [one.batch("train", seed, step, 4).tokens for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens[0], tokens[2])


def test_rows_are_the_same_however_many_are_taken_at_a_time() -> None:
    data = Letters(gptzoo.Byte())
    whole = data.batch("train", 3, 0, 150)
    for size in (1, 7, 64, 65):
        parts = [data.batch("train", 3, step, size) for step in range(-(-150 // size))]
        for name in ("tokens", "targets", "pos", "doc"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts])[:150], getattr(whole, name))


def test_long_examples_are_as_frequent_as_short_ones() -> None:
    data = Letters(gptzoo.Byte(), letters=3)  # words of one letter take 3 places, of three letters 7; rows have 16
    lengths: Counter[int] = Counter()
    for word, number in questions(data, 0, 1500).items():
        lengths[len(word)] += number
    total = sum(lengths.values())
    left = {}  # the share of words of a length that are not held out, by counting
    for length in (1, 2, 3):
        words = ["".join(letters) for letters in product("abcdefgh", repeat=length)]
        left[length] = sum(not data.is_held_out((f"{word}:", "")) for word in words) / len(words)
    for length in left:
        assert abs(lengths[length] / total - left[length] / sum(left.values())) < 0.02


def test_rows_are_filled_as_far_as_whole_examples_go() -> None:
    data = Letters(gptzoo.Byte(), context_length=16)
    for step in range(30):
        batch = data.batch("train", 0, step, 3)
        assert batch.tokens.shape == (3, 16)
        assert int((batch.doc < 0).sum(1).max()) < 5  # the longest takes five places


def test_the_key_follows_the_content() -> None:
    assert Letters(gptzoo.Byte()).key == Letters(gptzoo.Byte(), context_length=32).key
    others: list[dict[str, Any]] = [{}, {"letters": 3}, {"held_out": 0.2}, {"val_examples": 3}, {"loss_on": "all"}]
    assert len({Letters(gptzoo.Byte(), **each).key for each in others}) == len(others)


def test_evaluating_on_training_examples_looks_at_as_many_rows_as_validation() -> None:
    data = Letters(gptzoo.Byte())
    assert data.sequences("train") == data.sequences("val") == 2


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Letters(gptzoo.Byte(), letters=1, held_out=0.3)
    assert str(refused.value) == (
        "data.val_examples: only 3 different questions are held out, not 4. "
        "Ask for fewer, or allow longer or more varied questions."
    )


def test_nothing_left_to_train_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Letters(gptzoo.Byte(), letters=1, held_out=0.5, val_examples=1)
    monkeypatch.setattr(data, "is_held_out", lambda example: True)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        next(data.read_examples("train"))
    assert str(refused.value) == (
        "data.held_out: nothing is left for training. Lower it, or allow more different questions."
    )


def test_an_example_that_can_be_too_long_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Letters(gptzoo.Byte(), letters=9, context_length=18)
    assert str(refused.value) == "model.context_length: 18 is too short for 'hhhhhhhhh:HHHHHHHHH'. Give at least 19."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 0.0}, "held_out must be above 0 and below 1, not 0.0"),
        ({"held_out": 1.0}, "held_out must be above 0 and below 1, not 1.0"),
        ({"val_examples": 0}, "val_examples must be at least 1, not 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Letters(gptzoo.Byte(), **options)


# chance


def test_draws_are_the_same_on_every_machine() -> None:
    draws = gptzoo.Draws("a purpose", 3)
    assert draws.below(100, 6) == [31, 70, 9, 63, 72, 45]
    assert draws.distinct(10, 10) == [2, 7, 6, 0, 3, 5, 4, 1, 8, 9]
    assert draws.between(5, 5) == 5
    assert draws.weighted(np.arange(1.0, 6.0), 5) == [3, 2, 4, 1, 0]


def test_every_order_is_as_likely_as_any_other() -> None:
    draws, total = gptzoo.Draws("orders"), 24_000
    for count in (4, 2):
        seen = Counter(tuple(draws.distinct(4, count)) for _ in range(total))
        possible = list(permutations(range(4), count))
        expected = total / len(possible)
        assert set(seen) == set(possible)
        assert len(possible) == factorial(4) // factorial(4 - count)
        assert max(abs(number - expected) for number in seen.values()) < 5 * expected**0.5


def test_weighted_numbers_come_one_after_the_other_in_proportion() -> None:
    draws, total = gptzoo.Draws("weights"), 20_000
    weights = np.array([1.0, 2.0, 5.0])
    seen = Counter(tuple(draws.weighted(weights, 2)) for _ in range(total))
    for first, second in permutations(range(3), 2):
        share = weights[first] / 8 * weights[second] / (8 - weights[first])
        assert abs(seen[first, second] - total * share) < 5 * (total * share) ** 0.5
