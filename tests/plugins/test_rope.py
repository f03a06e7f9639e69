"""RoPE against complex numbers, and the properties it is used for."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

import gptzoo
from gptzoo_plugins.rope import Rope

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
PAIRINGS = ["half", "interleaved"]


def rope(width: int = 8, theta: float = 10000.0, pairing: str = "half", fraction: float = 1.0) -> Rope:
    return Rope(DIMS, width, theta, pairing, fraction)  # type: ignore[arg-type]


def turned_as_complex_numbers(x: Tensor, pos: Tensor, theta: float, pairing: str, width: int) -> Tensor:
    """The rotation pair by pair, each a complex number times exp(i pos theta^(-2i / width))."""
    out = list(x.unbind(-1))
    for i in range(width // 2):
        one, two = (i, i + width // 2) if pairing == "half" else (2 * i, 2 * i + 1)
        z = torch.complex(x[..., one], x[..., two])
        angle = pos.double() * theta ** (-2 * i / width)
        z = z * torch.exp(1j * angle)[:, None]
        out[one], out[two] = z.real, z.imag
    return torch.stack(out, -1)


@settings(deadline=None, max_examples=40)
@given(
    width=st.sampled_from([2, 4, 6, 8, 16]),
    length=st.integers(1, 9),
    rows=st.sampled_from([1, 3]),
    pairing=st.sampled_from(PAIRINGS),
    fraction=st.sampled_from([1.0, 0.5]),
    theta=st.sampled_from([10000.0, 500000.0, 3.0]),
    seed=st.integers(0, 2**20),
)
def test_it_is_multiplication_by_complex_numbers_with_the_same_gradients(
    width: int, length: int, rows: int, pairing: str, fraction: float, theta: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    pos = torch.randint(0, 100_000, (rows, length), generator=g)
    part = rope(2 * width if fraction == 0.5 else width, theta, pairing, fraction)
    assert part.width == width
    q = torch.randn(3, 4, length, part.rotate_dim, dtype=torch.float64, generator=g, requires_grad=True)
    k = torch.randn(3, 2, length, part.rotate_dim, dtype=torch.float64, generator=g, requires_grad=True)
    for x, out in zip((q, k), part.rotate(q, k, pos), strict=True):
        expected = turned_as_complex_numbers(x, pos, theta, pairing, width)
        direction = torch.randn(x.shape, dtype=torch.float64, generator=g)
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
        ours, theirs = (torch.autograd.grad((y * direction).sum(), x)[0] for y in (out, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_norms_are_preserved(pairing: str) -> None:
    q, k = torch.randn(2, 4, 9, 8, dtype=torch.float64), torch.randn(2, 2, 9, 8, dtype=torch.float64)
    for x, out in zip((q, k), rope(pairing=pairing).rotate(q, k, torch.arange(9)[None]), strict=True):
        torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_scores_depend_on_the_distance_alone(pairing: str) -> None:
    q, k = torch.randn(1, 1, 6, 8, dtype=torch.float64), torch.randn(1, 1, 6, 8, dtype=torch.float64)
    pos = torch.arange(6)[None]

    def scores(shift: int) -> Tensor:
        turned_q, turned_k = rope(pairing=pairing).rotate(q, k, pos + shift)
        return turned_q @ turned_k.mT

    for shift in (1, 2, 17, 4000):
        torch.testing.assert_close(scores(shift), scores(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_scores_do_depend_on_the_distance(pairing: str) -> None:
    ones = torch.ones(1, 1, 2, 8, dtype=torch.float64)
    q, k = rope(pairing=pairing).rotate(ones, ones, torch.tensor([[0, 3]]))
    assert (q @ k.mT)[0, 0, 0, 0] - (q @ k.mT)[0, 0, 0, 1] > 1


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_position_0_is_the_identity(pairing: str, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 8).to(dtype)
    q, k = rope(pairing=pairing).rotate(x, x, torch.zeros(1, 4, dtype=torch.int64))
    assert torch.equal(q, x)
    assert torch.equal(k, x)


@pytest.mark.parametrize(
    ("pairing", "pairs"), [("half", [(0, 3), (1, 4), (2, 5)]), ("interleaved", [(0, 1), (2, 3), (4, 5)])]
)
def test_every_pair_is_turned_at_its_own_frequency(pairing: str, pairs: list[tuple[int, int]]) -> None:
    for i, (one, two) in enumerate(pairs):
        x = torch.zeros(1, 1, 1, 6, dtype=torch.float64)
        x[..., one] = 1
        q, _ = rope(6, theta=1000.0, pairing=pairing).rotate(x, x, torch.tensor([[1]]))
        expected = torch.zeros_like(x)
        expected[..., one], expected[..., two] = math.cos(10.0**-i), math.sin(10.0**-i)
        torch.testing.assert_close(q, expected, rtol=1e-12, atol=1e-15)


def test_only_the_front_of_a_head_is_turned_by_a_fraction() -> None:
    x = torch.randn(2, 3, 5, 8)
    q, _ = rope(fraction=0.25).rotate(x, x, torch.arange(5)[None] + 1)
    alone, _ = rope(2).rotate(x[..., :2], x[..., :2], torch.arange(5)[None] + 1)
    assert torch.equal(q[..., 2:], x[..., 2:])
    assert torch.equal(q[..., :2], alone)
    assert not torch.isclose(q[..., :2], x[..., :2]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_rounded_once_even_far_away_and_under_autocast(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 64, 32).to(dtype)
    pos = torch.arange(64)[None] + 1_000_000
    with torch.autocast("cpu", torch.bfloat16):
        q, _ = rope(32).rotate(x, x, pos)
    exact, _ = rope(32).rotate(x.double(), x.double(), pos)
    assert q.dtype == dtype
    torch.testing.assert_close(q.double(), exact, rtol=torch.finfo(dtype).eps, atol=5e-7)


def test_new_tokens_are_turned_as_in_the_whole() -> None:
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    pos = torch.arange(9)[None]
    whole, _ = rope().rotate(x, x, pos)
    for split in range(10):
        parts = [rope().rotate(x[:, :, s], x[:, :, s], pos[:, s])[0] for s in (slice(split), slice(split, None))]
        assert torch.equal(torch.cat(parts, 2), whole)


def test_it_is_the_rotary_embedding_of_llama_in_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = LlamaConfig(hidden_size=32, num_attention_heads=4, max_position_embeddings=64)
    q, k, pos = torch.randn(2, 4, 20, 8), torch.randn(2, 2, 20, 8), torch.arange(20)[None]
    theirs = apply_rotary_pos_emb(q, k, *LlamaRotaryEmbedding(config)(q, pos))
    for ours, other in zip(rope().rotate(q, k, pos), theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=5e-6)  # their angles are float32


def test_it_keeps_nothing_that_a_cast_a_copy_or_a_checkpoint_could_spoil() -> None:
    part = rope()
    x, pos = torch.randn(1, 2, 5, 8), torch.arange(5)[None] + 3000
    before, _ = part.rotate(x, x, pos)
    assert part.state_dict() == {}
    for changed in (copy.deepcopy(part).to(torch.bfloat16), part.to("meta")):
        assert torch.equal(changed.rotate(x, x, pos)[0], before)


def test_it_compiles_into_one_graph() -> None:
    x, pos = torch.randn(1, 2, 5, 8), torch.arange(5)[None]
    for pairing in PAIRINGS:
        part = rope(pairing=pairing)
        compiled = torch.compile(part.rotate, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x, x, pos)[0], part.rotate(x, x, pos)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"theta": 0.0}, "theta must be above 0, 0.0 is not"),
        ({"pairing": "quarter"}, "pairing must be half or interleaved, not 'quarter'"),
        (
            {"fraction": 0.3},
            "fraction times the head's width must be an even number from 2 to 8, 0.3 * 8 = 2.4 is not",
        ),
        ({"fraction": 0.0}, "fraction times the head's width must be an even number from 2 to 8, 0.0 * 8 = 0 is not"),
        (
            {"fraction": 1.25},
            "fraction times the head's width must be an even number from 2 to 8, 1.25 * 8 = 10 is not",
        ),
        ({"width": 7}, "fraction times the head's width must be an even number from 2 to 7, 1.0 * 7 = 7 is not"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rope(**options)
