"""Slow float64 forwards of transformers' architectures, head by head and token by token, from the tensors' own names.

transformers computes norms, angles and softmax in float32, so that it tells no more than seven digits. These tell
fifteen. They know nothing of gptzoo: only `config.json` as a mapping, and the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def logits(config: Mapping[str, object], tensors: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """int64 (T,) -> float64 (T, vocab_size)."""
    forward = neox if config["model_type"] == "gpt_neox" else llama_like
    return forward(dict(config), {name: tensor.double() for name, tensor in tensors.items()}, tokens)


def llama_like(c: dict, w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Llama, Mistral, Qwen2, Qwen3 and Gemma 2."""
    gemma = c["model_type"] == "gemma2"
    norm = rms(c["rms_norm_eps"], offset=1.0 if gemma else 0.0)
    act = ACTIVATIONS[c.get("hidden_act") or c["hidden_activation"]]
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    x = w["model.embed_tokens.weight"][tokens] * (math.sqrt(c["hidden_size"]) if gemma else 1.0)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        y = norm(x, w[f"{p}input_layernorm.weight"])
        q, k, v = (
            linear(w, f"{p}self_attn.{n}_proj", y).view(len(tokens), -1, head_dim).transpose(0, 1) for n in "qkv"
        )
        if f"{p}self_attn.q_norm.weight" in w:
            q, k = (norm(t, w[f"{p}self_attn.{n}_norm.weight"]) for t, n in ((q, "q"), (k, "k")))
        q, k = (turned(t, frequencies(c, head_dim)) for t in (q, k))
        scale = (c["query_pre_attn_scalar"] if gemma else head_dim) ** -0.5 * sharpening(c)
        y = attention(q, k, v, scale, window_of(c, i), c.get("attn_logit_softcapping"))
        y = linear(w, f"{p}self_attn.o_proj", y)
        x = x + (norm(y, w[f"{p}post_attention_layernorm.weight"]) if gemma else y)
        y = norm(x, w[f"{p}{'pre_feedforward' if gemma else 'post_attention'}_layernorm.weight"])
        y = act(linear(w, f"{p}mlp.gate_proj", y)) * linear(w, f"{p}mlp.up_proj", y)
        y = linear(w, f"{p}mlp.down_proj", y)
        x = x + (norm(y, w[f"{p}post_feedforward_layernorm.weight"]) if gemma else y)
    x = norm(x, w["model.norm.weight"])
    out = x @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    cap = c.get("final_logit_softcapping")
    return out if cap is None else cap * torch.tanh(out / cap)


def neox(c: dict, w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """GPT-NeoX."""
    n_head, act = c["num_attention_heads"], "none" if c["hidden_act"] == "gelu" else "tanh"
    head_dim = c["hidden_size"] // n_head

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + c["layer_norm_eps"]).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["gpt_neox.embed_in.weight"][tokens]
    for i in range(c["num_hidden_layers"]):
        p = f"gpt_neox.layers.{i}."
        fused = linear(w, f"{p}attention.query_key_value", norm(x, f"{p}input_layernorm"))
        heads = [fused[:, 3 * head_dim * h : 3 * head_dim * (h + 1)] for h in range(n_head)]
        q, k, v = (torch.stack([h[:, part * head_dim : (part + 1) * head_dim] for h in heads]) for part in range(3))
        q, k = (turned(t, frequencies(c, head_dim)) for t in (q, k))
        attended = linear(w, f"{p}attention.dense", attention(q, k, v, head_dim**-0.5))
        y = norm(x if c["use_parallel_residual"] else x + attended, f"{p}post_attention_layernorm")
        y = F.gelu(linear(w, f"{p}mlp.dense_h_to_4h", y), approximate=act)
        x = x + attended + linear(w, f"{p}mlp.dense_4h_to_h", y)
    x = norm(x, "gpt_neox.final_layer_norm")
    head = next((w[n] for n in ("embed_out.weight", "lm_head.weight") if n in w), w["gpt_neox.embed_in.weight"])
    return x @ head.T


def rms(eps: float, offset: float) -> Callable[[Tensor, Tensor], Tensor]:
    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * (weight + offset)

    return norm


def linear(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def frequencies(c: dict, head_dim: int) -> list[float]:
    """The angle per position of each pair of dimensions."""
    r = c["rope_parameters"]
    width = int(head_dim * r.get("partial_rotary_factor", 1.0))
    plain = [r["rope_theta"] ** (-2 * i / width) for i in range(width // 2)]
    kind = r.get("rope_type", "default")
    if kind == "linear":
        return [f / r["factor"] for f in plain]
    if kind == "llama3":
        return [_llama3(f, r) for f in plain]
    if kind == "yarn":
        return [_yarn(f, i, width, r) for i, f in enumerate(plain)]
    return plain


def _llama3(f: float, r: dict) -> float:
    turns = r["original_max_position_embeddings"] * f / (2 * math.pi)
    share = (turns - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])
    share = min(1.0, max(0.0, share))
    return share * f + (1 - share) * f / r["factor"]


def _yarn(f: float, i: int, width: int, r: dict) -> float:
    def pair_with(turns: float) -> float:
        return (
            width
            * math.log(r["original_max_position_embeddings"] / (turns * 2 * math.pi))
            / (2 * math.log(r["rope_theta"]))
        )

    low, high = pair_with(r.get("beta_fast", 32)), pair_with(r.get("beta_slow", 1))
    if r.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    stretched = min(1.0, max(0.0, (i - low) / ((high - low) or 0.001)))
    return stretched * f / r["factor"] + (1 - stretched) * f


def sharpening(c: dict) -> float:
    """What YaRN multiplies all scores by."""
    r = c["rope_parameters"]
    return r.get("attention_factor", 0.1 * math.log(r["factor"]) + 1) ** 2 if r["rope_type"] == "yarn" else 1.0


def turned(x: Tensor, angles: list[float]) -> Tensor:
    """(H, T, D): pair i is dimensions i and i + width / 2, as one complex number."""
    half = len(angles)
    pairs = torch.complex(x[..., :half].contiguous(), x[..., half : 2 * half].contiguous())
    pos = torch.arange(x.shape[1], dtype=torch.float64)
    pairs = pairs * torch.exp(1j * pos[:, None] * torch.tensor(angles, dtype=torch.float64))
    return torch.cat([pairs.real, pairs.imag, x[..., 2 * half :]], -1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None = None, cap: float | None = None
) -> Tensor:
    """(H, T, D), (G, T, D) twice -> (T, H * D), query by query."""
    out = torch.zeros(q.shape[1], q.shape[0], v.shape[-1], dtype=torch.float64)
    for h in range(q.shape[0]):
        group = h // (q.shape[0] // k.shape[0])
        for t in range(q.shape[1]):
            first = 0 if window is None else max(0, t - window + 1)
            scores = k[group, first : t + 1] @ q[h, t] * scale
            scores = scores if cap is None else cap * torch.tanh(scores / cap)
            out[t, h] = scores.softmax(0) @ v[group, first : t + 1]
    return out.flatten(1)


def window_of(c: dict, layer: int) -> int | None:
    if "layer_types" in c:
        return c["sliding_window"] if c["layer_types"][layer] == "sliding_attention" else None
    return c.get("sliding_window")
