"""Scores of the next token for texts that grow together: with a cache or anew, prompts in pieces, steps compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptzoo.contracts import Abilities, LayerCache
from gptzoo.errors import GPTZooError
from gptzoo.model import Model
from gptzoo.precision import lowered
from gptzoo.quantization import is_quantized

ROOM = 64
"""A compiled step's cache holds a multiple of this, so that prompts of like length share one compilation."""


@dataclass(frozen=True)
class Ways:
    """How scores are computed, which changes none of them.

    Args:
        cached: Keep what past tokens gave.
        padding: Texts of unequal length may stand in one batch.
        chunk: Most tokens of a prompt that are computed at a time; None is all.
        compiled: Compile the step of one token.
        dtype: Of the cache; the weights' unless given.
    """

    cached: bool
    padding: bool
    chunk: int | None = None
    compiled: bool = False
    dtype: torch.dtype | None = None


def ways_for(model: Model, *, cache: bool, prefill_chunk: int | None, compile: bool, precision: str | None) -> Ways:
    """What is asked, as far as the model's parts can: without a cache or padding where one of them has none.

    Raises:
        GPTZooError: What was asked outright cannot be had.
    """
    device = model.wte.weight.device.type
    cached = cache and _able(model, "cached", device)
    padding = _able(model, "padding", device)
    without = "--no-cache is given" if not cache else "this model has a part that cannot use one"
    if prefill_chunk is not None and prefill_chunk < 1:
        raise GPTZooError(f"{prefill_chunk} is below 1. Leave it out to take a prompt whole.", "--prefill-chunk")
    if prefill_chunk is not None and not cached:
        raise GPTZooError(f"pieces of a prompt go into a cache, and {without}. Leave it out.", "--prefill-chunk")
    if prefill_chunk is not None and not _able(model, "chunked", device):
        what = "this model has a part that takes only one token after cached ones. Leave it out."
        raise GPTZooError(what, "--prefill-chunk")
    if compile and not cached:
        raise GPTZooError(f"what is compiled is a step with a cache, and {without}. Leave it out.", "--compile")
    if compile and is_quantized(model):
        raise GPTZooError("integer weights are not compiled. Leave out one of the two.", "--compile")
    if compile and (growing := next((c for c in model.new_cache(1, 1, device="meta").layers if not c.fixable), None)):
        what = f"the shapes of a {type(growing).__name__} change from token to token. Leave it out."
        raise GPTZooError(what, "--compile")
    if compile and not padding:
        what = "this model has a part that cannot skip empty places of a cache. Leave it out."
        raise GPTZooError(what, "--compile")
    return Ways(cached, padding, prefill_chunk, compile, lowered(precision or "fp32"))


