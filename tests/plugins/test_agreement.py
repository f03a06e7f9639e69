"""Every kernel gives the same for every animal: windows, biases, packed documents, padding, groups, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.alibi import Alibi
from gptzoo_plugins.flash import Flash
from gptzoo_plugins.grouped_query import GroupedQuery, MultiQuery
from gptzoo_plugins.none import NoPosition
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.sliding_window import SlidingWindow

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
ARANGE = torch.arange(8)
LEFT = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 0, 0, 0, 0]])
PLACES = {
    "plain": {},
    "packed": {
        "pos": torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 0, 1], [0, 0, 0, 0, 1, 2, 3, 4]]),
        "doc": torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0, 7, 7], [3, 2, 1, 0, 0, 0, 0, 0]]),
    },
    "left-padded": {
        "pos": LEFT,
        "doc": torch.tensor([[-1, -1, -1, 0, 0, 0, 0, 0], [0] * 8, [-1] * 7 + [0]]),
    },
    "packed-and-padded": {
        "pos": torch.tensor([[0, 1, 0, 1, 2, 3, 0, 0], [0, 0, 1, 0, 1, 0, 1, 2], [0] * 8]),
        "doc": torch.tensor([[0, 0, 1, 1, 1, 1, -1, -1], [-1, 4, 4, -1, -1, 5, 5, 5], [-1] * 8]),
    },
    "shuffled": {"pos": torch.tensor([[3, 0, 5, 1, 7, 2, 4, 6]])},
}
ATTENTIONS: dict[str, Callable[[], gptzoo.MultiHeadAttention]] = {
    "multi_head": lambda: gptzoo.MultiHeadAttention(DIMS),
    "grouped_query": lambda: GroupedQuery(DIMS, 2),
    "multi_query": lambda: MultiQuery(DIMS),
    "window-1": lambda: SlidingWindow(DIMS, 1),
    "window-3": lambda: SlidingWindow(DIMS, 3, n_kv_head=2),
}
POSITIONS: dict[str, Callable[[], gptzoo.Position]] = {
    "none": lambda: NoPosition(DIMS, 8),
    "rope": lambda: Rope(DIMS, 8),
    "alibi": lambda: Alibi(DIMS, 8),
}
KERNELS: dict[str, gptzoo.Kernel] = {"naive": gptzoo.Naive(), "sdpa": gptzoo.Sdpa(), "flash": Flash()}


def by_hand(attention: gptzoo.MultiHeadAttention, position: gptzoo.Position, x: Tensor, places: dict) -> Tensor:
    """Row by row, head by head, query by query: the keys that are seen are picked out by Python."""
    rows, length, _ = x.shape
    pos = places.get("pos", ARANGE[None]).expand(rows, length)
    doc = places.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(rows, length)
    q, k, v = attention.project(x)
    q, k = position.rotate(q, k, pos)
    window = getattr(attention, "window", 10**9)
    slopes = [2.0 ** -(2 * h + 2) if isinstance(position, Alibi) else 0.0 for h in range(4)]
    out = []
    for b in range(rows):
        at, of = pos[b].tolist(), doc[b].tolist()
        for i in range(length):
            seen = [j for j in range(length) if of[j] == of[i] >= 0 and 0 <= at[i] - at[j] < window]
            for h in range(4):
                g = h // (4 // attention.n_kv_head)
                distances = torch.tensor([at[i] - at[j] for j in seen], dtype=x.dtype)
                weights = (k[b, g, seen] @ q[b, h, i] / 8**0.5 - slopes[h] * distances).softmax(0)
                out.append(weights @ v[b, g, seen] if seen else torch.zeros(8, dtype=x.dtype))
    return attention.o(torch.stack(out).reshape(rows, length, -1))


def gradients(out: Tensor, x: Tensor, attention: gptzoo.MultiHeadAttention) -> Sequence[Tensor]:
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((out * direction).sum(), [x, *attention.parameters()])


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_kernel_is_the_formula_with_the_same_gradients(
    context: MakeContext, attention: str, position: str, places: str
) -> None:
    mixer, encoding = ATTENTIONS[attention]().double(), POSITIONS[position]()
    x = torch.randn(3, 8, 32, dtype=torch.float64, requires_grad=True)
    expected = by_hand(mixer, encoding, x, PLACES[places])
    expected_gradients = gradients(expected, x, mixer)
    for kernel in KERNELS.values():
        out = mixer(x, context(8, encoding, kernel, **PLACES[places]))
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradients(out, x, mixer), expected_gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_place_without_a_token_gives_0_and_finite_gradients(
    context: MakeContext, kernel: str, position: str, dtype: torch.dtype
) -> None:
    mixer, places = SlidingWindow(DIMS, 3).to(dtype), PLACES["packed-and-padded"]
    x = torch.randn(3, 8, 32).to(dtype).requires_grad_()
    context_ = context(8, POSITIONS[position](), KERNELS[kernel], **places)
    mixed: list[Tensor] = []
    mixer.o.register_forward_pre_hook(lambda _, inputs: mixed.append(inputs[0]))
    out = mixer(x, context_)
    empty = places["doc"] < 0
    assert (mixed[0][empty] == 0).all()
    assert (mixed[0][~empty] != 0).any(-1).all()
    assert all(g.isfinite().all() for g in gradients(out, x, mixer))


def decode(
    mixer: gptzoo.MultiHeadAttention,
    x: Tensor,
    chunks: Sequence[int],
    make: Callable[..., gptzoo.Context],
    places: dict,
) -> Tensor:
    """Feed the tokens to the cache in chunks."""
    rows, length, _ = x.shape
    pos = places.get("pos", ARANGE[None]).expand(rows, length)
    doc = places.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(rows, length)
    cache = mixer.new_cache(rows, length, x.dtype, "cpu")
    out, start = [], 0
    for size in chunks:
        new = slice(start, start + size)
        out.append(mixer(x[:, new], make(pos=pos[:, new], doc=doc[:, new], cache=cache)))
        start += size
    return torch.cat(out, 1)


SPLITS = [(i, 8 - i) for i in range(1, 8)] + [(1,) * 8, (2,) * 4, (3, 1, 4), (8,)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("position", POSITIONS)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(
    context: MakeContext, position: str, places: str, kernel: str
) -> None:
    if places == "shuffled":
        places = "plain"  # a later chunk may not hold what an earlier one should have seen
    encoding = POSITIONS[position]()
    for name in ("grouped_query", "window-3"):
        mixer = ATTENTIONS[name]().double()
        x = torch.randn(3, 8, 32, dtype=torch.float64)
        whole = mixer(x, context(8, encoding, KERNELS[kernel], **PLACES[places]))
        for chunks in SPLITS:
            decoded = decode(mixer, x, chunks, lambda **at: context(0, encoding, KERNELS[kernel], **at), PLACES[places])
            torch.testing.assert_close(decoded, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_future_tokens_change_no_bit_of_the_past(
    context: MakeContext, attention: str, position: str, kernel: str
) -> None:
    mixer, encoding = ATTENTIONS[attention](), POSITIONS[position]()
    x = torch.randn(2, 8, 32)
    changed = torch.cat((x[:, :5], torch.randn(2, 3, 32)), 1)
    one, two = (mixer(t, context(8, encoding, KERNELS[kernel])) for t in (x, changed))
    assert torch.equal(one[:, :5], two[:, :5])
    assert not torch.isclose(one[:, 5:], two[:, 5:]).all(-1).any()


@pytest.mark.parametrize("kernel", ["sdpa", "flash"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("position", POSITIONS)
def test_low_precision_is_as_exact_as_the_readable_kernels(
    context: MakeContext, kernel: str, dtype: torch.dtype, position: str
) -> None:
    def error(one: gptzoo.Kernel, seed: int) -> float:
        torch.manual_seed(seed)
        mixer, encoding = GroupedQuery(DIMS, 2).to(dtype), POSITIONS[position]()
        x = torch.randn(2, 24, 32).to(dtype)
        q, k, v = mixer.project(x)
        exact = mixer.mix(q.double(), k.double(), v.double(), context(24, encoding, gptzoo.Naive()), context(24).where)
        ctx = context(24, encoding, one)
        return ((mixer.mix(q, k, v, ctx, ctx.where).double() - exact).norm() / exact.norm()).item()

    ours = max(error(KERNELS[kernel], seed) for seed in range(20))
    naive = max(error(gptzoo.Naive(), seed) for seed in range(20))
    assert ours <= 3 * naive + 4 * torch.finfo(dtype).eps
