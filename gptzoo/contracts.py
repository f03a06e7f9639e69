"""What a component promises and what it is promised: the contracts of every slot.

Shapes, everywhere: B rows, T tokens, C = n_embd, H query heads, G key/value heads, D head_dim, Tq new tokens, Tk
visible tokens. `pos` and `doc` are int64 `(B|1, T)`: the token's position, counted from the first token of its document
in this row, and the document it belongs to; `doc = -1` means that there is no token. The two travel together and are
cached together, so keys may come in any order.

A component of any slot may state options under which the laws try it, as a recipe writes them, the first standing in
for all: `examples = ({"window": 4}, {"window": 1})`. What it cannot do it states in `abilities`, or in the class
attributes named here; what it does not state is claimed, and tested. A part that makes sense only beside others
names them by recipe key, `goes_with = {"model.head": "mup", "model.attention.scale": "1/head_dim"}`: a recipe that says
otherwise is refused, and so are parts named that disagree about an option that both have. Packages that compute for a
part it names in `libraries = ("schedulefree",)`: a run that goes on under another version of them is warned of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gptzoo.registry import InSlot

NormFactory = Annotated[Callable[[int], nn.Module], InSlot("norm")]
"""An option that takes a norm by name: `qk_norm: NormFactory | None = None`."""

Scale = float | Literal["1/head_dim"] | None
"""An option for the factor of scores: None is 1 / sqrt(head_dim); `1/head_dim`, muP's, follows when heads grow."""

BiasFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`bias(head, q_pos, k_pos) -> float`, pointwise and broadcastable."""

T = TypeVar("T")

Role = Literal["matrix", "embedding", "head", "norm", "bias", "other"]


@dataclass(frozen=True)
class Dims:
    """The sizes that the model knows and hands to its parts.

    Args:
        n_layer: Blocks in the stack.
        n_head: Query heads.
        n_embd: Width of the residual stream.
        head_dim: Width of a head.
        context_length: Most tokens the model is trained to see.
        vocab_size: Rows of `wte`.
        dropout: Probability, for every place where GPT-2 has dropout.
        bias: Whether linear layers have a bias.
        layer: Index of the layer being built, 0 outside of the stack.
    """

    n_layer: int
    n_head: int
    n_embd: int
    head_dim: int
    context_length: int
    vocab_size: int
    dropout: float = 0.0
    bias: bool = True
    layer: int = 0

    def at(self, layer: int) -> Dims:
        """The same sizes for another layer."""
        return replace(self, layer=layer)


@dataclass(frozen=True)
class Abilities:
    """What a part can do. `None` is unstated: claimed by attentions and positions, absent from kernels.

    Args:
        rotate: An attention passes q and k through `position.rotate`.
        temperature: An attention divides its scores by `position.temperature`.
        bias: Views of a score bias that are honoured: `slopes`, `pointwise`, `dense`.
        bias_grad: Gradients reach a bias that has weights.
        ready_bias: A float32 tensor may be given as the bias.
        gqa: Fewer key/value heads than query heads.
        window: Any mask beside the causal one.
        softcap: Scores may be capped by tanh.
        padding: `doc = -1` is skipped.
        documents: Several documents in a row are kept apart.
        any_order: Keys may come in any order, and documents take turns; without it, a document's tokens stand side by
            side and in order.
        cached: One new token after cached ones.
        chunked: Several new tokens after cached ones.
        lse: Can return the log of the sum of the exponentials of the scores.
        v_width: v may be of another width than q and k.
        dropout: Dropout on the weights.
        forward: Devices on which it runs.
        backward: Devices on which it can be trained.
        dtypes: Precisions of q, k and v.
        max_head_dim: Widest head.
        head_dim_multiple: Head widths are multiples of this.
    """

    rotate: bool | None = None
    temperature: bool | None = None
    bias: frozenset[str] | None = None
    bias_grad: bool | None = None
    ready_bias: bool | None = None
    gqa: bool | None = None
    window: bool | None = None
    softcap: bool | None = None
    padding: bool | None = None
    documents: bool | None = None
    any_order: bool | None = None
    cached: bool | None = None
    chunked: bool | None = None
    lse: bool | None = None
    v_width: bool | None = None
    dropout: bool | None = None
    forward: frozenset[str] | None = None
    backward: frozenset[str] | None = None
    dtypes: frozenset[str] | None = None
    max_head_dim: int | None = None
    head_dim_multiple: int | None = None


def causal(q_pos: Tensor, k_pos: Tensor) -> Tensor:
    """True where a key is not in the query's future."""
    return k_pos <= q_pos


