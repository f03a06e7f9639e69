"""GGUF, the file of llama.cpp: read whatever its quantization, written in full precision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from gptzoo.building import Plan
from gptzoo.errors import GPTZooError, any_of
from gptzoo.files import canonical_json, make_folder, write_atomically
from gptzoo.interop.config import Config, one_line
from gptzoo.interop.exporting import expressed, new_path
from gptzoo.interop.llama import LLAMA
from gptzoo.interop.weights import NameMap
from gptzoo.model import Model
from gptzoo.parts.byte_level import bytes_json
from gptzoo.tokens import cache_folder

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Those that bear the same name in `config.json`."""

COUNTS: Mapping[str, str] = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "rope.dimension_count": "head_dim",
    "vocab_size": "vocab_size",
}
NUMBERS: Mapping[str, str] = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""Its keys, after the architecture's name -> those of `config.json`."""

SCALING: Mapping[str, str] = {
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
}

NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
    "output_norm": "model.norm",
    "output": "lm_head",
}
"""Its modules -> transformers'."""

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
GPT2_WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
WORDS: Mapping[str, tuple[str, ...]] = {
    "gpt-2": (GPT2_WORDS,),
    "smollm": (r"\p{N}", GPT2_WORDS),
    "llama-bpe": (LLAMA3_WORDS,),
    "qwen2": (LLAMA3_WORDS.replace("{1,3}", ""),),
}
"""`tokenizer.ggml.pre` -> the patterns that no token crosses, one within the other."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types


# -- reading ---------------------------------------------------------------------------------------------------------


def read_gguf(file: Path) -> tuple[Config, dict[str, Tensor], object]:
    """A model as transformers would describe it: config, weights dequantized to float32, tokenizer as in a recipe.

    Raises:
        GPTZooError: It is damaged, of another architecture, or says what is not known here.
    """
    reader = _opened(file)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    tensors = dict(_tensors(reader, file))
    config = _config(facts, tensors, str(file))
    config.raise_problems()
    if config.values["model_type"] == "llama":
        heads = {"q": config.count("num_attention_heads", 1), "k": config.count("num_key_value_heads", 1)}
        tensors = {name: _turned_back(name, tensor, heads) for name, tensor in tensors.items()}
    return config, tensors, _tokenizer(facts)


def _library(where: str) -> ModuleType:
    try:
        import gguf  # late: it is an extra
    except ImportError as error:
        raise GPTZooError("GGUF needs the package gguf: pip install gptzoo[hf].", where) from error
    return gguf


def _opened(file: Path) -> GGUFReader:
    gguf = _library(str(file))
    try:
        return gguf.GGUFReader(file)
    except Exception as error:  # of struct, NumPy or Python's own, wherever the bytes end
        raise GPTZooError(f"it is damaged or no GGUF ({one_line(error)}). Copy it again.", str(file)) from error


def _config(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> Config:
    architecture = facts.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise GPTZooError(f"this is a model of type {architecture!r}. Only {any_of(ARCHITECTURES)} can be read.", where)
    values: dict[str, object] = {"model_type": architecture}
    scaling: dict[str, object] = {}
    config = Config(values, where)
    for name, value in facts.items():
        key = name.removeprefix(f"{architecture}.")
        known = {**COUNTS, **NUMBERS, **SCALING}.get(key)
        if key == name:
            continue
        if known is None:
            config.problems.append(GPTZooError("nothing is known here of this key.", f"{where}: {name}"))
            continue
        target = scaling if key in SCALING else values
        plain = _shortest(value) if isinstance(value, float) else value
        if target.setdefault(known, plain) != plain:
            said = f"{value} is not {target[known]}, as another key has it for {known}."
            config.problems.append(GPTZooError(said, f"{where}: {name}"))
    if scaling.get("rope_type", "none") != "none":
        values["rope_scaling"] = scaling
    if "rope_freqs.weight" in tensors:
        what = "RoPE whose frequencies are listed, as of Llama 3.1, cannot be read. Take its safetensors."
        config.problems.append(GPTZooError(what, f"{where}: rope_freqs.weight"))
    values["tie_word_embeddings"] = "lm_head.weight" not in tensors
    values["attention_bias"] = any(name.endswith("q_proj.bias") for name in tensors)
    values["mlp_bias"] = any(name.endswith("up_proj.bias") for name in tensors)
    if "model.embed_tokens.weight" in tensors:
        values.setdefault("vocab_size", tensors["model.embed_tokens.weight"].shape[0])
    return config


def _shortest(number: float) -> float:
    """1e-05 for 9.999999747378752e-06: what a float32 was before it was one."""
    return float(str(np.float32(number)))


def _tensors(reader: GGUFReader, file: Path) -> Iterator[tuple[str, Tensor]]:
    from gguf.quants import dequantize

    for tensor in reader.tensors:
        try:
            plain = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=True))
        except (ValueError, NotImplementedError, KeyError) as error:
            what = f"{tensor.name} cannot be read as {tensor.tensor_type.name} ({one_line(error)}). Copy it again."
            raise GPTZooError(what, str(file)) from error
        yield _translated(tensor.name, NAMES), plain


def _translated(name: str, table: Mapping[str, str]) -> str:
    """A tensor's name by a table of modules; one that is not in it stays as it is."""
    module, _, kind = name.rpartition(".")
    layer = re.search(r"\.(\d+)\.", module)
    general = module if layer is None else module.replace(layer[0], ".{}.", 1)
    made = table.get(general)
    return name if made is None else f"{made.format(layer[1] if layer else '')}.{kind}"


