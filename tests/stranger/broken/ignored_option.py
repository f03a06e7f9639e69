"""Broken: the option `span` is read, kept, and never used, so that a recipe promises what the model does not do."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.attention("ignored_option", IgnoredOption)


class IgnoredOption(gptzoo.MultiHeadAttention):
    """Attention over a window, it says."""

    def __init__(self, dims: gptzoo.Dims, span: int = 4):
        super().__init__(dims)
        self.span = span
