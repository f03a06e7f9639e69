"""Positions that learn a bias (T5, KERPLE, FIRE, learned relative) against loops over their formulas."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.fire import Fire
from gptzoo_plugins.kerple import Kerple
from gptzoo_plugins.learned_relative import LearnedRelative
from gptzoo_plugins.t5 import T5

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
POS = torch.tensor([[0, 1, 2, 3, 7, 8, 20, 70_000]])


P = TypeVar("P", bound=gptzoo.Position)
float64 = torch.float64


def drawn(part: P) -> P:
    """With weights of its own, so that mixing them up shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in part.named_parameters():
            if hasattr(part, "init"):
                part.init(name, generator)  # type: ignore[operator]
            else:
                weight.normal_(generator=generator)
    return part


PARTS: dict[str, Callable[[], gptzoo.Position]] = {
    "t5": lambda: drawn(T5(DIMS, 8, 8, 16)),
    "kerple-log": lambda: drawn(Kerple(DIMS, 8, "log")),
    "kerple-power": lambda: drawn(Kerple(DIMS, 8, "power")),
    "fire": lambda: drawn(Fire(DIMS, 8, 5, threshold=6.0)),
    "learned_relative": lambda: drawn(LearnedRelative(DIMS, 8, 5)),
}


def dense(part: gptzoo.Position, q_pos: Tensor = POS, k_pos: Tensor = POS) -> Tensor:
    assert part.bias is not None
    return part.bias(torch.arange(4)[None, :, None, None], q_pos[:, None, :, None], k_pos[:, None, None, :])


def by_hand(name: str, weights: Mapping[str, Tensor], h: int, q: int, k: int) -> Tensor:
    """One number of the table, by the paper's formula."""
    distance = max(q - k, 0)
    if name == "t5":
        bucket = min(7, 4 + math.floor(math.log(distance / 4) / math.log(16 / 4) * 4 + 1e-9)) if distance > 3 else 0
        return weights["table.weight"][bucket if distance > 3 else distance, h]
    if name == "learned_relative":
        return weights["table.weight"][min(distance, 5), h]
    if name == "kerple-log":
        return -weights["raw_a"][h].exp() * torch.log(1 + weights["raw_b"][h].exp() * distance)
    if name == "kerple-power":
        exponent = 2 / (1 + torch.exp(-weights["raw_b"][h]))
        return -weights["raw_a"][h].exp() * float(distance) ** exponent if distance else torch.zeros((), dtype=float64)
    c = weights["c"][0].abs()
    longest = torch.maximum(torch.tensor(q), 6.0 * weights["threshold_factor"][0].abs())
    share = torch.log(c * distance + 1) / (torch.log(c * longest + 1) + 1e-6)
    hidden = (weights["inner_weight"] * share + weights["inner_bias"]).clamp(min=0)
    return (weights["outer_weight"][h] * hidden).sum()


@pytest.mark.parametrize("name", PARTS)
def test_the_bias_is_the_papers_with_the_same_gradients(name: str) -> None:
    part = PARTS[name]().double()
    weights = dict(part.named_parameters())
    expected = torch.stack(
        [by_hand(name, weights, h, q, k) for h in range(4) for q in POS[0].tolist() for k in POS[0].tolist()]
    ).reshape(1, 4, 8, 8)
    out = dense(part)
    assert out.dtype == float64
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    # Powers reach 1e9: the gradient is compared under numbers that weigh all distances alike.
    direction = torch.randn(out.shape, dtype=float64) / (1 + expected.detach().abs())
    leaves = list(weights.values())
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert all(gradient.any() for gradient in ours)


@pytest.mark.parametrize("name", PARTS)
def test_one_pair_gives_the_same_as_the_dense_view(name: str) -> None:
    part = PARTS[name]()
    whole = dense(part)
    assert part.bias is not None
    for h in range(4):
        for i, q in enumerate(POS[0]):
            for j, k in enumerate(POS[0]):
                torch.testing.assert_close(part.bias(torch.tensor(h), q, k), whole[0, h, i, j], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 3])
def test_all_heads_at_once_are_the_same_heads_with_the_same_gradients(rows: int) -> None:
    part = drawn(Fire(DIMS, 8, 5, threshold=6.0)).double()
    q_pos, k_pos = torch.randint(0, 40, (rows, 5)), torch.randint(0, 40, (rows, 9))
    one, other = dense(part, q_pos, k_pos), part.bias_all(q_pos, k_pos)
    assert other.shape == (rows, 4, 5, 9)
    torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-13)
    direction = torch.randn(one.shape, dtype=float64)
    ours, theirs = (torch.autograd.grad((y * direction).sum(), list(part.parameters())) for y in (other, one))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_every_pair_is_finite_with_finite_gradients_the_future_too(name: str) -> None:
    part = PARTS[name]()
    out = dense(part, torch.tensor([[0, 0, 5]]), torch.tensor([[0, 5, 1_000_000]]))
    out.square().sum().backward()
    assert out.isfinite().all()
    for parameter in part.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", PARTS)
