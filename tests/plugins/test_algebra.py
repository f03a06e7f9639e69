"""Algebra: every row true, none twice, the held-out pairs never trained on, and rows that keep examples whole."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo.building import build_data, build_tokenizer, plan
from gptzoo_plugins.algebra import Algebra, Share, Table, answer, hinted, reasoning
from gptzoo_plugins.char import Char

operands = st.one_of(st.integers(-20, 20), st.integers(-100_000, 100_000))
operations: st.SearchStrategy[Any] = st.sampled_from(["+", "-"])


class Arithmetic:
    """Reads integers, +, - (also as a sign) and parentheses: an evaluator of our own."""

    def __init__(self, text: str) -> None:
        self.rest = re.findall(r"\d+|[-+()]", text)
        assert "".join(self.rest) == text.replace(" ", ""), text

    def value(self) -> int:
        total = self.term()
        while self.rest and self.rest[0] in "+-":
            total += self.term() if self.rest.pop(0) == "+" else -self.term()
        return total

    def term(self) -> int:
        first = self.rest.pop(0)
        if first == "-":
            return -self.term()
        if first == "(":
            inside = self.value()
            assert self.rest.pop(0) == ")"
            return inside
        return int(first)


def evaluated(text: str) -> int:
    arithmetic = Arithmetic(text)
    value = arithmetic.value()
    assert not arithmetic.rest, text
    return value


def small(rows: int = 2000, **options: Any) -> Algebra:
    options = {"operations": ("+",), "low": 0, "high": 99, "held_out": 0.1, "context_length": 32, **options}
    return Algebra(gptzoo.Byte(), options.pop("context_length"), rows=rows, **options)


def instructions(data: Algebra, split: str) -> list[str]:
    return [prompt for prompt, _ in data.read_examples(split)]


# the rows


@settings(deadline=None, max_examples=300)
@given(operands, operations, operands)
def test_every_line_of_reasoning_is_true_and_the_last_one_is_the_answer(a: int, operation: Any, b: int) -> None:
    lines = reasoning(a, operation, b).split("\n")
    for line in lines:
        left, right = line.split(" = ")
        assert evaluated(left) == evaluated(right), line
    value = a + b if operation == "+" else a - b
    assert lines[-1] == f"{a} {operation} {b} = {value}"
    assert answer(a, operation, b, "plain") == str(value)
    assert answer(a, operation, b, "reasoning") == "\n".join([*lines, str(value)])


def test_reasoning_reads_as_a_human_would_write_it() -> None:
    assert reasoning(-205, "-", 157).split("\n") == [
        "-205 - 157 = -(205 + 157)",
        "5 + 7 = 12",
        "0 + 5 + 1 = 6",
        "2 + 1 = 3",
        "205 + 157 = 362",
        "-205 - 157 = -362",
    ]
    assert reasoning(12, "-", 100).split("\n") == [
        "12 - 100 = -(100 - 12)",
        "10 - 2 = 8",
        "10 - 1 - 1 = 8",
        "1 - 0 - 1 = 0",
        "100 - 12 = 88",
        "12 - 100 = -88",
    ]
    assert reasoning(3, "+", 4) == "3 + 4 = 7"


def test_a_reversed_answer_has_its_sign_last() -> None:
    assert answer(-205, "-", 157, "reversed") == "263-"
    assert answer(600, "+", 12, "reversed") == "216"


def test_each_quarter_has_its_share_and_no_problem_comes_twice() -> None:
    table = Table(rows=40_002)
    problems = [*table.problems("train"), *table.problems("test")]
    assert len(set(problems)) == len(problems) == 40_002
    narrow = [0 <= a <= 1000 and 0 <= b <= 1000 for a, _, b in problems]
    quarters = Counter(zip((operation for _, operation, _ in problems), narrow, strict=True))
    assert quarters == {("+", True): 10_001, ("-", True): 10_001, ("+", False): 10_000, ("-", False): 10_000}
    largest = [max(abs(a), abs(b)) for a, _, b in problems]
    assert 99_000 < max(largest) <= 100_000
    assert {operation for a, operation, b in problems if a < 0 < b} == {"+", "-"}


def test_the_full_set_has_a_million_rows_in_quarters() -> None:
    assert [(str(share), count) for share, count in Table().shares] == [
        ("a + b with operands in [0, 1,000]", 250_000),
        ("a - b with operands in [0, 1,000]", 250_000),
        ("a + b with operands in [-100,000, 100,000], not both in [0, 1,000]", 250_000),
        ("a - b with operands in [-100,000, 100,000], not both in [0, 1,000]", 250_000),
    ]


def test_a_small_range_can_be_used_up() -> None:
    share = Share("+", -3, 6, without=(0, 1))
    pairs = set(map(tuple, share.pairs(share.size, 0).tolist()))
    assert pairs == {(a, b) for a in range(-3, 7) for b in range(-3, 7) if not {a, b} <= {0, 1}}


@settings(deadline=None)
@given(st.integers(2, 300), st.floats(0.05, 0.9), st.integers(0, 3))
def test_held_out_rows_are_exactly_as_many_and_mirrored_sums_stay_together(
    rows: int, held_out: float, seed: int
) -> None:
    if not 0 < round(rows * held_out) < rows:
        return
    table = Table(rows, ("+", "-"), 0, 20, held_out, seed)
    train, test = set(table.problems("train")), set(table.problems("test"))
    assert (len(test), len(train)) == (table.count("test"), table.count("train"))
    assert abs(len(test) - round(rows * held_out)) == 0
    mirrored = {(b, operation, a) for a, operation, b in test if operation == "+"}
    assert not train & (test | mirrored)


def test_what_is_held_out_depends_on_the_operands_and_not_on_the_training() -> None:
    assert instructions(small(), "val") == instructions(small(format="reversed"), "val")
    first, second = (set(instructions(small(rows=10_000, generator_seed=seed), "val")) for seed in (0, 1))
    assert first == second  # all pairs, drawn in another order
    data = small()
    assert torch.equal(data.batch("val", 0, 0, 4).tokens, data.batch("val", 1, 0, 4).tokens)


def test_rows_are_the_same_on_every_machine() -> None:
    assert list(Table(rows=8, low=-9, high=9, held_out=0.5).problems("test")) == [
        (0, "-", 6),
        (-9, "+", 7),
        (-7, "+", 8),
        (-8, "+", -1),
    ]
    assert list(Table(rows=100).problems("train"))[:2] == [(459, "+", 986), (15857, "-", -77235)]


# longer operands, and hints


def digits(problem: tuple[int, Any, int]) -> int:
    return max(len(str(problem[0])), len(str(problem[2])))


def test_validation_can_ask_longer_operands_than_training() -> None:
    table = Table(3000, ("+", "-"), held_out=0.2, train_digits=3, val_digits=(4, 6))
    train, val = (Counter(map(digits, table.problems(split))) for split in ("train", "val"))
    assert train == {1: 200, 2: 1100, 3: 1100}  # all of one digit, and the rest evenly
    assert val == {4: 200, 5: 200, 6: 200}
    problems = [*table.problems("train"), *table.problems("val")]
    assert len(set(problems)) == 3000
    assert min(min(a, b) for a, _, b in problems) == 0
    assert Counter(operation for _, operation, _ in problems) == {"+": 1500, "-": 1500}


def without_letters(text: str, letters: str) -> str:
    """The text without its hints, each of which must stand for its place."""
    for number in re.findall(r"[a-z0-9]+", text):
        places = number[0::2][::-1]
        assert letters.startswith(places), text
        assert number[1::2].isdigit()
    return re.sub("[a-z]", "", text)


@settings(deadline=None)
@given(operands, operations, operands)
def test_hints_name_the_places_and_change_nothing_else(a: int, operation: Any, b: int) -> None:
    prompt, text = hinted(a, operation, b, "plain")
    _, backwards = hinted(a, operation, b, "reversed")
    first = min(re.findall("[a-z]", prompt))
    letters = "abcdefghijklmnopqrstuvwxyz"[ord(first) - ord("a") :]
    assert without_letters(prompt, letters) == f"{a} {operation} {b} = "
    assert without_letters(text, letters) == answer(a, operation, b, "plain")
    assert re.sub("[a-z]", "", backwards) == answer(a, operation, b, "reversed")
    assert re.findall("[a-z][0-9]", backwards)[::-1] == re.findall("[a-z][0-9]", text)


def test_hints_of_short_problems_are_those_of_long_ones_too() -> None:
    options: dict[str, Any] = {"low": None, "high": None, "train_digits": 2, "val_digits": (4, 5)}
    data = small(2000, context_length=64, hints=True, held_out=0.2, **options)
    trained, asked = ("".join(map("".join, data.read_examples(split))) for split in ("train", "val"))
    assert set(re.findall("[a-z]", asked)) <= set(re.findall("[a-z]", trained))
    assert hinted(12, "+", 9, "reversed") == ("n1m2 + m9 = ", "m1n2")


# batches


def documents(batch: gptzoo.Batch) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of each document, in order."""
    found = []
    for tokens, targets, pos, doc in zip(batch.tokens, batch.targets, batch.pos, batch.doc, strict=True):
        for number in range(int(doc.max()) + 1):
            at = doc == number
            assert pos[at].tolist() == list(range(int(at.sum())))
            found.append((tokens[at].tolist(), targets[at].tolist()))
        assert doc[doc >= 0].tolist() == sorted(doc[doc >= 0].tolist())
        empty = doc < 0
        assert bool((targets[empty] == -100).all())
        assert not (pos[empty] + tokens[empty]).any()
    return found


