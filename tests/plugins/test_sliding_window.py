"""Sliding-window attention against a mask written out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import gptzoo
from gptzoo_plugins.sliding_window import SlidingWindow
from tests.plugins.attention_cases import DIMS, Everything, check_decoding, shaken

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]
KERNELS = [pytest.param(gptzoo.Naive(), id="naive"), pytest.param(gptzoo.Sdpa(), id="sdpa")]


def by_hand(attention: SlidingWindow, x: Tensor) -> Tensor:
    """Query by query over the list of the keys that it sees."""
    rows, length, _ = x.shape
    q, k, v = attention.project(x)
    k, v = (t.repeat_interleave(attention.n_head // attention.n_kv_head, dim=1) for t in (k, v))
    out = torch.zeros_like(q)
    for i in range(length):
        seen = [j for j in range(length) if j <= i and j > i - attention.window]
        weights = torch.einsum("bhd,bhkd->bhk", q[:, :, i], k[:, :, seen] / 8**0.5).softmax(-1)
        out = out.index_copy(2, torch.tensor([i]), torch.einsum("bhk,bhkd->bhd", weights, v[:, :, seen])[:, :, None])
    return attention.o(out.transpose(1, 2).reshape(rows, length, -1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [1, 2, 3, 6, 7, 50])
@pytest.mark.parametrize("n_kv_head", [None, 2])
def test_a_token_sees_itself_and_the_tokens_before_it_up_to_the_window(
    dims: MakeDims, context: MakeContext, kernel: gptzoo.Kernel, window: int, n_kv_head: int | None
) -> None:
    attention = SlidingWindow(dims(), window, n_kv_head).double()
    x = torch.randn(2, 7, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 7, 32, dtype=torch.float64)
    out, expected = attention(x, context(7, kernel=kernel)), by_hand(attention, x)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    leaves = [x, *attention.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [7, 8, 10_000])
def test_a_window_as_long_as_the_row_is_multi_head_attention(dims: MakeDims, context: MakeContext, window: int) -> None:
    attention, full = SlidingWindow(dims(), window), gptzoo.MultiHeadAttention(dims())
    full.load_state_dict(attention.state_dict())
    x = torch.randn(2, 7, 32)
    assert torch.equal(attention(x, context(7)), full(x, context(7)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_has_left_the_window_has_no_gradient(dims: MakeDims, context: MakeContext, kernel: gptzoo.Kernel) -> None:
    x = torch.randn(1, 9, 32, requires_grad=True)
    out = SlidingWindow(dims(), 3)(x, context(9, kernel=kernel))
    reached = torch.autograd.grad(out[0, 5].square().sum(), x)[0][0].abs().sum(-1) > 0
    assert reached.tolist() == [False, False, False, True, True, True, False, False, False]


def test_the_window_is_counted_in_positions_not_in_places(dims: MakeDims, context: MakeContext) -> None:
    attention, x = SlidingWindow(dims(), 2), torch.randn(1, 4, 32)
    out = attention(x, context(4, pos=torch.tensor([[3, 0, 2, 1]])))
    order = [1, 3, 2, 0]
    torch.testing.assert_close(out[:, order], attention(x[:, order], context(4)), rtol=1e-5, atol=1e-6)


def test_it_needs_a_kernel_with_masks(dims: MakeDims) -> None:
    assert SlidingWindow(dims(), 3).needs() == gptzoo.Needs(window=True, head_dim=8)
    assert SlidingWindow(dims()).window == 256


def test_an_empty_window_is_refused(dims: MakeDims) -> None:
    with pytest.raises(ValueError, match=r"^window must be at least 1, not 0$"):
        SlidingWindow(dims(), 0)


# -- its cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 50])
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, window: int) -> None:
    kernels = [gptzoo.Naive(), gptzoo.Sdpa()] if window == 3 else [gptzoo.Naive()]
    check_decoding(shaken(SlidingWindow(DIMS, window, n_kv_head=2)), context, Everything(8), kernels)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_its_cache_gives_what_a_full_one_gives(data: st.DataObject) -> None:
    """Documents that take turns, padding anywhere, rows out of step, chunks of any length in any inner order."""
    rows, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24))
    attention = SlidingWindow(DIMS, data.draw(st.integers(1, 7))).double()
    doc = torch.tensor([[data.draw(st.sampled_from([-1, 0, 0, 0, 0, 4])) for _ in range(length)] for _ in range(rows)])
    pos = torch.tensor([[max(0, row[: i + 1].count(d) - 1) for i, d in enumerate(row)] for row in doc.tolist()])
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(1, length), max_size=6))})
    x = torch.randn(rows, length, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own, full = attention.new_cache(rows, length, x.dtype, "cpu"), gptzoo.LayerCache(rows, length, x.dtype, "cpu")
    with torch.no_grad():
        for start, stop in pairwise(cuts):
            order = torch.tensor(data.draw(st.permutations(range(start, stop))), dtype=torch.int64)
            new = {"pos": pos[:, order], "doc": doc[:, order]}
            ours, theirs = (attention(x[:, order], placed(**new, cache=cache)) for cache in (own, full))
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def placed(pos: Tensor, doc: Tensor, cache: gptzoo.LayerCache) -> gptzoo.Context:
    where = gptzoo.Where(pos, pos, doc, doc, plain=False, padded=True)
    return gptzoo.Context(pos, doc, where, gptzoo.Position(DIMS, 8), gptzoo.Naive(), cache)


def decoded(attention: SlidingWindow, chunks: list[int], rows: int = 1, docs: int = 1) -> tuple[gptzoo.LayerCache, int]:
    """The cache after tokens came in chunks, documents in turn, and the most slots that it had between two chunks."""
    cache = attention.new_cache(rows, sum(chunks), torch.float32, "cpu")
    start, most = 0, 0
    for size in chunks:
        place = torch.arange(start, start + size).expand(rows, size)
        attention(torch.randn(rows, size, 32), placed(place // docs, place % docs, cache))
        start += size
        assert cache.tensors["k"].shape[2] == cache.tensors["v"].shape[2] == cache.pos.shape[1] == cache.doc.shape[1]
        most = max(most, cache.pos.shape[1])
    return cache, most


@torch.no_grad()
@pytest.mark.parametrize(
    "chunks",
    [[1] * 200, [150, *[1] * 50], [7] * 30, [200], [3, 190, 1, 6]],
    ids=["one by one", "a prompt and a text", "sevens", "at once", "uneven"],
)
@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_its_cache_never_holds_more_than_twice_the_window(window: int, chunks: list[int]) -> None:
    _, most = decoded(SlidingWindow(DIMS, window), chunks)
    assert most <= 2 * (window - 1)


@torch.no_grad()
def test_documents_that_take_turns_have_a_window_each() -> None:
    cache, most = decoded(SlidingWindow(DIMS, 4), [1] * 120, docs=3)
    assert most <= 2 * 3 * 3
    assert {d: sorted(cache.pos[0][cache.doc[0] == d].tolist())[-3:] for d in range(3)} == {
        d: [37, 38, 39] for d in range(3)
    }


@torch.no_grad()
def test_a_window_longer_than_the_row_keeps_all() -> None:
    cache, most = decoded(SlidingWindow(DIMS, 50), [5, 1, 4])
    assert (most, cache.length) == (10, 10)
    assert cache.pos[0].tolist() == list(range(10))


@torch.no_grad()
def test_padding_takes_no_place_from_tokens() -> None:
    attention = SlidingWindow(DIMS, 4)
    cache = attention.new_cache(2, 40, torch.float32, "cpu")
    for step in range(20):
        done = step >= 5  # the first row has ended; the second one goes on
        pos, doc = torch.tensor([[0 if done else step], [step]]), torch.tensor([[-1 if done else 0], [0]])
        attention(torch.randn(2, 1, 32), placed(pos, doc, cache))
    assert cache.pos.shape[1] == 6
    assert {2, 3, 4} <= set(cache.pos[0][cache.doc[0] == 0].tolist())
    assert {17, 18, 19} <= set(cache.pos[1][cache.doc[1] == 0].tolist())


@torch.no_grad()
def test_what_a_caller_still_holds_is_not_overwritten() -> None:
    cache = SlidingWindow(DIMS, 3).new_cache(1, 50, torch.float32, "cpu")
    place = torch.arange(50)[None]
    k = torch.randn(1, 4, 50, 8)
    held, _, _ = cache.extend(place[:, :3], place[:, :3] * 0, k=k[:, :, :3])
    for i in range(3, 50):
        cache.extend(place[:, i : i + 1], place[:, :1] * 0, k=k[:, :, i : i + 1])
    assert torch.equal(held["k"], k[:, :, :3])


@torch.no_grad()
def test_a_token_that_comes_too_late_is_refused_once_something_is_gone() -> None:
    attention = SlidingWindow(DIMS, 3)
    place, doc = torch.tensor([[1]]), torch.tensor([[0]])
    cache, _ = decoded(attention, [1] * 3)
    attention(torch.randn(1, 1, 32), placed(place, doc, cache))  # all is still there
    cache, _ = decoded(attention, [1] * 9)
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        attention(torch.randn(1, 1, 32), placed(place, doc, cache))
    assert str(refusal.value) == (
        "a token comes after a later one of its document, and what it should see has left the window's cache. "
        "Decode each document in the order of its positions, or without a cache."
    )
    attention(torch.randn(1, 1, 32), placed(place, doc + 1, cache))  # another document may begin anywhere


def test_layers_of_equal_windows_share_their_dense_masks_and_others_do_not() -> None:
    def layout(window: int, size: int = 9) -> object:
        return SlidingWindow(DIMS, window).new_cache(1, size, torch.float32, "cpu").layout

    assert layout(3) == layout(3)
    assert len({layout(3), layout(4), layout(3, 8), gptzoo.LayerCache(1, 9, torch.float32, "cpu").layout}) == 4


def test_windows_beside_full_attention_decode_to_the_same_logits() -> None:
    layers = [{"attention": {"name": "sliding_window", "window": w}} for w in (2, 3, 3)] + [{"attention": "multi_head"}]
    model = gptzoo.build("gpt2-tiny", overrides={"model.layers": layers, "model.position": "rope"}).double().eval()
    tokens = torch.randint(257, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(tokens)
        for chunks in ([1] * 17, [9, 1, 7], [2, 15], [17]):
            cache = model.new_cache(2, 17)
            pieces = [model(part, cache=cache) for part in tokens.split(chunks, dim=1)]
            torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-9, atol=1e-11)


# -- its recipe ------------------------------------------------------------------------------------------------------


def test_local_global_tiny_builds_and_trains(tmp_path: Path) -> None:
    model = gptzoo.build("local-global-tiny")
    windows = [attention.window if isinstance(attention, SlidingWindow) else None for attention in model.attentions]
    assert windows == [32, 32, 32, None]
    few = {"train.steps": 2, "train.batch_size": 2, "data.max_bytes": 20_000, "train.eval_every": 2}
    run = gptzoo.train("local-global-tiny", runs=tmp_path, overrides=few)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    before, after = (line["val_loss"] for line in lines if "val_loss" in line)
    assert lines[-1]["step"] == 2
    assert after < before


@pytest.mark.parametrize("held", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("window", [1, 2, 4, 20])
def test_a_fixed_cache_is_a_ring_of_one_window(window: int, held: int) -> None:
    """Of rows with other padding, what the newest token sees is there, and nothing of it twice."""
    cache = SlidingWindow(DIMS, window).new_cache(2, 16, torch.float64, "cpu")
    pos = torch.stack((torch.arange(12), (torch.arange(12) - 2).clamp_min(0)))
    doc = torch.tensor([[0] * 12, [-1, -1, *[0] * 10]])
    k = torch.stack((pos, pos)).double().transpose(0, 1)[..., None]  # (B, 2, T, 1), each key its own position
    if held:
        cache.extend(pos[:, :held], doc[:, :held], k=k[:, :, :held])
    cache.fix()
    for place in range(held, 12):
        new = slice(place, place + 1)
        seen, k_pos, k_doc = cache.extend(pos[:, new], doc[:, new], k=k[:, :, new])
        assert k_pos.shape == (2, min(window, 16))
        for row in range(2):
            newest = int(pos[row, place])
            there = [p for p, d in zip(k_pos[row].tolist(), k_doc[row].tolist(), strict=True) if d == 0]
            visible = sorted(p for p in there if newest - window < p)
            assert visible == (list(range(max(0, newest - window + 1), newest + 1)) if doc[row, place] == 0 else [])
            assert bool((seen["k"][row, 0, :, 0] == k_pos[row])[k_doc[row] == 0].all())


def test_a_ring_of_several_documents_is_refused() -> None:
    cache = SlidingWindow(DIMS, 4).new_cache(1, 16, torch.float64, "cpu")
    cache.extend(torch.tensor([[0, 1, 0]]), torch.tensor([[0, 0, 1]]))
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        cache.fix()
    assert str(refusal.value) == "a ring holds one document per row. Decode documents in rows of their own."
