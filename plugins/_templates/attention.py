"""my_attention: what it does, in one sentence. This one is an example: a window, and the row's first tokens."""

from __future__ import annotations

from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_attention`."""
    zoo.attention("my_attention", MyAttention)


class MyAttention(gptzoo.MultiHeadAttention):
    """Causal attention over a window, in which the first tokens of a document stay visible.

    Source: StreamingLLM, arXiv:2309.17453, section 3.2.

    Args:
        window: Keys that a token sees, itself included.
        first: How many tokens at the start of its document it sees besides.
        n_kv_head: Key/value heads; `n_head` unless given.
    """

    examples = ({"window": 5, "first": 1},)  # what the laws try it under: small, so that a window counts
    shift_invariant = False  # the first tokens are told by their positions
    window_alone = False  # it shows them beside the window

    def __init__(self, dims: gptzoo.Dims, window: int = 256, first: int = 4, n_kv_head: int | None = None) -> None:
        super().__init__(dims, n_kv_head=n_kv_head)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.window, self.first = window, first

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Pointwise: True where a query may see a key; documents are kept apart by the model."""
        near = q_pos - k_pos < self.window
        return gptzoo.causal(q_pos, k_pos) & (near | (k_pos < self.first))
