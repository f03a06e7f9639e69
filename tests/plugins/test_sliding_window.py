"""Sliding-window attention against a mask written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.sliding_window import SlidingWindow

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
