"""The flash kernel: torch's FlashAttention and nothing else; where it cannot run, this one does not either."""

from __future__ import annotations

from typing import ClassVar

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

    name = "flash"
    abilities: ClassVar[gptzoo.Abilities] = gptzoo.Abilities(forward=DEVICES, backward=DEVICES)

    def __init__(self) -> None:
        super().__init__(backend="flash")

    def abilities_on(self, device: str) -> gptzoo.Abilities:
        """What it can do on `cpu` or `cuda`; nothing elsewhere."""
        return {"cpu": ON_CPU, "cuda": ON_CUDA}.get(device, self.abilities)
