"""my_kernel: what it does, in one sentence. This one is an example: attention, some queries at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import gptzoo

DEVICES = frozenset({"cpu", "cuda"})


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_kernel`."""
    zoo.kernel("my_kernel", MyKernel)


class MyKernel(gptzoo.Kernel):
    """Exact attention, `rows` queries at a time, so that fewer scores are in memory at once.

    Source: Self-attention Does Not Need O(n^2) Memory, arXiv:2112.05682, section 3.

    Args:
        rows: Queries at a time.
    """

    # What a kernel does not state, it cannot do: a recipe that needs it is refused.
    abilities = gptzoo.Abilities(
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
        v_width=True,
        dropout=True,
        forward=DEVICES,
        backward=DEVICES,
        dtypes=frozenset({"fp32", "bf16", "fp16", "fp64"}),
    )

    def __init__(self, rows: int = 64) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        self.rows = rows

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: gptzoo.Where,
        mask: gptzoo.Mask,
        bias: gptzoo.BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor:
        """q (B, H, Tq, D), k (B, G, Tk, D), v (B, G, Tk, Dv) -> (B, H, Tq, Dv)."""
        allowed = where.dense_mask(mask)  # (B|1, 1, Tq, Tk)
        dense = torch.zeros(1, 1, *allowed.shape[2:], device=q.device)
        if bias is not None:
            dense = where.dense_bias(bias, q.shape[1])  # (B|1, H|1, Tq, Tk)
        parts = []
        for start in range(0, q.shape[2], self.rows):
            rows = slice(start, start + self.rows)
            scores = gptzoo.scores(q[:, :, rows], k, scale, softcap)
            weights = gptzoo.weights(scores, allowed[:, :, rows], dense[:, :, rows])
            parts.append(gptzoo.combine(F.dropout(weights, dropout), v))
        return torch.cat(parts, dim=2)
