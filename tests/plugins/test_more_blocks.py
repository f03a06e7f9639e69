"""Sandwich, DeepNorm, LayerScale, ReZero and hyper-connections against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.deepnorm import DeepNorm, DeepNormInit
from gptzoo_plugins.hyper_connections import HyperConnections
from gptzoo_plugins.layerscale import LayerScale, ReZero
from gptzoo_plugins.sandwich import Sandwich

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]

TINY = {
    "name": "tiny",
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16, "vocab_size": 300},
}


def tiny(overrides: dict[str, object]) -> gptzoo.Model:
    return gptzoo.build(TINY, overrides=overrides)


def parts(dims: gptzoo.Dims) -> tuple[gptzoo.Attention, nn.Module]:
    return gptzoo.MultiHeadAttention(dims), gptzoo.Gelu(dims)


def scattered(block: nn.Module) -> nn.Module:
    """Every weight that the constructor sets is moved, so that mixing two up shows."""
    for module in block.modules():
        if not isinstance(module, nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data.add_(0.5 * torch.randn(parameter.shape))
    return block.double()


def agree(block: nn.Module, expected: Callable[[Tensor], Tensor], ctx: gptzoo.Context, *streams: int) -> None:
    x = torch.randn(2, 5, *streams, 32, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(x.shape, dtype=torch.float64)
    out, reference = block(x, ctx), expected(x)
    torch.testing.assert_close(out, reference, rtol=1e-10, atol=1e-12)
    leaves = [x, *block.parameters()]
    ours, theirs = (torch.autograd.grad((y * direction).sum(), leaves) for y in (out, reference))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_sandwich_norms_before_and_after(dims: MakeDims, context: MakeContext) -> None:
    attention, mlp = parts(dims())
    block = Sandwich(dims(), attention, mlp, gptzoo.LayerNorm)
    scattered(block)
    ctx = context(5)

    def formula(x: Tensor) -> Tensor:
        middle = x + block.after_attention(attention(block.norm_1(x), ctx))
        return middle + block.after_mlp(mlp(block.norm_2(middle), ctx))

    agree(block, formula, ctx)
    assert len([m for m in block.modules() if isinstance(m, gptzoo.LayerNorm)]) == 4


def test_sandwich_adds_what_is_normed_however_large_the_weights(dims: MakeDims, context: MakeContext) -> None:
    block = Sandwich(dims(), *parts(dims()), gptzoo.LayerNorm)
    for parameter in block.attention.parameters():
        parameter.data.mul_(1000)
    x = torch.randn(2, 5, 32)
    added = block.after_attention(block.attention(block.norm_1(x), context(5)))
    torch.testing.assert_close(added.var(-1, unbiased=False), torch.ones(2, 5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_deepnorm_strengthens_the_stream(dims: MakeDims, context: MakeContext, alpha: float | None) -> None:
    attention, mlp = parts(dims())
    block = DeepNorm(dims(n_layer=8), attention, mlp, gptzoo.LayerNorm, alpha)
    scattered(block)
    ctx, factor = context(5), alpha or 2.0  # (2 * 8) ** (1 / 4)

    def formula(x: Tensor) -> Tensor:
        middle = block.norm_1(factor * x + attention(x, ctx))
        return block.norm_2(factor * middle + mlp(middle, ctx))

    agree(block, formula, ctx)


def test_deepnorms_init_is_xaviers_with_beta_where_the_paper_has_it() -> None:
    model = tiny({"model.n_embd": 64, "model.init": "deepnorm", "model.block": "deepnorm"})
    beta = (8 * 2) ** -0.25
    expected = {"q": 1.0, "k": 1.0, "v": beta, "o": beta, "up": beta, "down": beta}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std = expected[path.split(".")[-1]] * math.sqrt(2 / (module.in_features + module.out_features))
            assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * module.weight.numel()))
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert DeepNormInit(0.5)._std_of("layers.0.attention.v.weight", torch.empty(2, 6), model.dims) == 0.25


@pytest.mark.parametrize("kind", [LayerScale, ReZero])
def test_gains_multiply_what_is_added(dims: MakeDims, context: MakeContext, kind: type) -> None:
    attention, mlp = parts(dims())
    block = kind(dims(), attention, mlp, gptzoo.LayerNorm, start=0.7)
    assert all(torch.equal(gain, torch.full_like(gain, 0.7)) for gain in (block.gain_1, block.gain_2))
    assert block.gain_1.shape == block.gain_2.shape == ((32,) if kind is LayerScale else (1,))
    scattered(block)
    ctx = context(5)

    def formula(x: Tensor) -> Tensor:
        middle = x + attention(block.norm_1(x), ctx) * block.gain_1
        return middle + mlp(block.norm_2(middle), ctx) * block.gain_2

    agree(block, formula, ctx)


def test_rezero_begins_as_the_identity_and_wakes(dims: MakeDims, context: MakeContext) -> None:
    block = ReZero(dims(), *parts(dims()), gptzoo.LayerNorm)
    x = torch.randn(2, 5, 32)
    out = block(x, context(5))
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert block.gain_1.grad is not None
    assert block.gain_1.grad.abs().item() > 0


def test_layerscale_begins_at_a_tenth() -> None:
    model = tiny({"model.block": "layerscale"})
    assert torch.equal(model.state_dict()["layers.1.gain_2"], torch.full((16,), 0.1))


def hyper_connected(x: Tensor, connection: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """Equations 1-6 and 10-13 of the paper, with a loop over tokens and the paper's matrices."""
    p, norm = dict(connection.named_parameters()), connection.norm
    assert norm is None or isinstance(norm, nn.Module)
    rows = []
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            h = x[b, t]  # n x C
            a_m, a_r, beta = p["read"][:, None], p["mix"], p["write"][None, :]
            if norm is not None:
                normed = norm(h)
                a_m = a_m + p["read_scale"] * torch.tanh(normed @ p["read_projection"])
                a_r = a_r + p["read_scale"] * torch.tanh(normed @ p["mix_projection"])
                beta = beta + p["write_scale"] * torch.tanh(normed @ p["write_projection"]).T
            rows.append((a_m.T @ h, a_r.T @ h, beta))
    seen = torch.stack([row[0] for row in rows]).reshape(x.shape[0], x.shape[1], -1)
    given = sublayer(seen).flatten(0, 1)
    out = [kept + beta.T @ given[i][None] for i, (_, kept, beta) in enumerate(rows)]
    return torch.stack(out).reshape(x.shape)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("streams", [1, 2, 4])
