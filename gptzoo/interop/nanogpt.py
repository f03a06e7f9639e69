"""nanoGPT's checkpoints: GPT-2 with matrices as (out, in), maybe without biases, and with the exact GELU."""

from __future__ import annotations

from gptzoo.contracts import Dims
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import MAX_LAYERS, Config
from gptzoo.interop.family import Family
from gptzoo.interop.gpt2 import GPT2
from gptzoo.interop.weights import Columns, Rows, Weight


def weights(dims: Dims) -> list[Weight]:
    """GPT-2's names; matrices lie the other way."""
    return [
        Weight(each.theirs, each.ours, Rows()) if isinstance(each.form, Columns) else each
        for each in GPT2.weights(dims)
    ]


def model_of(config: Config) -> dict[str, object]:
    """`model_args` as the `model` of a recipe. They do not say which GELU: it is the exact one since February 2023."""
    n_embd, n_head = config.count("n_embd", 768), config.count("n_head", 12)
    if n_embd % n_head:
        config.report("n_head", f"{n_head} does not divide n_embd {n_embd}.")
    bias = config.flag("bias", True)
    return {
        "n_layer": config.count("n_layer", 12, high=MAX_LAYERS),
        "n_head": n_head,
        "n_embd": n_embd,
        "context_length": config.count("block_size", 1024),
        "vocab_size": config.count("vocab_size", 50304),
        "bias": bias,
        "attention": "multi_head",
        "position": "learned",
        "norm": {"name": "layernorm", "bias": bias},
        "mlp": {"name": "gelu", "approximate": "none"},
        "block": "pre",
        "head": "tied",
    }


def config_of(composition: Composition) -> dict[str, object]:
    """Nothing leaves as nanoGPT's: GPT-2 is what others read."""
    raise AssertionError("nanogpt is not among the families that are written")


NANOGPT = Family(
    model_type="nanogpt",
    architecture="",
    prefix=GPT2.prefix,
    embedding=GPT2.embedding,
    heads=GPT2.heads,
    weights=weights,
    model_of=model_of,
    config_of=config_of,
    constants=GPT2.constants,
)
