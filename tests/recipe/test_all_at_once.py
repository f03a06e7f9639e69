"""Mistakes that different stages find are told in one go, each once, and nothing that merely follows from them."""

from __future__ import annotations

import sys

import pytest

from gptzoo.errors import GPTZooError
from gptzoo.recipe.compose import compose
from gptzoo.recipe.yaml_source import REFUSED

from .conftest import Bench

CODE = "a recipe never names code. Write the name of a registered part."
EVERY_STAGE = """\
base: tiny
model:
  attenton: multi_head
  n_layer: four
  position: roep
  norm: {name: rmsnorm, epsilon: 1}
  n_head: -2
  mlp: {class_path: os.system}
train:
  learning_rate: .inf
  stepz: 3
"""


def test_the_problems_of_every_stage_are_told_at_once(bench: Bench) -> None:
    bench.ship("tiny", "model: {n_layer: 2, n_head: 2, n_embd: 32, mlp: rich}\ntrain: {steps: 3}\n")
    before = set(sys.modules)
    assert bench.refused(EVERY_STAGE) == [
        "a.yaml:3: model.attenton: there is no such key. Did you mean attention?",
        "a.yaml:4: model.n_layer: 'four' is not an int.",
        "a.yaml:5: model.position: no position is called 'roep'. Did you mean rope?",
        "a.yaml:6: model.norm.epsilon: norm 'rmsnorm' has no option 'epsilon'. Did you mean eps?",
        "a.yaml:7: model.n_head: -2 must be at least 1.",
        f"a.yaml:8: model.mlp.class_path: {CODE}",
        "a.yaml:10: train.learning_rate: .inf is not a finite number.",
        "a.yaml:11: train.stepz: there is no such key. Did you mean steps?",
    ]
    assert set(sys.modules) == before


def test_bases_and_the_command_line_are_told_together(bench: Bench) -> None:
    bench.ship("root", "seed: no\nmodel:\n  n_embd: 1_000\n  mlp: {name: needy, width: 0x10}\n")
    bench.write("b.yaml", "base: root\nmodel:\n  n_layer: 2\n  n_layer: 3\n  attention: sdpa\n  kernel: naive\n")
    bench.write("a.yaml", "base: b.yaml\nmodel:\n  norm: &n {name: rmsnorm, epz: 1}\n  position: *n\n  n_head: '2'\n")
    overrides = [
        ("model.position.theta", "5"),
        ("models.n_layer", "1"),
        ("train.compile", "on"),
        ("data", "{_target_: x}"),
        ("train.keep", "0"),
        ("model.dropout", "@1"),
        ("name", "../x"),
    ]
    assert bench.refusal("a.yaml", overrides) == [
        "a.yaml:3: model.norm: there are no anchors (&n) in a recipe. Leave it out.",
        "a.yaml:3: model.norm.epz: norm 'rmsnorm' has no option 'epz'. Did you mean eps?",
        "a.yaml:4: model.position: there are no aliases (*n) in a recipe. Write the value out.",
        "a.yaml:5: model.n_head: '2' is not an int. Leave out the quotes.",
        "b.yaml:4: model.n_layer: the key is given twice, first in line 3.",
        "b.yaml:5: model.attention: sdpa stands for multi_head with kernel: sdpa, and kernel is given as well. "
        "Give one of them.",
        "recipes/root.yaml:1: seed: some readers of YAML take no for false. Write false, or put it in quotes.",
        "recipes/root.yaml:3: model.n_embd: 1_000 has '_' in a number. Leave it out, or put it in quotes.",
        "recipes/root.yaml:4: model.mlp.width: 0x10 is not a decimal number. Write a decimal one, or put it in quotes.",
        "command line: models.n_layer: there is no such key. Did you mean model?",
        "command line: train.compile: some readers of YAML take on for true. Write true, or put it in quotes.",
        "command line: model.dropout: a value cannot begin with '@'. Put it in quotes.",
        f"command line: data._target_: {CODE}",
        "command line: name: '../x' cannot name a folder. Use letters, digits, '.', '_' and '-'.",
        "command line: train.keep: 0 must be at least 1.",
    ]


def test_python_values_are_told_together(bench: Bench) -> None:
    tree = {"seed": float("inf"), "model": {"n_layer": {1}, "mlp": {3: 4, "width": 2}, "bias": 1}}
    assert bench.refusal(tree, {"train.steps": 2**70, "train.kep": 1}) == [
        "mapping: train.steps: the number does not fit 64 bits.",
        "mapping: seed: inf is not a finite number.",
        "mapping: model.n_layer: a set is not a recipe value.",
        "mapping: model.mlp: 3 is not a word. A key must be one.",
        "mapping: model.bias: 1 is not true or false.",
        "mapping: train.kep: there is no such key. Did you mean keep?",
    ]


