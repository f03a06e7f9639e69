"""Broken: the cache returns one token less than it holds, and a text goes on as if a word were missing."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("forgetful_cache", ForgetfulCache)


class ForgetfulCache(gptzoo.MultiHeadAttention):
    """Attention that is right in training, and decodes something else."""

    def __init__(self, dims: gptzoo.Dims):
        super().__init__(dims)

    def new_cache(self, batch, size, dtype, device):
        return DroppingCache(batch, size, dtype, device)


class DroppingCache(gptzoo.LayerCache):
    """Keys and values without the last one before the new ones."""

    def extend(self, pos, doc, **tensors):
        old = self.length
        visible, k_pos, k_doc = super().extend(pos, doc, **tensors)
        if not old:
            return visible, k_pos, k_doc
        kept = [place for place in range(self.length) if place != old - 1]
        return {name: tensor[:, :, kept] for name, tensor in visible.items()}, k_pos[:, kept], k_doc[:, kept]
