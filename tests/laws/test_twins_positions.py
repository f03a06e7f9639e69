"""Positions, norms and blocks against references that nobody here wrote: transformers and x-transformers.

Those compute in float32, some with float32 tables; ours are float64 rounded once. Tolerances are a few float32 steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo_plugins.alibi import Alibi
from gptzoo_plugins.dyt import DyT
from gptzoo_plugins.geglu import GEGLU
from gptzoo_plugins.kerple import Kerple
from gptzoo_plugins.layerscale import LayerScale
from gptzoo_plugins.rmsnorm import RMSNorm
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.rope_llama3 import RopeLlama3
from gptzoo_plugins.rope_scaled import RopeLinear, RopeNtk
from gptzoo_plugins.rope_yarn import RopeYarn
from gptzoo_plugins.sandwich import Sandwich
from gptzoo_plugins.scalenorm import L2Norm, ScaleNorm
from gptzoo_plugins.sinusoidal import Sinusoidal
from gptzoo_plugins.t5 import T5
from gptzoo_plugins.xpos import Xpos

TWINS = {
    "position.rope": "transformers LlamaRotaryEmbedding (half), GPT-J's apply_rotary_pos_emb (interleaved)",
    "position.rope_linear": "transformers LlamaRotaryEmbedding, rope_type linear",
    "position.rope_ntk": "transformers LlamaRotaryEmbedding, rope_type dynamic at a fixed length; x-transformers",
    "position.rope_yarn": "transformers LlamaRotaryEmbedding, rope_type yarn",
    "position.rope_llama3": "transformers LlamaRotaryEmbedding, rope_type llama3",
    "position.xpos": "x-transformers RotaryEmbedding(use_xpos=True)",
    "position.alibi": "transformers build_alibi_tensor (BLOOM), x-transformers AlibiPositionalBias",
    "position.t5": "transformers T5Attention.compute_bias",
    "position.kerple": "x-transformers AlibiPositionalBias, which is its power variant with exponent 1",
    "position.sinusoidal": "transformers create_sinusoidal_embeddings (XLM)",
    "norm.rmsnorm": "transformers LlamaRMSNorm",
    "norm.scalenorm": "x-transformers ScaleNorm",
    "norm.l2norm": "torch.nn.functional.normalize",
    "norm.dyt": "x-transformers DynamicTanh",
    "block.sandwich": "transformers Gemma2DecoderLayer",
    "block.layerscale": "x-transformers LayerScale",
}

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=64, head_dim=16, context_length=64, vocab_size=11, bias=False)
POS = torch.arange(48)[None]


def heads() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 48, 16, generator=g), torch.randn(2, 2, 48, 16, generator=g)
    return q.requires_grad_(), k.requires_grad_()


def same(out: Tensor, theirs: Tensor, leaves: list[Tensor], atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Equal outputs, and equal gradients of the leaves."""
    torch.testing.assert_close(out, theirs, rtol=rtol, atol=atol)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    for one, other in zip(
        torch.autograd.grad((out * direction).sum(), leaves, retain_graph=True),
        torch.autograd.grad((theirs * direction).sum(), leaves, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=10 * rtol, atol=10 * atol)


def every_head(k: Tensor) -> Tensor:
    """Two key heads for four query heads."""
    return k.repeat_interleave(2, dim=1)


def as_llama(q: Tensor, k: Tensor, context: int, **rope: object) -> tuple[Tensor, Tensor]:
    """Rotated as transformers' Llama does, its attention factor included."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=context, rope_parameters={**rope}
    )
    return apply_rotary_pos_emb(q, k, *LlamaRotaryEmbedding(config)(q, POS))


LLAMA: dict[str, tuple[gptzoo.Position, dict[str, Any]]] = {
    "plain": (Rope(DIMS, 16, 500000.0), {"rope_type": "default", "rope_theta": 500000.0}),
    "linear": (RopeLinear(DIMS, 16, 4.0), {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    "yarn": (
        RopeYarn(DIMS, 16, 4.0, 32, 4.0, 0.5),
        {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
            "rope_theta": 10000.0,
        },
    ),
    "llama3": (
        RopeLlama3(DIMS, 16, 8.0, 64, 1.0, 4.0, 10000.0),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "rope_theta": 10000.0,
        },
    ),
}


@pytest.mark.parametrize("kind", LLAMA)
def test_scores_under_rope_are_those_of_transformers_llama(kind: str) -> None:
    part, rope = LLAMA[kind]
    q, k = heads()
    turned_q, turned_k = part.rotate(q, k, POS)
    their_q, their_k = as_llama(q, k, 128, **rope)
    ours = turned_q @ every_head(turned_k).mT / part.temperature
    same(ours, their_q @ every_head(their_k).mT, [q, k], atol=5e-5)


def test_ntk_scores_are_those_of_transformers_grown_to_four_times_its_length() -> None:
    q, k = heads()
    ours = RopeNtk(DIMS, 16, 4.0).rotate(q, k, POS)
    # A factor of 1 and a text of four times the length: transformers' dynamic factor is then 4 as well.
    theirs = as_llama(q, k, 12, rope_type="dynamic", factor=1.0, rope_theta=10000.0)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other, [q if one.shape == q.shape else k])


def test_ntk_is_that_of_x_transformers_too() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    theirs = x_transformers.RotaryEmbedding(16, base_rescale_factor=4.0)
    ours = RopeNtk(DIMS, 16, 4.0).frequencies(torch.device("cpu"))
    torch.testing.assert_close(ours, theirs.inv_freq.double(), rtol=2e-6, atol=0)


def test_interleaved_rope_is_that_of_transformers_gptj() -> None:
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb, create_sinusoidal_positions

    q, k = heads()
    sin, cos = create_sinusoidal_positions(48, 8)[None].chunk(2, dim=-1)
    part = Rope(DIMS, 16, pairing="interleaved", fraction=0.5)
    for x, ours in zip((q, k), part.rotate(q, k, POS), strict=True):
        front = apply_rotary_pos_emb(x[..., :8].transpose(1, 2), sin, cos).transpose(1, 2)  # (B, T, H, D) there
        same(ours, torch.cat((front, x[..., 8:]), -1), [x])


def test_xpos_scores_are_those_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    q, k = heads()
    angles, scale = x_transformers.RotaryEmbedding(16, use_xpos=True, scale_base=32)(torch.arange(48))
    their_q = x_transformers.apply_rotary_pos_emb(q, angles, scale)
    their_k = x_transformers.apply_rotary_pos_emb(k, angles, scale**-1.0)
    our_q, our_k = Xpos(DIMS, 16, 32.0, pairing="interleaved").rotate(q, k, POS)
    past = (POS[0][:, None] >= POS[0]).float()
    same(past * (our_q @ every_head(our_k).mT), past * (their_q @ every_head(their_k).mT), [q, k], atol=5e-5)


def dense(part: gptzoo.Position, n_head: int, pos: Tensor = POS) -> Tensor:
    """What is added to the scores, 0 where the mask hides it."""
    assert part.bias is not None
    bias = part.bias(torch.arange(n_head)[None, :, None, None], pos[:, None, :, None], pos[:, None, None, :])
    return bias.tril()


@pytest.mark.parametrize("n_head", [1, 2, 3, 4, 6, 8, 12, 20, 33])
def test_alibi_is_that_of_x_transformers(n_head: int) -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    theirs = x_transformers.AlibiPositionalBias(n_head)(48, 48)
    ours = dense(Alibi(gptzoo.Dims(1, n_head, 4, 4, 64, 3), 4), n_head)
    torch.testing.assert_close(ours[0], theirs.tril(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_head", [1, 3, 8, 12])
def test_alibi_is_that_of_transformers_bloom(n_head: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 48, dtype=torch.int64), n_head, torch.float32)  # (H, 1, T): by key alone
    scores = torch.randn(n_head, 48, 48)
    future = torch.ones(48, 48, dtype=torch.bool).triu(1)
    ours = dense(Alibi(gptzoo.Dims(1, n_head, 4, 4, 64, 3), 4), n_head)[0]
    weights = [(scores + bias).masked_fill(future, -torch.inf).softmax(-1) for bias in (ours, theirs)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_kerple_of_power_1_is_alibi() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    theirs = x_transformers.AlibiPositionalBias(4)
    part = Kerple(DIMS, 16, "power")
    with torch.no_grad():
        part.raw_a.copy_(theirs.slopes.flatten().log())
        part.raw_b.zero_()  # 2 sigmoid(0) = 1
    torch.testing.assert_close(dense(part, 4)[0], theirs(48, 48).tril(), rtol=5e-6, atol=0)


def test_logarithmic_kerple_is_its_closed_form() -> None:
    part = Kerple(DIMS, 16, "log")
    with torch.no_grad():
        part.raw_a.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]).log())
        part.raw_b.copy_(torch.tensor([1.0, 0.5, 0.25, 2.0]).log())
    bias = dense(part, 4)
    for h, (a, b) in enumerate([(0.5, 1.0), (1.0, 0.5), (2.0, 0.25), (3.0, 2.0)]):
        for q, k in [(0, 0), (5, 4), (47, 0), (30, 13)]:
            assert bias[0, h, q, k].item() == pytest.approx(-a * math.log(1 + b * (q - k)), rel=1e-6)


@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 16), (5, 7), (64, 1000)])
def test_t5_is_the_bias_of_transformers(buckets: int, longest: int) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(
        d_model=64,
        num_heads=4,
        d_kv=16,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=longest,
        is_decoder=True,
    )
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    part, pos = T5(DIMS, 16, buckets, longest), torch.arange(300)[None]
    theirs.relative_attention_bias.weight = part.table.weight
    same(dense(part, 4, pos), theirs.compute_bias(300, 300).tril(), [part.table.weight], rtol=1e-6)


def test_sinusoidal_is_that_of_transformers_xlm() -> None:
    from transformers.models.xlm.modeling_xlm import create_sinusoidal_embeddings

    theirs = create_sinusoidal_embeddings(48, 64, torch.empty(48, 64))
    ours = Sinusoidal(DIMS, 16).embed(torch.zeros(1, 48, 64, dtype=torch.float64), POS)
    torch.testing.assert_close(ours[0], theirs.double(), rtol=0, atol=1e-7)


def stream() -> Tensor:
    return (3 * torch.randn(2, 48, 64, generator=torch.Generator().manual_seed(0))).requires_grad_()


def scattered(module: nn.Module) -> nn.Module:
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    return module


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.1])
def test_rmsnorm_is_that_of_transformers_llama(eps: float) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    ours, theirs, x = RMSNorm(64, eps), LlamaRMSNorm(64, eps), stream()
    scattered(ours)
    theirs.weight = ours.weight
    same(ours(x), theirs(x), [x, *ours.parameters()])


def test_scalenorm_is_that_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    ours, theirs, x = ScaleNorm(64, eps=0.0), x_transformers.ScaleNorm(64), stream()
    assert ours.g.item() == theirs.g.item() * theirs.scale  # its learned number is a multiple of the paper's
    scattered(ours)
    theirs.g, theirs.scale = ours.g, 1.0
    same(ours(x), theirs(x), [x, ours.g])


def test_l2norm_is_torchs_normalize() -> None:
    x = stream()
    same(L2Norm(64, eps=0.0)(x), nn.functional.normalize(x, dim=-1), [x])


def test_dyt_is_that_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    ours, theirs, x = DyT(64, 0.7), x_transformers.DynamicTanh(64, init_alpha=0.7), stream()
    assert torch.equal(ours(x), theirs(x))
    scattered(ours)
    theirs.gamma, theirs.beta = ours.weight, ours.bias
    theirs.pre_tanh_scale.data.copy_(ours.alpha[0])
    same(ours(x), theirs(x), [x, ours.weight, ours.bias])


def context(position: gptzoo.Position) -> gptzoo.Context:
    doc = torch.zeros_like(POS)
    return gptzoo.Context(POS, doc, gptzoo.Where(POS, POS, doc, doc, True, False), position, gptzoo.Naive())


def test_sandwich_is_the_layer_of_transformers_gemma2() -> None:
    from transformers import Gemma2Config
    from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer, Gemma2RotaryEmbedding

    config = Gemma2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=40,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=5.0,
        rms_norm_eps=1e-6,
    )
    config._attn_implementation = "eager"  # sdpa has no softcap
    theirs = scattered(Gemma2DecoderLayer(config, layer_idx=1)).eval()
    attention = gptzoo.MultiHeadAttention(DIMS, n_kv_head=2, scale=24**-0.5, softcap=5.0)
    ours = Sandwich(DIMS, attention, GEGLU(DIMS, hidden=40), lambda size: RMSNorm(size, 1e-6))
    state = theirs.state_dict()
    names = {
        "norm_1": "input_layernorm",
        "after_attention": "post_attention_layernorm",
        "norm_2": "pre_feedforward_layernorm",
        "after_mlp": "post_feedforward_layernorm",
        **{f"attention.{name}": f"self_attn.{name}_proj" for name in "qkvo"},
        **{f"mlp.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
    }
    renamed = {f"{our}.weight": state[f"{their}.weight"] for our, their in names.items()}
    assert len(renamed) == len(state)
    # Gemma's norms multiply by 1 + weight.
    ours.load_state_dict({key: 1 + value if value.dim() == 1 else value for key, value in renamed.items()})
    x = stream()
    future = torch.full((1, 1, 48, 48), -torch.inf).triu(1)
    expected = theirs(x, position_embeddings=Gemma2RotaryEmbedding(config)(x, POS), attention_mask=future)
    out = ours(x, context(Rope(DIMS, 16)))
    same(out, expected, [x], atol=5e-5, rtol=5e-5)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    our_weights, their_weights = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for our, their in names.items():
        one, other = our_weights[f"{our}.weight"].grad, their_weights[f"{their}.weight"].grad
        assert one is not None
        assert other is not None
        assert ((one - other).norm() / other.norm()).item() < 1e-4, our


def test_layerscale_is_that_of_x_transformers() -> None:
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    attention, mlp = gptzoo.MultiHeadAttention(DIMS), gptzoo.Gelu(DIMS)
    block = LayerScale(DIMS, attention, mlp, gptzoo.LayerNorm, start=0.25)
    ctx, x = context(Rope(DIMS, 16)), stream()

    class Sublayer(nn.Module):
        def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.run = run

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    first, second = (
        x_transformers.LayerScale(Sublayer(run), 64, init_value=0.25)
        for run in (lambda y: attention(block.norm_1(y), ctx), lambda y: mlp(block.norm_2(y), ctx))
    )
    middle = x + first(x)
    same(block(x, ctx), middle + second(middle), [x])
