"""Synthetic tasks: every example is true by a slow reference, and what is held out is never trained on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import gptzoo
from gptzoo.ablation.plan import read_plan
from gptzoo.ablation.planning import plan_cells
from gptzoo.building import build_data, build_tokenizer, plan
from gptzoo.cli import run
from gptzoo.loading import load_plugins
from gptzoo_plugins.symbols import Symbols

TASKS = ("copy", "reverse", "sort", "parity", "induction", "mqar", "selective_copy", "adder", "modular")


ZOO = load_plugins().zoo


def task(name: str, context_length: int = 64, tokenizer: str = "symbols", **options: Any) -> Any:
    made = ZOO.get("tokenizer", "byte" if name == "adder" else tokenizer).factory()
    few = {} if name == "modular" else {"val_examples": 50}  # modular takes all pairs there are
    return ZOO.get("data", name).factory(made, context_length, **{**few, **options})


def small(name: str, **options: Any) -> Any:
    """Under the options by which the task stands for itself in the laws."""
    return task(name, **{**small_options(name), **options})


def small_options(name: str) -> dict[str, Any]:
    few = {} if name == "modular" else {"val_examples": 5}
    return {**few, **ZOO.get("data", name).examples[0]}


def texts(data: Any, split: str = "train", count: int = 200) -> list[str]:
    return ["".join(example) for example in islice(data.read_examples(split), count)]


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


# each task against its own words


def is_copy(question: list[int], answer: list[int]) -> bool:
    return all(answer[place] == symbol for place, symbol in enumerate(question))


def is_reverse(question: list[int], answer: list[int]) -> bool:
    return all(answer[len(question) - 1 - place] == symbol for place, symbol in enumerate(question))


def is_sorted(question: list[int], answer: list[int]) -> bool:
    return Counter(question) == Counter(answer) and all(a <= b for a, b in pairwise(answer))


@pytest.mark.parametrize(("name", "true"), [("copy", is_copy), ("reverse", is_reverse), ("sort", is_sorted)])
def test_sequences_become_what_they_should(name: str, true: Callable[[list[int], list[int]], bool]) -> None:
    for split in ("train", "val"):
        lengths = set()
        for text in texts(task(name, length=(3, 9), symbols=5), split):
            matched = re.fullmatch(r"((?:\d )+)= ((?:\d )+)\.", text)
            assert matched, text
            question, answer = numbers(matched[1]), numbers(matched[2])
            assert len(question) == len(answer)
            assert true(question, answer), text
            assert set(question) <= set(range(5))
            lengths.add(len(question))
        assert lengths == set(range(3, 10))


def test_parity_counts_the_ones() -> None:
    for text in texts(task("parity", length=(1, 12))):
        question, answer = text.removesuffix(" .").split(" = ")
        assert int(answer) == question.count("1") % 2
    for text in texts(task("parity", length=(1, 12), worked_out=True)):
        question, answer = text.removesuffix(" .").split(" = ")
        for place, parity in enumerate(numbers(answer)):
            assert parity == question[: 2 * place + 1].count("1") % 2


def test_longer_sequences_can_be_kept_for_validation() -> None:
    data = task("parity", length=(1, 6), val_length=(8, 10))
    assert {len(text.split(" = ")[0].split()) for text in texts(data)} == set(range(1, 7))
    assert {len(text.split(" = ")[0].split()) for text in texts(data, "val")} == {8, 9, 10}


def test_a_period_goes_round_and_what_is_asked_follows_from_what_was_seen() -> None:
    data = task("induction", 48)
    periods = set()
    for example in islice(data.read_examples("train"), 200):
        row = numbers("".join(example))
        assert len(row) == 49
        period = row.index(row[0], 1)
        periods.add(period)
        assert len(set(row[:period])) == period
        assert numbers(example[0]) == row[: period + 1]
        assert [numbers(piece) for piece in example[1:]] == [
            each for symbol in row[period + 1 :] for each in ([symbol], [])
        ][:-1]
        for place in range(period + 1, 49):
            before = max(at for at in range(place - 1) if row[at] == row[place - 1])
            assert row[place] == row[before + 1]
    assert periods == set(range(10, 21))


@pytest.mark.parametrize("filler", ["noise", "none"])
def test_every_key_is_asked_once_more_for_its_value(filler: str) -> None:
    data = task("mqar", 64, symbols=40, pairs=(3, 16), filler=filler)
    counts = set()
    for example in islice(data.read_examples("train"), 200):
        row = numbers("".join(example))
        assert len(row) == 65
        given, asked = example[::2], numbers(" ".join(example[1::2]))
        pairs = len(asked)
        counts.add(pairs)
        value = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        keys = [numbers(piece)[-1] for piece in given[:pairs]]
        assert Counter(keys) == Counter(value.keys())
        assert [value[key] for key in keys] == asked
        assert set(value) <= set(range(1, 20))
        assert set(value.values()) <= set(range(20, 40))
        assert len(set(value.values())) == pairs
        rest = row[2 * pairs :]
        others = [symbol for symbol in rest if symbol not in value]
        assert len(others) == len(rest) - pairs  # filler is never a key
        assert filler == "noise" or Counter(others) - Counter(asked) <= Counter({0: len(rest)})
    assert counts == set(range(3, 17))


def test_keys_are_rather_asked_soon_unless_evenly() -> None:
    def slots(power: float) -> list[int]:
        """Places in which a single pair is asked, counted in slots from the end of the pair."""
        data = task("mqar", 64, symbols=40, pairs=(1, 1), length=42, power=power)
        return [(len(numbers(example[0])) - 3) // 2 for example in islice(data.read_examples("train"), 4000)]

    even, soon = Counter(slots(1.0)), Counter(slots(0.01))
    assert set(even) == set(range(20))
    assert max(abs(number - 200) for number in even.values()) < 5 * 200**0.5
    weights = [(slot + 1) ** -0.99 for slot in range(20)]
    for slot, weight in enumerate(weights):
        expected = 4000 * weight / sum(weights)
        assert abs(soon[slot] - expected) < 5 * expected**0.5


def test_the_symbols_among_the_blanks_are_said_in_their_order() -> None:
    for text in texts(task("selective_copy", 64, content=5, length=20)):
        question, answer = text.split(" = ")
        assert len(question.split()) == 20
        assert [word for word in question.split() if word != "_"] == answer.split()
        assert len(answer.split()) == 5


@pytest.mark.parametrize("format", ["plain", "reversed"])
@pytest.mark.parametrize("zeros", [True, False])
def test_sums_are_right(format: str, zeros: bool) -> None:
    for text in texts(task("adder", digits=3, format=format, zeros=zeros)):
        a, b, total = re.split(r"[+=]", text)
        assert int(total if format == "plain" else total[::-1]) == int(a) + int(b)
        if zeros:
            assert (len(a), len(b), len(total)) == (3, 3, 4)
        else:
            assert (a, b) == (str(int(a)), str(int(b)))


def test_mirrored_sums_stay_together() -> None:
    data = task("adder", digits=1, held_out=0.3, val_examples=5)
    trained = {tuple(sorted(re.findall(r"\d", text)[:2])) for text in texts(data, count=2000)}
    asked = {tuple(sorted(re.findall(r"\d", prompt))) for prompt, _ in data.problems("val", 100)}
    assert len(asked) == 5
    assert not trained & asked
    assert len(trained) > 25  # of 55


@pytest.mark.parametrize("operation", ["+", "-", "*", "/"])
def test_residues_are_right_and_every_pair_occurs_once(operation: Any) -> None:
    data = task("modular", modulus=11, operation=operation, held_out=0.3)
    pairs: Counter[tuple[int, int]] = Counter()
    for split in ("train", "val"):
        for text in texts(data, split):
            a, b, c = numbers(re.sub(r"[-+*/=]", " ", text))
            assert 0 <= c < 11
            left, right = {"+": (a + b, c), "-": (a, b + c), "*": (a * b, c), "/": (a, b * c)}[operation]
            assert (left - right) % 11 == 0, text
            pairs[a, b] += 1
    divisors = range(1 if operation == "/" else 0, 11)
    assert pairs == Counter((a, b) for a in range(11) for b in divisors)
    assert len(texts(data, "val")) == round(0.3 * len(pairs))


# what holds for all of them


@pytest.mark.parametrize("name", TASKS)
def test_no_question_of_validation_is_ever_trained_on(name: str) -> None:
    data = small(name)
    asked = {example[0] for example in data.read_examples("val")}
    trained = {example[0] for example in islice(data.read_examples("train"), 3000)}
    assert not asked & trained
    if name != "modular":  # the very same draws would ask them, were they not held out
        draws = gptzoo.Draws(0, "data", 0)
        anything = {data.draw(draws, "val")[0] for _ in range(20_000)}
        assert asked & anything


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_holds_examples_with_a_target_for_each_answer(name: str) -> None:
    data = small(name)
    batch = data.batch("train", 0, 0, 4)
    expected = iter(data.read_examples("train"))  # of seed 0 and step 0, but for modular's, which has an order
    for tokens, targets, pos, doc in zip(batch.tokens, batch.targets, batch.pos, batch.doc, strict=True):
        for number in range(int(doc.max()) + 1):
            at = doc == number
            assert pos[at].tolist() == list(range(int(at.sum())))
            asked = data.tokenizer.decode([int(token) for token in targets[at] if token != -100])
            if name == "modular":
                question = data.tokenizer.decode(tokens[at].tolist())
                assert (f"{question} ", asked) in set(data.read_examples("train"))
            else:
                example = next(expected)
                answers = example[1::2]
                assert asked == (" ".join(answers) if len(answers) > 1 else answers[0])
                given = data.tokenizer.encode("".join(example))
                assert tokens[at].tolist() == given[: int(at.sum())]


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_pure_function_of_its_arguments(name: str) -> None:
    several_rows = {"modulus": 11} if name == "modular" else {}
    one, other = small(name, **several_rows), small(name, **several_rows)
    other.batch("train", 1, 40, 4)
    assert torch.equal(one.batch("train", 0, 3, 4).tokens, other.batch("train", 0, 3, 4).tokens)
    assert not torch.equal(one.batch("train", 0, 3, 4).tokens, one.batch("train", 1, 3, 4).tokens)
    assert torch.equal(one.batch("val", 0, 0, 2).tokens, one.batch("val", 1, 0, 2).tokens)


CHANGES: dict[str, list[dict[str, Any]]] = {
    "copy": [{"symbols": 23}, {"length": (1, 19)}, {"val_length": (4, 5)}],
    "parity": [{"length": (2, 20)}, {"val_length": (21, 22)}, {"worked_out": True}],
    "induction": [{"symbols": 25}, {"period": (10, 19)}, {"length": 40}],
    "mqar": [{"symbols": 254}, {"pairs": (7, 16)}, {"length": 120}, {"power": 1.0}, {"filler": "none"}],
    "selective_copy": [{"symbols": 15}, {"content": 15}, {"length": 63}],
    "adder": [{"digits": 4}, {"format": "reversed"}, {"zeros": False}],
    "modular": [{"modulus": 89}, {"operation": "-"}],
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_key(name: str) -> None:
    common = [{}, {"loss_on": "all"}, {"held_out": 0.2}] + ([{"val_examples": 49}] if name != "modular" else [])
    keys = [task(name, 128, **options).key for options in (*common, *CHANGES[name])]
    assert task(name, 128).key == keys[0]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["induction", "mqar"])
def test_examples_fill_rows_so_that_fused_kernels_need_no_mask(name: str) -> None:
    data = task(name, 128)
    assert data.batch("train", 0, 0, 4).plain
    assert data.batch("val", 0, 0, 4).plain


@pytest.mark.parametrize("tokenizer", ["byte", "char", "symbols"])
def test_other_tokenizers_spell_the_same_text(tokenizer: str) -> None:
    data = task("mqar", 256, tokenizer, symbols=32, pairs=(2, 4), length=32)
    for (prompt, answer), example in zip(data.problems("val", 20), data.read_examples("val"), strict=False):
        assert answer in example[1::2]
        assert "".join(example).startswith(prompt + answer)
        tokens = data.tokenizer.encode(prompt)
        assert data.tokenizer.decode([*tokens, *data.tokenizer.encode(answer)]) == prompt + answer


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_trained_and_its_problems_solved(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = {
        "name": "tiny",
        "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 32, "mlp": "none"},
        "data": {"name": name, "tokenizer": "symbols" if name != "adder" else "char", **small_options(name)},
        "train": {"steps": 2, "batch_size": 4, "eval_every": 2, "eval_problems": 8, "device": "cpu"},
    }
    done = gptzoo.train(recipe)
    assert done.val_loss is not None
    assert run(["evaluate", str(done.path), "--problems", "8"]) == 0
    model = gptzoo.load(done.path)
    assert model.tokenizer is not None
    prompt = "".join(next(iter(small(name, context_length=32).read_examples("val")))[:1])
    assert len(gptzoo.generate(model, prompt, tokens=2, greedy=True)[0].tokens) <= 2


# what is refused


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("copy", {"symbols": 0}, "symbols must be at least 1, not 0"),
        ("copy", {"length": (0, 4)}, "length must be the least and the most, from 1 on, not [0, 4]"),
        ("sort", {"length": (5, 4)}, "length must be the least and the most, from 1 on, not [5, 4]"),
        ("parity", {"val_length": (5, 4)}, "val_length must be the least and the most, from 1 on, not [5, 4]"),
        ("induction", {"period": (1, 4)}, "period must be the least and the most, from 2 on, not [1, 4]"),
        ("induction", {"symbols": 19}, "a period of 20 different symbols needs as many symbols, not 19"),
        ("induction", {"length": 21}, "length must be at least 22, a period and what is asked, not 21"),
        ("mqar", {"symbols": 33}, "16 pairs need at least 34 symbols, not 33"),
        ("mqar", {"length": 63}, "16 pairs and their questions need a length of 64, not 63"),
        ("selective_copy", {"content": 65}, "content must be from 1 to length = 64, not 65"),
        ("adder", {"digits": 0}, "digits must be from 1 to 18, not 0"),
        ("adder", {"digits": 19}, "digits must be from 1 to 18, not 19"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        task(name, 128, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modulus": 1}, "modulus must be from 2 to 1000, not 1"),
        ({"modulus": 9, "operation": "/"}, "quotients need a prime modulus, not 9"),
        ({"modulus": 3, "held_out": 0.01}, "held_out of 0.01 leaves training or validation without any of 9 pairs"),
    ],
)
def test_impossible_residues_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        task("modular", **options)


def test_a_row_too_short_is_refused_in_one_line_that_says_how_long_it_must_be() -> None:
    recipe = {"model": {"context_length": 40}, "data": {"name": "copy", "tokenizer": "symbols"}}
    made = plan(recipe)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        build_data(made, build_tokenizer(made))
    shown = "23 " * 20 + "= " + "23 " * 5 + "2..."
    assert re.fullmatch(
        r"model.context_length: 40 is too short for '(23 )+= [23 ]+\.\.\.'\. Give at least 42\.", str(refused.value)
    ), shown


def test_tasks_whose_answers_must_end_refuse_tokenizers_without_an_end() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        ZOO.get("data", "adder").factory(Symbols(), 64)  # type: ignore[call-arg]
    assert str(refused.value) == (
        "data.tokenizer: tokenizer Symbols has no end token, and answers must end. Use byte, char, bpe or gpt2."
    )


def test_the_shipped_ablation_is_a_plan_in_which_all_arms_fit() -> None:
    arms = plan_cells(read_plan("ablations/induction")).sets[0].arms
    assert [(arm.name, arm.refused) for arm in arms] == [("two_layers", ""), ("one_layer", "")]


@pytest.mark.parametrize("name", ["induction-tiny", "mqar-tiny"])
def test_shipped_recipes_fill_their_rows(name: str) -> None:
    made = plan(name)
    data = build_data(made, build_tokenizer(made))
    batch = data.batch("train", 0, 0, 2)
    assert batch.plain
    assert batch.tokens.shape[1] == made.recipe.model.context_length