class Mask:
    """Which keys a query sees: a part's `mask(q_pos, k_pos)` with the document test already in it.

    Args:
        part: The pointwise mask of an attention.
        key: Equal keys mean equal masks, so that equal layers share one dense view.
    """

    def __init__(self, part: Callable[[Tensor, Tensor], Tensor], key: object) -> None:
        self.part = part
        self.key = key
        self.causal = part is causal

    def __call__(self, q_pos: Tensor, k_pos: Tensor, q_doc: Tensor, k_doc: Tensor) -> Tensor:
        """bool, broadcast over the arguments."""
        return self.part(q_pos, k_pos) & (q_doc == k_doc) & (k_doc >= 0)


@dataclass
class Where:
    """Where the queries and the visible keys stand, made once per forward, with the dense views made from it.

    Args:
        q_pos: int64 (B|1, Tq). Likewise `k_pos` (B|1, Tk), `q_doc`, `k_doc`.
        plain: Known on the host: every row is one whole document from position 0, and Tq == Tk.
        padded: Known on the host: some `q_doc` may be -1.
    """

    q_pos: Tensor
    k_pos: Tensor
    q_doc: Tensor
    k_doc: Tensor
    plain: bool
    padded: bool
    _made: dict[object, object] = field(default_factory=dict, repr=False)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, made by the first layer that asks for `key` in this forward and shared by all others."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]  # type: ignore[return-value]  # the key says of what type

    def dense_mask(self, mask: Mask) -> Tensor:
        """bool (B|1, 1, Tq, Tk); True = may attend."""

        def make() -> Tensor:
            q_pos, q_doc = self.q_pos[:, None, :, None], self.q_doc[:, None, :, None]
            return mask(q_pos, self.k_pos[:, None, None], q_doc, self.k_doc[:, None, None])

        return self.once(("mask", mask.key), make)

    def blind_rows(self, mask: Mask) -> Tensor | None:
        """bool (B|1, 1, Tq, 1), True where a query sees no key at all; None where there can be none."""
        if not self.padded:
            return None
        return self.once(("blind", mask.key), lambda: ~self.dense_mask(mask).any(-1, keepdim=True))

    def dense_bias(self, bias: BiasFunction | Tensor, n_head: int) -> Tensor:
        """float32 (float64 under float64) (B|1, H|1, Tq, Tk)."""
        if isinstance(bias, Tensor):
            return bias
        owner = getattr(bias, "__self__", bias)

        def make() -> Tensor:
            with torch.autocast(self.q_pos.device.type, enabled=False):
                return self._evaluate(bias, owner, n_head)

        return self.once(("bias", owner, n_head), make)

    def _evaluate(self, bias: BiasFunction, owner: object, n_head: int) -> Tensor:
        all_heads = getattr(owner, "bias_all", None)
        if all_heads is not None:
            return all_heads(self.q_pos, self.k_pos)
        head = torch.arange(n_head, device=self.q_pos.device)[None, :, None, None]
        return bias(head, self.q_pos[:, None, :, None], self.k_pos[:, None, None, :])


