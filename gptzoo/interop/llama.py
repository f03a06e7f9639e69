"""Llama, and Mistral, which is Llama with a window."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from gptzoo.contracts import Dims
from gptzoo.interop import rope
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import MAX_LAYERS, Config
from gptzoo.interop.family import GATED, Family, activation_of, head_of
from gptzoo.interop.weights import Weight, modules

CONSTANTS = re.compile(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")

LINEAR = {
    "layers.{}.self_attn.q_proj": "layers.{}.attention.q",
    "layers.{}.self_attn.k_proj": "layers.{}.attention.k",
    "layers.{}.self_attn.v_proj": "layers.{}.attention.v",
    "layers.{}.self_attn.o_proj": "layers.{}.attention.o",
    "layers.{}.mlp.gate_proj": "layers.{}.mlp.gate",
    "layers.{}.mlp.up_proj": "layers.{}.mlp.up",
    "layers.{}.mlp.down_proj": "layers.{}.mlp.down",
}
"""Its matrices, and those of the architectures that took them over -> ours."""

NORMS = {
    "layers.{}.input_layernorm": "layers.{}.norm_1",
    "layers.{}.post_attention_layernorm": "layers.{}.norm_2",
    "layers.{}.self_attn.q_norm": "layers.{}.attention.q_norm",
    "layers.{}.self_attn.k_norm": "layers.{}.attention.k_norm",
    "norm": "norm_f",
}


def weights(dims: Dims) -> list[Weight]:
    """Its names; they are also Mistral's and Qwen's."""
    return [Weight("embed_tokens.weight", ("wte.weight",)), *modules({**NORMS, **LINEAR})]


def sizes_of(config: Config, defaults: tuple[int, int, int, int], *, even: bool) -> dict[str, int]:
    """The recipe's sizes.

    Args:
        config: Theirs.
        defaults: Of vocab_size, hidden_size, num_hidden_layers and num_attention_heads.
        even: Whether transformers insists that the heads divide the width, even where head_dim is given.
    """
    vocab_size, hidden_size, layers, heads = defaults
    n_embd, n_head = config.count("hidden_size", hidden_size), config.count("num_attention_heads", heads)
    if n_embd % n_head and (even or not config.has("head_dim")):
        config.report("num_attention_heads", f"{n_head} does not divide hidden_size {n_embd}.")
    return {
        "n_layer": config.count("num_hidden_layers", layers, high=MAX_LAYERS),
        "n_head": n_head,
        "n_embd": n_embd,
        "vocab_size": config.count("vocab_size", vocab_size),
    }


def attention_of(n_kv_head: int, n_head: int, window: int | None = None, **options: object) -> dict[str, object]:
    """The attention with as many key/value heads; options that are None are left out."""
    given = {name: value for name, value in options.items() if value is not None}
    groups = {} if n_kv_head == n_head else {"n_kv_head": n_kv_head}
    if window is not None:
        return {"name": "sliding_window", "window": window, **groups, **given}
    return {"name": "grouped_query" if groups else "multi_head", **groups, **given}


def model_of(config: Config) -> dict[str, object]:
    """LlamaConfig as the `model` of a recipe."""
    sizes = sizes_of(config, (32000, 4096, 32, 32), even=True)
    n_kv_head = config.count("num_key_value_heads", sizes["n_head"])
    bias = config.flag("mlp_bias", False)
    own_bias = config.flag("attention_bias", False)
    attention = attention_of(n_kv_head, sizes["n_head"], bias=None if own_bias == bias else own_bias)
    return {**common(config, sizes, hidden=11008, length=2048), "attention": attention, "bias": bias}


def mistral_model_of(config: Config) -> dict[str, object]:
    """MistralConfig as the `model` of a recipe; a window that is null is none."""
    sizes = sizes_of(config, (32000, 4096, 32, 32), even=False)
    n_kv_head = config.count("num_key_value_heads", 8)
    told = "sliding_window" in config.values and not config.has("sliding_window")
    window = None if told else config.count("sliding_window", 4096)
    attention = attention_of(n_kv_head, sizes["n_head"], window)
    return {**common(config, sizes, hidden=14336, length=131072), "attention": attention}


def common(
    config: Config, sizes: dict[str, int], *, hidden: int, length: int, head_dim: int | None = None
) -> dict[str, object]:
    """What Llama, Mistral and Qwen have in common, which is all but the attention.

    Args:
        config: Theirs.
        sizes: From `sizes_of`.
        hidden: intermediate_size unless given.
        length: max_position_embeddings unless given.
        head_dim: head_dim unless given; None = hidden_size / num_attention_heads.
    """
    usual = sizes["n_embd"] // sizes["n_head"]
    width = config.count("head_dim", head_dim or usual)
    mlp = GATED[config.one_of("hidden_act", "silu", GATED)]
    context_length = config.count("max_position_embeddings", length)
    return {
        **sizes,
        **({} if width == usual else {"head_dim": width}),
        "context_length": context_length,
        "bias": False,
        "position": rope.position_of(config, width, context_length),
        "norm": {"name": "rmsnorm", "eps": config.positive("rms_norm_eps", 1e-6)},
        "mlp": {**mlp, "hidden": config.count("intermediate_size", hidden)},
        "block": "pre",
        "head": head_of(config, tied=False),
    }


def common_config(composition: Composition) -> dict[str, object]:
    """The keys that Llama, Mistral and Qwen have in common."""
    return {
        "vocab_size": composition.size("vocab_size"),
        "hidden_size": composition.size("n_embd"),
        "intermediate_size": composition.option("mlp", "hidden", 1),
        "num_hidden_layers": composition.size("n_layer"),
        "num_attention_heads": composition.size("n_head"),
        "num_key_value_heads": composition.option("attention", "n_kv_head", composition.size("n_head")),
        "head_dim": composition.size("head_dim"),
        "hidden_act": activation_of(composition, GATED),
        "max_position_embeddings": composition.size("context_length"),
        "rms_norm_eps": composition.option("norm", "eps", 1e-6),
        "tie_word_embeddings": composition.name("head") == "tied",
        **rope.config_of(composition),
    }


def config_of(composition: Composition) -> dict[str, object]:
    """A composition as LlamaConfig."""
    biased = composition.option("attention", "bias", False)
    return {**common_config(composition), "attention_bias": biased, "mlp_bias": composition.bias}


def mistral_config_of(composition: Composition) -> dict[str, object]:
    """A composition as MistralConfig."""
    window = composition.option("attention", "window", 0) or None
    return {**common_config(composition), "sliding_window": window}


of_this_kind: Callable[..., Family] = functools.partial(
    Family,
    prefix="model.",
    embedding="embed_tokens.weight",
    heads=("lm_head.weight",),
    weights=weights,
    constants=CONSTANTS,
)
"""A family whose weights have Llama's names."""

LLAMA = of_this_kind(model_type="llama", architecture="LlamaForCausalLM", model_of=model_of, config_of=config_of)
MISTRAL = of_this_kind(
    model_type="mistral", architecture="MistralForCausalLM", model_of=mistral_model_of, config_of=mistral_config_of
)
