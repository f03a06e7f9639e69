"""Gemma 2: Llama with four norms in a block, capped scores and logits, and a window in every other layer.

It scales the embedding by sqrt(n_embd) and its norms by 1 + w. Both are folded into the weights here, also in a tied
model: the last norm takes back what the embedding, as a head, would add.
"""

from __future__ import annotations

from gptzoo.contracts import Dims
from gptzoo.interop import rope
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config
from gptzoo.interop.family import GATED, Family, activation_of
from gptzoo.interop.llama import CONSTANTS, LINEAR, attention_of, sizes_of
from gptzoo.interop.qwen import LAYERS, in_layers, window_config
from gptzoo.interop.weights import Linear, Weight, modules

NORMS = {
    "layers.{}.input_layernorm": "layers.{}.norm_1",
    "layers.{}.post_attention_layernorm": "layers.{}.after_attention",
    "layers.{}.pre_feedforward_layernorm": "layers.{}.norm_2",
    "layers.{}.post_feedforward_layernorm": "layers.{}.after_mlp",
}


def weights(dims: Dims) -> list[Weight]:
    """Its names, with what it computes from its weights each time."""
    scale = dims.n_embd**0.5
    return [
        Weight("embed_tokens.weight", ("wte.weight",), Linear(factor=scale)),
        Weight("norm.weight", ("norm_f.weight",), Linear(offset=1.0, factor=1 / scale)),
        *modules(NORMS, Linear(offset=1.0)),
        *modules(LINEAR),
    ]


def model_of(config: Config) -> dict[str, object]:
    """Gemma2Config as the `model` of a recipe."""
    sizes = sizes_of(config, (256000, 2304, 26, 8), even=True)
    head_dim, context_length = config.count("head_dim", 256), config.count("max_position_embeddings", 8192)
    if not config.flag("tie_word_embeddings", True):
        config.report("tie_word_embeddings", "false, with an embedding that is scaled, cannot be expressed.")
    config.refuse("use_bidirectional_attention", "lets tokens see later ones")
    mlp = GATED[config.one_of("hidden_activation", "gelu_pytorch_tanh", GATED)]
    final = _cap(config, "final_logit_softcapping", 30.0)
    return {
        **sizes,
        "head_dim": head_dim,
        "context_length": context_length,
        "bias": False,
        **_attentions(config, sizes),
        "position": rope.position_of(config, head_dim, context_length),
        "norm": {"name": "rmsnorm", "eps": config.positive("rms_norm_eps", 1e-6)},
        "mlp": {**mlp, "hidden": config.count("intermediate_size", 9216)},
        "block": "sandwich",
        "head": "tied" if final is None else {"name": "softcap", "cap": final},
    }


def _attentions(config: Config, sizes: dict[str, int]) -> dict[str, object]:
    scale = config.positive("query_pre_attn_scalar", 256.0) ** -0.5
    groups, window = config.count("num_key_value_heads", 4), config.count("sliding_window", 4096)
    words = config.words("layer_types", LAYERS, sizes["n_layer"])
    local = [layer % 2 == 0 for layer in range(sizes["n_layer"])] if words is None else [LAYERS[w] for w in words]
    softcap = _cap(config, "attn_logit_softcapping", 50.0)
    bias = config.flag("attention_bias", False) or None
    options = {"scale": scale, "softcap": softcap, "bias": bias}
    return in_layers([attention_of(groups, sizes["n_head"], window if each else None, **options) for each in local])


def _cap(config: Config, key: str, default: float) -> float | None:
    """A cap; null is none."""
    return None if key in config.values and not config.has(key) else config.positive(key, default)


def config_of(composition: Composition) -> dict[str, object]:
    """A composition as Gemma2Config."""
    width = composition.option("attention", "scale", 1.0) ** -2
    capped = composition.name("head") == "softcap"
    windows = window_config(composition)
    return {
        "vocab_size": composition.size("vocab_size"),
        "hidden_size": composition.size("n_embd"),
        "intermediate_size": composition.option("mlp", "hidden", 1),
        "num_hidden_layers": composition.size("n_layer"),
        "num_attention_heads": composition.size("n_head"),
        "num_key_value_heads": composition.option("attention", "n_kv_head", composition.size("n_head")),
        "head_dim": composition.size("head_dim"),
        "hidden_activation": activation_of(composition, GATED),
        "max_position_embeddings": composition.size("context_length"),
        "rms_norm_eps": composition.option("norm", "eps", 1e-6),
        "query_pre_attn_scalar": max(1, round(width)),
        "attn_logit_softcapping": composition.option("attention", "softcap", 0.0) or None,
        "final_logit_softcapping": composition.option("head", "cap", 30.0) if capped else None,
        "attention_bias": composition.option("attention", "bias", False),
        "tie_word_embeddings": True,
        **windows,
        "sliding_window": windows["sliding_window"] or 4096,  # transformers wants one, even if no layer has it
        **rope.config_of(composition),
    }


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    prefix="model.",
    embedding="embed_tokens.weight",
    heads=("lm_head.weight",),
    weights=weights,
    model_of=model_of,
    config_of=config_of,
    constants=CONSTANTS,
)