def test_hyper_connections_are_the_papers_matrices(
    dims: MakeDims, context: MakeContext, dynamic: bool, streams: int
) -> None:
    attention, mlp = parts(dims())
    block = HyperConnections(dims(layer=1), attention, mlp, gptzoo.LayerNorm, streams, dynamic)
    scattered(block)
    ctx = context(5)

    def formula(x: Tensor) -> Tensor:
        middle = hyper_connected(x, block.connection_1, lambda read: attention(block.norm_1(read), ctx))
        return hyper_connected(middle, block.connection_2, lambda read: mlp(block.norm_2(read), ctx))

    agree(block, formula, ctx, streams)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("streams", [1, 3, 4])
def test_hyper_connections_begin_as_the_pre_norm_model(dynamic: bool, streams: int) -> None:
    block = {"name": "hyper_connections", "streams": streams, "dynamic": dynamic}
    wide = tiny({"model.block": block, "model.n_layer": 3}).double()
    plain = tiny({"model.n_layer": 3}).double()
    assert isinstance(wide.norm_f, gptzoo.LayerNorm)
    wide.norm_f.eps *= streams**2  # the sum of equal streams is longer by their number
    tokens = torch.randint(0, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide(tokens), plain(tokens), rtol=1e-10, atol=1e-12)


def test_each_layer_first_reads_a_stream_of_its_own() -> None:
    model = tiny({"model.block": {"name": "hyper_connections", "streams": 3}})
    state = model.state_dict()
    reads = [state[f"layers.{layer}.connection_{i}.read"].argmax().item() for layer in (0, 1) for i in (1, 2)]
    assert reads == [0, 1, 2, 0]


def test_streams_keep_their_precision_under_autocast(dims: MakeDims, context: MakeContext) -> None:
    block = HyperConnections(dims(), *parts(dims()), gptzoo.LayerNorm)
    for name, parameter in block.named_parameters():
        if name.startswith(("attention.o", "mlp.down")):
            nn.init.zeros_(parameter)
    x = block.widen(torch.randn(2, 5, 32))
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x, context(5))
    assert torch.equal(out, x)


@pytest.mark.parametrize("other", ["pre", {"name": "hyper_connections", "streams": 2}])
def test_a_wide_stream_meets_no_other_block(other: object) -> None:
    with pytest.raises(gptzoo.GPTZooError) as caught:
        tiny({"model.layers": [{"block": "hyper_connections"}, {"block": other}]})
    assert str(caught.value) == (
        "mapping: model.block: block 'hyper_connections' widens the stream, so that every layer must have it, "
        "with equal options."
    )


def test_options_that_make_no_sense_are_refused(dims: MakeDims) -> None:
    wiring = (dims(), *parts(dims()), gptzoo.LayerNorm)
    with pytest.raises(ValueError, match=r"^streams must be at least 1, not 0$"):
        HyperConnections(*wiring, streams=0)
    with pytest.raises(ValueError, match=r"^alpha must be above 0, 0\.0 is not$"):
        DeepNorm(*wiring, alpha=0.0)
    with pytest.raises(ValueError, match=r"^beta must not be negative, -1\.0 is$"):
        DeepNormInit(-1.0)
    with pytest.raises(ValueError, match=r"^std must not be negative, -1\.0 is$"):
        DeepNormInit(None, -1.0)
