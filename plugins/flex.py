"""The flex kernel: torch's FlexAttention, which is told masks and biases element by element."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gptzoo

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import AuxOutput, BlockMask


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `flex`."""
    zoo.kernel("flex", Flex)


ON_CPU = gptzoo.Abilities(
    bias=frozenset({"pointwise"}),
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
    forward=frozenset({"cpu", "cuda"}),
    backward=frozenset({"cuda"}),
    dtypes=frozenset({"fp16", "bf16", "fp32", "fp64"}),
)

COMPILED_ON_CPU = gptzoo.Abilities(**{**vars(ON_CPU), "lse": None, "dtypes": frozenset({"fp16", "bf16", "fp32"})})

ON_CUDA = gptzoo.Abilities(**{**vars(ON_CPU), "bias_grad": True, "dtypes": frozenset({"fp16", "bf16", "fp32"})})

NARROWEST = 16
"""What a tensor core multiplies at least: narrower heads are widened by zeros, which add nothing to any product."""


class Flex(gptzoo.Kernel):
    """torch's FlexAttention: masks and biases are compiled into one fused kernel, blocks that nobody sees are skipped.

    Source: Flex Attention, arXiv:2412.05496, section 3; torch.nn.attention.flex_attention. The softcap comes before the
    bias. Weights of a bias reach the kernel by being indexed with integers. On the CPU torch has no backward for it; a
    GPU trains it, biases with weights too.

    Args:
        compile: Fuse, which takes seconds at the first call for each kind of mask and bias and, on a CPU, each length;
            a CPU needs a C++ compiler. Otherwise torch's formula runs over all scores at once. `auto` fuses on GPUs.
    """

    def __init__(self, compile: Literal["auto"] | bool = "auto") -> None:
        self.compile = compile

    def abilities_on(self, device: str) -> gptzoo.Abilities:
        """What it can do on `cpu` or `cuda`; nothing elsewhere."""
        if device == "cpu":
            return COMPILED_ON_CPU if self.compile is True else ON_CPU
        return ON_CUDA if device == "cuda" else gptzoo.Abilities(forward=ON_CPU.forward)

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
            GPTZooError: A gradient is asked for on a CPU, or there is nothing to compile with.
        """
        from torch.nn.attention.flex_attention import AuxRequest

        assert dropout == 0.0, "resolve refuses it"
        if torch.is_grad_enabled():
            _refuse_gradients(q, k, v, bias)
        else:
            q, k, v = q.detach(), k.detach(), v.detach()  # what could be trained is refused even where nothing is
        q, k, v = gptzoo.as_autocast_would(q, k, v)
        width, fused = v.shape[-1], self.fuses(q.device.type)
        if fused:
            q, k, v = (_widened(x) for x in (q, k, v))
        with torch.autocast(q.device.type, enabled=False):
            run = _fused if fused else _unfused
            out, aux = run(
                q,
                k,
                v,
                score_mod=_score_mod(where, bias, softcap),
                block_mask=_block_mask(where, mask, fused),
                scale=scale,
                enable_gqa=k.shape[1] != q.shape[1],
                return_aux=AuxRequest(lse=return_lse),
            )
        out = out[..., :width]
        if not return_lse:
            return out
        assert aux.lse is not None, "asked for"
        return out, aux.lse

    def runs_as(self, device: str) -> str:
        """`fused` or `plain`: compiled code hides its operators."""
        return "fused" if self.fuses(device) else "plain"

    def fuses(self, device: str) -> bool:
        """Whether it runs as one compiled kernel on a type of device; always inside a model that is compiled."""
        wanted = self.compile is True or (self.compile == "auto" and device == "cuda")
        return wanted or torch.compiler.is_compiling()


def _refuse_gradients(q: Tensor, k: Tensor, v: Tensor, bias: gptzoo.BiasFunction | Tensor | None) -> None:
    """Without a backward, weights would get no gradient and nobody would be told."""
    if q.device.type != "cpu":
        return
    owner = getattr(bias, "__self__", None)
    learned = [*owner.parameters()] if isinstance(owner, nn.Module) else [bias] if isinstance(bias, Tensor) else []
    if any(x.requires_grad for x in (q, k, v, *learned)):
        raise gptzoo.GPTZooError(
            "kernel 'flex': torch's FlexAttention has no backward on cpu. Call it under torch.no_grad(), or use kernel "
            "sdpa or naive."
        )


def _widened(x: Tensor) -> Tensor:
    return x if x.shape[-1] >= NARROWEST else F.pad(x, (0, NARROWEST - x.shape[-1]))


def _unfused(*qkv: Tensor, **options: object) -> tuple[Tensor, AuxOutput]:
    """torch's formula over all scores at once."""
    from torch.nn.attention.flex_attention import flex_attention

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")  # as was asked for
        return flex_attention(*qkv, **options)  # type: ignore[arg-type, return-value]


