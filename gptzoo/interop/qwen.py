"""Qwen2, which is Llama with a bias on q, k and v; and Qwen3, which norms q and k instead."""

from __future__ import annotations

from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config
from gptzoo.interop.llama import attention_of, common, common_config, of_this_kind, sizes_of

LAYERS = {"full_attention": False, "sliding_attention": True}
"""transformers' names for layers -> whether they have a window."""


def model_of(config: Config) -> dict[str, object]:
    """Qwen2Config as the `model` of a recipe."""
    sizes = sizes_of(config, (151936, 4096, 32, 32), even=False)
    model = common(config, sizes, hidden=22016, length=32768)
    return {**model, **_attentions(config, sizes, 32, bias="qkv")}


def qwen3_model_of(config: Config) -> dict[str, object]:
    """Qwen3Config as the `model` of a recipe."""
    sizes = sizes_of(config, (151936, 4096, 32, 32), even=False)
    model = common(config, sizes, hidden=22016, length=32768, head_dim=128)
    bias = config.flag("attention_bias", False) or None
    return {**model, **_attentions(config, sizes, 32, qk_norm=model["norm"], bias=bias)}


def _attentions(config: Config, sizes: dict[str, int], n_kv_head: int, **options: object) -> dict[str, object]:
    """`attention`, or `layers` where some have a window and some have none."""
    groups = config.count("num_key_value_heads", n_kv_head)
    windowed = _windowed(config, sizes["n_layer"])
    window = config.count("sliding_window", 4096) if any(windowed) else None
    made = [attention_of(groups, sizes["n_head"], window if local else None, **options) for local in windowed]
    return in_layers(made)


def _windowed(config: Config, n_layer: int) -> list[bool]:
    """For each layer whether it has a window."""
    on = config.flag("use_sliding_window", False) and (
        "sliding_window" not in config.values or config.has("sliding_window")
    )
    words = config.words("layer_types", LAYERS, n_layer)
    if words is not None:
        return [LAYERS[word] and on for word in words]
    first = config.count("max_window_layers", 28) if config.values.get("max_window_layers") != 0 else 0
    return [on and layer >= first for layer in range(n_layer)]


def in_layers(attentions: list[dict[str, object]]) -> dict[str, object]:
    """The attentions of all layers as a recipe writes them."""
    if all(each == attentions[0] for each in attentions):
        return {"attention": attentions[0]}
    return {"layers": [{"repeat": 1, "attention": each} for each in attentions]}


def window_config(composition: Composition) -> dict[str, object]:
    """The keys that say which layers have a window."""
    layers = range(composition.size("n_layer"))
    windows = [composition.option("attention", "window", 0, layer) for layer in layers]
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    return {"sliding_window": max(windows) or None, "layer_types": kinds}


def config_of(composition: Composition) -> dict[str, object]:
    """A composition as Qwen2Config."""
    return {**common_config(composition), **_with_window(composition)}


def qwen3_config_of(composition: Composition) -> dict[str, object]:
    """A composition as Qwen3Config."""
    biased = composition.option("attention", "bias", False)
    return {**common_config(composition), **_with_window(composition), "attention_bias": biased}


def _with_window(composition: Composition) -> dict[str, object]:
    made = window_config(composition)
    return {**made, "use_sliding_window": made["sliding_window"] is not None}


QWEN2 = of_this_kind(model_type="qwen2", architecture="Qwen2ForCausalLM", model_of=model_of, config_of=config_of)
QWEN3 = of_this_kind(
    model_type="qwen3", architecture="Qwen3ForCausalLM", model_of=qwen3_model_of, config_of=qwen3_config_of
)
