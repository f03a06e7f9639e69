"""Broken: scores are not divided by the root of the head's width, so that softmax is nearly one-hot in wide heads."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("unscaled", Unscaled)


class Unscaled(gptzoo.MultiHeadAttention):
    """Attention by q k instead of q k / sqrt(head_dim)."""

    def __init__(self, dims: gptzoo.Dims):
        super().__init__(dims)
        self.scale = 1.0