class Position(nn.Module):
    """A positional encoding of any kind. The base class encodes nothing; override only what you use.

    `bias(head, q_pos, k_pos)` is pointwise: no reduction, matmul or branch on a value; finite, with finite gradients,
    for every pair, the masked ones too. Angles and biases are computed with autocast off.

    Args:
        dims: The model's sizes.
        rotate_dim: Width of the part of q and k that `rotate` receives.
    """

    abilities: ClassVar[Abilities] = Abilities()
    bias: Callable[..., Tensor] | None = None  # overridden as a method bias(head, q_pos, k_pos): a BiasFunction
    bias_has_weights: ClassVar[bool] = False
    temperature: float = 1.0
    max_length: int | None = None
    norm_preserving: ClassVar[bool] = True
    shift_invariant: ClassVar[bool] = True

    def __init__(self, dims: Dims, rotate_dim: int) -> None:
        super().__init__()
        self.dims = dims
        self.rotate_dim = rotate_dim

    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        """(B, T, C), (B|1, T) -> (B, T, C): once, after `wte`."""
        return x

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, D), (B, G, T, D), (B|1, T): new tokens only, before the cache."""
        return q, k


class Kernel:
    """Attention as a pure function of q, k and v.

    Scores are `q @ k * scale`, then softcap, bias, mask, softmax; a query that sees no key gives 0. Query head h reads
    key/value head `h // (H // G)`.

    Attributes:
        name: Its name in the recipe, set by the builder; for the record of what ran.
    """

    name: str = ""
    abilities: ClassVar[Abilities] = Abilities()

    def abilities_on(self, device: str) -> Abilities:
        """What it can do on a type of device, `cpu` or `cuda`."""
        return self.abilities

    def runs_as(self, device: str) -> str | None:
        """What it comes down to on a type of device, for the record; None where its operators are watched instead."""
        return None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: Where,
        mask: Mask,
        bias: BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """q (B, H, Tq, D), k (B, G, Tk, D), v (B, G, Tk, Dv) -> (B, H, Tq, Dv) [, lse (B, H, Tq) float32]."""
        raise TypeError(f"{type(self).__name__} defines no __call__")


class LayerCache:
    """What one attention keeps of the tokens it has seen: any tensors `(B, heads, T, width)`, with their positions.

    Args:
        batch: Rows.
        size: Most tokens it can hold.
    """

    def __init__(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.batch, self.size, self.dtype, self.device = batch, size, dtype, torch.device(device)
        self.length = 0
        self.next: Tensor | None = None  # once it is fixed: where the next token goes, on the device
        self.pos = torch.zeros(batch, size, dtype=torch.int64, device=device)
        self.doc = torch.full((batch, size), -1, dtype=torch.int64, device=device)
        self.tensors: dict[str, Tensor] = {}

    @property
    def layout(self) -> object:
        """Layers whose caches have equal layouts see the same positions in the same order."""
        return (type(self), self.size)

    def extend(self, pos: Tensor, doc: Tensor, **tensors: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Append new tokens; return what is visible, old and new, with `k_pos` and `k_doc`."""
        if self.next is not None:
            return self._extend_fixed(self.next, pos, doc, tensors)
        start, stop = self.length, self.length + pos.shape[1]
        assert stop <= self.size, f"the cache holds {self.size} tokens, not {stop}"
        self.pos[:, start:stop], self.doc[:, start:stop] = pos, doc
        for name, new in tensors.items():
            self._room(name, new)[:, :, start:stop] = new
        self.length = stop
        visible = {name: self.tensors[name][:, :, :stop] for name in tensors}
        return visible, self.pos[:, :stop], self.doc[:, :stop]

    @property
    def fixable(self) -> bool:
        """Whether `fix` may be called: a subclass with an `extend` of its own must say how its shapes can be kept."""
        return type(self).extend is LayerCache.extend or type(self).fix is not LayerCache.fix

    def fix(self) -> None:
        """Keep all shapes from now on, so that one compiled step serves every token.

        `extend` then returns every place, those without a token with `doc = -1`. It is given one token at a time, of
        the document that the row already holds, and whoever calls it keeps to `size`.
        """
        self.next = torch.tensor(self.length, device=self.device)

    def _extend_fixed(
        self, start: Tensor, pos: Tensor, doc: Tensor, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        places = start + torch.arange(pos.shape[1], device=start.device)
        self.pos.index_copy_(1, places, pos.expand(self.batch, -1))
        self.doc.index_copy_(1, places, doc.expand(self.batch, -1))
        for name, new in tensors.items():
            self._room(name, new).index_copy_(2, places, new.to(self.dtype))
        start += pos.shape[1]
        return {name: self.tensors[name] for name in tensors}, self.pos, self.doc

    def _room(self, name: str, like: Tensor) -> Tensor:
        if name not in self.tensors:
            shape = (self.batch, like.shape[1], self.size, like.shape[3])
            self.tensors[name] = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return self.tensors[name]


@dataclass
class Context:
    """What a layer is told in one forward beside x.

    Args:
        pos: int64 (B|1, T) of the new tokens; `doc` likewise.
        where: Where the new tokens stand among themselves.
        position: The layer's positional encoding.
        kernel: The layer's kernel; None for an attention that mixes by itself.
        cache: The layer's cache, or None.
        layer: The layer's index.
        published: What earlier layers handed on by name.
        losses: Named scalars that training adds to the loss.
        cached_where: `Where` over cached and new tokens, by cache layout.
    """

    pos: Tensor
    doc: Tensor
    where: Where
    position: Position
    kernel: Kernel | None = None
    cache: LayerCache | None = None
    layer: int = 0
    published: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    cached_where: dict[object, Where] = field(default_factory=dict)

    def remember(self, **tensors: Tensor) -> tuple[dict[str, Tensor], Where]:
        """Put the new tokens' tensors into the cache, if there is one; return all visible ones and where they stand."""
        if self.cache is None:
            return tensors, self.where
        visible, k_pos, k_doc = self.cache.extend(self.pos, self.doc, **tensors)
        layout = self.cache.layout
        if layout not in self.cached_where:
            plain = self.where.plain and k_pos.shape[1] == self.pos.shape[1]  # the cache was empty
            self.cached_where[layout] = Where(self.pos, k_pos, self.doc, k_doc, plain, self.where.padded)
        return visible, self.cached_where[layout]


@dataclass(frozen=True)
class Needs:
    """What an attention asks of its kernel.

    Args:
        gqa: It has fewer key/value heads than query heads.
        window: Its mask is not the causal one.
        softcap: It caps its scores.
        ready_bias: It adds a bias of its own.
        bias_grad: That bias has a gradient.
        lse: It reads the log-sum-exp.
        v_width: Its v is of another width than q and k.
        head_dim: Width of q and k.
    """

    gqa: bool = False
    window: bool = False
    softcap: bool = False
    ready_bias: bool = False
    bias_grad: bool = False
    lse: bool = False
    v_width: bool = False
    head_dim: int = 0


class Attention(nn.Module):
    """Mixes tokens: `(x, ctx) -> x`.

    Attributes:
        kernels: Names of kernels it can use; None = any that has the abilities; `()` = it mixes by itself.
        rotate_dim: Width of what it passes through `position.rotate`.
    """

    kernels: ClassVar[tuple[str, ...] | None] = None
    abilities: ClassVar[Abilities] = Abilities()
    rotate_dim: int

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        """Pointwise: which keys a query may see, documents apart."""
        return causal(q_pos, k_pos)

    @property
    def visible(self) -> Mask:
        """The mask with the document test in it."""
        if type(self).mask is Attention.mask:
            return Mask(causal, "causal")
        return Mask(self.mask, getattr(self, "key", id(self)))

    def needs(self) -> Needs:
        """What it asks of its kernel."""
        return Needs(window=not self.visible.causal, head_dim=self.rotate_dim)

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> LayerCache:
        """An empty cache for this layer."""
        return LayerCache(batch, size, dtype, device)


@dataclass(frozen=True)
class NamedParameter:
    """A parameter with its canonical name and its role; what an optimizer receives."""

    name: str
    role: Role
    tensor: nn.Parameter


@runtime_checkable
class TwoPoints(Protocol):
    """What an optimizer has beside its steps if it takes gradients at other weights than those it means to be used.

    The trainer calls `train` before a step, `eval` before it evaluates, samples or saves. Both may be called twice.
    """

    def train(self) -> None:
        """Put the weights at which gradients are taken into the model, bit for bit those that `eval` took out."""
        ...

    def eval(self) -> None:
        """Put the weights to be used into the model; the state now holds all that `train` needs."""
        ...


@dataclass(frozen=True)
class Batch:
    """Sequences to train or evaluate on, int64 (B, T), on the CPU.

    Args:
        tokens: The inputs.
        targets: The token to predict at each place; -100 = no loss.
        pos: Positions, counted from the first token of the document in the row.
        doc: Documents, -1 = no token.
    """

    tokens: Tensor
    targets: Tensor
    pos: Tensor
    doc: Tensor

    @property
    def plain(self) -> bool:
        """Every row is one document from position 0, so that the model needs no `pos` and `doc`."""
        arange = torch.arange(self.tokens.shape[1])
        return bool((self.doc == 0).all()) and bool((self.pos == arange).all())

    def rows(self, start: int, stop: int) -> Batch:
        """A micro-batch."""
        return Batch(self.tokens[start:stop], self.targets[start:stop], self.pos[start:stop], self.doc[start:stop])


class Tokenizer:
    """Text to token numbers and back.

    Attributes:
        vocab_size: Token numbers are below this.
        end: The token between documents, or None.
        learned: It has to see the corpus (`fit`) before it can encode; its files go with the run.
    """

    vocab_size: int
    end: int | None = None
    learned: ClassVar[bool] = False

    def encode(self, text: str) -> list[int]:
        """Token numbers; special tokens in the text are ordinary text."""
        raise TypeError(f"{type(self).__name__} defines no encode")

    def decode(self, tokens: Sequence[int]) -> str:
        """Text; bytes that are not UTF-8 become U+FFFD."""
        raise TypeError(f"{type(self).__name__} defines no decode")

    def byte_lengths(self) -> np.ndarray:
        """int64 (vocab_size,): UTF-8 bytes that each token stands for, 0 for special tokens; for bits per byte."""
        raise TypeError(f"{type(self).__name__} defines no byte_lengths")

    def fingerprint(self) -> str:
        """Changes whenever the same text may give other tokens; part of the token cache's key."""
        raise TypeError(f"{type(self).__name__} defines no fingerprint")

    def fit(self, texts: Iterable[str]) -> None:
        """Learn the vocabulary from the corpus, for `learned` tokenizers."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the files of a learned tokenizer into a folder."""

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read what `save` wrote, in place of `fit`."""

    def as_json(self) -> dict[str, object] | None:
        """The same tokenizer as Hugging Face's `tokenizers` write it (tokenizer.json); None if it is none of theirs."""
        return None


class Data:
    """Where batches come from.

    Args:
        tokenizer: Already fitted or loaded, or to be fitted on this data's texts.
        context_length: Tokens in a row.
    """

    tokenizer: Tokenizer
    context_length: int

    @property
    def key(self) -> str:
        """A hash of the content: raw data, tokenizer, options, format version."""
        raise TypeError(f"{type(self).__name__} defines no key")

    @property
    def documents(self) -> bool:
        """Rows may hold several documents that must not see each other."""
        return False

    def sequences(self, split: str) -> int:
        """How many distinct rows a split holds."""
        raise TypeError(f"{type(self).__name__} defines no sequences")

    def batch(self, split: str, seed: int, step: int, size: int) -> Batch:
        """The batch of a step: a pure function of its arguments. `val` does not depend on the seed."""
        raise TypeError(f"{type(self).__name__} defines no batch")

    def problems(self, split: str, count: int) -> list[tuple[str, str]]:
        """Up to `count` prompts of a split, each with the text that should follow it; none where nothing is asked.

        The last line of that text is the answer; lines before it are the way there.
        """
        return []


class Logger(Protocol):
    """Receives what the trainer measures."""

    def log(self, step: int, mapping: Mapping[str, float]) -> None:
        """Called after each logged step."""
        ...


class Schedule(Protocol):
    """The learning rate's factor, a pure function of the step."""

    def __call__(self, step: int, steps: int) -> float:
        """Factor for the update number `step`, 0 .. steps - 1."""
        ...
