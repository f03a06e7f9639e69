"""ALiBi: slopes in closed form, biases linear in distance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gptzoo
from gptzoo_plugins.alibi import Alibi

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)

EIGHT = [2.0**-m for m in range(1, 9)]
SLOPES = {
    1: [2.0**-8],
    2: [2.0**-4, 2.0**-8],
    3: [2.0**-4, 2.0**-8, 2.0**-2],
    4: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8],
    5: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1],
    6: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3],
    7: [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3, 2.0**-5],
    8: EIGHT,
    12: [*EIGHT, 2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5],
}


def alibi(n_head: int = 4) -> Alibi:
    return Alibi(replace(DIMS, n_head=n_head), 8)


@pytest.mark.parametrize("n_head", SLOPES)
def test_slopes_are_the_papers_for_any_number_of_heads(n_head: int) -> None:
    slopes = alibi(n_head).slopes()
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, torch.tensor(SLOPES[n_head]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("n_head", [16, 20, 32, 100])
def test_slopes_follow_the_released_recursion(n_head: int) -> None:
    def released(n: int) -> list[float]:
        if n & (n - 1) == 0:
            start = 2 ** (-8 / n)
            return [start**i for i in range(1, n + 1)]
        lower = 2 ** (n.bit_length() - 1)
        return released(lower) + released(2 * lower)[0::2][: n - lower]

    torch.testing.assert_close(alibi(n_head).slopes(), torch.tensor(released(n_head)), rtol=5e-7, atol=0)


@pytest.mark.parametrize("n_head", [1, 3, 4, 12])
def test_the_bias_is_minus_slope_times_distance(n_head: int) -> None:
    pos = torch.tensor([[0, 1, 2, 5, 60_000]])
    bias = alibi(n_head).bias(torch.arange(n_head)[None, :, None, None], pos[:, None, :, None], pos[:, None, None, :])
    assert bias.dtype == torch.float32
    assert bias.shape == (1, n_head, 5, 5)
    for h, slope in enumerate(SLOPES[n_head]):
        for i, q in enumerate(pos[0].tolist()):
            for j, k in enumerate(pos[0].tolist()):
                assert bias[0, h, i, j].item() == pytest.approx(-slope * (q - k), rel=3e-7, abs=0)


def test_one_pair_gives_the_same_as_the_dense_view() -> None:
    part, pos = alibi(), torch.arange(6)
    dense = part.bias(torch.arange(4)[None, :, None, None], pos[None, None, :, None], pos[None, None, None, :])
    for h in range(4):
        for i in range(6):
            assert torch.equal(part.bias(torch.tensor(h), pos[i], pos), dense[0, h, i])


def test_it_keeps_nothing_in_its_state() -> None:
    assert alibi().state_dict() == {}


def test_slopes_and_bias_do_not_depend_on_the_precision_of_the_model() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(alibi(12).to(torch.bfloat16).slopes(), alibi(12).slopes())
