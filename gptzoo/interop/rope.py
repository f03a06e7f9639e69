"""RoPE and its scalings: in transformers' configs, by the old keys and the new, and in recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gptzoo.errors import any_of
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config

ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class Scaling:
    """A way to stretch RoPE to longer contexts.

    Args:
        position: Its name in recipes.
        read: From their mapping, and the context length, to our options.
        write: From a composition to their mapping.
    """

    position: str
    read: Callable[[Config, int], dict[str, object]]
    write: Callable[[Composition], dict[str, object]]


def position_of(
    config: Config, head_dim: int, context_length: int, *, partial: float | None = None
) -> dict[str, object]:
    """The position that a config describes.

    Args:
        config: Theirs; it is told what no recipe can express.
        head_dim: Width of a head.
        context_length: The longest context, scaling included.
        partial: The share of a head that is turned where the config does not say; None = always all.
    """
    said = config.section("rope_scaling" if config.has("rope_scaling") else "rope_parameters")
    if nested := [key for key, value in said.values.items() if isinstance(value, dict)]:
        said.report(nested[0], "RoPE that differs from layer to layer cannot be read.")
    kind = said.values.get("rope_type", said.values.get("type")) or "default"
    theta = said.positive("rope_theta", config.positive("rope_theta", config.positive("rotary_emb_base", 10000.0)))
    made: dict[str, object] = {"name": "rope", "theta": theta}
    if partial is not None:
        share = config.positive("partial_rotary_factor", config.positive("rotary_pct", partial))
        made["fraction"] = int(head_dim * said.positive("partial_rotary_factor", share)) / head_dim
    if kind == "default":
        return made
    if not isinstance(kind, str) or kind not in SCALINGS:
        said.report("rope_type", f"{kind!r} cannot be read, only {any_of(['default', *SCALINGS])}.")
        return made
    scaling = SCALINGS[kind]
    options = scaling.read(said, context_length)
    if options.get("temperature", 1.0) != 1.0 and made.get("fraction", 1.0) != 1.0:
        said.report("attention_factor", "a factor on a part of each head's scores cannot be expressed.")
    return {**made, "name": scaling.position, **options}


def config_of(composition: Composition, *, partial: bool = False) -> dict[str, object]:
    """A config's keys for the position of the first layer, for transformers 4 and 5.

    Args:
        composition: Ours.
        partial: Whether the architecture can leave a part of each head as it is.
    """
    base: dict[str, object] = {"rope_theta": composition.option("position", "theta", 10000.0)}
    if partial:
        base["partial_rotary_factor"] = composition.option("position", "fraction", 1.0)
    name = composition.name("position")
    kind = next((kind for kind, scaling in SCALINGS.items() if scaling.position == name), None)
    if kind is None:
        return {**base, "rope_parameters": {"rope_type": "default", **base}}
    scaled = {"rope_type": kind, **base, **SCALINGS[kind].write(composition)}
    return {**base, "rope_scaling": scaled, "rope_parameters": scaled}


def _read_linear(said: Config, _context_length: int) -> dict[str, object]:
    return {"factor": said.positive("factor", 1.0)}


def _write_linear(composition: Composition) -> dict[str, object]:
    return {"factor": composition.option("position", "factor", 1.0)}


def _read_llama3(said: Config, context_length: int) -> dict[str, object]:
    return {
        "factor": said.positive("factor", 8.0),
        "original_length": said.count(ORIGINAL, context_length),
        "low_turns": said.positive("low_freq_factor", 1.0),
        "high_turns": said.positive("high_freq_factor", 4.0),
    }


def _write_llama3(composition: Composition) -> dict[str, object]:
    return {
        "factor": composition.option("position", "factor", 8.0),
        ORIGINAL: composition.option("position", "original_length", 8192),
        "low_freq_factor": composition.option("position", "low_turns", 1.0),
        "high_freq_factor": composition.option("position", "high_turns", 4.0),
    }


def _read_yarn(said: Config, context_length: int) -> dict[str, object]:
    original = said.count(ORIGINAL, context_length)
    factor = said.positive("factor", context_length / original)
    return {
        "factor": factor,
        "original_length": original,
        "beta_fast": said.positive("beta_fast", 32.0),
        "beta_slow": said.positive("beta_slow", 1.0),
        "truncate": said.flag("truncate", True),
        "temperature": said.positive("attention_factor", _attention_factor(said, factor)) ** -2,
    }


def _attention_factor(said: Config, factor: float) -> float:
    """What transformers multiplies q and k by where the config does not say."""
    if said.values.get("mscale") and said.values.get("mscale_all_dim"):
        once, all_ = said.positive("mscale", 1.0), said.positive("mscale_all_dim", 1.0)
        return (0.1 * once * math.log(factor) + 1) / (0.1 * all_ * math.log(factor) + 1) if factor > 1 else 1.0
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0


def _write_yarn(composition: Composition) -> dict[str, object]:
    return {
        "factor": composition.option("position", "factor", 1.0),
        ORIGINAL: int(composition.option("position", "original_length", 1.0)),
        "beta_fast": composition.option("position", "beta_fast", 32.0),
        "beta_slow": composition.option("position", "beta_slow", 1.0),
        "truncate": composition.option("position", "truncate", True),
        "attention_factor": composition.option("position", "temperature", 1.0) ** -0.5,
    }


SCALINGS: Mapping[str, Scaling] = {
    "linear": Scaling("rope_linear", _read_linear, _write_linear),
    "llama3": Scaling("rope_llama3", _read_llama3, _write_llama3),
    "yarn": Scaling("rope_yarn", _read_yarn, _write_yarn),
}
"""transformers' `rope_type` -> ours."""
