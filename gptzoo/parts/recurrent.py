"""What recurrent mixers share: a row as chunks of tokens that know whom they may read, and a cache that is a state.

A recurrent mixer reads a row from left to right into one state. So it needs a document's tokens side by side and in
order (`Abilities(any_order=False)`), only padding may stand between them; where the document changes it starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gptzoo.contracts import LayerCache


@dataclass(frozen=True)
class Chunk:
    """Neighbouring tokens of a row, C of them, that are computed at once.

    Args:
        tokens: Which ones.
        there: bool (B|1, 1, C, 1): not padding.
        pairs: bool (B|1, 1, C, C): the first may read the second, which is itself or before it.
        continues: bool (B|1, 1, C, 1): the token is of the document that the state before the chunk has read.
        remains: bool (B|1, 1, C, 1): the token is of the document in which the chunk ends, and not padding.
        survives: bool (B|1, 1, 1, 1): that document is the state's, so that the state before the chunk lives on.
    """

    tokens: slice
    there: Tensor
    pairs: Tensor
    continues: Tensor
    remains: Tensor
    survives: Tensor


def in_chunks(doc: Tensor, document: Tensor, size: int) -> Iterator[Chunk]:
    """A row from left to right, in chunks of `size` tokens.

    Args:
        doc: int64 (B|1, T).
        document: int64 (B|1, T + 1), what `documents_read` makes of it.
        size: Tokens in a chunk, at most.
    """
    there = (doc >= 0).expand(document.shape[0], -1)
    stretch = (document[:, 1:] != document[:, :-1]).cumsum(dim=1)  # how many times the document has changed
    entered = torch.zeros_like(stretch[:, :1])
    for start in range(0, doc.shape[1], size):
        new = slice(start, start + size)
        now, real = stretch[:, new], there[:, new]
        order = torch.ones(now.shape[1], now.shape[1], dtype=torch.bool, device=doc.device).tril()
        left = now[:, -1:]
        yield Chunk(
            tokens=new,
            there=_column(real),
            pairs=(order & (now[:, :, None] == now[:, None]) & real[:, :, None] & real[:, None])[:, None],
            continues=_column((now == entered) & real),
            remains=_column((now == left) & real),
            survives=_column(left == entered),
        )
        entered = left


def _column(x: Tensor) -> Tensor:
    return x[:, None, :, None]


def documents_read(doc: Tensor, before: Tensor) -> Tensor:
    """The document that has been read up to each token, itself included; padding changes nothing.

    Args:
        doc: int64 (B|1, T).
        before: int64 (B|1, 1): the document of the state before the row; -1 = it has read nothing.

    Returns:
        int64 (B|1, T + 1), `before` first.
    """
    rows = max(len(doc), len(before))
    row = torch.cat((before.expand(rows, -1), doc.expand(rows, -1)), dim=1)
    index = torch.arange(row.shape[1], device=doc.device)
    last_token = torch.where(row >= 0, index, 0).cummax(dim=1).values
    return row.gather(1, last_token)


class StateCache(LayerCache):
    """What a recurrent mixer keeps of all tokens that it has read: tensors of one size, and whose they are.

    Attributes:
        document: int64 (B|1, 1): the document that the state has read, -1 = none.
    """

    def __init__(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(batch, 0, dtype, device)  # of the tokens themselves it keeps none
        self.document = torch.full((1, 1), -1, dtype=torch.int64, device=device)

    def keep(self, document: Tensor, **state: Tensor) -> None:
        """Replace the state."""
        self.document, self.tensors = document, state

    def fix(self) -> None:
        """Its shapes never change."""
