"""What the tests of attentions share: places where tokens stand, a position that uses everything, loops over queries.

A test writes its attention's formula once more, for one query and the keys that it sees: `query_by_query` finds these,
one by one, with their scores. `check_formula` compares outputs and gradients with it wherever tokens may stand;
`check_decoding` compares a cache with the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

import gptzoo

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
LENGTH = 8
ROWS = 3

Places = Mapping[str, Tensor]

PLACES: dict[str, Places] = {
    "plain": {},
    "packed": {
        "pos": torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 0, 1], [0, 0, 0, 0, 1, 2, 3, 4]]),
        "doc": torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 7, 7], [3, 2, 1, 0, 0, 0, 0, 0]]),
    },
    "left-padded": {
        "pos": torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0, 0]]),
        "doc": torch.tensor([[-1, -1, -1, 0, 0, 0, 0, 0], [0] * 8, [-1] * 7 + [0]]),
    },
    "packed and padded": {
        "pos": torch.tensor([[0, 1, 0, 1, 2, 3, 0, 0], [0, 0, 1, 0, 1, 0, 1, 2], [0] * 8]),
        "doc": torch.tensor([[0, 0, 1, 1, 1, 1, -1, -1], [-1, 4, 4, -1, -1, 5, 5, 5], [-1] * 8]),
    },
    "interleaved": {
        "pos": torch.tensor([[0, 0, 1, 1, 2, 0, 2, 3], [0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 0, 2, 0, 3, 4, 0]]),
        "doc": torch.tensor([[0, 5, 0, 5, 5, -1, 0, 0], [2, 1, 0, 2, 1, 0, 2, 1], [1, 1, -1, 1, 0, 1, 1, -1]]),
    },
}
"""Rows of tokens in the order in which they may also be decoded."""

ONE_DOCUMENT = ("plain", "left-padded")
"""Places that a cache of fixed shapes takes, whatever its kind."""

SHUFFLED: Places = {
    "pos": torch.tensor([[3, 0, 5, 1, 7, 2, 4, 6], [0, 2, 1, 1, 0, 0, 2, 3], [7, 6, 5, 4, 3, 2, 1, 0]]),
    "doc": torch.tensor([[0] * 8, [0, 1, 0, 1, -1, 1, 0, 1], [0] * 8]),
}
"""Keys in no order at all: whole rows only, since a token may not be decoded before what it sees."""

SPLITS = [*((i, 8 - i) for i in range(1, 8)), (1,) * 8, (2,) * 4, (3, 1, 4), (8,)]

A = TypeVar("A", bound=gptzoo.Attention)

Token = Callable[[int, int, list[int]], Tensor]
"""A query's row, its place and the places of the keys that it sees -> what the heads read, side by side."""

QKV = tuple[Tensor, Tensor, Tensor]


class Everything(gptzoo.Position):
    """A position that does all that a position may: it changes q and k, has a learned bias and a temperature."""

    temperature = 1.7
    bias_has_weights = True

    def __init__(self, rotate_dim: int, dims: gptzoo.Dims = DIMS) -> None:
        super().__init__(dims, rotate_dim)
        self.price = nn.Parameter(torch.linspace(0.1, 0.9, dims.n_head, dtype=torch.float64))

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        assert q.shape[-1] == k.shape[-1] == self.rotate_dim
        angle = q_pos[:, None, :, None] * torch.arange(1, self.rotate_dim + 1)
        cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)
        return q * cos + q.flip(-1) * sin, k * cos + k.flip(-1) * sin

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return -self.price[head] * (q_pos - k_pos) + 0.3 * (q_pos * head).cos()