def _turned_back(name: str, tensor: Tensor, heads: Mapping[str, int]) -> Tensor:
    """llama.cpp turns neighbouring dimensions of Llama's heads, transformers those half a head apart."""
    module = re.search(r"\.([qk])_proj\.", name)
    if module is None:
        return tensor
    return rearrange(tensor, "(h d two) ... -> (h two d) ...", h=heads[module[1]], two=2)


def _tokenizer(facts: Mapping[str, Any]) -> object:
    """Its tokenizer as in a recipe, written to a file in the cache; None if it is of a kind not known here."""
    words = WORDS.get(facts.get("tokenizer.ggml.pre", ""))
    if facts.get("tokenizer.ggml.model") != "gpt2" or words is None:
        return None
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts.get("tokenizer.ggml.token_type")
    added = (
        {} if kinds is None else {n: kind == CONTROL for n, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)}
    )
    merges = [tuple(merge.split(" ", 1)) for merge in facts.get("tokenizer.ggml.merges", ())]
    made = bytes_json(
        {token: number for number, token in enumerate(tokens)},
        merges,
        words,
        {number: (tokens[number], special) for number, special in added.items()},
        ignore_merges=facts["tokenizer.ggml.pre"] == "llama-bpe",
    )
    data = canonical_json(made).encode()
    folder = cache_folder().parent / "tokenizers" / hashlib.sha256(data).hexdigest()
    make_folder(folder)
    write_atomically(folder / "tokenizer.json", data)
    end = facts.get("tokenizer.ggml.eos_token_id")
    return {
        "name": "tokenizer_json",
        "path": str(folder / "tokenizer.json"),
        **({} if end is None else {"end": tokens[end]}),
    }


# -- writing ---------------------------------------------------------------------------------------------------------


