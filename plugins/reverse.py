"""Reversing: `5 3 7 = 7 3 5 .`"""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("reverse", Reverse)


class Reverse(gptzoo.SequenceTask):
    """Sequences of symbols to say backwards: `5 3 7 = 7 3 5 .`

    Source: Learning to Transduce with Unbounded Memory, arXiv:1506.02516, section 4.1.
    """

    def answer(self, sequence: list[int]) -> list[int]:
        return sequence[::-1]
