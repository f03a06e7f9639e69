"""The flash kernel: torch's FlashAttention and nothing else; where it cannot run, this one does not either."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `flash`."""
    zoo.kernel("flash", Flash)


DEVICES = frozenset({"cpu", "cuda"})

ON_CPU = gptzoo.Abilities(
    bias=frozenset({"dense"}),
    ready_bias=True,
    gqa=True,
    window=True,
    padding=True,
    documents=True,
    cached=True,
    chunked=True,
    forward=DEVICES,
    backward=DEVICES,
    dtypes=frozenset({"fp16", "bf16", "fp32", "fp64"}),
)

ON_CUDA = gptzoo.Abilities(
    gqa=True,
    dropout=True,
    forward=DEVICES,
    backward=DEVICES,
    dtypes=frozenset({"fp16", "bf16"}),
    max_head_dim=256,
    head_dim_multiple=8,
)


class Flash(gptzoo.Sdpa):
    """torch's flash kernel alone: exact attention in tiles, without the T x T scores.

    Source: FlashAttention-2, arXiv:2307.08691, algorithm 1. On CUDA it knows the plain causal mask only, in half
    precision; torch's kernel for the CPU also takes masks and biases, but no dropout and no gradient for a bias.
    """

    abilities: ClassVar[gptzoo.Abilities] = gptzoo.Abilities(forward=DEVICES, backward=DEVICES)

    def __init__(self) -> None:
        super().__init__(backend="flash")

    def abilities_on(self, device: str) -> gptzoo.Abilities:
        """What it can do on `cpu` or `cuda`; nothing elsewhere."""
        return {"cpu": ON_CPU, "cuda": ON_CUDA}.get(device, self.abilities)

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
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As `gptzoo.Kernel`.

        Raises:
            GPTZooError: torch's flash kernel refuses these tensors, this mask or this bias.
        """
        try:
            return super().__call__(
                q,
                k,
                v,
                where=where,
                mask=mask,
                bias=bias,
                scale=scale,
                softcap=softcap,
                dropout=dropout,
                return_lse=return_lse,
            )
        except RuntimeError as error:
            if "No available kernel" not in str(error):
                raise
            raise gptzoo.GPTZooError(
                f"kernel 'flash': torch's flash kernel refuses these tensors, mask or bias on {q.device.type}. "
                "Use kernel sdpa or naive."
            ) from error
