"""A composed recipe becomes typed, or every problem is named."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.errors import GPTZooError
from gptzoo.recipe.annotations import kinds_of
from gptzoo.recipe.compose import compose
from gptzoo.recipe.schema import InitFrom, LayerRecipe, ModelRecipe, Part, Recipe, TrainRecipe
from gptzoo.recipe.typed import typed
from gptzoo.registry import Owner, Zoo

from .conftest import Bench, Colour, filled

ZOO = filled()
MULTI_HEAD = Part("attention", "multi_head", {"n_kv_head": None, "scale": 1.0})
NORM = {"eps": 1e-5, "bias": True}


def test_an_empty_recipe_is_gpt2_124m(bench: Bench) -> None:
    recipe = bench.typed({})
    model = recipe.model
    assert (model.n_layer, model.n_head, model.n_embd, model.context_length) == (12, 12, 768, 1024)
    assert (model.head_dim, model.vocab_size, model.dropout, model.bias) == (None, "auto", 0.0, True)
    assert model.attention == MULTI_HEAD
    assert model.kernel == Part("kernel", "auto")
    assert model.norm == Part("norm", "layernorm", NORM)
    assert [part.name for part in (model.position, model.mlp, model.block, model.head, model.init)] == [
        "learned",
        "gelu",
        "pre",
        "tied",
        "gpt2",
    ]
    layer = LayerRecipe(model.attention, model.kernel, model.position, model.mlp, model.norm, model.block)
    assert model.layers == (layer,) * 12
    assert recipe.data == Part("data", "python_source", {"tokenizer": Part("tokenizer", "byte")})
    assert recipe.train == TrainRecipe()
    assert (recipe.name, recipe.seed) == ("recipe", 0)


def test_options_have_their_defaults_and_aliases_their_name(bench: Bench) -> None:
    recipe = bench.typed({"model": {"attention": {"name": "gqa", "n_kv_head": 2}, "position": "rope"}})
    assert recipe.model.attention == Part("attention", "grouped_query", {"n_kv_head": 2, "qk_norm": None})
    assert recipe.model.position == Part("position", "rope", {"theta": 1e4})


def test_options_without_a_name_are_those_of_the_default_part(bench: Bench) -> None:
    assert bench.typed({}, [("model.attention.n_kv_head", "2")]).model.attention.options["n_kv_head"] == 2


def test_a_part_within_a_part_is_typed_too(bench: Bench) -> None:
    attention = {"name": "gqa", "qk_norm": {"name": "rmsnorm", "eps": 1}}
    recipe = bench.typed({"model": {"attention": attention}})
    assert recipe.model.attention.options["qk_norm"] == Part("norm", "rmsnorm", {"eps": 1.0, "bias": True})
    named = bench.typed({"model": {"attention": {"name": "gqa", "qk_norm": "rmsnorm"}}})
    assert named.model.attention.options["qk_norm"] == Part("norm", "rmsnorm", NORM)


def test_every_kind_of_option_is_typed(bench: Bench) -> None:
    layernorm = Part("norm", "layernorm", NORM)
    assert bench.typed({"model": {"mlp": "rich"}}).model.mlp.options == {
        "sizes": [1, 2],
        "pair": (0.9, 0.95),
        "rates": {},
        "colour": Colour.RED,
        "folder": Path("data"),
        "mode": "tanh",
        "either": 1,
        "norms": (),
        "inner": layernorm,
    }
    given: dict[str, object] = {
        "sizes": [],
        "pair": [1, 0.5],
        "rates": {"a": 1},
        "colour": "BLUE",
        "folder": "~/x",
        "mode": 3,
        "either": "1",
        "norms": ["layernorm", {"name": "rmsnorm", "bias": False}],
        "inner": {"eps": 1},
    }
    assert bench.typed({"model": {"mlp": {"name": "rich", **given}}}).model.mlp.options == {
        "sizes": [],
        "pair": (1.0, 0.5),
        "rates": {"a": 1.0},
        "colour": Colour.BLUE,
        "folder": Path("~/x"),
        "mode": 3,
        "either": "1",
        "norms": (layernorm, Part("norm", "rmsnorm", {"eps": 1e-5, "bias": False})),
        "inner": Part("norm", "layernorm", {"eps": 1.0, "bias": True}),
    }


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("sizes", 1, ": 1 is not a list."),
        ("sizes", [1, "2", True, None], ".1: '2' is not an int. Leave out the quotes."),
        ("pair", [1], ": it has 1 items, and 2 are wanted."),
        ("rates", {"a": "x"}, ".a: 'x' is not a float."),
        ("rates", [1], ": a list is not a mapping."),
        ("colour", "BLU", ": 'BLU' is not RED or BLUE. Did you mean BLUE?"),
        ("colour", 1, ": 1 is not RED or BLUE."),
        ("folder", 1, ": 1 is not a path."),
        ("mode", True, ": true is not tanh, none or 3."),
        ("mode", "3", ": '3' is not tanh, none or 3. Leave out the quotes."),
        ("mode", None, ": null is not tanh, none or 3."),
        ("either", 1.5, ": 1.5 is not an int or a string. Put it in quotes."),
        ("norms", ["x"], ".0: no norm is called 'x'. Known: layernorm, rmsnorm."),
        ("inner", None, ": null is not the name of a part for model.norm."),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(bench: Bench, option: str, value: object, problem: str) -> None:
    lines = bench.refusal({"model": {"mlp": {"name": "rich", option: value}}})
    assert lines[0] == f"mapping: model.mlp.{option}{problem}"


def test_all_problems_are_reported_at_once_with_their_places(bench: Bench) -> None:
    text = """\