def spread(places: Places) -> tuple[Tensor, Tensor]:
    """Positions and documents of all rows, (ROWS, LENGTH)."""
    pos = places.get("pos", torch.arange(LENGTH)[None]).expand(ROWS, LENGTH)
    doc = places.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(ROWS, LENGTH)
    return pos, doc


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    """The same at each call."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(ROWS, LENGTH, 32, dtype=dtype, generator=generator).requires_grad_()


def shaken(attention: A, seed: int = 3) -> A:
    """The attention in float64, none of whose parameters has its initial value."""
    generator = torch.Generator().manual_seed(seed)
    attention = attention.double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return attention


def loops(
    places: Places, token: Token, width: int, mask: Callable[[int, int], bool] = lambda q_pos, k_pos: k_pos <= q_pos
) -> Tensor:
    """Row by row, query by query: (ROWS, LENGTH, width); a query that sees no key reads 0."""
    pos, doc = (each.tolist() for each in spread(places))
    rows = []
    for b in range(ROWS):
        for i in range(LENGTH):
            seen = [j for j in range(LENGTH) if doc[b][j] == doc[b][i] >= 0 and mask(pos[b][i], pos[b][j])]
            rows.append(token(b, i, seen) if seen else torch.zeros(width, dtype=torch.float64))
    return torch.stack(rows).reshape(ROWS, LENGTH, width)


def bias_of(position: gptzoo.Position, places: Places, b: int, h: int, i: int, seen: list[int]) -> Tensor:
    """The position's bias for some keys, one pair at a time."""
    if position.bias is None:
        return torch.zeros(len(seen), dtype=torch.float64)
    pos = spread(places)[0][b]
    bias = position.bias
    return torch.stack([bias(torch.tensor(h), pos[i], pos[j]) for j in seen]).double()


@dataclass(frozen=True)
class Query:
    """One token, in all H heads, and the n keys that it sees.

    Args:
        row: Its row, `place` its place there, and `seen` the places of the keys.
        scores: (H, n), scaled, capped if the attention caps them, and without the bias.
        bias: (H, n) of the position.
        values: (H, n, D).
    """

    row: int
    place: int
    seen: list[int]
    scores: Tensor
    bias: Tensor
    values: Tensor

    def reads(self, weights: Tensor) -> Tensor:
        """The sum of the values with weights (H, n): (H, D)."""
        return (weights[..., None] * self.values).sum(1)


def projected(attention: gptzoo.MultiHeadAttention, x: Tensor, position: gptzoo.Position, places: Places) -> QKV:
    """q, k and v, normalised and rotated."""
    q, k, v = attention.project(x)
    q, k = position.rotate(attention.q_norm(q), attention.k_norm(k), spread(places)[0])
    return q, k, v


def query_by_query(
    attention: gptzoo.MultiHeadAttention,
    qkv: QKV,
    position: gptzoo.Position,
    places: Places,
    read: Callable[[Query], Tensor],
    scale: float | None = None,
    mask: Callable[[int, int], bool] = lambda q_pos, k_pos: k_pos <= q_pos,
) -> Tensor:
    """The attention's output, (ROWS, LENGTH, 32), where `read` is what heads read, (H, D).

    q may hold several sets of the position's heads, one after the other; all sets get the same bias.
    """
    q, k, v = qkv
    n_head, cap = position.dims.n_head, attention.softcap
    heads = torch.arange(q.shape[1])
    group = heads // (q.shape[1] // k.shape[1])

    def token(b: int, i: int, seen: list[int]) -> Tensor:
        scores = (q[b, heads, i, None] * k[b, group][:, seen]).sum(-1)
        scores = scores * (attention.scale if scale is None else scale) / position.temperature
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        bias = torch.stack([bias_of(position, places, b, h, i, seen) for h in range(n_head)])
        bias = bias.repeat(q.shape[1] // n_head, 1)
        return read(Query(b, i, seen, scores, bias, v[b, group][:, seen])).flatten()

    return attention.o(loops(places, token, 32, mask))


def normalised(weights: Tensor) -> Tensor:
    """Divided by their sum over the keys."""
    return weights / weights.sum(-1, keepdim=True)


def softmax(query: Query) -> Tensor:
    """What heads of plain attention read."""
    return query.reads(normalised((query.scores + query.bias).exp()))


def gradients(out: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((out * direction).sum(), leaves, allow_unused=True)


def check_formula(
    attention: gptzoo.Attention,
    reference: Callable[[Tensor, gptzoo.Position, Places], Tensor],
    context: Callable[..., gptzoo.Context],
    position: gptzoo.Position,
    kernels: Sequence[gptzoo.Kernel] = (gptzoo.Naive(),),
) -> None:
    """Outputs and all gradients are the reference's, wherever tokens stand."""
    x = inputs()
    leaves = [x, *attention.parameters(), *position.parameters()]
    for name, places in {**PLACES, "shuffled": SHUFFLED}.items():
        expected = reference(x, position, places)
        expected_gradients = gradients(expected, leaves)
        for kernel in kernels:
            out = attention(x, context(LENGTH, position, kernel, **places))
            said = f"{name}, {type(kernel).__name__}"
            torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12, msg=lambda m, s=said: f"{s}: {m}")
            for ours, theirs in zip(gradients(out, leaves), expected_gradients, strict=True):
                assert (ours is None) == (theirs is None), said
                if ours is not None:
                    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10, msg=lambda m, s=said: f"{s}: {m}")


