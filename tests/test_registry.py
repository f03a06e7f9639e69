"""The registry: names, aliases, owners, and what is said when something is missing or taken."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.errors import GPTZooError, any_of, did_you_mean
from gptzoo.registry import SLOTS, Entry, Owner, Registrar, Zoo

CORE = Owner("core", "core")
STRANGER = Owner("kindness", "/home/me/kindness.py")


class Window:
    """A token sees its neighbours.

    More about it.
    """

    def __init__(self, dims: object, window: int = 256) -> None:
        self.window = window


@pytest.fixture
def zoo() -> Zoo:
    zoo = Zoo()
    ours = zoo.registering(CORE)
    ours.attention("sliding_window", Window, aliases=["swa"])
    ours.attention("multi_head", Window)
    ours.norm("layernorm", Window)
    ours.commit()
    return zoo


def refused(action: object, *arguments: object) -> str:
    assert callable(action)
    with pytest.raises(GPTZooError) as caught:
        action(*arguments)
    return str(caught.value)


def test_a_part_is_found_by_its_name_and_by_its_alias(zoo: Zoo) -> None:
    assert zoo.get("attention", "sliding_window") is zoo.get("attention", "swa")
    assert zoo.get("attention", "swa").factory is Window


def test_names_are_per_slot(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.mlp("layernorm", Window)
    register.commit()
    assert zoo.get("mlp", "layernorm").owner == STRANGER
    assert zoo.get("norm", "layernorm").owner == CORE


def test_an_unknown_name_gets_close_matches(zoo: Zoo) -> None:
    assert refused(zoo.get, "attention", "sliding_windw", "a.yaml:7: model.attention") == (
        "a.yaml:7: model.attention: no attention is called 'sliding_windw'. Did you mean sliding_window?"
    )


def test_an_unknown_name_close_to_nothing_gets_all_names(zoo: Zoo) -> None:
    assert refused(zoo.get, "attention", "q") == ("no attention is called 'q'. Known: multi_head, sliding_window.")


def test_a_taken_name_is_refused_naming_both_owners(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.attention("multi_head", Window)
    assert refused(register.commit) == (
        "attention 'multi_head' of plugin kindness (/home/me/kindness.py) is taken by plugin core. Choose another name."
    )


@pytest.mark.parametrize(("name", "aliases"), [("swa", []), ("mine", ["swa"]), ("mine", ["sliding_window"])])
def test_an_alias_clashes_like_a_name(zoo: Zoo, name: str, aliases: list[str]) -> None:
    register = zoo.registering(STRANGER)
    register.attention(name, Window, aliases)
    taken = aliases[0] if aliases else name
    assert refused(register.commit) == (
        f"attention {taken!r} of plugin kindness (/home/me/kindness.py) is taken by plugin core. Choose another name."
    )


def test_a_name_taken_twice_by_one_plugin_is_refused(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.norm("mine", Window)
    register.norm("mine", Window)
    assert refused(register.commit).startswith("norm 'mine' of plugin kindness")


@pytest.mark.parametrize(("slot", "word"), [("attention", "sdpa"), ("attention", "auto"), ("kernel", "auto")])
def test_a_reserved_word_is_refused(zoo: Zoo, slot: str, word: str) -> None:
    register = zoo.registering(CORE)
    getattr(register, slot)(word, Window)
    assert refused(register.commit) == f"{slot} {word!r} of plugin core is a reserved word. Choose another name."


@pytest.mark.parametrize("word", ["", "two words", "os.system", "../x", "1st", "__class__.x"])
def test_what_is_no_name_is_refused(zoo: Zoo, word: str) -> None:
    register = zoo.registering(CORE)
    register.norm(word, Window)
    assert refused(register.commit) == f"norm {word!r} is not a name. Use letters, digits, '_' and '-'."


def test_a_plugin_registers_all_or_nothing(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.norm("fresh", Window)
    register.attention("multi_head", Window)
    refused(register.commit)
    assert zoo.names("norm") == ["layernorm"]
    assert zoo.names("attention") == ["multi_head", "sliding_window"]


def test_nothing_reaches_the_zoo_before_the_commit(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.norm("fresh", Window)
    assert zoo.names("norm") == ["layernorm"]
    assert [entry.name for entry in register.commit()] == ["fresh"]
    assert zoo.names("norm") == ["fresh", "layernorm"]


def test_what_cannot_be_called_is_refused(zoo: Zoo) -> None:
    register = zoo.registering(CORE)
    assert refused(register.norm, "mine", 3) == "norm 'mine' of plugin core is not a class or function."


def test_every_slot_has_a_method_that_registers_in_it() -> None:
    zoo = Zoo()
    register = zoo.registering(CORE)
    for slot in SLOTS:
        getattr(register, slot)("thing", Window)
    register.commit()
    assert [entry.slot for entry in zoo.entries()] == list(SLOTS)
    assert {name for name in vars(Registrar) if not name.startswith("_")} == {*SLOTS, "commit"}


def test_entries_match_shell_patterns_by_name_or_alias(zoo: Zoo) -> None:
    assert [entry.name for entry in zoo.entries("attention", "s*")] == ["sliding_window"]
    assert [entry.name for entry in zoo.entries(None, "sw?")] == ["sliding_window"]
    assert [entry.name for entry in zoo.entries()] == ["multi_head", "sliding_window", "layernorm"]


def test_a_bare_name_is_found_over_all_slots(zoo: Zoo) -> None:
    assert zoo.find("swa").slot == "attention"
    assert zoo.find("norm.layernorm").slot == "norm"


def test_a_name_in_two_slots_must_be_told_apart(zoo: Zoo) -> None:
    register = zoo.registering(STRANGER)
    register.mlp("layernorm", Window)
    register.commit()
    assert refused(zoo.find, "layernorm") == (
        "'layernorm' stands in several slots. Write norm.layernorm or mlp.layernorm."
    )


def test_a_name_in_no_slot_gets_close_matches(zoo: Zoo) -> None:
    assert refused(zoo.find, "layer_norm") == "no component is called 'layer_norm'. Did you mean layernorm?"


def test_options_are_what_follows_the_wiring() -> None:
    assert list(Entry("attention", "sliding_window", Window, CORE).options) == ["window"]


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    assert Entry("attention", "sliding_window", Window, CORE).summary == "A token sees its neighbours."


def test_an_owner_is_written_with_its_origin() -> None:
    assert str(CORE) == "core"
    assert str(STRANGER) == "kindness (/home/me/kindness.py)"


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_one_wrong_letter_still_leads_to_the_name(data: st.DataObject) -> None:
    names = ["sliding_window", "multi_head", "grouped_query", "layernorm", "rmsnorm", "learned", "rotary"]
    name = data.draw(st.sampled_from(names))
    i = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(["", "x", name[i] * 2]))
    assert name in did_you_mean(name[:i] + letter + name[i + 1 :], names)


def test_alternatives_are_listed_with_or() -> None:
    assert [any_of(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]


def test_the_registry_imports_neither_torch_nor_parts() -> None:
    program = "import sys, gptzoo.registry; print([m for m in sys.modules if m.startswith(('torch', 'gptzoo.parts'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
