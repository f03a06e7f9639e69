"""Copying: `5 3 7 = 5 3 7 .`"""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("copy", Copy)


class Copy(gptzoo.SequenceTask):
    """Sequences of symbols to say again: `5 3 7 = 5 3 7 .`

    Source: Neural Turing Machines, arXiv:1410.5401, section 4.1, there with vectors of bits.
    """

    def answer(self, sequence: list[int]) -> list[int]:
        return sequence
