"""Recurrent mixers and flex against references that nobody here wrote: transformers' Qwen3-Next, and torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import (
    Qwen3NextGatedDeltaNet,
    torch_chunk_gated_delta_rule,
    torch_recurrent_gated_delta_rule,
)

import gptzoo
from gptzoo.loading import load_plugins

TWINS = {
    "attention.linear": "arXiv:2006.16236, equation 8: the masked quadratic form",
    "attention.gated_delta": "transformers: Qwen3-Next, whose convolution is made to copy",
    "kernel.flex": "torch: scaled_dot_product_attention with a dense mask and bias",
}
"""What each part is compared with, for the table of all twins."""

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11, bias=False)
ROWS, LENGTH = 2, 13
ZOO = load_plugins().zoo


def attention(name: str, **options: object) -> gptzoo.Attention:
    made = ZOO.get("attention", name).factory(DIMS, **options)
    assert isinstance(made, gptzoo.Attention)
    return made


def shake(module: nn.Module) -> None:
    """Weights none of which is what a constructor gives."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def context(cache: gptzoo.LayerCache | None = None, start: int = 0, stop: int = LENGTH) -> gptzoo.Context:
    pos = torch.arange(start, stop)[None]
    doc = torch.zeros_like(pos)
    where = gptzoo.Where(pos, pos, doc, doc, plain=cache is None, padded=False)
    return gptzoo.Context(pos, doc, where, gptzoo.Position(DIMS, 8), None, cache)


def error(ours: Tensor, theirs: Tensor) -> float:
    """Relative, by the Frobenius norm."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], bound: float) -> None:
    """Outputs and the gradient of the input."""
    generator = torch.Generator().manual_seed(1)
    dtype = torch.float64 if bound < 1e-9 else torch.float32
    x = torch.randn(ROWS, LENGTH, 32, generator=generator).to(dtype).requires_grad_()
    direction = torch.randn(ROWS, LENGTH, 32, generator=generator).to(dtype)
    one, two = ours(x), theirs(x)
    assert error(one, two) < bound
    assert error(*(torch.autograd.grad((out * direction).sum(), x)[0] for out in (one, two))) < bound


def test_linear_attention_is_the_masked_quadratic_form() -> None:
    ours = attention("linear").double()
    project: dict[str, nn.Module] = dict(ours.named_children())

    def theirs(x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (4, 8)).transpose(1, 2) for f in map(project.__getitem__, "qkv"))
        weights = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT).tril()
        return project["o"]((weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2))

    agree(lambda x: ours(x, context()), theirs, 1e-12)


def qwen() -> Qwen3NextGatedDeltaNet:
    config = Qwen3NextConfig(
        hidden_size=32,
        linear_num_value_heads=4,
        linear_num_key_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
        rms_norm_eps=1e-5,
        num_hidden_layers=1,
        layer_types=["linear_attention"],
    )
    theirs = Qwen3NextGatedDeltaNet(config, 0)
    shake(theirs)
    with torch.no_grad():
        theirs.conv1d.weight.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]).expand_as(theirs.conv1d.weight))
    return theirs.eval()


def like(theirs: Qwen3NextGatedDeltaNet, **options: object) -> gptzoo.Attention:
    """Ours with their weights, which lie interleaved by heads."""
    ours = attention("gated_delta", **options)
    per_head = theirs.in_proj_qkvz.weight.unflatten(0, (4, 4, 8))  # of each head q, k, v and z
    q, k, v, gate = (per_head[:, i].flatten(0, 1) for i in range(4))
    beta, decay = theirs.in_proj_ba.weight.unflatten(0, (4, 2)).unbind(1)
    weights = {"q": q, "k": k, "v": v, "gate": gate, "beta": beta, "decay": decay, "o": theirs.out_proj.weight}
    state = {f"{name}.weight": weight for name, weight in weights.items()}
    state |= {"a": theirs.A_log, "b": theirs.dt_bias, "head_norm": theirs.norm.weight}
    ours.load_state_dict(state)
    return ours


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_gated_delta_is_the_layer_of_qwen3_next(chunk: int) -> None:
    theirs = qwen()
    ours = like(theirs, chunk=chunk)
    agree(lambda x: ours(x, context()), lambda x: theirs(x), 2e-5)


@pytest.mark.parametrize("rule", [torch_chunk_gated_delta_rule, torch_recurrent_gated_delta_rule])
def test_the_state_after_a_row_is_that_of_qwen3_next(rule: Callable[..., tuple[Tensor, Tensor]]) -> None:
    ours, generator = attention("gated_delta", chunk=4), torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(ROWS, 4, LENGTH, 8, generator=generator) for _ in range(3))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    beta, decay = torch.rand(ROWS, 4, LENGTH, generator=generator), -torch.rand(ROWS, 4, LENGTH, generator=generator)
    out, state = rule(*(t.transpose(1, 2) for t in (q, k, v, decay, beta)), output_final_state=True)
    cache = ours.new_cache(ROWS, LENGTH, torch.float32, "cpu")
    pieces = [
        ours.mix(*(t[:, :, at : at + n] for t in (q, k, v, beta, decay)), context(cache, at, at + n))  # type: ignore[operator]
        for at, n in ((0, 6), (6, 1), (7, 6))
    ]
    assert error(torch.cat(pieces, 2), out.transpose(1, 2)) < 1e-5
    assert error(cache.tensors["state"], state) < 1e-5


@torch.no_grad()
def test_flex_is_torchs_attention_with_a_dense_mask() -> None:
    kernel, position = ZOO.get("kernel", "flex").factory(), ZOO.get("position", "alibi").factory(DIMS, 8)
    assert isinstance(kernel, gptzoo.Kernel)
    assert isinstance(position, gptzoo.Position)
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(ROWS, h, LENGTH, 8, generator=generator, dtype=torch.float64) for h in (4, 2, 2))
    seen, bias = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), position.slopes()[:, None, None].double()  # type: ignore[operator]
    distance = torch.arange(LENGTH) - torch.arange(LENGTH)[:, None]
    dense = (bias * distance).masked_fill(~seen, -torch.inf)[None]
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=dense, scale=0.4, enable_gqa=True)
    ours = kernel(
        q, k, v, where=context().where, mask=gptzoo.Mask(gptzoo.causal, "causal"), bias=position.bias, scale=0.4
    )
    assert isinstance(ours, Tensor)
    assert error(ours, theirs) < 1e-7  # ALiBi's prices are float32