def write_gguf(model: Model, made: Plan, file: Path) -> str:
    """Write a model and its tokenizer for llama.cpp, in float32. The file is whole or not there.

    Args:
        model: With its tokenizer.
        made: The recipe that it was built from, with the size of its vocabulary.
        file: Must not exist.

    Returns:
        The architecture.

    Raises:
        GPTZooError: GGUF cannot express the model or its tokenizer, or the file cannot be written.
    """
    gguf = _library(str(file))
    architecture, values = _described(made)
    tokenizer = _tokenizer_facts(model, made)
    names = NameMap(LLAMA.table(model.dims), model.state_dict(), model.dims.n_layer)
    theirs = {
        LLAMA.full_name(name): tensor.detach().cpu().float()
        for name, tensor in names.theirs(model.state_dict()).items()
    }
    with new_path(file, need=sum(tensor.nbytes for tensor in theirs.values())) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        writer.add_name(made.recipe.name)
        for key, known in COUNTS.items():
            writer.add_uint32(f"{architecture}.{key}", values[known])
        for key, known in NUMBERS.items():
            writer.add_float32(f"{architecture}.{key}", values[known])
        _write_scaling(writer, architecture, values)
        for key, fact in tokenizer.items():
            _write_fact(writer, key, fact)
        heads = {"q": values["num_attention_heads"], "k": values["num_key_value_heads"]}
        for name, tensor in theirs.items():
            turned = _turned(name, tensor, heads) if architecture == "llama" else tensor
            writer.add_tensor(_translated(name, {known: module for module, known in NAMES.items()}), turned.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return architecture


def _described(made: Plan) -> tuple[str, dict[str, Any]]:
    """The architecture and its config.

    Raises:
        GPTZooError: GGUF has no words for it.
    """
    family, values = expressed(made)
    kind = {"mistral": "llama"}.get(family.model_type, family.model_type)
    scaling = values.get("rope_scaling")
    for wrong, key in (
        (kind not in ARCHITECTURES, "model"),
        (values.get("sliding_window") is not None, "model.attention.window"),
        (values.get("hidden_act") != "silu", "model.mlp"),
        (isinstance(scaling, dict) and scaling["rope_type"] != "linear", "model.position"),
    ):
        if wrong:
            what = f"GGUF takes {any_of(ARCHITECTURES)} here, without windows, with swiglu and rope or rope_linear"
            raise GPTZooError(f"{what}. Use --format transformers.", made.where(key))
    return kind, values


def _write_scaling(writer: GGUFWriter, architecture: str, values: Mapping[str, Any]) -> None:
    scaling = values.get("rope_scaling")
    if scaling is not None:
        writer.add_string(f"{architecture}.rope.scaling.type", scaling["rope_type"])
        writer.add_float32(f"{architecture}.rope.scaling.factor", scaling["factor"])


def _turned(name: str, tensor: Tensor, heads: Mapping[str, int]) -> Tensor:
    """The inverse of `_turned_back`."""
    module = re.search(r"\.([qk])_proj\.", name)
    if module is None:
        return tensor
    return rearrange(tensor, "(h two d) ... -> (h d two) ...", h=heads[module[1]], two=2).contiguous()


def _tokenizer_facts(model: Model, made: Plan) -> dict[str, object]:
    """What GGUF says of the tokenizer.

    Raises:
        GPTZooError: It has no words for it.
    """
    where = made.where("data.tokenizer")
    json_ = None if model.tokenizer is None else model.tokenizer.as_json()
    if json_ is None:
        raise GPTZooError("GGUF needs a tokenizer over bytes, such as byte, bpe or gpt2.", where)
    inner: Any = json_["model"]
    cuts: Any = json_["pre_tokenizer"]
    words = tuple(cut["pattern"].get("Regex") for cut in cuts.get("pretokenizers", ()) if cut["type"] == "Split")
    pre = next((name for name, patterns in WORDS.items() if patterns == words), None if words else "gpt-2")
    if inner.get("type") != "BPE" or inner.get("byte_fallback") or pre is None:
        raise GPTZooError("GGUF has no name for the way in which it cuts words. Use split: gpt2, or byte.", where)
    added = {token["id"]: token for token in json_["added_tokens"]}  # type: ignore[attr-defined]
    spelled = {number: token for token, number in inner["vocab"].items()} | {n: t["content"] for n, t in added.items()}
    numbers = range(model.dims.vocab_size)
    kinds = [_kind(added.get(number), number in spelled) for number in numbers]
    end = model.tokenizer.end if model.tokenizer is not None else None
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [spelled.get(number, f"[PAD{number}]") for number in numbers],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(pair) if isinstance(pair, list) else pair for pair in inner["merges"]],
        "tokenizer.ggml.add_bos_token": False,
        **({} if end is None else {"tokenizer.ggml.bos_token_id": end, "tokenizer.ggml.eos_token_id": end}),
    }


def _kind(added: Mapping[str, object] | None, known: bool) -> int:
    if added is not None:
        return CONTROL if added["special"] else USER_DEFINED
    return NORMAL if known else UNUSED


def _write_fact(writer: GGUFWriter, key: str, fact: object) -> None:
    if isinstance(fact, str):
        writer.add_string(key, fact)
    elif isinstance(fact, bool):
        writer.add_bool(key, fact)
    elif isinstance(fact, int):
        writer.add_uint32(key, fact)
    elif fact:  # an empty list has no type there
        assert isinstance(fact, list)
        writer.add_array(key, fact)
