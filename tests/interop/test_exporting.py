"""Our models as transformers': the same logits there, the same recipe and weights back, or a refusal by key."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from gptzoo.building import Plan, build_model, build_tokenizer, plan_with
from gptzoo.errors import GPTZooError, NoSpace
from gptzoo.interop.composition import Composition, differences
from gptzoo.interop.exporting import expressed, write_transformers
from gptzoo.interop.hub_model import HubModel, write_hub_model
from gptzoo.interop.pretrained import from_pretrained, read_pretrained
from gptzoo.loading import load_plugins, shipped_folder
from gptzoo.model import Model
from tests import parity

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

LOADED = load_plugins()
EPS = st.sampled_from([1e-5, 1e-6, 1e-3])
THETA = st.sampled_from([10000.0, 500.0, 1e6])
SIZES = {
    "n_layer": st.integers(1, 3),
    "n_head": st.sampled_from([2, 4]),
    "context_length": st.integers(8, 40),
    "vocab_size": st.integers(3, 60),
    "head": st.sampled_from(["tied", "untied"]),
}
GELU = st.fixed_dictionaries(
    {"name": st.just("gelu"), "approximate": st.sampled_from(["tanh", "none"])}, optional={"hidden": st.integers(1, 70)}
)
GATED = st.one_of(
    st.fixed_dictionaries({"name": st.just("swiglu")}, optional={"hidden": st.integers(1, 70)}),
    st.fixed_dictionaries({"name": st.just("geglu"), "approximate": st.sampled_from(["tanh", "none"])}),
)
LAYERNORM = st.fixed_dictionaries({"name": st.just("layernorm"), "eps": EPS})
RMSNORM = st.fixed_dictionaries({"name": st.just("rmsnorm"), "eps": EPS})
ROPE = st.fixed_dictionaries({"name": st.just("rope"), "theta": THETA})
SCALED = st.one_of(
    ROPE,
    st.fixed_dictionaries({"name": st.just("rope_linear"), "theta": THETA, "factor": st.floats(1, 8)}),
    st.fixed_dictionaries(
        {
            "name": st.just("rope_llama3"),
            "theta": THETA,
            "factor": st.floats(1, 8),
            "original_length": st.integers(4, 40),
            "low_turns": st.floats(0.5, 1.5),
            "high_turns": st.floats(2, 5),
        }
    ),
    st.fixed_dictionaries(
        {
            "name": st.just("rope_yarn"),
            "theta": THETA,
            "factor": st.floats(1, 8),
            "original_length": st.integers(24, 40),
            "beta_fast": st.floats(4, 8),
            "truncate": st.booleans(),
        },
        optional={"temperature": st.floats(0.5, 1.5)},
    ),
)


def attention(name: str = "multi_head", **options: st.SearchStrategy) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({"name": st.just(name)}, optional=options)


GROUPS = st.sampled_from([1, 2])
FAMILIES: dict[str, dict[str, st.SearchStrategy]] = {
    "gpt2": {
        **SIZES,
        "n_embd": st.sampled_from([16, 24]),
        "attention": attention(scale=st.just(1.0)),
        "norm": LAYERNORM,
        "mlp": GELU,
    },
    "llama": {
        **SIZES,
        "n_embd": st.sampled_from([16, 24]),
        "head_dim": st.sampled_from([None, 8, 10]),
        "bias": st.booleans(),
        "attention": st.one_of(
            attention(bias=st.booleans()),
            attention("multi_query"),
            st.fixed_dictionaries({"name": st.just("grouped_query"), "n_kv_head": GROUPS}),
        ),
        "position": SCALED,
        "norm": RMSNORM,
        "mlp": GATED,
    },
    "mistral": {
        **SIZES,
        "n_embd": st.just(16),
        "bias": st.just(False),
        "attention": st.fixed_dictionaries(
            {"name": st.just("sliding_window"), "window": st.integers(1, 9)}, optional={"n_kv_head": GROUPS}
        ),
        "position": ROPE,
        "norm": RMSNORM,
        "mlp": GATED,
    },
    "qwen2": {
        **SIZES,
        "n_embd": st.just(16),
        "bias": st.just(False),
        "attention": st.just({"name": "grouped_query", "n_kv_head": 2, "bias": "qkv"}),
        "position": SCALED,
        "norm": RMSNORM,
        "mlp": GATED,
    },
    "qwen3": {
        **SIZES,
        "n_embd": st.just(16),
        "head_dim": st.sampled_from([None, 6]),
        "bias": st.just(False),
        "attention": attention("multi_head", bias=st.booleans()).map(
            lambda options: {**options, "qk_norm": {"name": "rmsnorm", "eps": 1e-5}}
        ),
        "position": ROPE,
        "norm": st.just({"name": "rmsnorm", "eps": 1e-5}),
        "mlp": GATED,
    },
    "gemma2": {
        **SIZES,
        "n_embd": st.just(16),
        "head_dim": st.just(10),
        "bias": st.just(False),
        "head": st.sampled_from(["tied", {"name": "softcap", "cap": 5.0}]),
        "attention": st.sampled_from(
            [
                {"name": "grouped_query", "n_kv_head": 2, "scale": 0.5, "softcap": 3.0},
                {"name": "sliding_window", "window": 4, "scale": 20**-0.5},
            ]
        ),
        "position": ROPE,
        "norm": RMSNORM,
        "mlp": GATED,
        "block": st.just("sandwich"),
    },
    "gpt_neox": {
        **SIZES,
        "n_embd": st.sampled_from([16, 32]),
        "attention": attention(bias=st.booleans()),
        "position": st.fixed_dictionaries(
            {"name": st.just("rope"), "theta": THETA}, optional={"fraction": st.sampled_from([0.5, 1.0])}
        ),
        "norm": LAYERNORM,
        "mlp": GELU,
        "block": st.sampled_from(["pre", {"name": "parallel", "norms": 2}]),
    },
}


def made_of(model: Mapping[str, object]) -> Plan:
    return plan_with(LOADED, {"name": "ours", "model": dict(model)}, training=False)


def perturbed(made: Plan) -> Model:
    """The model in float64, none of its weights at its initial value."""
    model, drawn = build_model(made).double().eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn, dtype=torch.float64) * 0.2)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_what_leaves_computes_the_same_there_and_comes_back_the_same(family: str, data: st.DataObject) -> None:
    transformers = parity.quiet_transformers()
    recipe = data.draw(st.fixed_dictionaries(FAMILIES[family]))
    made = made_of(recipe)
    model = perturbed(made)
    tokens = torch.randint(recipe["vocab_size"], (2, recipe["context_length"]))
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        folder = Path(scratch, "out")
        assert write_transformers(model, made, folder).model_type == family
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        assert (theirs.config.model_type, theirs.dtype) == (family, torch.float64)
        found, expected = theirs(tokens).logits, model(tokens)
        if family == "gpt2":
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        else:
            assert parity.relative_difference(found, expected) < 1e-6
            found32, expected32 = theirs.float()(tokens).logits, model.float()(tokens)
            torch.testing.assert_close(found32, expected32, rtol=0, atol=1e-4)
            model.double()
        mapping, tensors = read_pretrained(folder)
        assert differences(Composition(made), Composition(plan_with(LOADED, mapping, training=False))) == []
    kept = perturbed(made).state_dict()
    assert tensors.keys() == kept.keys()
    for name, tensor in tensors.items():
        if family == "gemma2":  # whose norms and embedding are folded, which rounds
            torch.testing.assert_close(tensor, kept[name], rtol=1e-13, atol=1e-14)
        else:
            assert torch.equal(tensor, kept[name])


# -- refusals --------------------------------------------------------------------------------------------------------

LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 11}
REMEDY = "Change it, or use --format hub-mixin, which takes everything."


def refusal(**model: object) -> list[str]:
    with pytest.raises(GPTZooError) as refused:
        expressed(made_of({**SMALL, **model}))
    return [line.removeprefix("mapping: ") for line in refused.value.lines]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"position": "alibi"}, "model.position: alibi cannot leave as gpt2, {}, which has learned."),
        ({"norm": "rmsnorm"}, "model.norm: rmsnorm cannot leave as gpt2, {}, which has layernorm."),
        (
            {"attention": {"name": "multi_head", "softcap": 5.0}},
            "model.attention.softcap: 5.0 cannot leave as gpt2, {}, which has null.",
        ),
        (
            {"layers": [{"norm": "layernorm"}, {"norm": {"name": "layernorm", "eps": 0.5}}]},
            "model.norm.eps: 0.5 cannot leave as gpt2, {}, which has 1e-05.",
        ),
        ({**LLAMA, "block": "post"}, "model.block: post cannot leave as llama, {}, which has pre."),
        (
            {**LLAMA, "position": {"name": "rope", "pairing": "interleaved"}},
            "model.position.pairing: interleaved cannot leave as llama, {}, which has half.",
        ),
        (
            {**LLAMA, "position": {"name": "rope", "fraction": 0.5}},
            "model.position.fraction: 0.5 cannot leave as llama, {}, which has 1.0.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_architecture_has_is_refused_by_its_key(model: dict, said: str) -> None:
    nearest = "the nearest of transformers' architectures"
    assert refusal(**model) == [f"{said.format(nearest)} {REMEDY}"]


def test_all_keys_that_stand_in_the_way_are_named() -> None:
    said = refusal(**{**LLAMA, "block": "post", "position": {"name": "rope", "pairing": "interleaved"}})
    assert [line.split(": ")[0] for line in said] == ["model.position.pairing", "model.block"]


def test_heads_that_do_not_divide_the_width_leave_as_what_bears_them() -> None:
    odd = {**SMALL, **LLAMA, "n_embd": 30, "head_dim": 8}
    assert expressed(made_of(odd))[0].model_type == "mistral"
    (said,) = refusal(**{**odd, "attention": {"name": "multi_head", "bias": True}})
    assert said.startswith("model.attention.bias: true cannot leave as mistral, ")


def test_dropout_init_and_kernel_stay_at_home() -> None:
    usual = {**SMALL, "dropout": 0.1, "kernel": "naive", "init": {"name": "gpt2", "std": 0.5}}
    family, values = expressed(made_of(usual))
    assert family.model_type == "gpt2"
    assert (values["resid_pdrop"], values["embd_pdrop"], values["attn_pdrop"]) == (0.1, 0.1, 0.1)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    made = made_of(SMALL)
    with pytest.raises(GPTZooError) as refused:
        write_transformers(build_model(made), made, tmp_path)
    assert str(refused.value) == f"{tmp_path}: it exists already. Name another, or remove it."
    assert list(tmp_path.iterdir()) == []


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptzoo.interop.exporting.write_tensors", full)
    made = made_of(SMALL)
    with pytest.raises(NoSpace):
        write_transformers(build_model(made), made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_large_model_leaves_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_of(SMALL)
    model = perturbed(made)
    monkeypatch.setattr(
        huggingface_hub.save_torch_state_dict,
        "__kwdefaults__",
        {**(huggingface_hub.save_torch_state_dict.__kwdefaults__ or {}), "max_shard_size": "50KB"},
    )
    write_transformers(model, made, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    _, tensors = read_pretrained(tmp_path / "out")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())
    theirs = parity.quiet_transformers().AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.randint(11, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=0, atol=1e-10)


# -- the hub's mixin -------------------------------------------------------------------------------------------------


def test_any_composition_leaves_with_the_mixin_and_comes_back(tmp_path: Path) -> None:
    layers = [{"attention": "multi_head"}, {"attention": {"name": "sliding_window", "window": 4}, "kernel": "naive"}]
    made = made_of({**SMALL, "position": "alibi", "layers": layers})
    model = perturbed(made)
    write_hub_model(model, made, tmp_path / "out")
    tokens = torch.randint(11, (2, 12))
    with torch.no_grad():
        expected = model(tokens)
        found = from_pretrained(tmp_path / "out", dtype=torch.float64)(tokens)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        again = HubModel.from_pretrained(tmp_path / "out")
        torch.testing.assert_close(again(tokens), expected.float(), rtol=0, atol=1e-4)


def test_a_learned_tokenizer_goes_with_the_mixin(tmp_path: Path) -> None:
    made = plan_with(LOADED, {"name": "ours", "model": SMALL, "data": {"tokenizer": "char"}}, training=False)
    model = build_model(made)
    model.tokenizer = build_tokenizer(made)
    model.tokenizer.fit(["hello"])
    write_hub_model(model, made, tmp_path / "out")
    again = from_pretrained(tmp_path / "out").tokenizer
    assert again is not None
    assert again.encode("hell") == model.tokenizer.encode("hell")


def test_weights_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    made = made_of(SMALL)
    write_hub_model(build_model(made), made, tmp_path / "out")
    save_file({"other": torch.zeros(2)}, tmp_path / "out" / "model.safetensors")
    with pytest.raises(GPTZooError) as refused:
        from_pretrained(tmp_path / "out")
    assert (
        str(refused.value) == f"{tmp_path / 'out'}: 'other' is no weight of the model that its config.json describes."
    )
