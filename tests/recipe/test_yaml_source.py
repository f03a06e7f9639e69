"""Strict YAML: what it reads, and what it refuses with a line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from gptzoo.errors import GPTZooError
from gptzoo.recipe.yaml_source import parse, plain_value, read_file


def lines(text: str) -> list[str]:
    with pytest.raises(GPTZooError) as caught:
        parse(text, "a.yaml")
    return caught.value.lines


def test_values_are_read_as_yaml_1_2_says() -> None:
    text = """
    a: [1, -2, +3, 0, 1.5, 3e-4, 1E5, .5, 2., -0.0]
    b: [true, False, null, ~, "yes", '12:30', none, 1.2.3, 2024-01-01, a b]
    c: {d: , "no": x}
    e: |
      two
      lines
    """
    assert parse(text, "a.yaml").plain() == {
        "a": [1, -2, 3, 0, 1.5, 3e-4, 1e5, 0.5, 2.0, -0.0],
        "b": [True, False, None, None, "yes", "12:30", "none", "1.2.3", "2024-01-01", "a b"],
        "c": {"d": None, "no": "x"},
        "e": "two\nlines\n",
    }


def test_every_value_knows_its_line() -> None:
    node = parse("a: 1\nb:\n  c: [1,\n    2]\n", "a.yaml")
    assert {path: str(each.place) for path, each in node.walk()} == {
        (): "a.yaml:1",
        ("a",): "a.yaml:1",
        ("b",): "a.yaml:3",
        ("b", "c"): "a.yaml:3",
        ("b", "c", 0): "a.yaml:3",
        ("b", "c", 1): "a.yaml:4",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no", "some readers of YAML take no for false. Write false, or put it in quotes."),
        ("On", "some readers of YAML take On for true. Write true, or put it in quotes."),
        ("12:30", "some readers of YAML take 12:30 for a number. Put it in quotes."),
        (".inf", ".inf is not a finite number."),
        ("-.INF", "-.INF is not a finite number."),
        (".nan", ".nan is not a finite number."),
        ("1e999", "the number is too large."),
        ("017", "017 begins with a zero. Leave it out, or put it in quotes."),
        ("0o17", "0o17 is not a decimal number. Write a decimal one, or put it in quotes."),
        ("0x1F", "0x1F is not a decimal number. Write a decimal one, or put it in quotes."),
        ("1_000", "1_000 has '_' in a number. Leave it out, or put it in quotes."),
        ("9223372036854775808", "9223372036854775808 does not fit 64 bits."),
        ("9" * 5000, f"{'9' * 40}...{'9' * 20} does not fit 64 bits."),
        ("!!str 5", "there are no tags (!) in a recipe. A recipe never names code."),
        ("!!python/object/apply:os.system [ls]", "there are no tags (!) in a recipe. A recipe never names code."),
        ("&x 5", "there are no anchors (&x) in a recipe. Leave it out."),
        ("*x", "there are no aliases (*x) in a recipe. Write the value out."),
        ("{<<: {}}", "there are no merge keys (<<) in a recipe. Write the values out."),
        ("{1: 2}", "1 is not a word. A key must be one; put it in quotes."),
        ("{null: 2}", "null is not a word. A key must be one; put it in quotes."),
        ("{? [a]: 2}", "a key must be a word."),
        (r'"\ud800"', "half a surrogate pair is not text."),
    ],
)
def test_a_surprising_value_is_refused(text: str, problem: str) -> None:
    assert lines(f"a: 1\nmodel: {text}\n") == [f"a.yaml:2: model: {problem}"]


def test_the_largest_and_smallest_64_bit_numbers_are_read() -> None:
    assert parse(f"a: [{2**63 - 1}, {-(2**63)}]", "a.yaml").plain() == {"a": [2**63 - 1, -(2**63)]}


def test_a_key_that_readers_disagree_about_is_refused_once() -> None:
    assert lines("no: 1") == ["a.yaml:1: no: some readers of YAML take no for false. Write false, or put it in quotes."]


def test_a_duplicate_key_names_the_first_line() -> None:
    text = "model:\n  n_embd: 1\n  n_head: 2\n  n_embd: 1\n"
    assert lines(text) == ["a.yaml:4: model.n_embd: the key is given twice, first in line 2."]


def test_all_problems_of_a_file_are_reported_at_once() -> None:
    assert lines("a: no\nb: 1\nb: .inf\nc: *x\n") == [
        "a.yaml:1: a: some readers of YAML take no for false. Write false, or put it in quotes.",
        "a.yaml:3: b: .inf is not a finite number.",
        "a.yaml:3: b: the key is given twice, first in line 2.",
        "a.yaml:4: c: there are no aliases (*x) in a recipe. Write the value out.",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "a.yaml: the file is empty."),
        ("# nothing\n", "a.yaml: the file is empty."),
        ("---\n", "a.yaml: the file is empty."),
        ("- a\n", "a.yaml:1: the file must be a mapping, `key: value`."),
        ("\nword\n", "a.yaml:2: the file must be a mapping, `key: value`."),
        ("a: 1\n---\nb: 2\n", "a.yaml:2: a second document begins here. A recipe is one."),
        ("%YAML 1.1\n---\na: 1\n", "a.yaml:1: there are no directives in a recipe."),
        ("a: 1\nb: \x00\n", r"a.yaml:2: the character \x00 is not allowed."),
        ("a:\n\tb: 1\n", "a.yaml:2: a tab is used where YAML wants spaces."),
        ("a: @b\n", "a.yaml:1: a value cannot begin with '@'. Put it in quotes."),
        ("a: 1\nb: c: d\n", "a.yaml:2: this is not YAML: mapping values are not allowed here."),
        ('a: "\\U7fffffff"\n', "a.yaml:1: this is not YAML."),
    ],
)
def test_a_text_that_is_no_recipe_is_one_line(text: str, line: str) -> None:
    assert lines(text) == [line]


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    assert parse("\ufeffa: 1\r\nb: 2\r\n", "a.yaml").plain() == {"a": 1, "b": 2}


def test_deep_nesting_is_refused_quickly() -> None:
    start = time.perf_counter()
    assert lines("a: " + "[" * 100_000) == ["a.yaml:1: it is nested deeper than 32 levels."]
    assert lines("a: " + "{a: " * 3000) == ["a.yaml:1: it is nested deeper than 32 levels."]
    assert time.perf_counter() - start < 2


def test_too_many_values_are_refused() -> None:
    assert lines(f"a: [{'1,' * 20_001}]") == ["a.yaml:1: it holds more than 20000 values."]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    big, binary, pipe = tmp_path / "big", tmp_path / "binary", tmp_path / "pipe"
    big.write_bytes(b"a: 1 #" + b" " * 1_000_000)
    binary.write_bytes(b"a: 1\nb: \xff\n")
    os.mkfifo(pipe)
    problems = {
        big: "x: it is larger than 1 MB.",
        binary: "x:2: this is not UTF-8 text (byte 0xff). Save the file as UTF-8.",
        pipe: "x: this is not a file.",
        tmp_path: "x: this is not a file.",
        tmp_path / "none": "x: it cannot be read: No such file or directory.",
    }
    for path, line in problems.items():
        with pytest.raises(GPTZooError) as caught:
            read_file(path, "x")
        assert caught.value.lines == [line]


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("0123456789_.:-+eEoxXinfatrulyYNs~ "), max_size=12))
def test_what_is_plain_to_us_is_the_same_to_yaml_1_1_or_a_float_it_missed(text: str) -> None:
    try:
        ours = plain_value(text.strip())
        theirs = yaml.SafeLoader("")
        tag = theirs.resolve(yaml.ScalarNode, text.strip(), (True, False))
    except ValueError:
        return  # refused
    said = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}.get(tag.rsplit(":", 1)[1], str)
    assert type(ours) is said or (said is str and isinstance(ours, float))


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="ab:{}[]-,#&*!|>'\"%@`\n \t?<0", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert all(line.startswith("a.yaml") and line.isprintable() for line in refusals(text))


def refusals(text: str) -> list[str]:
    try:
        parse(text, "a.yaml")
    except GPTZooError as error:
        return error.lines
    return []


def test_reading_recipes_imports_no_torch() -> None:
    code = "import sys, gptzoo.recipe.typed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
