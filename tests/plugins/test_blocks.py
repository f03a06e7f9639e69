"""The post-norm and the parallel block against their formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.parallel import Parallel
from gptzoo_plugins.post import Post

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]


def parts(dims: gptzoo.Dims) -> tuple[gptzoo.Attention, nn.Module]:
    return gptzoo.MultiHeadAttention(dims), gptzoo.Gelu(dims)


def distinct(block: nn.Module) -> None:
    """Give every norm weights of its own, so that mixing them up shows."""
    for module in block.modules():
        if isinstance(module, gptzoo.LayerNorm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)  # type: ignore[arg-type]


def agree(block: nn.Module, expected: Callable[[Tensor], Tensor], ctx: gptzoo.Context) -> None:
    x = torch.randn(2, 5, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 5, 32, dtype=torch.float64)
    out, reference = block(x, ctx), expected(x)
    torch.testing.assert_close(out, reference, rtol=1e-10, atol=1e-12)
    leaves = [x, *block.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_post_norms_the_sum(dims: MakeDims, context: MakeContext) -> None:
    attention, mlp = parts(dims())
    block = Post(dims(), attention, mlp, gptzoo.LayerNorm).double()
    distinct(block)
    ctx = context(5)

    def formula(x: Tensor) -> Tensor:
        middle = block.norm_1(x + attention(x, ctx))
        return block.norm_2(middle + mlp(middle, ctx))

    agree(block, formula, ctx)


def test_post_leaves_a_normed_stream(dims: MakeDims, context: MakeContext) -> None:
    block = Post(dims(), *parts(dims()), gptzoo.LayerNorm)
    out = block(9 * torch.randn(2, 5, 32), context(5))
    torch.testing.assert_close(out.var(-1, unbiased=False), torch.ones(2, 5), rtol=1e-3, atol=0)


def test_parallel_with_one_norm_hands_the_same_to_both(dims: MakeDims, context: MakeContext) -> None:
    attention, mlp = parts(dims())
    block = Parallel(dims(), attention, mlp, gptzoo.LayerNorm).double()
    distinct(block)
    ctx = context(5)
    agree(block, lambda x: x + attention(block.norm_1(x), ctx) + mlp(block.norm_1(x), ctx), ctx)
    assert len([m for m in block.modules() if isinstance(m, gptzoo.LayerNorm)]) == 1


def test_parallel_with_two_norms_gives_each_its_own(dims: MakeDims, context: MakeContext) -> None:
    attention, mlp = parts(dims())
    block = Parallel(dims(), attention, mlp, gptzoo.LayerNorm, norms=2).double()
    distinct(block)
    ctx, second = context(5), block.norm_2
    assert second is not None
    agree(block, lambda x: x + attention(block.norm_1(x), ctx) + mlp(second(x), ctx), ctx)


def test_parallel_is_the_identity_when_its_projections_are_zero(dims: MakeDims, context: MakeContext) -> None:
    block = Parallel(dims(bias=False), *parts(dims(bias=False)), gptzoo.LayerNorm)
    for name, weight in block.named_parameters():
        if name.split(".")[-2] in ("o", "down"):
            nn.init.zeros_(weight)
    x = torch.randn(2, 5, 32)
    assert torch.equal(block(x, context(5)), x)


def test_three_norms_are_refused(dims: MakeDims) -> None:
    with pytest.raises(ValueError, match=r"^norms must be 1 or 2, not 3$"):
        Parallel(dims(), *parts(dims()), gptzoo.LayerNorm, norms=3)  # type: ignore[arg-type]