TAGS = "there are no tags (!) in a recipe. A recipe never names code."
NO = "some readers of YAML take no for false. Write false, or put it in quotes."


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mlp: {name: needy, width: .inf}", "mlp.width: .inf is not a finite number."),
        (
            "mlp: {name: needy, widht: 3}",
            "mlp.widht: mlp 'needy' has no option 'widht'. Did you mean width?",
        ),
        ("mlp: {name: needy, no: 3}", f"mlp.no: {NO}"),
        ("mlp: {name: needy, <<: {}}", "mlp: there are no merge keys (<<) in a recipe. Write the values out."),
        ("mlp: {<<: {}, width: 3}", "mlp: there are no merge keys (<<) in a recipe. Write the values out."),
        ("mlp: {name: no, width: 3}", f"mlp.name: {NO}"),
        ("mlp: {_target_: x.Y, width: 3}", f"mlp._target_: {CODE}"),
        ("mlp: {name: rich, sizes: [1, no]}", f"mlp.sizes.1: {NO}"),
        ("mlp: {name: rich, colour: !!str 3}", f"mlp.colour: {TAGS}"),
        ("kernel: {name: auto, no: 3}", f"kernel.no: {NO}"),
        ("attention: {name: gqa, qk_norm: {class_path: x}}", f"attention.qk_norm.class_path: {CODE}"),
        ("n_head: 017\n  n_embd: 100", "n_head: 017 begins with a zero. Leave it out, or put it in quotes."),
        ("n_hed: 5\n  n_embd: 100", "n_hed: there is no such key. Did you mean n_head, n_embd or head?"),
        ("head_dim: no\n  n_embd: 100", f"head_dim: {NO}"),
        ("n_layer: no\n  layers: [{repeat: 5}]", f"n_layer: {NO}"),
        ("layers: [{repeat: no}, {repeat: 4}]", f"layers.0.repeat: {NO}"),
        ("layers: [{repaet: 8}, {repeat: 4}]", "layers.0.repaet: there is no such key. Did you mean repeat?"),
        ("layers: [no, {repeat: 4}]", f"layers.0: {NO}"),
        ("layers: no", f"layers: {NO}"),
        ("class_path: x", f"class_path: {CODE}"),
    ],
)
def test_nothing_is_told_that_only_follows_from_a_refusal(bench: Bench, text: str, line: str) -> None:
    assert bench.refused(f"model:\n  {text}\n") == [f"a.yaml:2: model.{line}"]


def test_a_refused_section_has_no_other_problems(bench: Bench) -> None:
    assert bench.refused("model: no\ntrain: .inf\ndata: {name: 1:2, tokenizer: gtp2}\n") == [
        f"a.yaml:1: model: {NO}",
        "a.yaml:2: train: .inf is not a finite number.",
        "a.yaml:3: data.name: some readers of YAML take 1:2 for a number. Put it in quotes.",
        "a.yaml:3: data.tokenizer: no tokenizer is called 'gtp2'. Did you mean gpt2?",
    ]


def test_numbers_that_do_not_fit_each_other_are_told_beside_other_problems(bench: Bench) -> None:
    text = "model: {n_embd: 100, position: roep}\ntrain: {batch_size: 8, micro_batch_size: 3, keep: 0}\n"
    assert bench.refused(text) == [
        "a.yaml:1: model.position: no position is called 'roep'. Did you mean rope?",
        "a.yaml:1: model.n_embd: 100 is not divisible by n_head 12. Change one of them, or set head_dim.",
        "a.yaml:2: train.keep: 0 must be at least 1.",
        "a.yaml:2: train.micro_batch_size: 3 does not divide batch_size 8.",
    ]


def test_options_for_a_part_that_was_refused_are_not_blamed_on_another(bench: Bench) -> None:
    bench.write("old.yaml", "model: {attention: 12:30, norm: {class_path: x}}\n")
    overrides = [("model.attention.window", "3"), ("model.norm.epz", "3")]
    assert bench.refusal("old.yaml", overrides) == [
        "old.yaml:1: model.attention: some readers of YAML take 12:30 for a number. Put it in quotes.",
        f"old.yaml:1: model.norm.class_path: {CODE}",
    ]


def test_a_base_applied_twice_is_told_once(bench: Bench) -> None:
    bench.write("b.yaml", "model: {norm: {class_path: x}}\n")
    bench.write("c.yaml", "base: b.yaml\nseed: -1\n")
    assert bench.refused("base: [b.yaml, c.yaml]\n") == [
        f"b.yaml:1: model.norm.class_path: {CODE}",
        "c.yaml:2: seed: -1 must be at least 0.",
    ]


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("none", "a.yaml:2: base: there is no recipe 'none'."),
        ("[no]", f"a.yaml:2: base.0: {NO}"),
        ("[[x]]", "a.yaml:2: base: a list is not a recipe's name, nor a list of names."),
    ],
)
def test_without_its_base_a_recipe_is_not_typed(bench: Bench, base: str, line: str) -> None:
    text = f"seed: .inf\nbase: {base}\nmodel: {{attention: {{window: 3}}}}\n"
    lines = ["a.yaml:1: seed: .inf is not a finite number.", line]
    assert bench.refused(text, [("train.compile", "no")]) == [*lines, f"command line: train.compile: {NO}"]


def test_problems_are_raised_by_compose_unless_they_are_deferred(bench: Bench) -> None:
    bench.write("a.yaml", "seed: .inf\nmodel: {n_layer: four}\n")
    with pytest.raises(GPTZooError) as caught:
        compose("a.yaml")
    assert caught.value.lines == ["a.yaml:1: seed: .inf is not a finite number."]
    composed = compose("a.yaml", defer=True)
    assert [str(each) for each in composed.problems] == caught.value.lines
    assert composed.tree == {"name": "a", "seed": REFUSED, "model": {"n_layer": "four"}}


def test_what_stands_beside_or_under_a_kernels_name_is_typed_too(bench: Bench) -> None:
    text = "model:\n  attention: sdpa\n  kernel: naiv\n  layers:\n  - {attention: {name: flash, scal: 2}}\n  - {}\n"
    assert bench.refused(text) == [
        "a.yaml:2: model.attention: sdpa stands for multi_head with kernel: sdpa, and kernel is given as well. "
        "Give one of them.",
        "a.yaml:3: model.kernel: no kernel is called 'naiv'. Did you mean naive?",
        "a.yaml:5: model.layers.0.attention.name: flash is a kernel, not an attention. "
        "Write name: multi_head, and kernel: flash.",
        "a.yaml:5: model.layers.0.attention.scal: attention 'multi_head' has no option 'scal'. Did you mean scale?",
    ]
