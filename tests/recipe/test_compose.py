"""Bases, overlays and the command line make one mapping."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gptzoo.errors import GPTZooError
from gptzoo.recipe.compose import compose, find_recipe, shipped_names, split_overrides

from .conftest import Bench


def test_a_base_is_applied_first_and_its_name_is_not_inherited(bench: Bench) -> None:
    bench.ship("tiny", "name: tiny\nseed: 3\nmodel: {n_layer: 2, n_head: 2}\n")
    bench.write("rope.yaml", "base: tiny\nmodel: {n_layer: 4}\n")
    assert bench.tree("rope.yaml") == {"name": "rope", "seed": 3, "model": {"n_layer": 4, "n_head": 2}}


def test_later_bases_win_over_earlier_ones(bench: Bench) -> None:
    bench.write("a.yaml", "seed: 1\nmodel: {n_head: 1}\n")
    bench.write("sub/b.yaml", "base: ../a.yaml\nseed: 2\n")
    bench.write("c.yaml", "base: [sub/b.yaml, a.yaml]\n")
    assert bench.tree("c.yaml") == {"name": "c", "seed": 1, "model": {"n_head": 1}}


def test_places_say_where_each_value_came_from(bench: Bench) -> None:
    bench.ship("tiny", "model:\n  attention: {name: multi_head, scale: 2}\n  mlp: gelu\n")
    bench.write("a.yaml", "\nbase: tiny\nmodel: {norm: rmsnorm}\n")
    composed = compose("a.yaml", [("model.attention.scale", "3"), ("seed", "1")], shipped=bench.folder / "recipes")
    assert {".".join(map(str, path)): str(place) for path, place in composed.places.items()} == {
        "name": "a.yaml",
        "seed": "command line",
        "model": "recipes/tiny.yaml:2",
        "model.attention": "recipes/tiny.yaml:2",
        "model.attention.name": "recipes/tiny.yaml:2",
        "model.attention.scale": "command line",
        "model.mlp": "recipes/tiny.yaml:3",
        "model.norm": "a.yaml:3",
    }


def test_a_mapping_is_a_recipe_and_its_places_say_so(bench: Bench) -> None:
    composed = compose({"model": {"n_layer": 2}}, {"model.position": "rope"})
    assert composed.tree == {"name": "recipe", "model": {"n_layer": 2, "position": "rope"}}
    assert {str(place) for place in composed.places.values()} == {"mapping"}


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ("rope", "alibi", "alibi"),
        ("{name: rope, theta: 5}", "rope", "rope"),
        ("{name: rope, theta: 5}", "{name: rope}", {"name": "rope"}),
        ("{name: rope, theta: 5}", "{name: alibi, slope: 1}", {"name": "alibi", "slope": 1}),
        ("{name: rope, theta: 5}", "{pairing: half}", {"name": "rope", "theta": 5, "pairing": "half"}),
        ("{name: rope, theta: 5}", "{theta: 6}", {"name": "rope", "theta": 6}),
        ("rope", "{theta: 6}", {"name": "rope", "theta": 6}),
        ("rope", "{}", {"name": "rope"}),
        ("{name: rope, theta: 5}", "null", None),
        ("null", "{theta: 6}", {"theta": 6}),
        ("[1]", "{theta: 6}", {"theta": 6}),
        ("{name: rope, theta: [1, 2]}", "{theta: [3]}", {"name": "rope", "theta": [3]}),
        ("{name: x, norm: {name: y, eps: 1}}", "{norm: {name: y}}", {"name": "x", "norm": {"name": "y"}}),
        (
            "{name: x, norm: {name: y, eps: 1}}",
            "{norm: {bias: 1}}",
            {"name": "x", "norm": {"name": "y", "eps": 1, "bias": 1}},
        ),
    ],
)
def test_a_block_with_a_name_replaces_and_one_without_merges(bench: Bench, old: str, new: str, merged: object) -> None:
    bench.ship("old", f"model: {{position: {old}}}")
    bench.write("new.yaml", f"base: old\nmodel: {{position: {new}}}")
    assert bench.tree("new.yaml")["model"]["position"] == merged
    assert bench.tree("old", [("model.position", new)])["model"]["position"] == merged
    assert bench.tree("old", [("model", f"{{position: {new}}}")])["model"]["position"] == merged


def test_options_without_a_part_stay_without_a_name(bench: Bench) -> None:
    tree = bench.tree({}, [("model.attention.n_kv_head", "2"), ("data.path", "x.txt")])
    assert tree == {"name": "recipe", "model": {"attention": {"n_kv_head": 2}}, "data": {"path": "x.txt"}}


def test_a_dotted_name_is_the_part_itself(bench: Bench) -> None:
    bench.ship("old", "model: {attention: {name: sliding_window, window: 7}}")
    overrides = [("model.attention.name", "grouped_query"), ("model.attention.n_kv_head", "2")]
    assert bench.tree("old", overrides)["model"] == {"attention": {"name": "grouped_query", "n_kv_head": 2}}


def test_weights_to_start_from_follow_the_same_rules(bench: Bench) -> None:
    bench.ship("old", "train: {init_from: runs/a}")
    assert bench.tree("old", [("train.init_from.partial", "true")])["train"]["init_from"] == {
        "path": "runs/a",
        "partial": True,
    }
    bench.ship("partial", "train: {init_from: {path: runs/a, partial: true}}")
    assert bench.tree("partial", [("train.init_from", "{path: b}")])["train"]["init_from"] == {"path": "b"}


def test_values_on_the_command_line_are_yaml(bench: Bench) -> None:
    raw = [("train.learning_rate", "3e-4"), ("train.sample_prompts", "[a b, 'c: d']"), ("name", "2024"), ("seed", "-1")]
    assert bench.tree({}, raw) == {
        "name": "2024",
        "seed": -1,
        "train": {"learning_rate": 3e-4, "sample_prompts": ["a b", "c: d"]},
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([("models.n_layer", "1")], "command line: models.n_layer: there is no such key. Did you mean model?"),
        ([("model..x", "1")], "command line: model..x: this is not a key. Write words joined by dots."),
        (
            [("model.bias", "no")],
            "command line: model.bias: some readers of YAML take no for false. Write false, or put it in quotes.",
        ),
        (
            [("data.path", "#5.txt")],
            "command line: data.path: a part of the value would be read as a comment or a marker. "
            "Put it in quotes of its own: '\"...\"'.",
        ),
        (
            [("data.path", "a #b")],
            "command line: data.path: a part of the value would be read as a comment or a marker. "
            "Put it in quotes of its own: '\"...\"'.",
        ),
        ([("data.path", "")], "command line: data.path: the value is empty. Put it in quotes of its own: '\"...\"'."),
        (
            [("model.attention.n_kv_head", "2"), ("model.attention", "grouped_query")],
            "command line: model.attention: it would undo model.attention.n_kv_head, which comes before it. "
            "Write model.attention first.",
        ),
        (
            [("model.attention", "sdpa"), ("model.kernel", "naive")],
            "command line: model.attention: sdpa stands for multi_head with kernel: sdpa, and kernel is given as well. "
            "Give one of them.",
        ),
        (
            {"model.n_layer": {1, 2}},
            "mapping: model.n_layer: a set is not a recipe value.",
        ),
        ({"seed": 2**64}, "mapping: seed: the number does not fit 64 bits."),
        ({"train.clip": float("nan")}, "mapping: train.clip: nan is not a finite number."),
        ({"data.path": "\ud800"}, "mapping: data.path: half a surrogate pair is not text."),
    ],
)
def test_a_wrong_override_is_one_line(bench: Bench, overrides: object, line: str) -> None:
    assert bench.refusal({"data": "text"}, overrides) == [line]


def test_a_mapping_within_itself_is_refused(bench: Bench) -> None:
    circle: dict[str, object] = {}
    circle["model"] = circle
    assert bench.refusal(circle) == [f"mapping: {'.'.join(['model'] * 33)}: it is nested deeper than 32 levels."]


def test_the_command_line_names_another_base(bench: Bench) -> None:
    bench.ship("one", "seed: 1\nmodel: {n_head: 1}")
    bench.ship("two", "seed: 2\nmodel: {n_layer: 2}")
    bench.write("a.yaml", "base: one\nmodel: {n_embd: 8}")
    assert bench.tree("a.yaml", [("base", "two")]) == {"name": "a", "seed": 2, "model": {"n_layer": 2, "n_embd": 8}}
    assert bench.tree({"base": ["one", "two"]})["model"] == {"n_head": 1, "n_layer": 2}


# -- shorthand -------------------------------------------------------------------------------------------------------


def test_a_kernels_name_as_attention_is_expanded_in_its_own_file(bench: Bench) -> None:
    bench.ship("old", "model: {attention: {name: sliding_window, window: 7}, kernel: naive}")
    bench.write("new.yaml", "base: old\nmodel: {attention: sdpa}")
    assert bench.tree("new.yaml")["model"] == {"attention": "multi_head", "kernel": "sdpa"}
    bench.write("newer.yaml", "base: new.yaml\nmodel: {kernel: flash}")
    assert bench.tree("newer.yaml")["model"] == {"attention": "multi_head", "kernel": "flash"}
    overrides = [("model.attention", "flex"), ("model.attention.n_kv_head", "2")]
    assert bench.tree("old", overrides)["model"] == {
        "attention": {"name": "multi_head", "n_kv_head": 2},
        "kernel": "flex",
    }


def test_a_kernels_name_is_expanded_in_entries_of_layers(bench: Bench) -> None:
    tree = bench.tree({"model": {"layers": [{"attention": "naive"}, {"attention": "multi_head"}]}})
    entries = [{"attention": "multi_head", "kernel": "naive"}, {"attention": "multi_head"}]
    assert tree["model"]["layers"] == entries


def test_a_shorthand_beside_a_kernel_is_refused(bench: Bench) -> None:
    text = "model:\n  attention: auto\n  kernel: sdpa\n  layers:\n  - {attention: flash, kernel: naive}\n  - {}\n"
    what = "stands for multi_head with kernel:"
    assert bench.refused(text) == [
        f"a.yaml:2: model.attention: auto {what} auto, and kernel is given as well. Give one of them.",
        f"a.yaml:5: model.layers.0.attention: flash {what} flash, and kernel is given as well. Give one of them.",
    ]


def test_a_shorthand_with_options_is_refused(bench: Bench) -> None:
    assert bench.refused("model: {attention: {name: sdpa, n_kv_head: 2}}") == [
        "a.yaml:1: model.attention.name: sdpa is a kernel, not an attention. Write name: multi_head, and kernel: sdpa."
    ]


# -- where recipes are found -----------------------------------------------------------------------------------------


def test_a_shipped_name_and_a_path_are_found(bench: Bench) -> None:
    bench.ship("ablations/positions", "seed: 1")
    bench.write("mine", "seed: 2")
    bench.write("my recipe!.yaml", "seed: 3")
    assert bench.tree("ablations/positions") == {"name": "positions", "seed": 1}
    assert bench.tree("mine") == {"name": "mine", "seed": 2}
    assert bench.tree(Path("my recipe!.yaml")) == {"name": "my-recipe", "seed": 3}
    assert shipped_names(bench.folder / "recipes") == ["ablations/positions"]
    assert find_recipe("mine") == Path("mine")


def test_a_missing_recipe_names_close_matches(bench: Bench) -> None:
    bench.ship("gpt2-tiny", "seed: 1")
    bench.write("mine.yaml", "base: gpt2-tinny")
    assert bench.refusal("gpt2-tinyy") == ["there is no recipe 'gpt2-tinyy'. Did you mean gpt2-tiny?"]
    assert bench.refusal("mines.yaml") == ["there is no recipe 'mines.yaml'. Did you mean mine.yaml?"]
    assert bench.refusal("mine.yaml") == [
        "mine.yaml:1: base: there is no recipe 'gpt2-tinny'. Did you mean gpt2-tiny?",
    ]


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "http://example.org/x.yaml", "../" * 40, ".", "/dev/zero", ""])
def test_an_impossible_recipe_is_one_line(bench: Bench, name: str) -> None:
    (line,) = bench.refusal(name)
    assert line.isprintable()
    bench.write("a.yaml", f"base: {name}" if "\0" not in name and name else "base: 5")
    (line,) = bench.refusal("a.yaml")
    assert line.startswith("a.yaml:1: base: ") or line.startswith("a.yaml:1: ") or name in (".",)


def test_a_base_outside_the_folder_is_refused_whether_it_exists_or_not(bench: Bench) -> None:
    (bench.folder / "secret.yaml").write_text("seed: 1")
    os.symlink(bench.folder / "secret.yaml", bench.folder / "work" / "link.yaml")
    for base in ("../secret.yaml", "../none.yaml", str(bench.folder / "secret.yaml"), "link.yaml"):
        bench.write("a.yaml", f"base: {base}")
        (line,) = bench.refusal("a.yaml")
        assert line.endswith("lies outside ./. A base is a shipped name, or a file in that folder."), line


def test_a_base_in_a_linked_folder_inside_is_allowed(bench: Bench) -> None:
    bench.write("real/b.yaml", "seed: 1")
    os.symlink(bench.folder / "work" / "real", bench.folder / "work" / "linked")
    bench.write("a.yaml", "base: linked/b.yaml")
    assert bench.tree("a.yaml")["seed"] == 1


def test_a_circle_of_bases_is_refused(bench: Bench) -> None:
    bench.write("a.yaml", "base: b.yaml")
    bench.write("b.yaml", "\nbase: [a.yaml]")
    assert bench.refusal("a.yaml") == ["b.yaml:2: base: a.yaml -> b.yaml -> a.yaml is a circle."]


def test_bases_that_multiply_are_refused(bench: Bench) -> None:
    bench.write("b0.yaml", "seed: 1")
    for i in range(1, 12):
        bench.write(f"b{i}.yaml", f"base: [b{i - 1}.yaml, b{i - 1}.yaml]")
    (line,) = bench.refusal("b11.yaml")
    assert line.endswith("base: more than 100 bases are applied.")


def test_a_base_that_is_no_name_is_refused(bench: Bench) -> None:
    assert bench.refused("base: {name: x}") == [
        "a.yaml:1: base: a mapping is not a recipe's name, nor a list of names.",
    ]


def test_a_shipped_recipe_reads_only_shipped_ones(bench: Bench) -> None:
    bench.write("b.yaml", "seed: 1")
    bench.ship("bad", "base: ../work/b.yaml")
    (line,) = bench.refusal("bad")
    assert "'../work/b.yaml' lies outside" in line


def test_keys_that_name_code_are_refused_everywhere(bench: Bench) -> None:
    text = "model:\n  attention: {class_path: os.system, init_args: {}}\n  norm: {_target_: x}\nconfig: b.yaml\n"
    code = "a recipe never names code. Write the name of a registered part."
    assert bench.refused(text, [("data.class_path", "x")]) == [
        f"a.yaml:2: model.attention.class_path: {code}",
        f"a.yaml:2: model.attention.init_args: {code}",
        f"a.yaml:3: model.norm._target_: {code}",
        "a.yaml:4: config: there is no such key. Write base: NAME.",
        f"command line: data.class_path: {code}",
    ]


# -- layers ----------------------------------------------------------------------------------------------------------

LAYERS = "layers: [{attention: sliding_window}, {attention: multi_head, position: none}]"


def test_a_key_that_every_entry_overrides_is_an_error_beside_or_after_layers(bench: Bench) -> None:
    text = f"model:\n  attention: multi_head\n  position: rope\n  {LAYERS}\n"
    what = "every entry of layers (a.yaml:4) overrides it. Leave it out, or change layers."
    assert bench.refused(text) == [f"a.yaml:2: model.attention: {what}"]
    bench.write("b.yaml", "base: c.yaml\nmodel: {attention: multi_head}")
    bench.write("c.yaml", f"model: {{{LAYERS}}}")
    what = "every entry of layers (c.yaml:1) overrides it. Leave it out, or change layers."
    assert bench.refusal("b.yaml") == [f"b.yaml:2: model.attention: {what}"]
    assert bench.refusal("c.yaml", [("model.attention.n_kv_head", "2")]) == [
        f"command line: model.attention: {what}",
    ]


def test_a_key_of_an_earlier_base_is_simply_overridden(bench: Bench) -> None:
    bench.ship("base", "model: {attention: {name: sliding_window, window: 3}, position: rope}")
    bench.write("a.yaml", f"base: base\nmodel: {{{LAYERS}}}")
    assert "attention" not in bench.tree("a.yaml")["model"]
    assert bench.tree("a.yaml")["model"]["position"] == "rope"


def test_options_in_an_entry_change_the_models_part(bench: Bench) -> None:
    bench.ship("base", "model: {attention: {name: sliding_window, window: 3}}")
    bench.write("a.yaml", "base: base\nmodel: {layers: [{attention: {scale: 2.0}}, {attention: multi_head}]}")
    assert bench.tree("a.yaml")["model"]["layers"][0] == {
        "attention": {"name": "sliding_window", "window": 3, "scale": 2.0}
    }


# -- the command line's own words ------------------------------------------------------------------------------------


def test_recipe_keys_are_taken_out_of_a_command_line() -> None:
    argv = [
        "train",
        "r.yaml",
        "--model.attention",
        "gqa",
        "-p",
        "x",
        "--seed=1",
        "--data",
        "text",
        "--resume",
        "--model=a=b",
    ]
    rest, found = split_overrides([*argv, "--train.clip", "-1", "--", "--seed", "2"])
    assert rest == ["train", "r.yaml", "-p", "x", "--resume", "--", "--seed", "2"]
    assert found == [
        ("model.attention", "gqa"),
        ("seed", "1"),
        ("data", "text"),
        ("model", "a=b"),
        ("train.clip", "-1"),
    ]


@pytest.mark.parametrize("argv", [["--train.steps"], ["--train.steps", "--seed=1"]])
def test_a_key_without_a_value_is_refused(argv: list[str]) -> None:
    with pytest.raises(GPTZooError) as caught:
        split_overrides(argv)
    assert str(caught.value) == "command line: train.steps: it has no value. Write --train.steps VALUE."


def test_words_that_only_begin_like_keys_are_left_alone() -> None:
    argv = ["--models", "x", "--dataset=1", "--names", "--seeds", "3", "--training.x"]
    assert split_overrides(argv) == (argv, [])
