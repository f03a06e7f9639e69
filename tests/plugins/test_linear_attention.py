"""Linear attention against its closed form over all pairs, and against the recurrence, token by token."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gptzoo
from gptzoo_plugins import linear_attention
from gptzoo_plugins.linear_attention import LinearAttention, feature
from gptzoo_plugins.rope import Rope

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


def closed_form(attention: LinearAttention, position: gptzoo.Position, x: Tensor, places: dict[str, Tensor]) -> Tensor:
    """Weights of all pairs at once: quadratic, masked, normalised."""
    rows, length, _ = x.shape
    pos = places.get("pos", torch.arange(length)[None]).expand(rows, length)
    doc = places.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(rows, length)
    q, k, v = (f(x).unflatten(-1, (4, 8)).transpose(1, 2) for f in (attention.q, attention.k, attention.v))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    seen = (doc[:, :, None] == doc[:, None]) & (doc[:, None] >= 0) & torch.ones(length, length).tril().bool()
    below = (torch.einsum("bhid,bhjd->bhij", q, k) * seen[:, None]).sum(-1, keepdim=True)
    q, k = position.rotate(q, k, pos)
    above = torch.einsum("bhid,bhjd->bhij", q, k) * seen[:, None]
    mixed = torch.einsum("bhij,bhjd->bhid", above / below.clamp_min(1e-300), v)
    return attention.o(mixed.transpose(1, 2).flatten(2))


@pytest.fixture(params=[1, 4, 64], ids=lambda size: f"chunks-of-{size}")
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_attention, "CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("rotated", [False, True])
def test_it_is_its_closed_form_and_so_are_its_gradients(
    dims: MakeDims, context: MakeContext, rotated: bool, places: str
) -> None:
    attention, position = LinearAttention(dims()).double(), (Rope if rotated else gptzoo.Position)(dims(), 8)
    x = torch.randn(4, 9, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(4, 9, 32, dtype=torch.float64)
    out = attention(x, context(9, position, **PLACES[places]))
    expected = closed_form(attention, position, x, PLACES[places])
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    leaves = [x, *attention.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_it_is_a_recurrence_over_one_matrix_and_one_vector(dims: MakeDims, context: MakeContext) -> None:
    """arXiv:2006.16236, equations 18 to 20."""
    attention, x = LinearAttention(dims()).double(), torch.randn(1, 70, 32, dtype=torch.float64)
    q, k, v = (f(x).unflatten(-1, (4, 8))[0] for f in (attention.q, attention.k, attention.v))
    s, z, out = torch.zeros(4, 8, 8, dtype=torch.float64), torch.zeros(4, 8, dtype=torch.float64), []
    for i in range(70):
        s = s + torch.einsum("hd,he->hde", F.elu(k[i]) + 1, v[i])
        z = z + F.elu(k[i]) + 1
        above, below = (torch.einsum(f"hd,hd{e}->h{e}", F.elu(q[i]) + 1, m) for e, m in (("e", s), ("", z)))
        out.append((above / below[:, None]).flatten())
    expected = attention.o(torch.stack(out))[None]
    torch.testing.assert_close(attention(x, context(70)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("places", PLACES)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(dims: MakeDims, context: MakeContext, places: str) -> None:
    attention, position = LinearAttention(dims()).double(), Rope(dims(), 8)
    x, at = torch.randn(4, 9, 32, dtype=torch.float64), PLACES[places]
    pos = at.get("pos", torch.arange(9)[None])
    doc = at.get("doc", torch.zeros_like(pos))
    whole = attention(x, context(9, position, **at))
    for sizes in [(i, 9 - i) for i in range(1, 9)] + [(1,) * 9, (3, 1, 5), (9,)]:
        cache, out = attention.new_cache(4, 9, x.dtype, "cpu"), []
        for new in torch.arange(9).split(list(sizes)):
            out.append(attention(x[:, new], context(0, position, pos=pos[:, new], doc=doc[:, new], cache=cache)))
        torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-10, atol=1e-12)


def test_the_cache_does_not_grow(dims: MakeDims, context: MakeContext) -> None:
    attention = LinearAttention(dims()).bfloat16()
    cache = attention.new_cache(2, 1000, torch.bfloat16, "cpu")
    for length in (1, 50, 3):
        attention(torch.randn(2, length, 32).bfloat16(), context(length, cache=cache))
        assert {name: tuple(t.shape) for name, t in cache.tensors.items()} == {
            "above": (2, 4, 8, 8),
            "below": (2, 4, 8, 1),
        }
        assert {t.dtype for t in cache.tensors.values()} == {torch.float32}


def test_features_are_positive_where_adding_one_to_elu_gives_nothing() -> None:
    x = torch.tensor([-80.0, -20.0, -1.0, 0.0, 2.0])
    assert (F.elu(x) + 1)[0] == 0
    assert (feature(x) > 0).all()
    torch.testing.assert_close(feature(x.double()), F.elu(x.double()) + 1, rtol=1e-10, atol=1e-16)


def test_keys_without_any_weight_give_nothing_and_finite_gradients(dims: MakeDims, context: MakeContext) -> None:
    attention = LinearAttention(dims())
    for each in (attention.q, attention.k):
        torch.nn.init.constant_(each.bias, -200.0)
    x = torch.randn(1, 5, 32, requires_grad=True)
    out = attention(x, context(5))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(out, attention.o.bias.expand_as(out))
    assert gradient.isfinite().all()


def test_positions_that_bias_scores_are_refused_and_those_that_rotate_are_not() -> None:
    tiny = {"model.attention": "linear"}
    gptzoo.build("gpt2-tiny", overrides=tiny | {"model.position": "rope"})
    with pytest.raises(gptzoo.GPTZooError, match="'alibi' adds a score bias, and attention 'linear' has no scores"):
        gptzoo.build("gpt2-tiny", overrides=tiny | {"model.position": "alibi"})
