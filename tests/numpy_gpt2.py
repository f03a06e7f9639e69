"""GPT-2's forward pass in float64 NumPy: a second opinion that shares no code with the package.

Weights go by transformers' names, without the prefix; matrices of Conv1D are (in, out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def logits(
    weights: Weights, tokens: np.ndarray, n_head: int, eps: float = 1e-5, approximate: bool = True
) -> np.ndarray:
    """(B, T) token numbers -> (B, T, vocab_size)."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]]
    layer = 0
    while f"h.{layer}.ln_1.weight" in w:
        h = {name.removeprefix(f"h.{layer}."): value for name, value in w.items() if name.startswith(f"h.{layer}.")}
        x = x + attention(norm(x, h, "ln_1", eps), h, n_head)
        hidden = gelu(conv1d(norm(x, h, "ln_2", eps), h, "mlp.c_fc"), approximate)
        x = x + conv1d(hidden, h, "mlp.c_proj")
        layer += 1
    return norm(x, w, "ln_f", eps) @ w["wte.weight"].T


def attention(x: np.ndarray, w: Weights, n_head: int) -> np.ndarray:
    """Token by token, head by head: slow, and hard to get wrong."""
    rows, length, width = x.shape
    size = width // n_head
    q, k, v = np.split(conv1d(x, w, "attn.c_attn"), 3, axis=-1)
    mixed = np.zeros_like(x)
    for row in range(rows):
        for head in range(n_head):
            own = slice(head * size, (head + 1) * size)
            for token in range(length):
                seen = slice(0, token + 1)
                scores = k[row, seen, own] @ q[row, token, own] / math.sqrt(size)
                shares = np.exp(scores - scores.max())
                mixed[row, token, own] = shares @ v[row, seen, own] / shares.sum()
    return conv1d(mixed, w, "attn.c_proj")


def conv1d(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    """A linear layer whose matrix is (in, out)."""
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def norm(x: np.ndarray, w: Weights, name: str, eps: float) -> np.ndarray:
    """LayerNorm."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: np.ndarray, approximate: bool) -> np.ndarray:
    """GELU, by tanh as in GPT-2, or exact."""
    if approximate:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
