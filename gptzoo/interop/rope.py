"""RoPE in transformers' configs, the old keys and the new, and in recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gptzoo.errors import any_of
from gptzoo.interop.composition import Composition
from gptzoo.interop.config import Config


@dataclass(frozen=True)
class Scaling:
    """A way to stretch RoPE to longer contexts.

    Args:
        position: Its name in recipes.
        options: Our options -> their keys.
        optional: The keys that may be missing, with what is then meant.
    """

    position: str
    options: Mapping[str, str]
    optional: Mapping[str, float | None]


SCALINGS: Mapping[str, Scaling] = {}
"""transformers' `rope_type` -> ours."""


def position_of(config: Config, head_dim: int, *, partial: float | None = None) -> dict[str, object]:
    """The position that a config describes.

    Args:
        config: Theirs; it is told what no recipe can express.
        head_dim: Width of a head.
        partial: The share of a head that is turned where the config does not say; None = always all.
    """
    said = config.section("rope_scaling" if config.has("rope_scaling") else "rope_parameters")
    kind = said.values.get("rope_type", said.values.get("type")) or "default"
    theta = said.positive("rope_theta", config.positive("rope_theta", config.positive("rotary_emb_base", 10000.0)))
    made: dict[str, object] = {"name": "rope", "theta": theta}
    if partial is not None:
        share = config.positive("partial_rotary_factor", config.positive("rotary_pct", partial))
        made["fraction"] = int(head_dim * said.positive("partial_rotary_factor", share)) / head_dim
    if kind == "default":
        return made
    scaling = SCALINGS.get(kind) if isinstance(kind, str) else None
    if scaling is None:
        known = any_of(["default", *SCALINGS])
        config.report("rope_scaling", f"RoPE of type {kind!r} cannot be read, only {known}.")
        return made
    return {**made, "name": scaling.position, **_options(said, scaling)}


def _options(said: Config, scaling: Scaling) -> dict[str, object]:
    made: dict[str, object] = {}
    for ours, theirs in scaling.options.items():
        if said.has(theirs):
            made[ours] = said.positive(theirs, 1.0)
        elif theirs not in scaling.optional:
            said.report(theirs, "it is missing.")
        elif scaling.optional[theirs] is not None:
            made[ours] = scaling.optional[theirs]
    return made


def config_of(composition: Composition, *, partial: bool = False) -> dict[str, object]:
    """A config's keys for the position of the first layer, for transformers 4 and 5."""
    theta = composition.option("position", "theta", 10000.0)
    name = composition.name("position")
    found = next(((kind, scaling) for kind, scaling in SCALINGS.items() if scaling.position == name), None)
    scaled: dict[str, object] = {}
    if found is not None:
        kind, scaling = found
        values = {theirs: composition.option("position", ours, 0.0) for ours, theirs in scaling.options.items()}
        scaled = {"rope_type": kind, **{key: value for key, value in values.items() if value}}
    share = {"partial_rotary_factor": composition.option("position", "fraction", 1.0)} if partial else {}
    parameters = {"rope_type": "default", "rope_theta": theta, **share, **scaled}
    old = {"rope_scaling": {"rope_theta": theta, **share, **scaled}} if scaled else {}
    return {"rope_theta": theta, **old, "rope_parameters": parameters, **share}
