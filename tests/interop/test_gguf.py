"""GGUF: written, read again, and read by transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.building import Plan, build_model, build_tokenizer, plan
from gptzoo.errors import GPTZooError
from gptzoo.interop.gguf import write_gguf
from gptzoo.interop.pretrained import from_pretrained, read_pretrained
from gptzoo.loading import shipped_folder
from gptzoo.model import Model
from tests import parity

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

LLAMA: dict[str, object] = {
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
    "context_length": 48,
    "vocab_size": 300,
    "bias": False,
    "attention": {"name": "grouped_query", "n_kv_head": 2},
    "position": {"name": "rope", "theta": 500.0},
    "norm": "rmsnorm",
    "mlp": {"name": "swiglu", "hidden": 96},
}
VARIANTS: dict[str, dict[str, object]] = {
    "llama": {},
    "llama, untied, biased": {"head": "untied", "attention": {"name": "grouped_query", "n_kv_head": 1, "bias": True}},
    "llama, linear rope": {"position": {"name": "rope_linear", "factor": 4.0}},
    "qwen2": {"attention": {"name": "grouped_query", "n_kv_head": 2, "bias": "qkv"}},
    "qwen3": {"attention": {"name": "grouped_query", "n_kv_head": 2, "qk_norm": "rmsnorm"}, "head_dim": 32},
}
Write = Callable[..., tuple[Path, Model]]


def built(options: Mapping[str, object], tokenizer: object = "byte") -> tuple[Model, Plan]:
    recipe = {"name": "ours", "model": {**LLAMA, **options}, "data": {"tokenizer": tokenizer}}
    made = plan(recipe, training=False)
    model, drawn = build_model(made).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    model.tokenizer = build_tokenizer(made)
    return model, made


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(**options: object) -> tuple[Path, Model]:
        model, made = built(options)
        file = tmp_path / "model.gguf"
        write_gguf(model, made, file)
        return file, model

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_is_read_again_bit_for_bit(write: Write, variant: str) -> None:
    file, model = write(**VARIANTS[variant])
    _, tensors = read_pretrained(file)
    expected = model.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())
    tokens = torch.randint(257, (2, 30))
    again = from_pretrained(file)
    with torch.no_grad():
        torch.testing.assert_close(again(tokens), model(tokens), rtol=0, atol=1e-5)
    assert again.tokenizer is not None
    assert again.tokenizer.encode("naïve 12\n") == gptzoo.Byte().encode("naïve 12\n")
    assert again.tokenizer.end == 256


@pytest.mark.parametrize("variant", ["llama", "qwen2"])
def test_transformers_reads_the_same_model(write: Write, variant: str) -> None:
    pytest.importorskip("accelerate")
    file, model = write(**VARIANTS[variant])
    transformers = parity.quiet_transformers()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).eval()
    tokens = torch.randint(257, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"attention": {"name": "sliding_window", "window": 4}}, "model.attention"),
        ({"mlp": "geglu"}, "model.mlp"),
        ({"position": {"name": "rope_llama3"}}, "model.position"),
    ],
)
def test_what_gguf_has_no_words_for_is_refused_by_its_key(options: dict, key: str, tmp_path: Path) -> None:
    model, made = built(options)
    with pytest.raises(GPTZooError) as refused:
        write_gguf(model, made, tmp_path / "model.gguf")
    assert str(refused.value).startswith(f"mapping: {key}")
    assert "GGUF takes llama, qwen2 or qwen3 here" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_gguf_has_no_words_for_is_refused(tmp_path: Path) -> None:
    model, made = built({"vocab_size": 600}, {"name": "bpe", "vocab_size": 300})
    assert model.tokenizer is not None
    model.tokenizer.fit(["some text, some more text"] * 9)
    with pytest.raises(GPTZooError) as refused:
        write_gguf(model, made, tmp_path / "model.gguf")
    assert str(refused.value) == (
        "mapping: data.tokenizer: GGUF has no name for the way in which it cuts words. Use split: gpt2, or byte."
    )


@pytest.mark.parametrize("kept", [0, 3, 30, 500, -1000])
def test_a_truncated_file_is_refused_in_one_line(write: Write, kept: int) -> None:
    file, _ = write()
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(GPTZooError) as refused:
        from_pretrained(file)
    assert str(refused.value).startswith(f"{file}: it is damaged or no GGUF (")
    assert "\n" not in str(refused.value)


def test_a_key_of_which_nothing_is_known_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = write()
    monkeypatch.delitem(gptzoo.interop.gguf.COUNTS, "block_count")  # type: ignore[attr-defined]
    with pytest.raises(GPTZooError) as refused:
        from_pretrained(file)
    assert str(refused.value) == f"{file}: llama.block_count: nothing is known here of this key."
