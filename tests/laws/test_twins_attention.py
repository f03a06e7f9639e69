"""Attentions against references that nobody here wrote: torch, transformers, x-transformers.

Each pair gets the same weights; outputs and the gradient of the input must agree. References keep float64 where they
can; most take softmax or norms in float32, which bounds the agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import gptzoo
from gptzoo.loading import load_plugins

TWINS = {
    "attention.multi_head": "torch.nn.MultiheadAttention; transformers: Gemma 2 (softcap), Qwen 3 (qk_norm)",
    "attention.grouped_query": "transformers: Llama",
    "attention.multi_query": "transformers: Llama with one key/value head",
    "attention.sliding_window": "transformers: Mistral",
    "attention.mla": "transformers: DeepSeek-V2 and DeepSeek-V3",
    "attention.differential": "transformers: DiffLlama",
    "attention.sink": "transformers: gpt-oss",
    "attention.gated": "transformers: Qwen3-Next (elementwise); x-transformers: gate_values_headwise",
    "attention.talking_heads": "x-transformers: pre_talking_heads and post_talking_heads",
    "attention.sigmoid": "x-transformers: sigmoid",
    "attention.value_residual": "x-transformers: value_residual",
    "attention.cope": "x-transformers: CoPE",
    "attention.forgetting": "x-transformers: DataDependentAlibi",
}
"""What each part is compared with, for the table of all twins."""

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11, bias=False)
ROWS, LENGTH = 2, 13
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
ZOO = load_plugins().zoo


@dataclass
class Pair:
    """Ours and theirs, with equal weights.

    Args:
        ours: In float64, like theirs.
        theirs: (B, T, C) -> (B, T, C).
        position: What ours is told; none unless given.
        exact: Theirs keeps float64 throughout.
        published: What ours finds from an earlier layer.
    """

    ours: gptzoo.Attention
    theirs: Callable[[Tensor], Tensor]
    position: gptzoo.Position | None = None
    exact: bool = True
    published: Mapping[str, Tensor] | None = None


def make(slot: str, name: str, *wiring: object, **options: object) -> nn.Module:
    """A registered part in float64."""
    made = ZOO.get(slot, name).factory(*wiring, **options)
    assert isinstance(made, nn.Module)
    return made.double()


def attention(
    name: str, weights: Mapping[str, Tensor], dims: gptzoo.Dims = DIMS, **options: object
) -> gptzoo.Attention:
    """One of ours with all its weights from a reference."""
    ours = make("attention", name, dims, **options)
    ours.load_state_dict(dict(weights))
    assert isinstance(ours, gptzoo.Attention)
    return ours


def rope(rotate_dim: int = 8, pairing: str = "half") -> gptzoo.Position:
    position = make("position", "rope", DIMS, rotate_dim, pairing=pairing)
    assert isinstance(position, gptzoo.Position)
    return position


def rmsnorm(size: int) -> nn.Module:
    return make("norm", "rmsnorm", size, eps=1e-6)


def shaken(module: nn.Module) -> nn.Module:
    """In float64, with weights none of which is what a constructor gives."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return module.eval()


def renamed(module: nn.Module, **names: str) -> dict[str, Tensor]:
    """Weights of submodules by our names: `renamed(theirs, q="to_q")`."""
    state = module.state_dict()
    found = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in state:
                found[f"{ours}.{kind}"] = state[f"{theirs}.{kind}"]
    return found


# -- torch -----------------------------------------------------------------------------------------------------------


def torch_multi_head() -> Pair:
    theirs = shaken(nn.MultiheadAttention(32, 4, batch_first=True))
    state = theirs.state_dict()
    weights = renamed(theirs, o="out_proj")
    for kind in ("weight", "bias"):
        for name, part in zip("qkv", state[f"in_proj_{kind}"].chunk(3), strict=True):
            weights[f"{name}.{kind}"] = part
    ours = attention("multi_head", weights, replace(DIMS, bias=True))
    return Pair(ours, lambda x: theirs(x, x, x, attn_mask=~CAUSAL, need_weights=False)[0])


# -- transformers ----------------------------------------------------------------------------------------------------

SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "vocab_size": 11,
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
}
PROJECTIONS = {name: f"{name}_proj" for name in "qkvo"}


def configured(kind: Callable[..., Any], how: str, **options: object) -> Any:
    config = kind(**options)
    config._attn_implementation = how
    return config


def turns(width: int = 8) -> tuple[Tensor, Tensor]:
    """cos and sin as transformers hands them to its attentions, (1, T, width), in float64."""
    angle = torch.arange(LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    both = torch.cat((angle, angle), dim=-1)[None]
    return both.cos(), both.sin()


def additive(allowed: Tensor) -> Tensor:
    return torch.zeros(1, 1, *allowed.shape, dtype=torch.float64).masked_fill(~allowed, -torch.inf)


def called(theirs: nn.Module, mask: Tensor | None = None, places: object = None) -> Callable[[Tensor], Tensor]:
    mask = additive(CAUSAL) if mask is None else mask
    places = turns() if places is None else places
    return lambda x: theirs(x, position_embeddings=places, attention_mask=mask)[0]


def llama(heads: int, name: str, **options: int) -> Pair:
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaConfig

    config = configured(LlamaConfig, "sdpa", **{**SIZES, "num_key_value_heads": heads})
    theirs = shaken(LlamaAttention(config, 0))
    ours = attention(name, renamed(theirs, **PROJECTIONS), DIMS, **options)
    return Pair(ours, called(theirs), rope())


def mistral() -> Pair:
    from transformers.masking_utils import create_sliding_window_causal_mask
    from transformers.models.mistral.modeling_mistral import MistralAttention, MistralConfig

    config = configured(MistralConfig, "sdpa", **SIZES, sliding_window=4)
    theirs = shaken(MistralAttention(config, 0))
    x = torch.zeros(ROWS, LENGTH, 32, dtype=torch.float64)
    mask = create_sliding_window_causal_mask(config, x, None, None, torch.arange(LENGTH)[None])
    ours = attention("sliding_window", renamed(theirs, **PROJECTIONS), window=4, n_kv_head=2)
    return Pair(ours, called(theirs, mask), rope())


def gemma_2() -> Pair:
    from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention, Gemma2Config

    options = {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 20}
    theirs = shaken(Gemma2Attention(configured(Gemma2Config, "eager", **SIZES, **options), 0))
    ours = attention("multi_head", renamed(theirs, **PROJECTIONS), n_kv_head=2, softcap=2.0, scale=20**-0.5)
    return Pair(ours, called(theirs), rope(), exact=False)


def qwen_3() -> Pair:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3Config

    theirs = shaken(Qwen3Attention(configured(Qwen3Config, "sdpa", **SIZES), 0))
    weights = renamed(theirs, **PROJECTIONS, q_norm="q_norm", k_norm="k_norm")
    return Pair(attention("multi_head", weights, n_kv_head=2, qk_norm=rmsnorm), called(theirs), rope(), exact=False)


def qwen_3_next() -> Pair:
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextAttention, Qwen3NextConfig

    theirs = shaken(Qwen3NextAttention(configured(Qwen3NextConfig, "sdpa", **SIZES), 0))
    weights = renamed(theirs, k="k_proj", v="v_proj", o="o_proj")
    q = rearrange(theirs.state_dict()["q_proj.weight"], "(h two d) c -> two (h d) c", h=4, two=2)
    weights |= {"q.weight": q[0], "gate.weight": q[1]}
    weights |= {f"{n}_norm.weight": 1 + theirs.state_dict()[f"{n}_norm.weight"] for n in "qk"}
    return Pair(attention("gated", weights, n_kv_head=2, qk_norm=rmsnorm), called(theirs), rope(), exact=False)


def gpt_oss() -> Pair:
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssConfig

    sizes = {**SIZES, "attention_bias": True}
    theirs = shaken(GptOssAttention(configured(GptOssConfig, "eager", **sizes), 0))
    # Its rotation takes one half of each table, for both halves of a head.
    cos, sin = (each[..., :4] for each in turns())
    weights = {**renamed(theirs, **PROJECTIONS), "sink": theirs.state_dict()["sinks"]}
    ours = attention("sink", weights, replace(DIMS, bias=True), n_kv_head=2)
    return Pair(ours, called(theirs, places=(cos, sin)), rope())


def diff_llama() -> Pair:
    from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention, DiffLlamaConfig

    # Eight half-heads make four heads of ours: its head h and h + 4 are the two maps of our head h.
    sizes = {**SIZES, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4, "rms_norm_eps": 1e-5}
    theirs = shaken(DiffLlamaAttention(configured(DiffLlamaConfig, "sdpa", **sizes), 3))
    state = theirs.state_dict()
    weights = {name: state[name] for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")}
    weights |= {**renamed(theirs, o="o_proj"), "head_norm": torch.ones(8)}
    for name in "qkv":
        weights[f"{name}.weight"] = rearrange(state[f"{name}_proj.weight"], "(two h d) c -> (h two d) c", two=2, d=4)
    ours = attention("differential", weights, DIMS.at(3), n_kv_head=2)
    return Pair(ours, called(theirs, places=turns(4)), rope(4), exact=False)


LATENT = {"q_lora_rank": 10, "kv_lora_rank": 6, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 5}


def deepseek(theirs: nn.Module, q_rank: int | None) -> gptzoo.Attention:
    state = theirs.state_dict()
    latent, k_rope = state["kv_a_proj_with_mqa.weight"].split((6, 4))
    k, v = rearrange(state["kv_b_proj.weight"], "(h d) c -> h d c", h=4).split((6, 5), dim=1)
    weights = {"kv_latent.weight": latent, "k_rope.weight": k_rope}
    weights |= {"k.weight": k.flatten(0, 1), "v.weight": v.flatten(0, 1)}
    weights |= renamed(theirs, kv_norm="kv_a_layernorm", o="o_proj", q="q_proj")
    weights |= renamed(theirs, q_latent="q_a_proj", q_norm="q_a_layernorm", q="q_b_proj") if q_rank else {}
    return attention("mla", weights, kv_rank=6, q_rank=q_rank, rope_dim=4, nope_dim=6, v_dim=5)


def deepseek_v2() -> Pair:
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2Config

    sizes = {**SIZES, **LATENT, "num_key_value_heads": 4, "q_lora_rank": None}
    theirs = shaken(DeepseekV2Attention(configured(DeepseekV2Config, "sdpa", **sizes), 0))
    cos, sin = (each[..., :2] for each in turns(4))
    places = torch.complex(cos, sin)
    return Pair(deepseek(theirs, None), called(theirs, places=places), rope(4, "interleaved"), exact=False)


def deepseek_v3() -> Pair:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3Config

    sizes = {**SIZES, **LATENT, "num_key_value_heads": 4}
    theirs = shaken(DeepseekV3Attention(configured(DeepseekV3Config, "sdpa", **sizes), 0))
    return Pair(deepseek(theirs, 10), called(theirs, places=turns(4)), rope(4, "interleaved"), exact=False)


# -- x-transformers --------------------------------------------------------------------------------------------------

TO = {name: f"to_{name}" for name in "qkv"} | {"o": "to_out"}


def x_attention(**options: object) -> nn.Module:
    xt = pytest.importorskip("x_transformers.x_transformers")
    return shaken(xt.Attention(32, dim_head=8, heads=4, causal=True, flash=False, **options))


def x_talking_heads() -> Pair:
    theirs = x_attention(pre_talking_heads=True, post_talking_heads=True)
    state = theirs.state_dict()
    before, after = (state[f"attend.{side}_softmax_talking_heads.weight"][..., 0, 0].T for side in ("pre", "post"))
    mixtures = {"mix_scores": torch.eye(4) + before, "mix_weights": after}  # it adds the first mixture to the scores
    return Pair(attention("talking_heads", renamed(theirs, **TO) | mixtures), theirs, exact=False)


def x_sigmoid() -> Pair:
    theirs = x_attention(sigmoid=True)
    offset = torch.full((1, LENGTH, LENGTH), -1.5, dtype=torch.float64)
    ours = attention("sigmoid", renamed(theirs, **TO), offset=-1.5)
    return Pair(ours, lambda x: theirs(x, attn_bias=offset))


def x_gated_headwise() -> Pair:
    theirs = x_attention(gate_values=True, gate_values_headwise=True)
    gate = next(name for name in theirs.state_dict() if name.startswith("to_v_gate") and name.endswith("weight"))
    weights = renamed(theirs, **TO) | {"gate.weight": theirs.state_dict()[gate]}
    return Pair(attention("gated", weights, granularity="headwise"), theirs, exact=False)


def x_value_residual() -> Pair:
    theirs = x_attention()
    first = torch.randn(ROWS, 4, LENGTH, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = attention("value_residual", renamed(theirs, **TO), DIMS.at(1), first=0.5, learned=False)
    published = {"value_residual.v": first}
    return Pair(ours, lambda x: theirs(x, value_residual=first), exact=False, published=published)


def x_cope() -> Pair:
    theirs = x_attention(use_cope=True, cope_max_pos=5)
    counts = theirs.state_dict()["attend.cope.pos_emb"]
    return Pair(attention("cope", renamed(theirs, **TO) | {"counts": counts}, n_positions=5), theirs, exact=False)


def x_forgetting() -> Pair:
    theirs = x_attention(data_dependent_alibi=True)
    state = theirs.state_dict()
    gate = {f"gate.{kind}": state[f"data_dependent_alibi.to_forget_gates.0.{kind}"] for kind in ("weight", "bias")}
    return Pair(attention("forgetting", renamed(theirs, **TO) | gate), theirs, exact=False)


# -- the law ---------------------------------------------------------------------------------------------------------

PAIRS: dict[str, dict[str, Callable[[], Pair]]] = {
    "multi_head": {"torch": torch_multi_head, "gemma-2": gemma_2, "qwen-3": qwen_3},
    "grouped_query": {"llama": lambda: llama(2, "grouped_query", n_kv_head=2)},
    "multi_query": {"llama": lambda: llama(1, "multi_query")},
    "sliding_window": {"mistral": mistral},
    "mla": {"deepseek-v2": deepseek_v2, "deepseek-v3": deepseek_v3},
    "differential": {"diff-llama": diff_llama},
    "sink": {"gpt-oss": gpt_oss},
    "gated": {"qwen-3-next": qwen_3_next, "x-transformers": x_gated_headwise},
    "talking_heads": {"x-transformers": x_talking_heads},
    "sigmoid": {"x-transformers": x_sigmoid},
    "value_residual": {"x-transformers": x_value_residual},
    "cope": {"x-transformers": x_cope},
    "forgetting": {"x-transformers": x_forgetting},
}
CASES = [pytest.param(make, id=f"{name}-{ref}") for name, made in PAIRS.items() for ref, make in made.items()]


def test_every_twin_that_is_named_is_tested() -> None:
    assert list(TWINS) == [f"attention.{name}" for name in PAIRS]


@pytest.mark.parametrize("make_pair", CASES)
def test_an_attention_is_what_its_twin_is(make_pair: Callable[[], Pair]) -> None:
    pair = make_pair()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, LENGTH, 32, dtype=torch.float64, generator=generator).requires_grad_()
    direction = torch.randn(ROWS, LENGTH, 32, dtype=torch.float64, generator=generator)
    ours, theirs = pair.ours(x, context(pair)), pair.theirs(x)
    bound = 1e-12 if pair.exact else 1e-6
    assert error(ours, theirs) < bound
    slopes = [torch.autograd.grad((out * direction).sum(), x)[0] for out in (ours, theirs)]
    assert error(*slopes) < bound


def context(pair: Pair) -> gptzoo.Context:
    pos, doc = torch.arange(LENGTH)[None], torch.zeros(1, LENGTH, dtype=torch.int64)
    where = gptzoo.Where(pos, pos, doc, doc, plain=True, padded=False)
    position = pair.position or gptzoo.Position(DIMS, pair.ours.rotate_dim)
    return gptzoo.Context(pos, doc, where, position, gptzoo.Naive(), published=dict(pair.published or {}))


def error(ours: Tensor, theirs: Tensor) -> float:
    """Relative, by the Frobenius norm."""
    return ((ours - theirs).norm() / theirs.norm()).item()
