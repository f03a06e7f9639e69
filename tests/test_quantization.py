"""Integer weights against the same numbers written out, and how far from the original they may be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gptzoo
from gptzoo.errors import GPTZooError
from gptzoo.quantization import Int8Weight, is_quantized, quantized

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 24, "context_length": 32}


def gpt(**parts: Any) -> gptzoo.Model:
    model = gptzoo.build({"model": SIZES}, overrides=parts)
    model.tokenizer = gptzoo.Byte()
    return model.eval()


def written_out(model: gptzoo.Model) -> gptzoo.Model:
    """A plain model of the very numbers that the integers stand for."""
    plain = gpt() if model.head.weight is model.wte.weight else gpt(**{"model.head": "untied"})
    state = {name: p.whole() if isinstance(p, Int8Weight) else p for name, p in model.named_parameters()}
    plain.load_state_dict(state, strict=True)
    return plain


@pytest.mark.parametrize("shape", [(5, 7), (16, 32), (257, 24), (1, 1)])
def test_a_row_is_off_by_half_a_step_at_most(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight[0] = 0
    integers = Int8Weight(weight)
    assert integers.rows.dtype == torch.int8
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((integers.whole() - weight).abs() <= 0.5001 * step).all())
    assert bool((integers.whole()[0] == 0).all())


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products_are_those_of_the_numbers_written_out(dtype: torch.dtype, rows: int) -> None:
    g = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(19, 24, generator=g).to(dtype), torch.randn(19, generator=g).to(dtype)
    x, integers = torch.randn(rows, 2, 24, generator=g).to(dtype), Int8Weight(weight)
    exact = F.linear(x.double(), integers.rows.double() * integers.scales.double()[:, None], bias.double())
    plain = (F.linear(x, integers.whole(), bias).double() - exact).norm()
    ours = (F.linear(x, integers, bias).double() - exact).norm()
    assert ours <= 3 * plain + 4 * torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("head", ["tied", "untied", "softcap"])
def test_every_matrix_is_integers_and_scores_are_near(head: str) -> None:
    model = gpt(**{"model.head": head})
    low = quantized(model)
    assert all(isinstance(m.weight, Int8Weight) for m in low.modules() if isinstance(m, nn.Linear))
    assert isinstance(low.wte.weight, Int8Weight) == (head != "untied")
    assert is_quantized(low)
    assert not is_quantized(model)
    tokens = torch.randint(257, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (low(tokens) - model(tokens)).norm() / model(tokens).norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize("parts", [{}, {"model.head": "untied"}])
def test_a_cached_continuation_is_that_of_the_numbers_written_out(parts: dict[str, str]) -> None:
    low = quantized(gpt(**parts))
    ours = gptzoo.generate(low, ["ab", "a longer prompt"], tokens=9, greedy=True, logprobs=0)
    for one, other in zip(
        ours,
        gptzoo.generate(written_out(low), ["ab", "a longer prompt"], tokens=9, greedy=True, logprobs=0),
        strict=True,
    ):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-4)


def test_half_precision_stays_half_precision() -> None:
    low, tokens = quantized(gpt()), torch.randint(257, (1, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert low(tokens).dtype == torch.bfloat16


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(GPTZooError) as refusal:
        quantized(gpt(), "int9")
    assert str(refusal.value) == "--quantize: no quantization is called 'int9'. Did you mean int8?"


def test_integers_are_not_compiled() -> None:
    with pytest.raises(GPTZooError) as refusal:
        gptzoo.generate(quantized(gpt()), "a", compile=True)
    assert str(refusal.value) == "--compile: integer weights are not compiled. Leave out one of the two."
