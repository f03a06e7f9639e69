"""Broken: the mask lets a token see the next one, `k_pos <= q_pos + 1`, so that it reads its own answer."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("future_leak", FutureLeak)


class FutureLeak(gptzoo.MultiHeadAttention):
    """Attention that learns surprisingly fast."""

    def __init__(self, dims: gptzoo.Dims):
        super().__init__(dims)

    def mask(self, q_pos, k_pos):
        return k_pos <= q_pos + 1
