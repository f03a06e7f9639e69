"""Inits: what each weight is drawn from, by its name."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.depth_scaled import DepthScaled
from gptzoo_plugins.mup import MupInit
from gptzoo_plugins.zero_projections import ZeroProjections

MakeDims = Callable[..., gptzoo.Dims]
Init = Callable[[str, Tensor, gptzoo.Dims, torch.Generator], None]

OUTSIDE = ["wte.weight", "positions.0.wpe.weight", "head.lm_head.weight"]
INSIDE = ["attention.q.weight", "attention.o.weight", "mlp.up.weight", "mlp.down.weight", "mlp.experts.3.down.weight"]


def drawn(init: Init, path: str, dims: gptzoo.Dims, shape: tuple[int, int] = (300, 200)) -> Tensor:
    tensor = torch.full(shape, math.nan)
    init(path, tensor, dims, torch.Generator().manual_seed(0))
    return tensor


def is_normal(tensor: Tensor, std: float) -> bool:
    """Mean and standard deviation within 5 standard errors, and as many beyond 2 sigma as there should be."""
    n = tensor.numel()
    beyond = (tensor.abs() > 2 * std).double().mean().item()
    return (
        abs(tensor.mean().item()) < 5 * std / n**0.5
        and abs(tensor.std().item() / std - 1) < 5 / (2 * n) ** 0.5
        and abs(beyond - 0.0455) < 0.005
    )


@pytest.mark.parametrize("layer", [0, 1, 8])
@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_depth_scaled_is_xaviers_uniform_over_the_root_of_the_layers_number(
    dims: MakeDims, layer: int, name: str, alpha: float
) -> None:
    tensor = drawn(DepthScaled(alpha), f"layers.{layer}.{name}", dims(n_layer=9))
    bound = alpha * math.sqrt(6 / (300 + 200)) / math.sqrt(layer + 1)
    assert 0.999 * bound < tensor.abs().max() < bound
    assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert abs(tensor.mean().item()) < 5 * bound / 60000**0.5


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("init", [DepthScaled(std=0.05), ZeroProjections(0.05), MupInit(16, 0.05)])
def test_outside_of_the_layers_weights_are_normal(dims: MakeDims, init: Init, name: str) -> None:
    assert is_normal(drawn(init, name, dims()), 0.05)


@pytest.mark.parametrize("name", INSIDE)
def test_zero_projections_are_zero_and_the_rest_gpt2s(dims: MakeDims, name: str) -> None:
    tensor = drawn(ZeroProjections(), f"layers.1.{name}", dims())
    if name.split(".")[-2] in ("o", "down"):
        assert not tensor.any()
    else:
        assert torch.equal(tensor, drawn(gptzoo.Gpt2Init(), f"layers.1.{name}", dims()))


def test_with_zero_projections_a_fresh_block_is_the_identity() -> None:
    model = gptzoo.build("gpt2-tiny", overrides={"model.init": "zero_projections"})
    tokens = torch.arange(12)[None]
    embedded = model.positions[0].embed(model.wte(tokens), torch.arange(12)[None])  # type: ignore[operator]
    assert torch.equal(model.hidden(tokens)[0], model.norm_f(embedded))


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize(("width", "factor"), [(32, 1.0), (128, 0.5), (8, 2.0)])
def test_mup_scales_the_variance_of_hidden_matrices_with_the_width(
    dims: MakeDims, name: str, width: int, factor: float
) -> None:
    path, wide = f"layers.0.{name}", dims(n_embd=width)
    standard = drawn(gptzoo.Gpt2Init(), path, wide)
    torch.testing.assert_close(drawn(MupInit(32), path, wide), factor * standard, rtol=1e-6, atol=0)
    std = 0.02 * factor / (2 if name.split(".")[-2] in ("o", "down") else 1)
    assert is_normal(drawn(MupInit(32), path, wide), std)


@pytest.mark.parametrize("name", OUTSIDE)
def test_mup_leaves_the_rest_alone_at_every_width(dims: MakeDims, name: str) -> None:
    for width in (8, 32, 128):
        ours, standard = (drawn(init, name, dims(n_embd=width)) for init in (MupInit(32), gptzoo.Gpt2Init()))
        assert torch.equal(ours, standard)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DepthScaled(alpha=-1.0), "alpha and std must not be negative, -1.0 is"),
        (lambda: ZeroProjections(-0.02), "std must not be negative, -0.02 is"),
        (lambda: MupInit(0), "base_width must be at least 1, not 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        make()
    assert str(refused.value) == said