trains: 3
seed: -1
model:
  n_embd: abc
  n_head: '3'
  dropout: 1
  bias: 1
  head_dim: None
  vocab_size: aut
  attention: {name: sliding_window, windw: 1, scale: x}
  kernel: {name: auto, backend: flash}
  mlp: torch.nn.Linear
  norm: layernrm
  position: {name: null}
  block: [pre]
train:
  {stepz: 3, steps: -1, batch_size: 1.0, precision: bf61, clip: 0, learning_rate: 0.0, loggers: jsonl, init_from: {}}
"""
    assert bench.refused(text, [("train.keep", "true"), ("train.device", "3")]) == [
        "a.yaml:1: trains: there is no such key. Did you mean train?",
        "a.yaml:2: seed: -1 must be at least 0.",
        "a.yaml:4: model.n_embd: 'abc' is not an int.",
        "a.yaml:5: model.n_head: '3' is not an int. Leave out the quotes.",
        "a.yaml:6: model.dropout: 1 must be at least 0 and below 1.",
        "a.yaml:7: model.bias: 1 is not true or false.",
        "a.yaml:8: model.head_dim: 'None' is not an int or null. Write null.",
        "a.yaml:9: model.vocab_size: 'aut' is not an int or auto. Did you mean auto?",
        "a.yaml:10: model.attention.windw: attention 'sliding_window' has no option 'windw'. Did you mean window?",
        "a.yaml:10: model.attention.scale: 'x' is not a float.",
        "a.yaml:11: model.kernel.backend: kernel 'auto' has no options.",
        "a.yaml:12: model.mlp: 'torch.nn.Linear' looks like code or a path. A recipe names registered parts only.",
        "a.yaml:13: model.norm: no norm is called 'layernrm'. Did you mean layernorm?",
        "a.yaml:14: model.position: null is not the name of a part for model.position.",
        "a.yaml:15: model.block: a list is not the name of a part for model.block.",
        "a.yaml:17: train.stepz: there is no such key. Did you mean steps?",
        "a.yaml:17: train.steps: -1 must be at least 1.",
        "a.yaml:17: train.batch_size: 1.0 is not an int. Write 1.",
        "a.yaml:17: train.learning_rate: 0.0 must be above 0.",
        "a.yaml:17: train.precision: 'bf61' is not fp32, bf16 or fp16. Did you mean bf16?",
        "a.yaml:17: train.clip: 0 must be above 0.",
        "a.yaml:17: train.loggers: 'jsonl' is not a list.",
        "a.yaml:17: train.init_from.path: it is missing.",
        "command line: train.device: 3 is not a string. Put it in quotes.",
        "command line: train.keep: true is not an int.",
    ]


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ({"model": 3}, "mapping: model: 3 is not a mapping of keys."),
        ({"train": None}, "mapping: train: null is not a mapping of keys."),
        ({"name": "../x"}, "mapping: name: '../x' cannot name a folder. Use letters, digits, '.', '_' and '-'."),
        ({"name": ".."}, "mapping: name: '..' cannot name a folder. Use letters, digits, '.', '_' and '-'."),
        ({"name": 3}, "mapping: name: 3 is not a string. Put it in quotes."),
        ({"name": {}}, "mapping: name: a mapping is not a string."),
        (
            {"model.n_embd": 3},
            "mapping: model.n_embd: there is no such key. Write nested mappings, `model: {position: rope}`.",
        ),
        (
            {"arms": {"a": {}}, "seeds": 3},
            "mapping: arms: this is the plan of an ablation, not a recipe. Use it with gptzoo ablate.",
        ),
        (
            {"model": {"n_embd": 100}},
            "mapping: model.n_embd: 100 is not divisible by n_head 12. Change one of them, or set head_dim.",
        ),
        (
            {"model": {"n_head": 7}},
            "mapping: model.n_embd: 768 is not divisible by n_head 7. Change one of them, or set head_dim.",
        ),
        ({"model": {"n_layer": 10**6}}, "mapping: model.n_layer: 1000000 must be at least 1 and at most 1000."),
        (
            {"train": {"batch_size": 8, "micro_batch_size": 3}},
            "mapping: train.micro_batch_size: 3 does not divide batch_size 8.",
        ),
        ({"model": {"mlp": "needy"}}, "mapping: model.mlp.width: mlp 'needy' needs the option 'width'."),
        (
            {"model": {"mlp": {"name": "gelu", "x": 1}}},
            "mapping: model.mlp.x: mlp 'gelu' has no option 'x'. It has none.",
        ),
        (
            {"model": {"norm": {"size": 3}}},
            "mapping: model.norm.size: norm 'layernorm' has no option 'size'. Its options: eps, bias.",
        ),
        (
            {"model": {"attention": {"name": "gqa", "qk_norm": {"eps": 1}}}},
            "mapping: model.attention.qk_norm: it needs the name of a part for model.norm.",
        ),
        (
            {"data": {"tokenizer": "gtp2"}},
            "mapping: data.tokenizer: no tokenizer is called 'gtp2'. Did you mean gpt2?",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(bench: Bench, recipe: dict[str, Any], line: str) -> None:
    assert bench.refusal(recipe) == [line]


@pytest.mark.parametrize("name", ["os.system", "a/b", "../../x", "file:x", "C:\\x", "gptzoo:Pre", ".."])
def test_a_name_that_looks_like_code_imports_nothing(bench: Bench, name: str) -> None:
    before = set(sys.modules)
    what = "looks like code or a path. A recipe names registered parts only."
    assert bench.refusal({"model": {"attention": name}}) == [f"mapping: model.attention: {name!r} {what}"]
    assert bench.refusal({}, {"data.tokenizer": {"name": name}}) == [f"mapping: data.tokenizer: {name!r} {what}"]
    assert set(sys.modules) == before


def test_the_tokenizer_is_written_under_data(bench: Bench) -> None:
    recipe = bench.typed({"data": {"name": "text", "path": "a.txt", "tokenizer": "gpt2"}})
    options = {"tokenizer": Part("tokenizer", "gpt2"), "path": "a.txt", "documents": False}
    assert recipe.data == Part("data", "text", options)


def test_weights_to_start_from_are_a_path_or_more(bench: Bench) -> None:
    assert bench.typed({"train": {"init_from": "runs/a"}}).train.init_from == InitFrom("runs/a", False)
    given = {"path": "runs/a", "partial": True}
    assert bench.typed({"train": {"init_from": given}}).train.init_from == InitFrom("runs/a", True)


# -- the leak of jsonargparse: options of an old component that a new one takes over ---------------------------------


def test_a_new_component_inherits_no_option_from_file_to_file(bench: Bench) -> None:
    bench.write("old.yaml", "model: {attention: {name: multi_head, scale: 5.0, n_kv_head: 3}}")
    for block in ("sliding_window", "{name: sliding_window}"):
        bench.write("new.yaml", f"base: old.yaml\nmodel: {{attention: {block}}}")
        assert bench.typed("new.yaml").model.attention.options == {"window": 256, "scale": 2.0}


def test_a_new_component_inherits_no_option_from_the_command_line(bench: Bench) -> None:
    bench.write("old.yaml", "model: {attention: {name: multi_head, scale: 5.0}}")
    for overrides in (
        [("model.attention", "sliding_window")],
        [("model.attention.name", "sliding_window")],
        [("model.attention", "{name: sliding_window}")],
        [("model", "{attention: sliding_window}")],
    ):
        assert bench.typed("old.yaml", overrides).model.attention.options == {"window": 256, "scale": 2.0}


def test_a_new_component_inherits_no_default(bench: Bench) -> None:
    recipe = bench.typed({}, {"model.attention": "sliding_window"})  # multi_head's own scale is 1.0
    assert recipe.model.attention.options == {"window": 256, "scale": 2.0}


def test_the_same_component_named_again_starts_afresh(bench: Bench) -> None:
    bench.write("old.yaml", "model: {attention: {name: multi_head, scale: 5.0, n_kv_head: 3}}")
    recipe = bench.typed("old.yaml", [("model.attention", "{name: multi_head, n_kv_head: 4}")])
    assert recipe.model.attention.options == {"n_kv_head": 4, "scale": 1.0}


def test_an_option_that_the_new_component_lacks_is_an_error(bench: Bench) -> None:
    bench.write("old.yaml", "model: {attention: {name: sliding_window, window: 3}}")
    overrides = [("model.attention", "gqa"), ("model.attention.window", "3")]
    assert bench.refusal("old.yaml", overrides) == [
        "command line: model.attention.window: attention 'grouped_query' has no option 'window'. "
        "Its options: n_kv_head, qk_norm."
    ]


# -- layers ----------------------------------------------------------------------------------------------------------


def names(model: ModelRecipe, slot: str) -> list[str]:
    return [getattr(layer, slot).name for layer in model.layers]


def test_a_pattern_is_repeated_until_n_layer(bench: Bench) -> None:
    entries = [{"repeat": 2, "attention": "sliding_window"}, {"position": "none"}]
    model = bench.typed({"model": {"n_layer": 6, "position": "rope", "layers": entries}}).model
    assert names(model, "attention") == ["sliding_window", "sliding_window", "multi_head"] * 2
    assert names(model, "position") == ["rope", "rope", "none"] * 2
    assert model.position.name == "rope"


def test_what_all_layers_share_is_the_models(bench: Bench) -> None:
    entries = [{"attention": "gqa", "mlp": "rich"}, {"attention": "gqa"}]
    recipe = bench.typed({"model": {"layers": entries}})
    assert recipe.model.attention.name == "grouped_query"
    same = bench.typed({"model": {"attention": "gqa", "layers": [{"mlp": "rich"}, {}]}})
    assert recipe == same


def test_a_model_part_that_no_layer_uses_is_the_default(bench: Bench) -> None:
    bench.ship("base", "model: {position: none}")
    entries = "[{position: rope}, {position: {name: rope, theta: 5}}]"
    recipe = bench.typed("base", [("model.layers", entries)])
    assert recipe.model.position == Part("position", "learned")
    assert recipe.model == bench.typed({}, [("model.layers", entries)]).model


@pytest.mark.parametrize(
    ("layers", "line"),
    [
        ([{"repeat": 5}], "mapping: model.layers: the entries make 5 layers, which do not divide n_layer 12."),
        ([{"repeat": 0}], "mapping: model.layers.0.repeat: 0 must be at least 1."),
        (
            [{"repeat": 2**62}] * 2,
            f"mapping: model.layers: the entries make {2**63} layers, which do not divide n_layer 12.",
        ),
        ([{"repaet": 3}], "mapping: model.layers.0.repaet: there is no such key. Did you mean repeat?"),
        ([{"head": "tied"}], "mapping: model.layers.0.head: there is no such key."),
        (["sliding_window"], "mapping: model.layers.0: 'sliding_window' is not a mapping of keys."),
        (
            [],
            "mapping: model.layers: an empty list is not a list of entries, `- {repeat: 3, attention: NAME}`.",
        ),
        (3, "mapping: model.layers: 3 is not a list of entries, `- {repeat: 3, attention: NAME}`."),
        (
            [{"attention": {"name": "gqa", "windw": 3}}],
            "mapping: model.layers.0.attention.windw: attention 'grouped_query' has no option 'windw'. "
            "Its options: n_kv_head, qk_norm.",
        ),
    ],
)
def test_a_wrong_pattern_is_one_line(bench: Bench, layers: object, line: str) -> None:
    assert bench.refusal({"model": {"layers": layers}}) == [line]


def test_null_takes_a_pattern_back(bench: Bench) -> None:
    bench.write("a.yaml", "model: {layers: [{attention: gqa}, {}]}")
    assert bench.typed("a.yaml", [("model.layers", "null")]).model == bench.typed({}).model


# -- faults of plugins -----------------------------------------------------------------------------------------------


class Untyped:
    def __init__(self, dims: object, window=3) -> None: ...


class Anything:
    def __init__(self, dims: object, act: Callable[[int], int] | None = None) -> None: ...


class Swallows:
    def __init__(self, dims: object, **options: int) -> None: ...


class PositionalOnly:
    def __init__(self, dims: object, window: int = 3, /) -> None: ...


class Unresolved:
    def __init__(self, dims: Missing, window: Absent = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class WrongDefault:
    def __init__(self, dims: object, window: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


class InfiniteDefault:
    def __init__(self, dims: object, limit: float = float("inf")) -> None: ...


class OnlyWiringUnresolved:
    def __init__(self, dims: Missing, window: int = 3) -> None: ...  # type: ignore[name-defined]  # noqa: F821


ALLOWED = "Use int, float, bool, str, Literal, Enum, Path, lists, tuples and dicts of these, X | None, and parts."


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (Untyped, f"its option 'window' has no type. {ALLOWED}"),
        (Anything, f"its option 'act' has the type collections.abc.Callable[[int], int]. {ALLOWED}"),
        (PositionalOnly, "its option 'window' is positional only, so no recipe can name it."),
        (Unresolved, "its constructor's signature cannot be read: name 'Absent' is not defined."),
        (WrongDefault, "the default of its option 'window' is wrong: null is not an int."),
        (InfiniteDefault, "the default of its option 'limit' is wrong: inf is not a finite number."),
    ],
)
def test_an_option_that_cannot_be_typed_is_the_plugins_fault(bench: Bench, part: type, fault: str) -> None:
    bench.zoo = zoo_with(part)
    assert bench.refusal({"model": {"attention": "odd"}}) == [
        f"mapping: model.attention: attention 'odd' of plugin mine (mine 1.0) is faulty: {fault}"
    ]
    bench.typed({"model": {"attention": "gqa"}})  # and nobody else's


def test_a_constructor_that_swallows_everything_is_given_nothing_unknown(bench: Bench) -> None:
    bench.zoo = zoo_with(Swallows)
    line = "mapping: model.attention.x: attention 'odd' has no option 'x'. It has none."
    assert bench.refusal({"model": {"attention": {"name": "odd", "x": 1}}}) == [line]


def test_annotations_of_the_wiring_need_not_be_resolved(bench: Bench) -> None:
    bench.zoo = zoo_with(OnlyWiringUnresolved)
    assert bench.typed({"model": {"attention": "odd"}}).model.attention.options == {"window": 3}


def zoo_with(part: type) -> Zoo:
    zoo = filled()
    mine = zoo.registering(Owner("mine", "mine 1.0"))
    mine.attention("odd", part)
    mine.commit()
    return zoo


# -- properties ------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
TYPES = {"n_embd": int, "dropout": float, "bias": bool, "name": str}


@settings(max_examples=50, deadline=None)
@given(value=SCALARS, key=st.sampled_from(sorted(TYPES)))
def test_an_accepted_scalar_is_what_was_written(value: object, key: str) -> None:
    tree = {"name": value} if key == "name" else {"model": {"n_head": 1, key: value}}
    try:
        recipe = typed(compose(tree), ZOO)
    except GPTZooError:
        return
    got = recipe.name if key == "name" else getattr(recipe.model, key)
    assert got == value
    assert type(got) is TYPES[key]
    assert type(value) is TYPES[key] or (key == "dropout" and type(value) is int)


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_a_string_option_is_kept_to_the_letter(text: str) -> None:
    try:
        recipe = typed(compose({"data": {"name": "text", "path": text}}), ZOO)
    except GPTZooError:
        assert any(0xD800 <= ord(c) < 0xE000 for c in text)
        return
    assert recipe.data.options["path"] == text


def test_every_default_of_the_schema_is_of_its_own_type() -> None:
    for cls in (Recipe, ModelRecipe, TrainRecipe, InitFrom):
        for field in dataclasses.fields(cls):
            if cls is Recipe or field.name == "layers" or isinstance(field.default, Part):
                continue
            annotation = get_type_hints(cls, include_extras=True)[field.name]
            if field.default is not dataclasses.MISSING:
                value = list(field.default) if isinstance(field.default, tuple) else field.default
                assert any(kind.admits(value) for kind in kinds_of(annotation)), field.name


def test_typing_reads_nothing_but_the_recipe(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a.yaml", "model: {mlp: {name: rich, folder: /etc/passwd}}\ntrain: {device: /etc/passwd}")
    composed = compose("a.yaml")
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a file was opened"))
    assert typed(composed, bench.zoo).train.device == "/etc/passwd"
