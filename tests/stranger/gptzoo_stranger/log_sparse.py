"""LogSparse attention: a token sees itself and the tokens 1, 2, 4, 8, ... places before it."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("log_sparse", LogSparse)


class LogSparse(gptzoo.MultiHeadAttention):
    """Causal attention to a few neighbours and to distances that are powers of two.

    Source: Enhancing the Locality of Transformer on Time Series Forecasting, arXiv:1907.00235, section 4.2.

    Args:
        near: Tokens that are seen whatever their distance, the token itself included.
    """

    def __init__(self, dims: gptzoo.Dims, near: int = 1):
        super().__init__(dims)
        self.near = near

    def mask(self, q_pos, k_pos):
        distance = q_pos - k_pos
        return gptzoo.causal(q_pos, k_pos) & ((distance & (distance - 1) == 0) | (distance < self.near))
