"""GPT-2."""

from __future__ import annotations

import re

from gptzoo.contracts import Dims
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import MAX_LAYERS, Config
from gptzoo.interop.family import GELU, Family, activation_of, head_of
from gptzoo.interop.weights import Columns, Weight, modules

INEXPRESSIBLE = {
    "scale_attn_by_inverse_layer_idx": "divides the scores of each layer by its number",
    "reorder_and_upcast_attn": "computes the scores in float32 in any precision",
    "add_cross_attention": "adds a second attention to each block",
}
"""Switches that no recipe can express, and what they do."""


def weights(dims: Dims) -> list[Weight]:
    """Its names; matrices are stored as (in, out)."""
    return [
        Weight("wte.weight", ("wte.weight",)),
        Weight("wpe.weight", ("positions.0.wpe.weight",)),
        *modules({"h.{}.ln_1": "layers.{}.norm_1", "h.{}.ln_2": "layers.{}.norm_2", "ln_f": "norm_f"}),
        *modules(
            {
                "h.{}.attn.c_attn": ("layers.{}.attention.q", "layers.{}.attention.k", "layers.{}.attention.v"),
                "h.{}.attn.c_proj": "layers.{}.attention.o",
                "h.{}.mlp.c_fc": "layers.{}.mlp.up",
                "h.{}.mlp.c_proj": "layers.{}.mlp.down",
            },
            Columns(),
        ),
    ]


def model_of(config: Config) -> dict[str, object]:
    """GPT2Config as the `model` of a recipe; its defaults are those of GPT2Config."""
    n_embd, n_head = config.count("n_embd", 768), config.count("n_head", 12)
    sizes = {"vocab_size": config.count("vocab_size", 50257), "context_length": config.count("n_positions", 1024)}
    n_layer = config.count("n_layer", 12, high=MAX_LAYERS)
    n_inner = config.count("n_inner", 4 * n_embd)
    activation = config.one_of("activation_function", "gelu_new", GELU)
    eps = config.positive("layer_norm_epsilon", 1e-5)
    scale = {} if config.flag("scale_attn_weights", True) else {"scale": 1.0}
    head = head_of(config, tied=True)
    for key, what in INEXPRESSIBLE.items():
        config.refuse(key, what)
    if n_embd % n_head:
        config.report("n_head", f"{n_head} does not divide n_embd {n_embd}.")
    hidden = {} if n_inner == 4 * n_embd else {"hidden": n_inner}
    return {
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        **sizes,
        "attention": {"name": "multi_head", **scale},
        "position": "learned",
        "norm": {"name": "layernorm", "eps": eps},
        "mlp": {"name": "gelu", "approximate": GELU[activation], **hidden},
        "block": "pre",
        "head": head,
    }


def config_of(composition: Composition) -> dict[str, object]:
    """A composition as GPT2Config."""
    dropout = composition.made.recipe.model.dropout
    return {
        "vocab_size": composition.size("vocab_size"),
        "n_positions": composition.size("context_length"),
        "n_embd": composition.size("n_embd"),
        "n_layer": composition.size("n_layer"),
        "n_head": composition.size("n_head"),
        "n_inner": composition.option("mlp", "hidden", 1),
        "activation_function": activation_of(composition, GELU),
        "layer_norm_epsilon": composition.option("norm", "eps", 1e-5),
        "scale_attn_weights": composition.option("attention", "scale", 0.0) != 1.0,
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "tie_word_embeddings": composition.name("head") == "tied",
    }


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    embedding="wte.weight",
    heads=("lm_head.weight",),
    weights=weights,
    model_of=model_of,
    config_of=config_of,
    constants=re.compile(r"h\.\d+\.attn\.(bias|masked_bias)"),
)
