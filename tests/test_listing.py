"""What `list` and `show NAME` say about components."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import pytest

from gptzoo.errors import GPTZooError
from gptzoo.listing import as_text, describe, example, listing, type_text
from gptzoo.registry import Entry, InSlot, Owner, Zoo

if TYPE_CHECKING:
    from decimal import Decimal

OWNER = Owner("windows", "zoo-extra", "1.2", "ab" * 32)


class Base:
    """A base.

    Args:
        n_kv_head: Key/value heads;
            all of them unless given.
    """


class Window(Base):
    """A token sees its neighbours.

    The window includes the token itself.

    Source: Longformer, arXiv:2004.05150,
    section 3.1.

    Args:
        window: Keys that a token sees. For example: 3.
        kind: Which one.
    """

    def __init__(
        self,
        dims: object,
        window: int = 256,
        n_kv_head: int | None = None,
        kind: Literal["near", "far"] = "near",
        norm: Annotated[Callable[[int], object], InSlot("norm")] | None = None,
    ) -> None:
        self.window = window


class Bare:
    def __init__(self, path: str, scale: float = 1e-8, on: bool = True, word: str = "two words") -> None:
        self.path = path


class OnlyForCheckers:
    """Its annotation cannot be evaluated at run time."""

    def __init__(self, size: int, eps: Decimal | None = None) -> None:
        self.eps = eps


class Anything:
    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args = args


class NoConstructor(Anything):
    """Its options are not `args` and `kwargs`."""


@dataclass
class Plain:
    """A rate."""

    rate: float = 0.5
    betas: tuple[float, float] = (0.9, 0.95)


@dataclass
class Undocumented:
    rate: float = 0.5


@pytest.fixture
def zoo() -> Zoo:
    zoo = Zoo()
    register = zoo.registering(OWNER)
    register.attention("window", Window, aliases=["swa", "w"])
    register.data("bare", Bare)
    register.norm("checked", OnlyForCheckers)
    register.logger("plain", Plain)
    register.init("inherited", NoConstructor)
    register.commit()
    return zoo


def test_a_row_holds_all_that_is_known(zoo: Zoo) -> None:
    assert listing(zoo, "attention") == [
        {
            "slot": "attention",
            "name": "window",
            "aliases": ["swa", "w"],
            "summary": "A token sees its neighbours.",
            "options": [
                {"name": "window", "type": "int", "default": "256"},
                {"name": "n_kv_head", "type": "int | None", "default": "null"},
                {"name": "kind", "type": '"near" | "far"', "default": "near"},
                {"name": "norm", "type": "<norm> | None", "default": "null"},
            ],
            "source": "Longformer, arXiv:2004.05150, section 3.1.",
            "plugin": "windows",
            "origin": "zoo-extra",
            "version": "1.2",
        }
    ]


def test_rows_are_plain_data(zoo: Zoo) -> None:
    rows = listing(zoo)
    assert json.loads(json.dumps(rows)) == rows
    assert [row["name"] for row in rows] == ["window", "checked", "inherited", "bare", "plain"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["attention"], ["window"]),
        (["attention", "s*"], ["window"]),
        (["attention", "x*"], []),
        (["*a*"], ["window", "bare", "plain"]),
        (["swa"], ["window"]),
        (["x*"], []),
        ([None, "b*"], ["bare"]),
    ],
)
def test_a_word_that_is_no_slot_is_a_pattern_over_all(zoo: Zoo, words: list[str | None], names: list[str]) -> None:
    assert [row["name"] for row in listing(zoo, *words)] == names  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atention"], "'atention' is neither a slot nor a component. Did you mean attention?"),
        (["windw"], "'windw' is neither a slot nor a component. Did you mean window?"),
        (
            ["qqq"],
            "'qqq' is neither a slot nor a component. Slots: attention, kernel, position, norm, mlp, block, head, "
            "init, optimizer, schedule, data, tokenizer, logger.",
        ),
        (["atention", "w*"], "no slot is called 'atention'. Did you mean attention?"),
        (["attention", "windo"], "no attention is called 'windo'. Did you mean window?"),
    ],
)
def test_a_word_that_matches_nothing_gets_close_matches(zoo: Zoo, words: list[str], message: str) -> None:
    with pytest.raises(GPTZooError) as caught:
        listing(zoo, *words)
    assert str(caught.value) == message


def test_text_has_a_line_per_component_in_columns(zoo: Zoo) -> None:
    assert as_text(listing(zoo)).splitlines() == [
        "attention  window (swa, w)  windows  A token sees its neighbours.",
        "norm       checked          windows  Its annotation cannot be evaluated at run time.",
        "init       inherited        windows  Its options are not `args` and `kwargs`.",
        "data       bare             windows",
        "logger     plain            windows  A rate.",
    ]
    assert as_text([]) == "No component matches."


def test_a_description_says_everything_once(zoo: Zoo) -> None:
    assert (
        describe(zoo.find("swa"))
        == f"""attention window (swa, w)