@pytest.mark.parametrize("style", ["plain", "reversed", "reasoning"])
def test_an_epoch_holds_every_example_whole_and_once(style: Any) -> None:
    data = small(300, format=style, context_length=96, loss_on="all")
    examples = {prompt + text for prompt, text in data.read_examples("train")}
    seen: Counter[str] = Counter()
    for step in range(-(-data.sequences("train") // 4)):
        rows = min(4, data.sequences("train") - 4 * step)
        for tokens, targets in documents(data.batch("train", 0, step, 4).rows(0, rows)):
            assert targets[:-1] == tokens[1:]
            assert targets[-1] == gptzoo.Byte.end
            seen[bytes(tokens).decode()] += 1
    assert seen == Counter(examples)


def test_loss_on_answers_leaves_out_the_prompt() -> None:
    data = small(format="reversed", loss_on="answer")
    answers = dict(data.read_examples("train"))
    for tokens, targets in documents(data.batch("train", 3, 5, 8)):
        prompt = bytes(tokens).decode().partition("= ")[0] + "= "
        expected = [*answers[prompt].encode(), gptzoo.Byte.end]
        assert targets == [-100] * (len(prompt) - 1) + expected


def test_rows_are_filled_as_far_as_whole_examples_go() -> None:
    data = small()
    empty = (data.batch("train", 0, 0, 100).doc < 0).sum(1)
    assert int(empty.max()) < 12
    assert float(empty.float().mean()) < 8


def test_a_batch_is_a_pure_function_of_its_arguments() -> None:
    one, other = small(), small()
    other.batch("train", 1, 400, 4)
    for step in (0, 1, 300):
        assert torch.equal(one.batch("train", 0, step, 4).tokens, other.batch("train", 0, step, 4).tokens)
    assert not torch.equal(one.batch("train", 0, 0, 4).tokens, one.batch("train", 1, 0, 4).tokens)


def test_epochs_take_all_rows_in_other_orders() -> None:
    data = small(300)
    rows = data.sequences("train")
    first, second = (data.batch("train", 0, epoch, rows).tokens for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())
    across = torch.cat([data.batch("train", 0, step, 7).tokens for step in range(rows)])
    assert torch.equal(across[: 2 * rows], torch.cat([first, second]))


def test_validation_ends_with_its_last_row() -> None:
    data = small()
    rows = data.sequences("val")
    together = torch.cat([data.batch("val", 0, step, 7).tokens for step in range(-(-rows // 7))])
    assert len(together) == rows
    assert torch.equal(together, data.batch("val", 0, 0, rows).tokens)


def test_the_key_follows_the_content_and_not_the_length_of_rows() -> None:
    assert small().key == small(context_length=64).key
    others: tuple[dict[str, Any], ...] = (
        {},
        {"format": "reversed"},
        {"loss_on": "all"},
        {"held_out": 0.2},
        {"generator_seed": 1},
        {"rows": 1999},
        {"hints": True},
        {"low": None, "high": None, "train_digits": 2, "val_digits": (3, 3)},
        {"low": None, "high": None, "train_digits": 2, "val_digits": (3, 4)},
    )
    assert len({small(**other).key for other in others}) == len(others)


def test_characters_are_learned_from_all_examples() -> None:
    char = Char()
    data = Algebra(char, 32, rows=100, low=0, high=99, operations=("-",))
    assert char.vocab_size == len("0123456789+-= ")  # no plus here, but an end
    assert int(data.batch("train", 0, 0, 4).tokens.max()) < char.vocab_size


def test_problems_are_the_first_examples_of_a_split() -> None:
    data = small(format="reversed")
    assert data.problems("val", 3) == list(data.read_examples("val"))[:3]
    assert len(data.problems("val", 10_000)) == data.table.count("val")


def test_examples_in_a_row_do_not_see_each_other() -> None:
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 32}
    model = gptzoo.build({"model": sizes, "data": {"name": "algebra", "rows": 100, "tokenizer": "byte"}})
    batch = small().batch("train", 0, 0, 1)
    with torch.no_grad():
        together = model(batch.tokens, batch.pos, batch.doc)[0]
        for number in range(int(batch.doc.max()) + 1):
            at = batch.doc[0] == number
            torch.testing.assert_close(together[at], model(batch.tokens[:, at])[0], rtol=1e-4, atol=1e-5)


# what is refused


class Endless(gptzoo.Byte):
    """Bytes without an end."""

    end = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rows": 10_001},
            "data.rows: a + b with operands in [0, 99] has 10000 pairs, not 10001. "
            "Ask for fewer rows, or a wider range.",
        ),
        ({"rows": 0}, "data.rows: 0 is not between 1 and 10,000,000."),
        (
            {"held_out": 0.0},
            "data.held_out: 0.0 of 2000 rows leaves training or validation without any. "
            "Choose a share between 0 and 1, or more rows.",
        ),
        ({"high": None}, "data.low: low and high go together. Give both or neither."),
        (
            {"high": -1},
            "data.low: 0 to -1 is no range of operands within -1,000,000,000 and 1,000,000,000.",
        ),
        (
            {"low": None, "high": None, "train_digits": 3},
            "data.val_digits: train_digits and val_digits go together. Give both or neither.",
        ),
        (
            {"train_digits": 3, "val_digits": (4, 6)},
            "data.low: low and train_digits each give a range. Leave one out.",
        ),
        (
            {"low": None, "high": None, "train_digits": 3, "val_digits": (3, 6)},
            "data.val_digits: 3 digits, then 3 to 6, is not a rising order within 1 and 9.",
        ),
        (
            {"low": None, "high": None, "train_digits": 1, "val_digits": (2, 2)},
            "data.rows: a + b with operands in [0, 9] has 100 pairs, not 1800. Ask for fewer rows, or a wider range.",
        ),
        (
            {"format": "reasoning", "hints": True},
            "data.hints: there are no hints in reasoning. Choose plain or reversed.",
        ),
        ({"operations": ()}, "data.operations: name + or - or both, each once."),
        ({"operations": ("+", "+")}, "data.operations: name + or - or both, each once."),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        small(**options)
    assert str(refused.value) == message


def test_a_row_too_short_for_an_example_is_refused_naming_it() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Algebra(gptzoo.Byte(), 12, rows=4, operations=("+",), low=100, high=101, held_out=0.5)
    assert re.fullmatch(
        r"model.context_length: 12 is too short for '10\d \+ 10\d = 20\d'\. Give at least 15\.", str(refused.value)
    )


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        Algebra(Endless(), 32, rows=100)
    assert str(refused.value) == (
        "data.tokenizer: tokenizer Endless has no end token, and answers must end. Use byte, char, bpe or gpt2."
    )


def test_operands_are_spread_evenly() -> None:
    pairs = Share("-", -100_000, 100_000).pairs(20_000, 0)
    counts, _ = np.histogram(pairs[:, 0], bins=10)
    assert abs(counts - 2000).max() < 200


def test_the_shipped_recipe_gives_sums_of_three_digits() -> None:
    made = plan("algebra-tiny")
    data = build_data(made, build_tokenizer(made))
    prompt, text = data.problems("val", 1)[0]
    a, plus, b, equals = prompt.split()
    assert (len(a), plus, len(b), equals) == (3, "+", 3, "=")
    assert int(text[::-1]) == int(a) + int(b)
    assert len(data.problems("val", 10_000)) == 2000
