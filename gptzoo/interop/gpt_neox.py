"""GPT-NeoX, and Pythia, which is one."""

from __future__ import annotations

import re

from gptzoo.contracts import Dims
from gptzoo.interop import rope
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config
from gptzoo.interop.family import GELU, Family, activation_of, head_of
from gptzoo.interop.llama import sizes_of
from gptzoo.interop.weights import HeadByHead, Weight, modules


def weights(dims: Dims) -> list[Weight]:
    """Its names; q, k and v are one matrix, head by head."""
    fused = ("layers.{}.attention.q", "layers.{}.attention.k", "layers.{}.attention.v")
    return [
        Weight("embed_in.weight", ("wte.weight",)),
        *modules({"layers.{}.attention.query_key_value": fused}, HeadByHead(dims.n_head)),
        *modules(
            {
                "layers.{}.input_layernorm": "layers.{}.norm_1",
                "layers.{}.post_attention_layernorm": "layers.{}.norm_2",
                "layers.{}.attention.dense": "layers.{}.attention.o",
                "layers.{}.mlp.dense_h_to_4h": "layers.{}.mlp.up",
                "layers.{}.mlp.dense_4h_to_h": "layers.{}.mlp.down",
                "final_layer_norm": "norm_f",
            }
        ),
    ]


def model_of(config: Config) -> dict[str, object]:
    """GPTNeoXConfig as the `model` of a recipe."""
    sizes = sizes_of(config, (50432, 6144, 44, 64), even=True)
    activation = config.one_of("hidden_act", "gelu", GELU)
    bias = {} if config.flag("attention_bias", True) else {"bias": False}
    parallel = config.flag("use_parallel_residual", True)
    head_dim, context_length = sizes["n_embd"] // sizes["n_head"], config.count("max_position_embeddings", 2048)
    return {
        **sizes,
        "context_length": context_length,
        "attention": {"name": "multi_head", **bias},
        "position": rope.position_of(config, head_dim, context_length, partial=0.25),
        "norm": {"name": "layernorm", "eps": config.positive("layer_norm_eps", 1e-5)},
        "mlp": {
            "name": "gelu",
            "approximate": GELU[activation],
            "hidden": config.count("intermediate_size", 24576),
        },
        "block": {"name": "parallel", "norms": 2} if parallel else "pre",
        "head": head_of(config, tied=False),
    }


def config_of(composition: Composition) -> dict[str, object]:
    """A composition as GPTNeoXConfig."""
    positions = rope.config_of(composition, partial=True)
    dropout = composition.made.recipe.model.dropout
    return {
        "vocab_size": composition.size("vocab_size"),
        "hidden_size": composition.size("n_embd"),
        "intermediate_size": composition.option("mlp", "hidden", 1),
        "num_hidden_layers": composition.size("n_layer"),
        "num_attention_heads": composition.size("n_head"),
        "hidden_act": activation_of(composition, dict(sorted(GELU.items()))),
        "max_position_embeddings": composition.size("context_length"),
        "layer_norm_eps": composition.option("norm", "eps", 1e-5),
        "attention_bias": composition.option("attention", "bias", True),
        "use_parallel_residual": composition.name("block") == "parallel",
        "attention_dropout": dropout,
        "hidden_dropout": dropout,
        "tie_word_embeddings": composition.name("head") == "tied",
        "rotary_emb_base": positions["rope_theta"],
        "rotary_pct": positions["partial_rotary_factor"],
        **positions,
    }


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    embedding="embed_in.weight",
    heads=("embed_out.weight", "lm_head.weight"),
    weights=weights,
    model_of=model_of,
    config_of=config_of,
    constants=re.compile(r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)|rotary_emb\.inv_freq"),
)