def decode(
    attention: gptzoo.Attention,
    x: Tensor,
    chunks: Sequence[int],
    context: Callable[..., gptzoo.Context],
    position: gptzoo.Position,
    kernel: gptzoo.Kernel,
    places: Places,
    fixed: bool = False,
) -> Tensor:
    """Feed the tokens to a cache in chunks; after the first one its shapes are fixed, if asked for."""
    pos, doc = spread(places)
    cache = attention.new_cache(ROWS, LENGTH, x.dtype, "cpu")
    out, start = [], 0
    for size in chunks:
        new = slice(start, start + size)
        out.append(attention(x[:, new], context(size, position, kernel, pos[:, new], doc[:, new], cache)))
        if fixed and not start:
            cache.fix()
        start += size
    return torch.cat(out, 1)


def check_decoding(
    attention: gptzoo.Attention,
    context: Callable[..., gptzoo.Context],
    position: gptzoo.Position,
    kernels: Sequence[gptzoo.Kernel] = (gptzoo.Naive(),),
) -> None:
    """A cache, filled in any chunks, or fixed after the first one, gives what the whole gives."""
    with torch.no_grad():
        x = inputs().detach()
        for name, places in PLACES.items():
            for kernel in kernels:
                whole = attention(x, context(LENGTH, position, kernel, **places))
                once_fixed = [((3, 1, 1, 1, 1, 1), True)] if name in ONE_DOCUMENT else []
                for chunks, fixed in [*((split, False) for split in SPLITS), *once_fixed]:
                    got = decode(attention, x, chunks, context, position, kernel, places, fixed)
                    said = f"{name}, {type(kernel).__name__}, {chunks}, {fixed}"
                    torch.testing.assert_close(got, whole, rtol=1e-10, atol=1e-12, msg=lambda m, s=said: f"{s}: {m}")


def check_autocast(attention: gptzoo.Attention, context: Callable[..., gptzoo.Context]) -> None:
    """In half precision the error is that of multi-head attention in the same precision, or little more."""
    plain = gptzoo.MultiHeadAttention(DIMS)

    def error(mixer: gptzoo.Attention, x: Tensor) -> float:
        mixer = mixer.float()
        exact = mixer.double()(x.double(), context(LENGTH))
        mixer.float()
        with torch.autocast("cpu", torch.bfloat16):
            out = mixer(x, context(LENGTH))
        assert out.dtype == torch.bfloat16
        return ((out.double() - exact).norm() / exact.norm()).item()

    with torch.no_grad():
        rows = [torch.randn(ROWS, LENGTH, 32) for _ in range(20)]
        ours, naive = (max(error(mixer, x) for x in rows) for mixer in (attention, plain))
    assert ours <= 3 * naive + 4 * torch.finfo(torch.bfloat16).eps