def _fused(*qkv: Tensor, **options: object) -> tuple[Tensor, AuxOutput]:
    """One kernel, compiled by the model's compiler if that is at work, and here otherwise."""
    from torch._dynamo.exc import TorchDynamoException
    from torch.nn.attention.flex_attention import flex_attention

    if torch.compiler.is_compiling():
        return flex_attention(*qkv, **options)  # type: ignore[arg-type, return-value]
    device = qkv[0].device.type
    try:
        # Each kind of mask, bias and shape is a compilation of its own: more than torch expects of one function.
        with torch._dynamo.config.patch(recompile_limit=1000):
            return _compiled(device)(*qkv, **options)
    except TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise gptzoo.GPTZooError(
            f"kernel 'flex' could not be compiled on {device}: {reason.rstrip('.')}. Give it "
            "compile: false, or use kernel sdpa or naive."
        ) from error


@functools.cache
def _compiled(device: str) -> Callable[..., tuple[Tensor, AuxOutput]]:
    """Lengths that change are compiled for once on a GPU. On a CPU each is, for there torch 2.13 writes faulty C++."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, fullgraph=True, dynamic=False if device == "cpu" else None)  # type: ignore[return-value]


ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _score_mod(
    where: gptzoo.Where, bias: gptzoo.BiasFunction | Tensor | None, softcap: float | None
) -> ScoreMod | None:
    """Softcap and bias of one score, by row, head and the indices of its query and key."""
    if bias is None and softcap is None:
        return None
    q_pos, k_pos = _apart(where.q_pos, where.k_pos)

    def score_mod(score: Tensor, row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if isinstance(bias, Tensor):
            return score + _at(bias, row, head, i, j)
        return score if bias is None else score + bias(head, _at(q_pos, row, i), _at(k_pos, row, j))

    return score_mod


def _apart(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors, each as an object of its own.

    Where two that were apart in one call are one object in a later call, torch 2.13 evaluates all tensors of the
    earlier one to tell why it compiles anew, and crashes if a mask or bias is gone that held some (pytorch issue
    176211).
    """
    return tensors if torch.compiler.is_compiling() else tuple(x.view_as(x) for x in tensors)


def _at(table: Tensor, *index: Tensor) -> Tensor:
    """One element. An axis of length 1 is shared by all that would index it."""
    return table[tuple(i * 0 if size == 1 else i for i, size in zip(index, table.shape, strict=True))]


MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _block_mask(where: gptzoo.Where, mask: gptzoo.Mask, fused: bool) -> BlockMask:
    """The mask by row, head and indices, with the blocks that anybody sees: made once for all layers."""
    places = _apart(where.q_pos, where.k_pos, where.q_doc, where.k_doc)

    def mask_mod(row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        q_pos, k_pos, q_doc, k_doc = (_at(x, row, index) for x, index in zip(places, (i, j, i, j), strict=True))
        return mask(q_pos, k_pos, q_doc, k_doc)

    blocks = _blocks if fused else _one_block
    return where.once(("flex", mask.key, fused), lambda: blocks(mask_mod, where, max(x.shape[0] for x in places)))


def _blocks(mask_mod: MaskMod, where: gptzoo.Where, rows: int) -> BlockMask:
    """Blocks of 128 x 128 scores; the kernel skips those that nobody sees, and does not mask those that all see."""
    from torch.nn.attention.flex_attention import create_block_mask

    queries, keys = where.q_pos.shape[1], where.k_pos.shape[1]
    return create_block_mask(mask_mod, rows, None, queries, keys, device=str(where.q_pos.device))


def _one_block(mask_mod: MaskMod, where: gptzoo.Where, rows: int) -> BlockMask:
    """All scores as one block: the formula over all of them skips none."""
    from torch.nn.attention.flex_attention import BlockMask

    size = (where.q_pos.shape[1], where.k_pos.shape[1])
    one = torch.ones(1, 1, 1, dtype=torch.int32, device=where.q_pos.device)
    return BlockMask.from_kv_blocks(
        one, torch.zeros_like(one)[..., None], BLOCK_SIZE=size, mask_mod=mask_mod, seq_lengths=size
    )