def test_a_bfloat16_model_under_autocast_still_has_a_float32_bias(name: str) -> None:
    part = PARTS[name]()
    rounded = PARTS[name]().to(torch.bfloat16)
    reference = PARTS[name]().to(torch.bfloat16).double()
    with torch.autocast("cpu", torch.bfloat16):
        where = gptzoo.Where(POS[:, :7], POS[:, :7], 0 * POS[:, :7], 0 * POS[:, :7], False, False)
        assert part.bias is not None
        assert rounded.bias is not None
        out = where.dense_bias(rounded.bias, 4)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), dense(reference, POS[:, :7], POS[:, :7]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["t5", "kerple-log", "kerple-power", "learned_relative"])
def test_only_the_distance_matters(name: str) -> None:
    part, pos = PARTS[name](), torch.arange(20)[None]
    assert part.shift_invariant
    assert torch.equal(dense(part, pos + 1000, pos + 1000), dense(part, pos, pos))


def test_fire_reads_the_position_too_beyond_its_threshold() -> None:
    part, pos = PARTS["fire"](), torch.arange(6)[None]
    assert not part.shift_invariant
    assert not torch.isclose(dense(part, pos + 100, pos + 100), dense(part, pos, pos)).all()
    far = drawn(Fire(DIMS, 8, 5, threshold=1e6))
    assert torch.equal(dense(far, pos + 100, pos + 100), dense(far, pos, pos))


@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 16), (32, 256), (2, 3), (5, 7), (16, 9)])
def test_t5s_buckets_are_the_released_formula(buckets: int, longest: int) -> None:
    exact = buckets // 2
    for distance, ours in enumerate(T5(DIMS, 8, buckets, longest).bucket(torch.arange(400)).tolist()):
        step = math.log(max(distance, 1) / exact) / math.log(longest / exact) * (buckets - exact)
        assert ours == (distance if distance < exact else min(buckets - 1, exact + math.floor(step + 1e-9)))
    assert T5(DIMS, 8, buckets, longest).bucket(torch.tensor(-3)) == 0


def test_t5s_buckets_are_exact_at_their_edges() -> None:
    part = T5(DIMS, 8, 32, 256)  # edges at 16 * 2^(k / 4)
    assert part.bucket(torch.tensor([15, 16, 31, 32, 63, 64, 127, 128, 10**6])).tolist() == [
        *(15, 16, 19, 20, 23, 24, 27, 28, 31),
    ]


def test_kerple_starts_where_its_released_code_does() -> None:
    many = gptzoo.Dims(n_layer=1, n_head=4096, n_embd=8, head_dim=8, context_length=8, vocab_size=3)
    for kind, (most_a, most_b) in {"log": (2, 1), "power": (1, 2)}.items():
        part = drawn(Kerple(many, 8, kind))  # type: ignore[arg-type]
        b = part.raw_b.exp() if kind == "log" else 2 * part.raw_b.sigmoid()
        for values, most in ((part.raw_a.exp(), most_a), (b, most_b)):
            assert 0.0099 * most <= values.min() <= 0.05 * most
            assert 0.95 * most <= values.max() <= most
            assert values.mean().item() == pytest.approx(most / 2, rel=0.05)


def test_fire_starts_as_torchs_linear_layers_do() -> None:
    part = drawn(Fire(DIMS, 8, 1024))
    for weight, bound in ((part.inner_weight, 1), (part.inner_bias, 1), (part.outer_weight, 1 / 32)):
        assert 0.9 * bound < weight.max() <= bound
        assert -bound <= weight.min() < -0.9 * bound
    assert (part.c.item(), part.threshold_factor.item()) == (pytest.approx(0.1), 1.0)


@pytest.mark.parametrize("name", PARTS)
def test_the_weights_are_learned_and_nothing_else_is_kept(name: str) -> None:
    part = PARTS[name]()
    assert part.bias_has_weights
    assert [n for n, _ in part.named_buffers()] == []
    assert all(isinstance(weight, nn.Parameter) for weight in part.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: T5(DIMS, 8, 1), "buckets must be at least 2, not 1"),
        (lambda: T5(DIMS, 8, 32, 16), "max_distance must be above half of the buckets, 16, 16 is not"),
        (lambda: LearnedRelative(DIMS, 8, 0), "max_distance must be at least 1, not 0"),
        (lambda: Kerple(DIMS, 8, "sqrt"), "kind must be log or power, not 'sqrt'"),  # type: ignore[arg-type]
        (lambda: Fire(DIMS, 8, 0), "hidden must be at least 1, not 0"),
        (lambda: Fire(DIMS, 8, c=0.0), "c must be above 0, 0.0 is not"),
        (lambda: Fire(DIMS, 8, threshold=-1.0), "threshold must be above 0, -1.0 is not"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
