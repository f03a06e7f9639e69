"""Reading the folders that transformers writes: GPT-2 stands for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import gptzoo
from gptzoo.errors import GPTZooError
from gptzoo.interop.pretrained import from_pretrained, read_pretrained
from gptzoo.loading import shipped_folder
from gptzoo.transfer import load_weights
from tests import numpy_gpt2

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

CONFIG = {
    "model_type": "gpt2",
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "n_positions": 16,
    "vocab_size": 53,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}

Write = Callable[..., Path]


def weights_for(config: Mapping[str, object]) -> dict[str, Tensor]:
    """Random float64 weights by transformers' names, every one of them unlike its initial value."""
    drawn = torch.Generator().manual_seed(0)
    embd, inner = config["n_embd"], config["n_inner"] or 4 * config["n_embd"]  # type: ignore[operator]
    shapes = {"wte.weight": (config["vocab_size"], embd), "wpe.weight": (config["n_positions"], embd)}
    shapes |= {"ln_f.weight": (embd,), "ln_f.bias": (embd,)}
    for layer in range(config["n_layer"]):  # type: ignore[call-overload]
        h = f"h.{layer}."
        shapes |= {f"{h}{name}": (embd,) for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias")}
        shapes |= {f"{h}attn.c_attn.weight": (embd, 3 * embd), f"{h}attn.c_attn.bias": (3 * embd,)}  # type: ignore[operator]
        shapes |= {f"{h}attn.c_proj.weight": (embd, embd), f"{h}attn.c_proj.bias": (embd,)}
        shapes |= {f"{h}mlp.c_fc.weight": (embd, inner), f"{h}mlp.c_fc.bias": (inner,)}
        shapes |= {f"{h}mlp.c_proj.weight": (inner, embd), f"{h}mlp.c_proj.bias": (embd,)}
    return {name: torch.randn(shape, generator=drawn, dtype=torch.float64) * 0.3 for name, shape in shapes.items()}  # type: ignore[arg-type]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder; `None` in a config leaves a key out, `add` and `drop` change the weights."""

    def make(prefix: str = "transformer.", add: Mapping[str, Tensor] = {}, drop: str = "", **config: object) -> Path:
        values = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
        folder = tmp_path / "small"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(values))
        tensors = {prefix + name: tensor for name, tensor in weights_for(CONFIG).items() if name != drop}
        save_file({**tensors, **add}, folder / "model.safetensors")
        return folder

    return make


def refusal(folder: Path | str, overrides: dict[str, Any] | None = None) -> str:
    """What `from_pretrained` says, with `small` for the folder's path."""
    with pytest.raises(GPTZooError) as refused:
        from_pretrained(folder, **overrides or {})
    return "\n".join(refused.value.lines).replace(str(folder), "small")


def tokens_for(vocab_size: int, length: int) -> Tensor:
    return torch.randint(vocab_size, (2, length), generator=torch.Generator().manual_seed(1))


# -- against NumPy ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["naive", "sdpa"])
@pytest.mark.parametrize(("activation", "approximate"), [("gelu_new", True), ("gelu", False)])
def test_logits_are_those_of_an_independent_forward(
    write: Write, kernel: str, activation: str, approximate: bool
) -> None:
    folder, tokens = write(activation_function=activation), tokens_for(53, 16)
    weights = {name: tensor.numpy() for name, tensor in weights_for(CONFIG).items()}
    expected = numpy_gpt2.logits(weights, tokens.numpy(), n_head=4, approximate=approximate)
    with torch.no_grad():
        found = from_pretrained(folder, dtype=torch.float64, overrides={"model.kernel": kernel})(tokens)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


def test_the_reference_sees_what_it_is_asked_to_see() -> None:
    weights = {name: tensor.numpy() for name, tensor in weights_for(CONFIG).items()}
    tokens = tokens_for(53, 16).numpy()
    usual = numpy_gpt2.logits(weights, tokens, n_head=4)
    for other in (
        numpy_gpt2.logits(weights, tokens, n_head=4, approximate=False),
        numpy_gpt2.logits(weights, tokens, n_head=4, eps=1e-4),
        numpy_gpt2.logits(weights, tokens, n_head=2),
    ):
        assert np.abs(other - usual).max() > 1e-5


# -- what is read ----------------------------------------------------------------------------------------------------


def test_the_recipe_says_what_the_config_says(write: Write) -> None:
    recipe, tensors = read_pretrained(write())
    assert recipe == {
        "name": "small",
        "model": {
            "n_layer": 2,
            "n_head": 4,
            "n_embd": 32,
            "context_length": 16,
            "vocab_size": 53,
            "attention": {"name": "multi_head"},
            "position": "learned",
            "norm": {"name": "layernorm", "eps": 1e-5},
            "mlp": {"name": "gelu", "approximate": "tanh"},
            "block": "pre",
            "head": "tied",
        },
    }
    model = from_pretrained(write())
    assert set(tensors) == set(model.state_dict())
    assert load_weights(model, tensors).dropped == ()


