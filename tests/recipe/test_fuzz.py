"""Any mapping is accepted and written back the same, or refused in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from gptzoo.errors import GPTZooError
from gptzoo.recipe.compose import compose
from gptzoo.recipe.schema import Recipe
from gptzoo.recipe.typed import as_yaml, typed
from gptzoo.recipe.yaml_source import Path_, dotted, parse

from .conftest import filled

ZOO = filled()
WORDS = """
name seed model data train base config n_layer n_head n_embd head_dim layers repeat attention kernel position norm mlp
block head init tokenizer path n_kv_head scale window qk_norm eps theta sizes pair steps batch_size micro_batch_size
loggers init_from partial class_path optimizer schedule precision vocab_size
"""
PARTS = """
multi_head gqa sliding_window needy rich sdpa auto naive learned rope none layernorm rmsnorm gelu text gpt2 byte jsonl
os.system ../x fp16 no 12:30 null
"""
KEYS = st.sampled_from(WORDS.split()) | st.text(max_size=4)
NAMES = st.sampled_from(PARTS.split()) | st.text(max_size=4)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(0, 12)
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, 2**63, 1e-4, 0.5])
    | NAMES
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=4),
    max_leaves=8,
)


def part(name: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A part as it should be: a name, or a name with some options."""
    return st.just(name) | st.fixed_dictionaries({"name": st.just(name)}, optional=options)


NORM = part("layernorm", eps=st.floats(0, 1)) | part("rmsnorm", bias=st.booleans())
SLOTS: dict[str, st.SearchStrategy[Any]] = {
    "attention": part("multi_head", n_kv_head=st.integers(1, 4) | st.none())
    | part("gqa", qk_norm=NORM | st.none())
    | part("sliding_window", window=st.integers(1, 99), scale=st.floats(-9, 9))
    | st.fixed_dictionaries({}, optional={"n_kv_head": st.integers(1, 4), "scale": st.integers(1, 4)}),
    "position": part("learned") | part("rope", theta=st.integers(1, 9)) | part("none"),
    "mlp": part("gelu")
    | part("rich", either=st.integers(0, 3) | st.text(max_size=4), sizes=st.lists(st.integers(0, 3))),
    "norm": NORM,
}
KERNELS = part("auto") | part("sdpa", backend=st.sampled_from(["auto", "flash"]))
ENTRY = st.fixed_dictionaries({}, optional={"repeat": st.integers(1, 2), "kernel": KERNELS, **SLOTS})
LAYERS = st.lists(ENTRY, min_size=1, max_size=3)
MODEL = st.fixed_dictionaries({"n_layer": st.just(12)}, optional={**SLOTS, "dropout": st.floats(0, 0.9)})
LIKELY = st.fixed_dictionaries({"model": MODEL}, optional={"seed": st.integers(0, 9), "name": st.sampled_from("ab-")})
PATTERNED = st.fixed_dictionaries({"model": st.fixed_dictionaries({"layers": LAYERS}, optional={"kernel": KERNELS})})
OVERLAYS = LIKELY | PATTERNED | st.fixed_dictionaries({"model.attention": st.sampled_from(["sdpa", "gqa"])})


def check(tree: Any, overrides: Any = ()) -> None:
    recipe, refused = outcome(tree, overrides)
    if recipe is None:
        assert all(line.isprintable() and len(line) < 1000 for line in refused)
        assert refused
        return
    again: Any = parse(as_yaml(recipe), "again.yaml").plain()
    assert typed(compose(again), ZOO) == recipe


def outcome(tree: Any, overrides: Any) -> tuple[Recipe | None, list[str]]:
    try:
        return typed(compose(tree, overrides, defer=True), ZOO), []
    except GPTZooError as error:
        return None, error.lines


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(tree=st.dictionaries(KEYS, ANYTHING, max_size=5))
def test_any_mapping_is_refused_in_plain_words_or_written_back_the_same(tree: dict[str, Any]) -> None:
    check(tree)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(tree=LIKELY, overlay=OVERLAYS)
def test_likely_recipes_and_overlays_are_written_back_the_same(tree: dict[str, Any], overlay: dict[str, Any]) -> None:
    check(tree, overlay)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(tree=LIKELY | PATTERNED, data=st.data())
def test_one_spoiled_value_or_key_of_a_sound_recipe_is_one_line(tree: dict[str, Any], data: st.DataObject) -> None:
    if outcome(tree, ())[0] is None:
        return
    path, value = data.draw(st.sampled_from([*walk(tree, ())]))
    assert outcome(spoiled(tree, path, math.inf), ())[1] == [f"mapping: {dotted(path)}: inf is not a finite number."]
    if isinstance(value, dict):
        what = "3 is not a word. A key must be one."
        assert outcome(spoiled(tree, path, {**value, 3: 4}), ())[1] == [f"mapping: {dotted(path)}: {what}"]
        what = "a recipe never names code. Write the name of a registered part."
        spoiled_tree = spoiled(tree, path, {**value, "class_path": "os.system"})
        assert outcome(spoiled_tree, ())[1] == [f"mapping: {dotted(path)}.class_path: {what}"]


def walk(tree: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    """Every inner value and its path."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key), value
        if isinstance(value, (dict, list)):
            yield from walk(value, (*path, key))


def spoiled(tree: Any, path: Path_, value: object) -> Any:
    """The tree with another value at a path."""
    if not path:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = spoiled(tree[path[0]], path[1:], value)  # type: ignore[index]
    return changed


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=4).map(".".join), NAMES | st.text(max_size=8)), max_size=4)
)
def test_any_command_line_is_refused_in_plain_words_or_written_back_the_same(overrides: list[tuple[str, str]]) -> None:
    check({}, overrides)
