"""A typed recipe is written back as a recipe that is the same."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from gptzoo.recipe.compose import compose
from gptzoo.recipe.typed import as_mapping, as_yaml, typed
from gptzoo.recipe.yaml_source import parse

from .conftest import Bench, filled

ZOO = filled()
RECIPES: list[dict[str, Any]] = [
    {},
    {"model": {"attention": "sdpa", "mlp": "rich"}, "train": {"loggers": ["jsonl"], "init_from": "runs/a"}},
    {"model": {"attention": {"name": "gqa", "qk_norm": {"name": "rmsnorm", "eps": 1e-7}}}, "seed": 2**63 - 1},
    {"model": {"n_layer": 6, "layers": [{"repeat": 2, "attention": "sliding_window"}, {"position": "none"}]}},
    {"model": {"n_layer": 4, "position": "rope", "layers": [{"position": "none"}, {"attention": "gqa"}]}},
    {"model": {"n_layer": 4, "layers": [{"position": "rope"}, {"position": "none"}]}},
    {"model": {"n_layer": 3, "layers": [{"position": "rope"}, {"position": "none"}, {"position": "learned"}]}},
    {"model": {"layers": [{"attention": "gqa"}]}},
    {"train": {"sample_prompts": ["no", "12:30", "3e-4", "", " a", "a: b", '\x00\x7f\u2028é😀"\\', "# x", "~"]}},
    {"train": {"learning_rate": 1e-5, "clip": None}, "model": {"dropout": 1e-300}},
]


@pytest.mark.parametrize("tree", RECIPES, ids=range(len(RECIPES)))
def test_a_recipe_written_back_is_the_same(bench: Bench, tree: dict[str, Any]) -> None:
    recipe = bench.typed(tree)
    assert bench.typed(as_mapping(recipe)) == recipe
    bench.write("again.yaml", as_yaml(recipe))
    assert bench.typed("again.yaml") == recipe
    bench.write("places.yaml", as_yaml(recipe, compose(tree).places))
    assert bench.typed("places.yaml") == recipe
    assert as_yaml(bench.typed("again.yaml")) == as_yaml(recipe)


@pytest.mark.parametrize("tree", RECIPES, ids=range(len(RECIPES)))
def test_other_readers_of_yaml_understand_it_too(bench: Bench, tree: dict[str, Any]) -> None:
    recipe = bench.typed(tree)
    assert yaml.safe_load(as_yaml(recipe)) == as_mapping(recipe)


def test_a_pattern_is_written_in_its_shortest_form(bench: Bench) -> None:
    entries = [{"repeat": 2, "attention": "gqa"}, {"position": "none"}]
    recipe = bench.typed({"model": {"n_layer": 12, "layers": entries * 2}})
    gqa = {"name": "grouped_query", "n_kv_head": None, "qk_norm": None}
    model: Any = as_mapping(recipe)["model"]
    assert model["layers"] == [{"repeat": 2, "attention": gqa}, {"repeat": 1, "position": "none"}]


def test_a_slot_that_every_layer_overrides_is_written_in_layers_only(bench: Bench) -> None:
    entries = [{"position": "rope"}, {"position": "none"}]
    model: Any = as_mapping(bench.typed({"model": {"layers": entries}}))["model"]
    assert "position" not in model
    rope = {"name": "rope", "theta": 1e4}
    assert model["layers"] == [{"repeat": 1, "position": rope}, {"repeat": 1, "position": "none"}]


def test_the_text_is_for_people(bench: Bench) -> None:
    tree = {"model": {"n_layer": 2, "n_head": 2, "n_embd": 8, "position": "rope"}, "train": {"learning_rate": 1e-5}}
    text = as_yaml(bench.typed(tree))
    assert text.startswith(
        "name: recipe\nseed: 0\nmodel:\n  n_layer: 2\n  n_head: 2\n  n_embd: 8\n  head_dim: null\n"
        "  context_length: 1024\n  vocab_size: auto\n  dropout: 0.0\n  bias: true\n"
        "  attention:\n    name: multi_head\n    n_kv_head: null\n    scale: 1.0\n"
        "  kernel: auto\n  position:\n    name: rope\n    theta: 10000.0\n"
    )
    assert "  learning_rate: 1.0e-05\n" in text


def test_places_are_comments(bench: Bench) -> None:
    bench.write("a.yaml", "model:\n  position: {name: rope}\n  layers: [{norm: rmsnorm}, {}]\n")
    composed = compose("a.yaml", [("model.position.theta", "5")])
    lines = as_yaml(typed(composed, bench.zoo), composed.places).splitlines()
    said = {line.split("#")[0].strip(): line.partition("# ")[2] for line in lines}
    assert said["n_layer: 12"] == "default"
    assert said["theta: 5.0"] == "command line"
    assert said["name: rope"] == "a.yaml:2"
    assert said["name: rmsnorm"] == "a.yaml:3"
    assert said["name: a"] == "a.yaml"


@settings(max_examples=50, deadline=None)
@given(prompts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))), rate=st.floats(1e-300, 1e300))
def test_any_text_and_number_survives_writing(prompts: list[str], rate: float) -> None:
    recipe = typed(compose({"train": {"sample_prompts": prompts, "learning_rate": rate}}), ZOO)
    read: Any = parse(as_yaml(recipe), "a.yaml").plain()
    assert read["train"]["sample_prompts"] == prompts
    assert read["train"]["learning_rate"] == rate
