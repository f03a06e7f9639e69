"""The core's kernels: `naive`, which one can read, and `sdpa`, torch's fused one. They agree; the laws prove it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gptzoo.contracts import Abilities, BiasFunction, Kernel, Mask, Where
from gptzoo.errors import GPTZooError

DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
DTYPES = frozenset({"fp16", "bf16", "fp32", "fp64"})


def scores(q: Tensor, k: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """`q @ k * scale`, capped: (B, H, Tq, D), (B, G, Tk, D) -> (B, H, Tq, Tk), at least float32."""
    raw = torch.matmul(q, _for_each_head(k, q.shape[1]).mT)
    raw = _at_least_float32(raw) * scale
    return raw if softcap is None else softcap * torch.tanh(raw / softcap)


def weights(scores: Tensor, allowed: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax over the allowed keys, (B, H, Tq, Tk). A row without any is 0, with a finite gradient."""
    if bias is not None:
        scores = scores + bias
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~allowed, lowest).softmax(-1).masked_fill(~allowed, 0.0)


def combine(weights: Tensor, v: Tensor) -> Tensor:
    """(B, H, Tq, Tk), (B, G, Tk, Dv) -> (B, H, Tq, Dv)."""
    return torch.matmul(weights.to(v.dtype), _for_each_head(v, weights.shape[1]))


def _for_each_head(x: Tensor, n_head: int) -> Tensor:
    """(B, G, T, D) -> (B, H, T, D): query head h reads head h // (H // G)."""
    return x if x.shape[1] == n_head else x.repeat_interleave(n_head // x.shape[1], dim=1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def as_autocast_would(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In one dtype: autocast does not know kernels from outside, and a normalised q is float32 beside a bfloat16 v."""
    device = q.device.type
    if not torch.is_autocast_enabled(device) or q.dtype == torch.float64:
        return q, k, v
    dtype = torch.get_autocast_dtype(device)
    return q.to(dtype), k.to(dtype), v.to(dtype)


class Naive(Kernel):
    """The readable reference: scores, weights, combine, with softmax in float32.

    Source: Attention Is All You Need, arXiv:1706.03762, equation 1.
    """

    abilities = Abilities(
        bias=frozenset({"dense"}),
        bias_grad=True,
        ready_bias=True,
        gqa=True,
        window=True,
        softcap=True,
        padding=True,
        documents=True,
        cached=True,
        chunked=True,
        lse=True,
        v_width=True,
        dropout=True,
        forward=DEVICES,
        backward=DEVICES,
        dtypes=DTYPES,
    )

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: Where,
        mask: Mask,
        bias: BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        allowed = where.dense_mask(mask)
        dense = None if bias is None else where.dense_bias(bias, q.shape[1])
        s = scores(q, k, scale, softcap)
        w = weights(s, allowed, dense)
        out = combine(F.dropout(w, dropout) if dropout else w, v)
        return (out, log_sum_exp(s, allowed, dense)) if return_lse else out


def log_sum_exp(scores: Tensor, allowed: Tensor, bias: Tensor | None = None) -> Tensor:
    """log of the sum of exp(score) over the allowed keys, (B, H, Tq); -inf where there is none."""
    if bias is not None:
        scores = scores + bias
    return scores.masked_fill(~allowed, -torch.inf).logsumexp(-1)


class Sdpa(Kernel):
    """torch's `scaled_dot_product_attention`; `backend` forces one of its kernels.

    Source: torch.nn.functional.scaled_dot_product_attention.

    Args:
        backend: `auto` lets torch choose; the one that ran is recorded with the run.
    """

    name = "sdpa"
    abilities = Abilities(
        bias=frozenset({"dense"}),
        bias_grad=True,
        ready_bias=True,
        gqa=True,
        window=True,
        padding=True,
        documents=True,
        cached=True,
        chunked=True,
        v_width=True,
        dropout=True,
        forward=DEVICES,
        backward=DEVICES,
        dtypes=DTYPES,
    )

    def __init__(self, backend: Literal["auto", "flash", "efficient", "cudnn", "math"] = "auto") -> None:
        self.backend = backend

    def abilities_on(self, device: str) -> Abilities:
        """Less on the backends that are for GPUs alone. What else a backend cannot do it refuses when it is called."""
        if self.backend not in GPU_DTYPES:
            return self.abilities
        gpu = frozenset({"cuda"})
        return replace(self.abilities, forward=gpu, backward=gpu, dtypes=GPU_DTYPES[self.backend])

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: Where,
        mask: Mask,
        bias: BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `gptzoo.Kernel`.

        Raises:
            GPTZooError: The backend that was asked for refuses these tensors, this mask or this bias.
        """
        assert softcap is None, "resolve refuses it"
        assert not return_lse, "resolve refuses it"
        options = {"dropout_p": dropout, "scale": scale, "enable_gqa": k.shape[1] != q.shape[1]}
        if where.plain and mask.causal and bias is None:
            return self._attend(q, k, v, is_causal=True, **options)
        blind = where.blind_rows(mask)
        out = self._attend(q, k, v, attn_mask=_additive(q, where, mask, bias, blind), **options)
        return out if blind is None else out.masked_fill(blind, 0.0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        if self.backend == "auto":
            return F.scaled_dot_product_attention(q, k, v, **options)
        try:
            with sdpa_kernel([BACKENDS[self.backend]]):
                return F.scaled_dot_product_attention(q, k, v, **options)
        except RuntimeError as error:
            if not str(error).startswith(("No available kernel", "No viable backend")):
                raise
            raise GPTZooError(
                f"kernel {self.name!r}: torch's {self.backend} kernel refuses these tensors, mask or bias on "
                f"{q.device.type}. Use kernel naive, or sdpa with backend: auto."
            ) from error


GPU_DTYPES = {"efficient": frozenset({"fp16", "bf16", "fp32"}), "cudnn": frozenset({"fp16", "bf16"})}

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def _additive(q: Tensor, where: Where, mask: Mask, bias: BiasFunction | Tensor | None, blind: Tensor | None) -> Tensor:
    """What sdpa takes as `attn_mask`. Blind rows see everything there, since softmax over nothing is NaN."""
    allowed = where.dense_mask(mask)
    if blind is not None:
        allowed = allowed | blind
    if bias is None:
        return allowed
    return where.dense_bias(bias, q.shape[1]).masked_fill(~allowed, -torch.inf).to(q.dtype)
