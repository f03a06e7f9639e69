"""nanoGPT's checkpoints, through the one door for pickles."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo
from gptzoo.errors import GPTZooError
from gptzoo.exchange import import_run
from gptzoo.interop.pretrained import from_pretrained
from gptzoo.loading import shipped_folder

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "bias": True, "vocab_size": 300, "dropout": 0.0}


def state_for(bias: bool, prefix: str = "_orig_mod.transformer.") -> dict[str, Tensor]:
    """Random weights by nanoGPT's names."""
    drawn, shapes = torch.Generator().manual_seed(0), {"wte": (300, 32), "wpe": (16, 32), "ln_f": (32,)}
    for layer in range(2):
        shapes |= {f"h.{layer}.ln_1": (32,), f"h.{layer}.ln_2": (32,)}
        shapes |= {f"h.{layer}.attn.c_attn": (96, 32), f"h.{layer}.attn.c_proj": (32, 32)}
        shapes |= {f"h.{layer}.mlp.c_fc": (128, 32), f"h.{layer}.mlp.c_proj": (32, 128)}
    state = {f"{prefix}{name}.weight": torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
    if bias:
        named = {name: shape for name, shape in shapes.items() if name not in ("wte", "wpe")}
        state |= {f"{prefix}{name}.bias": torch.randn(shape[0], generator=drawn) for name, shape in named.items()}
    state["_orig_mod.lm_head.weight"] = state[f"{prefix}wte.weight"]
    return state


def logits(state: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """nanoGPT's forward, for one row, in float64."""
    w = {name.removeprefix("_orig_mod.transformer."): tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (32,), w[f"{name}.weight"], w.get(f"{name}.bias"))

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    x, length = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)], len(tokens)
    for layer in range(2):
        qkv = linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        q, k, v = (t.view(length, 4, 8).transpose(0, 1) for t in qkv.split(32, dim=1))
        scores = (q @ k.mT / 8**0.5).masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"h.{layer}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc")), f"h.{layer}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


@pytest.mark.parametrize("bias", [True, False])
def test_its_logits_are_nanogpts(bias: bool, tmp_path: Path) -> None:
    state, tokens = state_for(bias), torch.randint(300, (12,))
    checkpoint = {"model": state, "model_args": {**ARGS, "bias": bias}, "optimizer": {}, "iter_num": 5}
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    done = import_run(tmp_path / "ckpt.pt", tmp_path / "run", overrides={"data.tokenizer": "byte"})
    model = gptzoo.load(done.path).double()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens[None])[0], logits(state, tokens), rtol=0, atol=1e-10)
    assert isinstance(model.tokenizer, gptzoo.Byte)


def test_a_tokenizer_that_is_not_known_has_to_be_named(tmp_path: Path) -> None:
    torch.save({"model": state_for(True), "model_args": ARGS}, tmp_path / "ckpt.pt")
    assert refusal(tmp_path / "ckpt.pt", tmp_path) == (
        "its tokenizer is not known. Name one: --data.tokenizer gpt2, or byte."
    )


class Canary:
    """Leaves a file if it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.file),))


def refusal(file: Path, folder: Path) -> str:
    with pytest.raises(GPTZooError) as refused:
        import_run(file, folder / "run")
    assert not (folder / "run").exists()
    assert "\n" not in str(refused.value)
    return str(refused.value).removeprefix(f"{file}: ")


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    torch.save({"model": state_for(True), "model_args": ARGS, "x": Canary(tmp_path / "canary")}, tmp_path / "ckpt.pt")
    assert refusal(tmp_path / "ckpt.pt", tmp_path).startswith(
        "no tensors can be read from it: Weights only load failed"
    )
    assert not (tmp_path / "canary").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1_000_000)}, "model_args": ARGS}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "ckpt.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    said = "no tensors can be read from it: it is compressed, which torch.save never does."
    assert refusal(tmp_path / "ckpt.pt", tmp_path) == said


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pt").write_bytes(b"\x80\x04N.")
    assert refusal(tmp_path / "ckpt.pt", tmp_path) == (
        "no tensors can be read from it: it is no file that torch.save writes since version 1.6."
    )
    torch.save([1, 2], tmp_path / "ckpt.pt")
    said = "no tensors can be read from it: it holds no mapping of names to tensors."
    assert refusal(tmp_path / "ckpt.pt", tmp_path) == said


def test_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "ckpt.pt")
    said = "it does not describe its model, and there is no config.json beside it."
    assert refusal(tmp_path / "ckpt.pt", tmp_path) == said


def test_every_other_way_names_this_one(tmp_path: Path) -> None:
    torch.save({"model": state_for(True), "model_args": ARGS}, tmp_path / "ckpt.pt")
    with pytest.raises(GPTZooError) as refused:
        from_pretrained(tmp_path / "ckpt.pt")
    assert str(refused.value) == (
        f"{tmp_path / 'ckpt.pt'}: this is a pickle, which can run code when it is read. Have its tensors alone read, "
        f"apart from all else: gptzoo import {tmp_path / 'ckpt.pt'} --out RUN."
    )
