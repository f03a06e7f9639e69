"""The gated delta rule in chunks against the recurrence, token by token, document by document."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gptzoo
from gptzoo_plugins.gated_delta import GatedDelta

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]

PLACES: dict[str, dict[str, Tensor]] = {
    "plain": {},
    "packed-and-padded": {
        "pos": torch.tensor(
            [[0, 1, 2, 0, 1, 0, 1, 2, 3], [0, 0, 0, 1, 2, 0, 1, 2, 0], [0] * 9, [0, 1, 1, 2, 1, 2, 3, 4, 0]]
        ),
        "doc": torch.tensor(
            [[0, 0, 0, 1, 1, 7, 7, 7, 7], [-1, -1, 4, 4, 4, 2, 2, 2, -1], [-1] * 9, [3, 3, -1, 3, -1, 3, 3, 3, 1]]
        ),
    },
}
OPTIONS = {"default": {}, "ungated": {"output_gate": False}, "negative": {"negative_eigenvalues": True}}


def token_by_token(attention: GatedDelta, x: Tensor, places: dict[str, Tensor]) -> Tensor:
    """arXiv:2412.06464, equation 10, with a loop over rows, heads and tokens."""
    rows, length, _ = x.shape
    doc = places.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(rows, length)
    q, k, v = (F.silu(f(x)).unflatten(-1, (4, 8)) for f in (attention.q, attention.k, attention.v))
    q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
    beta = torch.sigmoid(attention.beta(x)) * (2 if attention.strongest == 2 else 1)
    alpha = torch.exp(-torch.exp(attention.a) * F.softplus(attention.decay(x) + attention.b))
    out = []
    for b in range(rows):
        for h in range(4):
            s, of = x.new_zeros(8, 8), None
            for i in range(length):
                if doc[b, i] < 0:
                    out.append(x.new_zeros(8))
                    continue
                s = s if of == doc[b, i] else x.new_zeros(8, 8)
                of = doc[b, i]
                kk, eye = torch.outer(k[b, i, h], k[b, i, h]), torch.eye(8, dtype=x.dtype)
                s = alpha[b, i, h] * s @ (eye - beta[b, i, h] * kk) + beta[b, i, h] * torch.outer(
                    v[b, i, h], k[b, i, h]
                )
                out.append(s @ q[b, i, h] / 8**0.5)
    y = torch.stack(out).reshape(rows, 4, length, 8)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * attention.head_norm
    y = y.transpose(1, 2).flatten(2)
    return attention.o(y if attention.gate is None else y * F.silu(attention.gate(x)))


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("options", OPTIONS)
def test_chunks_are_the_recurrence_and_so_are_their_gradients(
    dims: MakeDims, context: MakeContext, options: str, places: str, chunk: int
) -> None:
    attention = GatedDelta(dims(), chunk, **OPTIONS[options]).double()
    x = torch.randn(4, 9, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(4, 9, 32, dtype=torch.float64)
    out, expected = attention(x, context(9, **PLACES[places])), token_by_token(attention, x, PLACES[places])
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    leaves = [x, *attention.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 64])
@pytest.mark.parametrize("places", PLACES)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(
    dims: MakeDims, context: MakeContext, places: str, chunk: int
) -> None:
    attention, at = GatedDelta(dims(), chunk).double(), PLACES[places]
    x = torch.randn(4, 9, 32, dtype=torch.float64)
    pos = at.get("pos", torch.arange(9)[None])
    doc = at.get("doc", torch.zeros_like(pos))
    whole = attention(x, context(9, **at))
    for sizes in [(i, 9 - i) for i in range(1, 9)] + [(1,) * 9, (3, 1, 5), (9,)]:
        cache, out = attention.new_cache(4, 9, x.dtype, "cpu"), []
        for new in torch.arange(9).split(list(sizes)):
            out.append(attention(x[:, new], context(0, pos=pos[:, new], doc=doc[:, new], cache=cache)))
        torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-10, atol=1e-12)


def test_a_key_that_comes_again_finds_its_last_value_alone(context: MakeContext) -> None:
    """What linear attention would add up, the delta rule replaces."""
    one_head = gptzoo.Dims(1, 1, 8, 8, 64, 11)
    attention = GatedDelta(one_head).double()
    k = F.normalize(torch.randn(1, 1, 1, 8, dtype=torch.float64), dim=-1).expand(1, 1, 3, 8)
    v, ones = torch.randn(1, 1, 3, 8, dtype=torch.float64), torch.ones(1, 1, 3, dtype=torch.float64)
    out = attention.mix(k, k, v, ones, 0 * ones, context(3)) * 8**0.5
    torch.testing.assert_close(out, v, rtol=1e-10, atol=1e-12)


def test_memories_begin_long_in_the_first_head_and_short_in_the_last(dims: MakeDims) -> None:
    alpha = GatedDelta(dims()).log_alpha(torch.zeros(1, 4, 1)).exp().flatten()
    torch.testing.assert_close(alpha[[0, -1]], torch.tensor([-0.001, -1.6]).exp())
    assert (alpha.diff() < 0).all()


def test_the_state_is_float32_under_half_precision(dims: MakeDims, context: MakeContext) -> None:
    attention = GatedDelta(dims())
    cache = attention.new_cache(2, 1000, torch.bfloat16, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(torch.randn(2, 70, 32), context(70, cache=cache))
    assert out.dtype == torch.bfloat16
    assert {name: (t.shape, t.dtype) for name, t in cache.tensors.items()} == {"state": ((2, 4, 8, 8), torch.float32)}


def test_what_it_cannot_use_is_refused(dims: MakeDims) -> None:
    with pytest.raises(ValueError, match=r"^chunk must be at least 1, not 0$"):
        GatedDelta(dims(), 0)
    with pytest.raises(gptzoo.GPTZooError, match="'rope' rotates queries and keys, and attention"):
        gptzoo.build("gpt2-tiny", overrides={"model.attention": "gated_delta", "model.position": "rope"})