def test_queries_keys_and_values_are_split_and_matrices_transposed(write: Write) -> None:
    theirs, ours = weights_for(CONFIG), read_pretrained(write())[1]
    fused = theirs["h.1.attn.c_attn.weight"]
    for index, name in enumerate("qkv"):
        part = slice(32 * index, 32 * (index + 1))
        assert torch.equal(ours[f"layers.1.attention.{name}.weight"], fused[:, part].T)
        assert torch.equal(ours[f"layers.1.attention.{name}.bias"], theirs["h.1.attn.c_attn.bias"][part])
    assert torch.equal(ours["layers.0.mlp.up.weight"], theirs["h.0.mlp.c_fc.weight"].T)
    assert torch.equal(ours["layers.0.norm_2.bias"], theirs["h.0.ln_2.bias"])


def test_names_need_no_prefix(write: Write) -> None:
    with_prefix = read_pretrained(write())[1]
    without = read_pretrained(write(prefix=""))[1]
    assert with_prefix.keys() == without.keys()
    assert all(torch.equal(tensor, without[name]) for name, tensor in with_prefix.items())


def test_stored_masks_are_passed_over(write: Write) -> None:
    masks = {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16), "transformer.h.1.attn.masked_bias": torch.ones(1)}
    assert read_pretrained(write(add=masks))[1].keys() == read_pretrained(write())[1].keys()


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_equals_the_embedding_is_the_embedding(write: Write, tied: bool) -> None:
    head = {"lm_head.weight": weights_for(CONFIG)["wte.weight"]}
    expected = read_pretrained(write())[1]
    assert read_pretrained(write(add=head, tie_word_embeddings=tied))[1].keys() == expected.keys()
    stored_once = read_pretrained(write(add=head, drop="wte.weight"))[1]
    assert torch.equal(stored_once["wte.weight"], expected["wte.weight"])


def test_the_model_is_ready_to_generate(write: Write) -> None:
    model = from_pretrained(write())
    assert not model.training
    assert model.wte.weight.dtype == torch.float32
    assert model.tokenizer is None