A token sees its neighbours.

The window includes the token itself.

Options:
  window: int = 256             Keys that a token sees. For example: 3.
  n_kv_head: int | None = null  Key/value heads; all of them unless given.
  kind: "near" | "far" = near   Which one.
  norm: <norm> | None = null

Source: Longformer, arXiv:2004.05150, section 3.1.
Plugin: windows (zoo-extra 1.2)
sha256: {"ab" * 32}

In a recipe:
  model: {{attention: {{name: window, window: 256, kind: near}}}}"""
    )


def test_a_description_without_docstring_still_has_options(zoo: Zoo) -> None:
    assert describe(zoo.find("bare")).split("\n\n")[1].splitlines() == [
        "Options:",
        "  path: str (required)",
        "  scale: float = 1.0e-08",
        "  on: bool = true",
        '  word: str = "two words"',
    ]


def test_a_docstring_that_dataclasses_make_up_is_not_shown() -> None:
    text = describe(Entry("logger", "plain", Undocumented, OWNER))
    assert text.startswith("logger plain\n\nOptions:\n  rate: float = 0.5\n\n")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("window", "model: {attention: {name: window, window: 256, kind: near}}"),
        ("bare", 'data: {name: bare, path: <path>, scale: 1.0e-08, on: true, word: "two words"}'),
        ("checked", "model: {norm: checked}"),
        ("plain", "train: {loggers: [{name: plain, rate: 0.5}]}"),
        ("inherited", "model: {init: inherited}"),
    ],
)
def test_the_example_is_a_line_of_a_recipe(zoo: Zoo, name: str, line: str) -> None:
    assert example(zoo.find(name)) == line


def test_the_example_is_yaml_that_means_what_it_says() -> None:
    yaml = pytest.importorskip("yaml")

    class Odd:
        def __init__(self, a: str = "no", b: str = "12:30", c: float = 1e-5, d: float = 1e20, e: str = "a: b") -> None:
            self.a = a

    text = example(Entry("data", "odd", Odd, OWNER))
    assert yaml.safe_load(text) == {"data": {"name": "odd", "a": "no", "b": "12:30", "c": 1e-5, "d": 1e20, "e": "a: b"}}


def test_an_annotation_that_only_checkers_can_read_is_shown_as_written(zoo: Zoo) -> None:
    (row,) = listing(zoo, "norm")
    assert row["options"] == [{"name": "eps", "type": "Decimal | None", "default": "null"}]


def test_types_are_written_as_in_code() -> None:
    hints = [
        int,
        int | None,
        list[str],
        "collections.abc.Mapping[str, int]",
        Literal[1, 2],
        Callable[[int], None],
        None,
    ]
    assert [type_text(hint) for hint in hints] == [
        "int",
        "int | None",
        "list[str]",
        "Mapping[str, int]",
        "1 | 2",
        "Callable[[int], None]",
        "None",
    ]


def test_listing_imports_no_torch() -> None:
    program = "import sys, gptzoo.listing; print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
