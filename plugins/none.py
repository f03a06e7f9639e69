"""No positional encoding: the causal mask alone tells the model about order."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `none`."""
    zoo.position("none", NoPosition, aliases=["nope"])


class NoPosition(gptzoo.Position):
    """Nothing is added, turned or biased.

    Source: The Impact of Positional Encoding on Length Generalization, arXiv:2305.19466, section 2 (NoPE).
    """
