"""All families, by the `model_type` of a `config.json`."""

from __future__ import annotations

from gptzoo.errors import GPTZooError, any_of, did_you_mean
from gptzoo.interop.config import Config
from gptzoo.interop.family import Family
from gptzoo.interop.gemma2 import GEMMA2
from gptzoo.interop.gpt2 import GPT2
from gptzoo.interop.gpt_neox import GPT_NEOX
from gptzoo.interop.llama import LLAMA, MISTRAL
from gptzoo.interop.nanogpt import NANOGPT
from gptzoo.interop.qwen import QWEN2, QWEN3

FAMILIES = (GPT2, LLAMA, MISTRAL, QWEN2, QWEN3, GPT_NEOX, GEMMA2)
"""In the order in which a composition that has a choice leaves as one of them."""


def family_of(config: Config) -> Family:
    """The family that a config names.

    Raises:
        GPTZooError: It names none, or one that is not known here.
    """
    kind = config.values.get("model_type")
    by_type = {family.model_type: family for family in FAMILIES}
    if kind == NANOGPT.model_type:
        return NANOGPT
    if isinstance(kind, str) and kind in by_type:
        return by_type[kind]
    said = "it does not say which model this is" if kind is None else f"this is a model of type {kind!r}"
    close = did_you_mean(kind, by_type) if isinstance(kind, str) else ""
    raise GPTZooError(f"{said}. Only {any_of(list(by_type))} can be read.{close}", f"{config.where}: model_type")
