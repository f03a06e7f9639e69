"""RoPE: queries and keys are turned by an angle proportional to their position, so that scores see distances alone."""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `rope`."""
    zoo.position("rope", Rope, aliases=["rotary"])


class Rope(gptzoo.Rotary):
    """Rotary positions: pair i of each head is turned by pos * theta^(-2i / width).

    Source: RoFormer, arXiv:2104.09864, equations 14-15 and 34.
    """
