"""The skeleton: GPT-2 with a place for every part. It knows nothing of recipes, the registry or files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.contracts import (
    Attention,
    Context,
    Dims,
    Kernel,
    LayerCache,
    NamedParameter,
    Position,
    Role,
    Tokenizer,
    Where,
)
from gptzoo.errors import GPTZooError
from gptzoo.seeds import stable_seed

InitFunction = Callable[[str, Tensor, Dims, torch.Generator], None]


class Cache:
    """What a model keeps of the tokens it has seen, one cache per layer."""

    def __init__(self, layers: Sequence[LayerCache], size: int) -> None:
        self.layers = list(layers)
        self.size = size
        self.length = 0


@dataclass(frozen=True)
class Loss:
    """What one micro-batch costs.

    Args:
        total: Sum of the token losses, nats, float32 scalar.
        tokens: How many tokens have a target, int64 scalar.
        added: Mean losses that parts add, by name.
    """

    total: Tensor
    tokens: Tensor
    added: dict[str, Tensor]


class Model(nn.Module):
    """A GPT: embedding, blocks, norm, head.

    Args:
        dims: The sizes.
        layers: The blocks; each has an `attention`.
        positions: Distinct positional encodings.
        layer_positions: For each layer, which of them it uses.
        embedding_position: Which of them is added to the embedding; None if no layer uses the model's own.
        kernels: For each layer its kernel, or None.
        norm_f: The last norm.
        head: Called with `dims` and `wte`.
    """

    def __init__(
        self,
        dims: Dims,
        layers: Sequence[nn.Module],
        positions: Sequence[Position],
        layer_positions: Sequence[int],
        embedding_position: int | None,
        kernels: Sequence[Kernel | None],
        norm_f: nn.Module,
        head: Callable[[Dims, nn.Embedding], nn.Module],
    ) -> None:
        super().__init__()
        self.dims = dims
        self.wte = nn.Embedding(dims.vocab_size, dims.n_embd)
        self.dropout = nn.Dropout(dims.dropout)
        self.positions = nn.ModuleList(positions)
        self.layers = nn.ModuleList(layers)
        self.norm_f = norm_f
        self.head = head(dims, self.wte)
        self.layer_positions = list(layer_positions)
        self.embedding_position = embedding_position
        self.tokenizer: Tokenizer | None = None  # set by whoever has one: generation of text needs it
        self.kernels: Sequence[Kernel | None] = list(kernels)

    def forward(
        self, tokens: Tensor, pos: Tensor | None = None, doc: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """int64 (B, T) -> logits (B, T, vocab_size).

        Args:
            tokens: Token numbers.
            pos: Positions (B|1, T); counted on from the cache unless given.
            doc: Documents (B|1, T), -1 = no token; one document unless given.
            cache: Extended by these tokens.

        Raises:
            GPTZooError: A position lies beyond what the positional encoding can express.
        """
        return self.head(self.hidden(tokens, pos, doc, cache)[0])

    def loss(self, tokens: Tensor, targets: Tensor, pos: Tensor | None = None, doc: Tensor | None = None) -> Loss:
        """The cross-entropy of the targets (B, T); -100 = no loss. Computed in float32 at least."""
        x, added = self.hidden(tokens, pos, doc)
        count = (targets != -100).sum()
        fused = getattr(self.head, "loss", None)
        total = fused(x, targets) if fused is not None else cross_entropy(self.head(x), targets)
        return Loss(total, count, added)

    def hidden(
        self, tokens: Tensor, pos: Tensor | None = None, doc: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the head sees, (B, T, C), and the losses that parts added."""
        ctx = self.context(tokens, pos, doc, cache)
        x = self.stack(tokens, ctx, None if cache is None else cache.layers)
        if cache is not None:
            cache.length += tokens.shape[1]
        return x, ctx.losses

    def stack(self, tokens: Tensor, ctx: Context, caches: Sequence[LayerCache] | None = None) -> Tensor:
        """From the embedding to the last norm, (B, T) -> (B, T, C); `caches` are extended, one per layer."""
        x = self.wte(tokens)
        if self.embedding_position is not None:
            x = self.positions[self.embedding_position].embed(x, ctx.pos)  # type: ignore[operator]
        x = self.dropout(x)
        for layer, block in enumerate(self.layers):
            ctx.layer, ctx.kernel = layer, self.kernels[layer]
            ctx.position = self.positions[self.layer_positions[layer]]  # type: ignore[assignment]
            ctx.cache = None if caches is None else caches[layer]
            x = self._round_the_stack("widen", x) if layer == 0 else x
            x = block(x, ctx)
        return self.norm_f(self._round_the_stack("narrow", x))

    def _round_the_stack(self, name: str, x: Tensor) -> Tensor:
        """A block may work on a widened stream: the first one widens it, the last one narrows it."""
        block = self.layers[0 if name == "widen" else -1]
        return getattr(block, name)(x) if hasattr(block, name) else x

    def context(
        self, tokens: Tensor, pos: Tensor | None = None, doc: Tensor | None = None, cache: Cache | None = None
    ) -> Context:
        """What the first layer is told in a forward of these tokens; the arguments are those of `forward`."""
        start = 0 if cache is None else cache.length
        plain = pos is None and doc is None and start == 0
        padded = doc is not None
        if pos is None:
            pos = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None]
            self._check_length(start + tokens.shape[1])
        if doc is None:
            doc = torch.zeros_like(pos)
        where = Where(pos, pos, doc, doc, plain=plain, padded=padded)
        return Context(pos, doc, where, self.positions[self.layer_positions[0]])  # type: ignore[arg-type]

    def _check_length(self, length: int) -> None:
        for position in self.positions:
            limit: int | None = position.max_length  # type: ignore[assignment]
            if limit is not None and length > limit:
                raise GPTZooError(
                    f"{length} tokens do not fit: position {type(position).__name__} ends at {limit} (context_length)."
                )

    @property
    def max_length(self) -> int | None:
        """Most tokens that its positional encodings can express; None = no limit."""
        limits = [p.max_length for p in self.positions if p.max_length is not None]
        return min(limits) if limits else None  # type: ignore[type-var]

    @property
    def attentions(self) -> Iterator[Attention]:
        """The attention of each layer, in order."""
        for block in self.layers:
            yield next(m for m in block.modules() if isinstance(m, Attention))

    def new_cache(
        self, batch: int, size: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Cache:
        """An empty cache for `batch` rows of at most `size` tokens."""
        dtype = dtype or self.wte.weight.dtype
        device = device or self.wte.weight.device
        return Cache([a.new_cache(batch, size, dtype, device) for a in self.attentions], size)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of the token losses, nats, in float32 at least: (..., vocab_size), (...); -100 = no loss."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="sum")


def initialise(model: Model, init: InitFunction, seed: int) -> None:
    """Draw every weight from a generator of its own, seeded by (seed, path, shape): equal parts get equal bits.

    Weights of `nn.Linear` and `nn.Embedding` are the `init` slot's, biases of `nn.Linear` are zero. Any other parameter
    keeps what its constructor gave it, unless the component that owns it defines `init(name, generator)`.
    """
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                _draw(f"{path}.weight", module.weight, model.dims, init, seed)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif hasattr(module, "init"):
                for name, tensor in module.named_parameters(recurse=False):
                    module.init(name, _generator(seed, f"{path}.{name}", tensor))  # type: ignore[operator]


def _draw(path: str, weight: Tensor, dims: Dims, init: InitFunction, seed: int) -> None:
    fresh = torch.empty(weight.shape, dtype=torch.float32)
    init(path, fresh, dims, _generator(seed, path, weight))
    weight.copy_(fresh)


def _generator(seed: int, path: str, tensor: Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(stable_seed(seed, "init", path, list(tensor.shape)))


def named_parameters(model: Model) -> list[NamedParameter]:
    """Every parameter once, by its canonical name, with its role."""
    found: dict[nn.Parameter, NamedParameter] = {}
    for path, module in model.named_modules():
        for name, tensor in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            found.setdefault(tensor, NamedParameter(full, _role(path, module, name), tensor))
    return list(found.values())


def _role(path: str, module: nn.Module, name: str) -> Role:
    if getattr(module, "is_norm", False):
        return "norm"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Linear) and name == "weight":
        return "head" if path.split(".")[0] == "head" else "matrix"
    if name == "bias":
        return "bias"
    return "other"
