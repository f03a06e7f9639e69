"""The flash kernel: FlashAttention and nothing else; where it cannot run, this one does not either."""

from __future__ import annotations

import importlib.util
from typing import ClassVar, Literal

import torch
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


FLASH_ATTN = gptzoo.Abilities(
    bias=frozenset({"slopes"}),
    gqa=True,
    softcap=True,
    dropout=True,
    forward=frozenset({"cuda"}),
    backward=frozenset({"cuda"}),
    dtypes=frozenset({"fp16", "bf16"}),
    max_head_dim=256,
    head_dim_multiple=8,
)
"""The package's log-sum-exp has no gradient, so that it is not offered."""


class Flash(gptzoo.Sdpa):
    """The flash kernel alone, torch's or the flash-attn package's: exact attention in tiles, without the T x T scores.

    Source: FlashAttention-2, arXiv:2307.08691, algorithm 1. On CUDA torch's knows the plain causal mask only, in half
    precision; its kernel for the CPU also takes masks and biases, but no dropout and no gradient for a bias. The
    package adds ALiBi's slopes and a softcap. It is called as its documentation says, which is tested; with the package
    itself it has not been run.

    Args:
        package: Whose kernel: torch's, or that of flash-attn, which must be installed and needs a GPU.
    """

    name = "flash"
    abilities: ClassVar[gptzoo.Abilities] = gptzoo.Abilities(forward=DEVICES, backward=DEVICES)

    def __init__(self, package: Literal["torch", "flash_attn"] = "torch") -> None:
        super().__init__(backend="flash")
        if package == "flash_attn" and importlib.util.find_spec("flash_attn") is None:
            raise ValueError("package flash_attn is not installed (pip install flash-attn), package: torch needs none")
        self.package = package

    def abilities_on(self, device: str) -> gptzoo.Abilities:
        """What it can do on `cpu` or `cuda`; nothing elsewhere."""
        if self.package == "flash_attn":
            return FLASH_ATTN
        return {"cpu": ON_CPU, "cuda": ON_CUDA}.get(device, self.abilities)

    def runs_as(self, device: str) -> str | None:
        """The package's operators are its own."""
        return "flash-attn" if self.package == "flash_attn" else None

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
            GPTZooError: torch's kernel refuses these tensors, or the package is asked for another mask than its own.
        """
        if self.package == "torch":
            options = {"softcap": softcap, "dropout": dropout, "return_lse": return_lse}
            return super().__call__(q, k, v, where=where, mask=mask, bias=bias, scale=scale, **options)
        assert not return_lse, "resolve refuses it"
        if not (where.plain and mask.causal):
            raise gptzoo.GPTZooError(
                "kernel 'flash': package flash_attn is given whole rows of one document under the causal mask only. "
                "Use kernel sdpa, flex or naive."
            )
        return _flash_attn(q, k, v, _slopes(bias, q), scale=scale, softcap=softcap, dropout=dropout)


def _flash_attn(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None, *, scale: float, softcap: float | None, dropout: float
) -> Tensor:
    """The package's function, whose tensors are (B, T, heads, D)."""
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

    q, k, v = (x.transpose(1, 2) for x in gptzoo.as_autocast_would(q, k, v))
    out = flash_attn_func(
        q, k, v, dropout_p=dropout, softmax_scale=scale, causal=True, softcap=softcap or 0.0, alibi_slopes=slopes
    )
    return out.transpose(1, 2)


def _slopes(bias: gptzoo.BiasFunction | Tensor | None, like: Tensor) -> Tensor | None:
    """A price per token of distance for each head, float32 (H,)."""
    if bias is None:
        return None
    owner = getattr(bias, "__self__", None)
    assert isinstance(owner, gptzoo.Position), "resolve refuses other biases"
    return owner.slopes().to(like.device, torch.float32)  # type: ignore[operator]
