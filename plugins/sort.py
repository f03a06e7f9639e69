"""Sorting: `5 3 7 = 3 5 7 .`"""

from __future__ import annotations

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("sort", Sort)


class Sort(gptzoo.SequenceTask):
    """Sequences of symbols to sort, the smallest number first: `5 3 7 3 = 3 3 5 7 .`

    Source: What Algorithms can Transformers Learn?, arXiv:2310.16028, where it is one of the tasks of length
    generalisation. Here symbols may occur several times.
    """

    def answer(self, sequence: list[int]) -> list[int]:
        return sorted(sequence)