class Decoder:
    """Texts in one batch, and the scores of what follows them.

    Args:
        model: In evaluation.
        starts: The texts, at least one token each; of equal length where there is no padding.
        most: Tokens that may be appended.
        ways: How to compute.
    """

    def __init__(self, model: Model, starts: Sequence[Sequence[int]], most: int, ways: Ways) -> None:
        self.model, self.ways = model, ways
        self.texts = _Texts(starts, model.wte.weight.device)
        self.cache = None
        if ways.cached:
            size = self.texts.length + most
            size = -(-size // ROOM) * ROOM if ways.compiled else size
            self.cache = model.new_cache(len(starts), size, ways.dtype)
        self.fixed = False

    def logits(self) -> Tensor:
        """Scores (B, V) of each text's next token. With a cache only the tokens that it lacks are computed."""
        known = 0 if self.cache is None else self.cache.length
        if self.ways.compiled and known:
            return self._compiled()
        texts, x = self.texts, None
        for start in range(known, texts.length, self.ways.chunk or texts.length):
            piece = slice(start, start + (self.ways.chunk or texts.length))
            where = (None, None) if texts.plain else (texts.pos[:, piece], texts.doc[:, piece])
            x, _ = self.model.hidden(texts.tokens[:, piece], *where, self.cache)
        assert x is not None, "a token was appended since the last scores"
        return self.model.head(x[:, -1:])[:, 0]

    def append(self, tokens: Sequence[int], empty: Sequence[bool]) -> None:
        """One more place per text, which is no token where `empty`: a text that is done."""
        self.texts.append(tokens, [each and self.ways.padding for each in empty])

    def _compiled(self) -> Tensor:
        cache, texts = self.cache, self.texts
        assert cache is not None
        assert texts.length == cache.length + 1 <= cache.size
        if not self.fixed:
            for layer in cache.layers:
                layer.fix()
            self.fixed = True
        tokens, pos, doc = (_last(each) for each in (texts.tokens, texts.pos, texts.doc))
        logits = compiled_step(self.model, tokens, pos, doc, cache.layers)
        cache.length += 1
        return logits


class _Texts:
    """Tokens (B, T) with their positions and documents, padded on the left.

    Attributes:
        plain: Every place holds a token, so that the model needs to be told neither positions nor documents.
    """

    def __init__(self, starts: Sequence[Sequence[int]], device: torch.device) -> None:
        longest = max(len(start) for start in starts)
        padding = [longest - len(start) for start in starts]
        self.plain = not any(padding)
        tokens = [[0] * pad + list(start) for pad, start in zip(padding, starts, strict=True)]
        pos = [[0] * pad + list(range(longest - pad)) for pad in padding]
        doc = [[-1] * pad + [0] * (longest - pad) for pad in padding]
        self.tokens, self.pos, self.doc = (torch.tensor(each, device=device) for each in (tokens, pos, doc))

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def append(self, tokens: Sequence[int], empty: Sequence[bool]) -> None:
        void = torch.tensor(empty, device=self.tokens.device)[:, None]
        self.plain = self.plain and not any(empty)
        self.tokens = torch.cat([self.tokens, self.tokens.new_tensor(tokens)[:, None]], 1)
        self.pos = torch.cat([self.pos, (self.pos[:, -1:] + 1).masked_fill(void, 0)], 1)
        self.doc = torch.cat([self.doc, -void.long()], 1)


def _last(x: Tensor) -> Tensor:
    """The last column (B, 1), in memory of its own: strides that grow with the text would ask for a new graph."""
    return x.new_empty(len(x), 1).copy_(x[:, -1:])


def _step(model: Model, tokens: Tensor, pos: Tensor, doc: Tensor, caches: Sequence[LayerCache]) -> Tensor:
    """Scores (B, V) of what follows one new token per row, (B, 1) each."""
    x = model.stack(tokens, model.context(tokens, pos, doc), caches)
    return model.head(x)[:, 0]


def compiled_step(model: Model, tokens: Tensor, pos: Tensor, doc: Tensor, caches: Sequence[LayerCache]) -> Tensor:
    """`_step`, compiled once for each shape and model.

    Raises:
        GPTZooError: torch.compile cannot take the model as one graph, or finds no compiler.
    """
    from torch._dynamo import config
    from torch._dynamo.exc import TorchDynamoException

    step = torch.compile(_step, fullgraph=True, dynamic=False)
    try:
        with config.patch(recompile_limit=config.accumulated_recompile_limit):  # one graph for each model and shape
            return step(model, tokens, pos, doc, caches)
    except TorchDynamoException as error:
        why = " ".join(str(error).strip().split("\n\n")[0].split()).rstrip(".")
        raise GPTZooError(f"torch.compile cannot take this model: {why}. Leave it out.", "--compile") from error


def _able(model: Model, ability: str, device: str) -> bool:
    """Whether all parts can: kernels say so, other parts do not deny it."""
    stated = [part.abilities for part in model.modules() if isinstance(getattr(part, "abilities", None), Abilities)]
    kernels = [kernel.abilities_on(device) for kernel in model.kernels if kernel is not None]
    undenied = all(getattr(each, ability) is not False for each in stated)
    return undenied and all(getattr(each, ability) is True for each in kernels)