def test_half_precision_is_taken_at_the_users_word(write: Write) -> None:
    model = from_pretrained(write(), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(tokens_for(53, 4)).dtype == torch.bfloat16


def test_recipe_keys_override(write: Write) -> None:
    overrides: dict[str, Any] = {"model.kernel": "naive", "model.dropout": 0.1}
    model = from_pretrained(write(), **overrides)
    assert {type(kernel) for kernel in model.kernels} == {gptzoo.Naive}
    assert model.dropout.p == 0.1


# -- the tokenizer ---------------------------------------------------------------------------------------------------


def large_vocabulary(write: Write) -> Path:
    folder = write(vocab_size=50257, drop="wte.weight", add={"transformer.wte.weight": torch.zeros(50257, 32)})
    return folder


def test_gpt2s_vocabulary_brings_gpt2s_tokenizer(write: Write) -> None:
    folder = large_vocabulary(write)
    assert read_pretrained(folder)[0]["data"] == {"tokenizer": "gpt2"}
    tokenizer = from_pretrained(folder).tokenizer
    assert tokenizer is not None
    assert (type(tokenizer).__name__, tokenizer.vocab_size) == ("Gpt2", 50257)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("merges.txt", "#version: 0.2\na b\nc d\n"),
        ("tokenizer.json", json.dumps({"model": {"merges": ["a b", "c d"]}})),
        ("tokenizer.json", json.dumps({"model": {"merges": [["a", "b"], ["c", "d"]]}})),
        ("tokenizer.json", json.dumps({"model": {"type": "WordLevel"}})),
    ],
)
def test_another_tokenizer_of_the_same_size_is_not_taken_for_gpt2s(write: Write, file: str, text: str) -> None:
    folder = large_vocabulary(write)
    (folder / file).write_text(text)
    data = read_pretrained(folder)[0].get("data")
    named = {"tokenizer": {"name": "tokenizer_json", "path": str(folder / file)}}
    assert data == (named if file == "tokenizer.json" else None)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("merges.txt", "#version: 0.2\na b\nc d\n"),
        ("tokenizer.json", json.dumps({"model": {"merges": ["a b", "c d"]}})),
        ("tokenizer.json", json.dumps({"model": {"merges": [["a", "b"], ["c", "d"]]}})),
    ],
)
def test_gpt2s_merges_are_known_in_each_form(
    write: Write, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    import hashlib

    monkeypatch.setattr("gptzoo.interop.tokenizers.GPT2_MERGES", hashlib.sha256(b"a b\nc d").hexdigest())
    folder = large_vocabulary(write)
    (folder / file).write_text(text)
    assert read_pretrained(folder)[0]["data"] == {"tokenizer": "gpt2"}


BYTE: dict[str, Any] = {"data.tokenizer": "byte"}


def test_a_tokenizer_may_be_named(write: Write) -> None:
    folder = write(vocab_size=300, drop="wte.weight", add={"transformer.wte.weight": torch.zeros(300, 32)})
    assert isinstance(from_pretrained(folder, **BYTE).tokenizer, gptzoo.Byte)


def test_a_tokenizer_that_is_too_large_is_refused(write: Write) -> None:
    said = refusal(write(), BYTE)
    assert said.endswith("model.vocab_size: 53 is smaller than the tokenizer's 257. Write auto.")


def test_a_tokenizer_that_must_learn_is_refused(write: Write) -> None:
    said = refusal(write(), {"data.tokenizer": "char"})
    assert said.endswith("data.tokenizer: it has to learn from a corpus, and there is none here.")


# -- refusals --------------------------------------------------------------------------------------------------------


KNOWN = "gpt2, llama, mistral, qwen2, qwen3, gpt_neox or gemma2"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "t5"}, f"model_type: this is a model of type 't5'. Only {KNOWN} can be read."),
        (
            {"model_type": "qwen"},
            f"model_type: this is a model of type 'qwen'. Only {KNOWN} can be read. Did you mean qwen3 or qwen2?",
        ),
        ({"model_type": None}, f"model_type: it does not say which model this is. Only {KNOWN} can be read."),
        (
            {"activation_function": "gelu_fast"},
            "activation_function: 'gelu_fast' cannot be read, only gelu_new, gelu_pytorch_tanh, gelu_python_tanh, gelu "
            "or gelu_python.",
        ),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx: true divides the scores of each layer by its number, which no recipe can "
            "express.",
        ),
        (
            {"reorder_and_upcast_attn": True},
            "reorder_and_upcast_attn: true computes the scores in float32 in any precision, which no recipe can "
            "express.",
        ),
        (
            {"add_cross_attention": True},
            "add_cross_attention: true adds a second attention to each block, which no recipe can express.",
        ),
        (
            {"tie_word_embeddings": False},
            "tie_word_embeddings: it is false, and there is no lm_head.weight.",
        ),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: 1 is neither true nor false."),
        ({"n_head": 5}, "n_head: 5 does not divide n_embd 32."),
        ({"n_layer": 10**9}, "n_layer: 1000000000 is not a whole number from 1 to 1,000."),
        ({"n_embd": "32"}, "n_embd: '32' is not a whole number from 1 to 2,147,483,648."),
        ({"vocab_size": True}, "vocab_size: True is not a whole number from 1 to 2,147,483,648."),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon: 0 is not a number above 0."),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon: nan is not a number above 0."),
    ],
    ids=str,
)
def test_what_cannot_be_expressed_is_refused_by_its_key(write: Write, config: dict, said: str) -> None:
    assert refusal(write(**config)) == f"small/config.json: {said}"


def test_all_of_a_configs_problems_are_told_at_once(write: Write) -> None:
    said = refusal(write(n_head=5, activation_function="relu", reorder_and_upcast_attn=True))
    assert [line.split(": ")[1] for line in said.split("\n")] == [
        "activation_function",
        "reorder_and_upcast_attn",
        "n_head",
    ]


def test_a_head_of_its_own_where_the_config_says_tied_is_refused(write: Write) -> None:
    said = refusal(write(add={"lm_head.weight": torch.ones(53, 32)}, tie_word_embeddings=True))
    assert said == "small/config.json: tie_word_embeddings: it is true, and lm_head.weight is not wte.weight."


def test_weights_of_other_sizes_are_refused(write: Write) -> None:
    said = refusal(write(n_positions=17, n_layer=1))
    assert said == (
        "small: its weights do not fit its config.json: 12 are unknown here (h.1.attn.c_attn.bias, "
        "h.1.attn.c_attn.weight, h.1.attn.c_proj.bias, ...), 1 is of another kind (wpe.weight: shape (16, 32) is not "
        "(17, 32))."
    )


def test_a_missing_weight_and_one_that_is_not_finite_are_refused(write: Write) -> None:
    broken = weights_for(CONFIG)["h.0.mlp.c_fc.bias"]
    broken[3] = torch.inf
    said = refusal(write(drop="ln_f.bias", add={"transformer.h.0.mlp.c_fc.bias": broken}))
    assert said == (
        "small: its weights do not fit its config.json: 1 is missing (ln_f.bias), 1 is not finite (h.0.mlp.c_fc.bias)."
    )


def test_a_weight_that_is_there_twice_is_refused(write: Write) -> None:
    said = refusal(write(add={"ln_f.bias": torch.zeros(32)}))
    assert said == "small: it holds both 'ln_f.bias' and 'transformer.ln_f.bias'."


