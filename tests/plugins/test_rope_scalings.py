"""RoPE's scalings against their published formulas, pair by pair, and against transformers' frequencies."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.rope_llama3 import RopeLlama3
from gptzoo_plugins.rope_scaled import RopeLinear, RopeNtk
from gptzoo_plugins.rope_yarn import RopeYarn

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
CPU = torch.device("cpu")
SCALINGS = {"linear": RopeLinear, "ntk": RopeNtk, "yarn": RopeYarn, "llama3": RopeLlama3}


def frequencies_of_transformers(
    kind: str, width: int, context: int, **parameters: object
) -> tuple[torch.Tensor, float]:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": kind, **parameters}
    config = LlamaConfig(
        hidden_size=width, num_attention_heads=1, max_position_embeddings=context, rope_parameters=rope
    )
    seq_len = context * 4 if kind == "dynamic" else None
    return ROPE_INIT_FUNCTIONS[kind](config, CPU, seq_len=seq_len)


@pytest.mark.parametrize(("width", "theta", "factor"), [(64, 10000.0, 4.0), (128, 500000.0, 8.0), (8, 100.0, 2.5)])
def test_linear_has_transformers_frequencies(width: int, theta: float, factor: float) -> None:
    theirs, _ = frequencies_of_transformers("linear", width, 64, factor=factor, rope_theta=theta)
    ours = RopeLinear(DIMS, width, factor, theta).frequencies(CPU)
    torch.testing.assert_close(ours, theirs.double(), rtol=5e-7, atol=0)  # theirs are float32


@pytest.mark.parametrize(("width", "theta"), [(64, 10000.0), (128, 500000.0), (8, 100.0)])
def test_ntk_has_transformers_frequencies_at_four_times_the_length(width: int, theta: float) -> None:
    theirs, _ = frequencies_of_transformers("dynamic", width, 64, factor=1.0, rope_theta=theta)
    ours = RopeNtk(DIMS, width, 4.0, theta).frequencies(CPU)
    torch.testing.assert_close(ours, theirs.double(), rtol=2e-6, atol=0)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("width", "theta", "factor", "length", "fast", "slow"),
    [
        (128, 10000.0, 16.0, 4096, 32.0, 1.0),
        (64, 150000.0, 32.0, 4096, 32.0, 1.0),
        (8, 100.0, 4.0, 64, 4.0, 0.25),
        (16, 10000.0, 2.0, 20, 32.0, 1.0),  # no pair turns 32 times: the ramp begins before the first
    ],
)
def test_yarn_has_transformers_frequencies_and_factor(
    width: int, theta: float, factor: float, length: int, fast: float, slow: float, truncate: bool
) -> None:
    theirs, attention_factor = frequencies_of_transformers(
        "yarn",
        width,
        round(length * factor),
        factor=factor,
        rope_theta=theta,
        original_max_position_embeddings=length,
        beta_fast=fast,
        beta_slow=slow,
        truncate=truncate,
    )
    ours = RopeYarn(DIMS, width, factor, length, fast, slow, truncate, theta=theta)
    torch.testing.assert_close(ours.frequencies(CPU), theirs.double(), rtol=1e-6, atol=0)
    assert ours.temperature == pytest.approx(attention_factor**-2, rel=1e-12)


@pytest.mark.parametrize(
    ("width", "theta", "factor", "length", "low", "high"),
    [(128, 500000.0, 8.0, 8192, 1.0, 4.0), (64, 500000.0, 32.0, 8192, 1.0, 4.0), (16, 100.0, 2.0, 64, 0.5, 3.0)],
)
def test_llama3_has_transformers_frequencies(
    width: int, theta: float, factor: float, length: int, low: float, high: float
) -> None:
    theirs, attention_factor = frequencies_of_transformers(
        "llama3",
        width,
        round(length * factor),
        factor=factor,
        rope_theta=theta,
        original_max_position_embeddings=length,
        low_freq_factor=low,
        high_freq_factor=high,
    )
    ours = RopeLlama3(DIMS, width, factor, length, low, high, theta)
    torch.testing.assert_close(ours.frequencies(CPU), theirs.double(), rtol=2e-6, atol=0)
    assert attention_factor == ours.temperature == 1.0


@settings(deadline=None, max_examples=30)
@given(
    factor=st.sampled_from([1.0, 2.0, 7.5]),
    length=st.sampled_from([64, 700, 8192]),
    theta=st.sampled_from([100.0, 10000.0, 500000.0]),
    width=st.sampled_from([4, 8, 64]),
)
def test_llama3_is_its_released_three_cases(factor: float, length: int, theta: float, width: int) -> None:
    ours = RopeLlama3(DIMS, width, factor, length, 1.0, 4.0, theta).frequencies(CPU).tolist()
    for i, frequency in enumerate(ours):
        plain = theta ** (-2 * i / width)
        wavelength = 2 * math.pi / plain
        smooth = (length / wavelength - 1.0) / (4.0 - 1.0)
        if wavelength < length / 4.0:
            expected = plain
        elif wavelength > length / 1.0:
            expected = plain / factor
        else:
            expected = (1 - smooth) * plain / factor + smooth * plain
        assert frequency == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", SCALINGS)
def test_a_factor_of_1_is_plain_rope_to_the_bit(kind: str) -> None:
    plain = Rope(DIMS, 8, 10000.0, "interleaved", 0.5)
    scaled = SCALINGS[kind](DIMS, 8, factor=1.0, theta=10000.0, pairing="interleaved", fraction=0.5)
    x, pos = torch.randn(2, 3, 9, 8), torch.arange(9)[None] + 1000
    assert torch.equal(scaled.rotate(x, x, pos)[0], plain.rotate(x, x, pos)[0])
    assert scaled.temperature == 1.0


def test_linear_is_plain_rope_at_positions_divided_by_the_factor() -> None:
    x = torch.randn(1, 2, 5, 8, dtype=torch.float64)
    stretched, _ = RopeLinear(DIMS, 8, 4.0).rotate(x, x, 4 * torch.arange(5)[None])
    plain, _ = Rope(DIMS, 8).rotate(x, x, torch.arange(5)[None])
    torch.testing.assert_close(stretched, plain, rtol=1e-12, atol=1e-12)


def test_ntk_keeps_the_fastest_pair_and_slows_the_slowest_by_the_factor() -> None:
    plain, scaled = Rope(DIMS, 16).frequencies(CPU), RopeNtk(DIMS, 16, 4.0).frequencies(CPU)
    torch.testing.assert_close(scaled / plain, 4.0 ** -(torch.arange(8).double() / 7), rtol=1e-12, atol=0)


def test_yarn_keeps_fast_pairs_and_slows_slow_ones() -> None:
    plain, scaled = Rope(DIMS, 64).frequencies(CPU), RopeYarn(DIMS, 64, 4.0, 2048).frequencies(CPU)
    ratio = (scaled / plain).tolist()
    assert ratio[0] == 1.0
    assert ratio[-1] == 0.25
    assert ratio == sorted(ratio, reverse=True)
    assert len(set(ratio)) > 5


def test_yarns_original_length_is_the_context_without_the_factor() -> None:
    dims = replace(DIMS, context_length=4096)
    given, derived = RopeYarn(dims, 64, 4.0, 1024), RopeYarn(dims, 64, 4.0)
    assert torch.equal(given.frequencies(CPU), derived.frequencies(CPU))
    assert not torch.equal(RopeYarn(dims, 64, 4.0, 64).frequencies(CPU), derived.frequencies(CPU))


def test_yarns_temperature_reaches_the_scores() -> None:
    attention = gptzoo.MultiHeadAttention(DIMS).double()
    x, pos = torch.randn(1, 6, 32, dtype=torch.float64), torch.arange(6)[None]
    doc = torch.zeros_like(pos)

    def run(position: gptzoo.Position) -> torch.Tensor:
        ctx = gptzoo.Context(pos, doc, gptzoo.Where(pos, pos, doc, doc, True, False), position, gptzoo.Naive())
        return attention(x, ctx)

    warm, plain = RopeYarn(DIMS, 8, 4.0, temperature=1.0), RopeYarn(DIMS, 8, 4.0)
    expected_factor = (0.1 * math.log(4.0) + 1) ** 2
    out = run(plain)
    attention.scale *= expected_factor
    torch.testing.assert_close(out, run(warm), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", SCALINGS)
def test_scores_depend_on_the_distance_alone_and_norms_stay(kind: str) -> None:
    part = SCALINGS[kind](DIMS, 8, factor=4.0)
    q, k = torch.randn(1, 1, 6, 8, dtype=torch.float64), torch.randn(1, 1, 6, 8, dtype=torch.float64)
    pos = torch.arange(6)[None]
    base = part.rotate(q, k, pos)
    far = part.rotate(q, k, pos + 4000)
    torch.testing.assert_close(far[0] @ far[1].mT, base[0] @ base[1].mT, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(far[0].norm(dim=-1), q.norm(dim=-1), rtol=1e-12, atol=0)
    assert not torch.isclose(far[0], base[0]).all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("linear", {"factor": 0.5}, "factor must be at least 1, 0.5 is not"),
        ("ntk", {"factor": 0.5}, "factor must be at least 1, 0.5 is not"),
        (
            "ntk",
            {"factor": 2.0, "fraction": 0.25},
            "fraction times the head's width must be above 2: a single pair is both fastest and slowest",
        ),
        ("yarn", {"factor": 0.0}, "factor must be at least 1, 0.0 is not"),
        ("yarn", {"factor": 2.0, "theta": 1.0}, "theta must be above 1, 1.0 is not"),
        (
            "yarn",
            {"factor": 2.0, "beta_slow": 32.0},
            "beta_slow must lie between 0 and beta_fast = 32.0, 32.0 does not",
        ),
        ("yarn", {"factor": 2.0, "original_length": 0}, "original_length must be at least 1, 0 is not"),
        (
            "yarn",
            {"factor": 2.0, "original_length": 5, "truncate": False},
            "original_length must be such that some pair turns beta_slow = 1.0 times or more in it, and some other "
            "less than beta_fast = 32.0 times, 5 is not",
        ),
        ("yarn", {"factor": 2.0, "temperature": 0.0}, "temperature must be above 0, 0.0 is not"),
        ("llama3", {"factor": 0.9}, "factor must be at least 1, 0.9 is not"),
        ("llama3", {"original_length": -1}, "original_length must be at least 1, -1 is not"),
        ("llama3", {"low_turns": 4.0}, "low_turns must be at least 0 and below high_turns = 4.0, 4.0 is not"),
    ],
)
def test_options_that_make_no_sense_are_refused(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SCALINGS[kind](DIMS, 8, **options)
