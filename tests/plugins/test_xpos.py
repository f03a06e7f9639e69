"""xPos: scores in closed form, at any distance from the start."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.xpos import Xpos

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
PAIRINGS = ["half", "interleaved"]


def scores_in_closed_form(q: Tensor, k: Tensor, pos: list[int], scale_base: float, gamma: float, half: bool) -> Tensor:
    """Sum over pairs of zeta^(distance / base) (cos(distance f) <q, k> + sin(distance f) (q x k)), pair by pair."""
    width = q.shape[-1]
    out = torch.zeros(len(pos), len(pos), dtype=torch.float64)
    for m, at in enumerate(pos):
        for n, other in enumerate(pos):
            for i in range(width // 2):
                one, two = (i, i + width // 2) if half else (2 * i, 2 * i + 1)
                zeta = (2 * i / width + gamma) / (1 + gamma)
                angle = (at - other) * 10000.0 ** (-2 * i / width)
                dot = q[m, one] * k[n, one] + q[m, two] * k[n, two]
                cross = q[m, one] * k[n, two] - q[m, two] * k[n, one]
                out[m, n] += zeta ** ((at - other) / scale_base) * (math.cos(angle) * dot + math.sin(angle) * cross)
    return out


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("shift", [0, 1000])
def test_scores_are_the_closed_form_with_the_same_gradients(pairing: str, shift: int) -> None:
    pos = [0, 1, 5, 6, 40]
    q = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    k = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    part = Xpos(DIMS, 8, 16.0, 0.4, pairing=pairing)  # type: ignore[arg-type]
    turned_q, turned_k = part.rotate(q[None, None], k[None, None], torch.tensor([pos]) + shift)
    expected = scores_in_closed_form(q, k, pos, 16.0, 0.4, pairing == "half")
    out = (turned_q @ turned_k.mT)[0, 0]
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(5, 5, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((y * direction).sum(), (q, k)) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_norms_are_not_kept_and_it_says_so() -> None:
    x = torch.randn(1, 1, 9, 8, dtype=torch.float64)
    q, k = Xpos(DIMS, 8).rotate(x, x, torch.arange(9)[None])
    assert not Xpos.norm_preserving
    assert Xpos.shift_invariant
    assert (q.norm(dim=-1) > x.norm(dim=-1)).all()  # before the middle of the context
    assert (k.norm(dim=-1) < x.norm(dim=-1)).all()


def test_a_fade_that_takes_forever_is_plain_rope() -> None:
    x, pos = torch.randn(1, 2, 9, 8, dtype=torch.float64), torch.arange(9)[None]
    for faint, plain in zip(Xpos(DIMS, 8, 1e12).rotate(x, x, pos), Rope(DIMS, 8).rotate(x, x, pos), strict=True):
        torch.testing.assert_close(faint, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("context_length", [64, 20_000])
def test_the_whole_length_it_admits_is_finite_and_right_in_its_precision(
    dtype: torch.dtype, context_length: int
) -> None:
    part = Xpos(replace(DIMS, context_length=context_length), 8)
    assert part.max_length is not None
    pos = torch.tensor([[0, 1, part.max_length - 2, part.max_length - 1]])
    x = (10 * torch.randn(1, 2, 4, 8)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = part.rotate(x, x, pos)
    exact = part.rotate(x.double(), x.double(), pos)
    for ours, theirs in zip(out, exact, strict=True):
        assert ours.dtype == dtype
        error = ((ours.double() - theirs).norm(dim=-1) / theirs.norm(dim=-1)).max()
        assert error < 2 * torch.finfo(dtype).eps
    scores = out[0].float() @ out[1].float().mT
    assert scores.isfinite().all()


def test_the_middle_of_the_context_is_not_scaled() -> None:
    part = Xpos(DIMS, 8)
    assert torch.equal(part.scales(torch.tensor([[32]])), torch.ones(1, 1, 1, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_base": 0.0}, "scale_base must be above 0, 0.0 is not"),
        ({"gamma": 0.0}, "gamma must be above 0, 0.0 is not"),
        ({"scale_base": 0.5}, "scale_base must be larger for 64 tokens: 0.5 bears 23"),
        ({"theta": 0.0}, "theta must be above 0, 0.0 is not"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Xpos(DIMS, 8, **options)