def test_an_override_that_leaves_weights_over_is_refused(write: Write) -> None:
    assert refusal(write(), {"model.position": "rope"}) == (
        "small: the weights do not fit the model: 1 is unknown here (positions.0.wpe.weight). To start from those that "
        "fit, train with train.init_from and partial: true."
    )


def test_a_missing_folder_is_refused() -> None:
    assert refusal("no/such/gpt2") == "small: there is no such file or folder, and this is no name on the hub."


def test_a_name_on_the_hub_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refusal("nobody/nothing")
    assert said.startswith("small: there is no such path here, and the hub does not give it: ")
    assert said.endswith(" Check the name and the network, or name a folder.")
    assert "\n" not in said


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("weights")
    assert refusal(tmp_path / "model.txt") == (
        "small: this is no model that can be read. Name a folder that transformers' save_pretrained wrote, or a .gguf "
        "file."
    )


def test_a_folder_may_be_called_as_the_hubs(write: Write) -> None:
    assert from_pretrained(f"hf:{write()}").dims.n_embd == 32


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        "small/config.json: there is no such file. Name a folder that transformers' save_pretrained wrote."
    )


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff\xfe"], ids=["cut", "deep", "not UTF-8"])
def test_a_config_that_is_not_json_is_refused(write: Write, text: str) -> None:
    folder = write()
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    said = refusal(folder)
    assert said.startswith("small/config.json: this is not JSON that can be read: ")
    assert "\n" not in said


def test_a_config_that_is_no_mapping_is_refused(write: Write) -> None:
    folder = write()
    (folder / "config.json").write_text("[]")
    assert refusal(folder) == "small/config.json: this is not a JSON object."


def test_a_folder_without_weights_is_refused(write: Write) -> None:
    folder = write()
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == "small: it holds neither model.safetensors nor model.safetensors.index.json."


def test_a_pickle_is_refused_and_the_safe_way_named(write: Write) -> None:
    folder = write()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(folder) == (
        "small: pytorch_model.bin is a pickle, which can run code when it is read. Have its tensors alone read, apart "
        "from all else: gptzoo import small/pytorch_model.bin --out RUN. Or ask its author for model.safetensors."
    )


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 3000, -1])
def test_a_truncated_file_is_refused(write: Write, kept: int) -> None:
    folder = write()
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:kept])
    said = refusal(folder)
    assert said.startswith("small/model.safetensors: it is damaged (")
    assert said.endswith("). Copy it again.")
    assert "\n" not in said


# -- in parts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(write: Write) -> tuple[Path, dict[str, str]]:
    """A folder with its weights in two files, and the index's mapping."""
    folder = write()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {"model-1.safetensors": names[:10], "model-2.safetensors": names[10:]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    mapping = {name: file for file, held in files.items() for name in held}
    write_index(folder, mapping)
    return folder, mapping


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_parts_make_a_whole(parts: tuple[Path, dict[str, str]], write: Write) -> None:
    expected = read_pretrained(parts[0])[1]
    whole = read_pretrained(write())[1]
    assert expected.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in expected.items())


def test_a_missing_part_is_refused(parts: tuple[Path, dict[str, str]]) -> None:
    (parts[0] / "model-2.safetensors").unlink()
    assert refusal(parts[0]) == (
        "small/model-2.safetensors: there is no such file, and model.safetensors.index.json names it. Copy it again."
    )


def test_a_part_that_is_not_what_the_index_says_is_refused(parts: tuple[Path, dict[str, str]]) -> None:
    folder, mapping = parts
    write_index(folder, {name: file for name, file in mapping.items() if name != "transformer.wte.weight"})
    assert refusal(folder) == (
        "small/model.safetensors.index.json: weight_map: it and model-2.safetensors disagree on "
        "'transformer.wte.weight'. Copy them again."
    )


@pytest.mark.parametrize("file", ["../small/model-2.safetensors", "/etc/passwd", "pytorch_model-2.bin"])
def test_an_index_may_only_name_files_of_its_folder(parts: tuple[Path, dict[str, str]], file: str) -> None:
    folder, mapping = parts
    write_index(folder, {**mapping, "transformer.wte.weight": file})
    assert refusal(folder) == (
        f"small/model.safetensors.index.json: weight_map: {file!r} is not a safetensors file of this folder."
    )


@pytest.mark.parametrize("weight_map", [None, [], {"wte.weight": 1}])
def test_an_index_without_a_mapping_is_refused(parts: tuple[Path, dict[str, str]], weight_map: object) -> None:
    write_index(parts[0], weight_map)
    assert refusal(parts[0]) == (
        "small/model.safetensors.index.json: weight_map: it does not say which file holds which weight."
    )
