"""Weights as 8-bit integers, for writing only: a quarter of float32's memory, and of what a token has to read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.model import Model

KINDS = ("int8",)
FEW = 8
"""Up to so many rows are multiplied by torch's int8 kernel; more are multiplied by the weights written out."""


def quantized(model: Model, kind: str = "int8") -> Model:
    """A copy whose matrices are integers: those of `nn.Linear`, and the embedding where it is the head as well.

    Each row w of a matrix becomes round(w / s), s = max |w| / 127. All else keeps its precision, activations too. The
    copy is for evaluation and generation; what it says differs from what the model says, so measure it.

    Source: absmax per row, LLM.int8(), arXiv:2208.07339, section 2.1, for weights only. On a CPU the product is
    `torch._weight_int8pack_mm`, in float32, bfloat16 and float16; elsewhere, in float64 and for long prompts the
    weights are written out first. It is fast in bfloat16 (`generate(..., precision="bf16")`) and slow in float32.

    Raises:
        GPTZooError: There is no such kind.
    """
    if kind not in KINDS:
        raise GPTZooError(
            f"no quantization is called {kind!r}.{did_you_mean(kind, KINDS) or ' Known: int8.'}", "--quantize"
        )
    model = copy.deepcopy(model).eval().requires_grad_(False)
    tied = getattr(model.head, "weight", None) is model.wte.weight
    done: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear) or (tied and module is model.wte):
            weight = module.weight
            if id(weight) not in done:
                integers: Tensor = Int8Weight(weight.detach())  # pyright: ignore[reportCallIssue]
                done[id(weight)] = nn.Parameter(integers, requires_grad=False)
            module.weight = done[id(weight)]  # type: ignore[assignment]
    return model


def is_quantized(model: Model) -> bool:
    """Whether some of its weights are integers."""
    return any(isinstance(parameter, Int8Weight) for parameter in model.parameters())


class Int8Weight(Tensor):
    """A matrix (N, K) as int8 rows with a scale each. Operations that it does not know see it written out.

    Args:
        weight: What it stands for.
    """

    rows: Tensor
    scales: Tensor

    @staticmethod
    def __new__(cls, weight: Tensor) -> Int8Weight:
        scales = weight.abs().amax(1) / 127
        rows = (weight / scales.clamp_min(torch.finfo(weight.dtype).tiny)[:, None]).round().to(torch.int8)
        return cls.of(rows.contiguous(), scales)

    @classmethod
    def of(cls, rows: Tensor, scales: Tensor) -> Int8Weight:
        """From rows (N, K) and their scales (N,)."""
        self = Tensor._make_wrapper_subclass(cls, rows.shape, dtype=scales.dtype, device=rows.device)
        self.rows, self.scales = rows, scales
        return self

    def whole(self) -> Tensor:
        """(N, K), written out."""
        return self.rows.to(self.scales.dtype) * self.scales[:, None]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and isinstance(args[1], Int8Weight):
            return _linear(*args, **kwargs)
        if func is F.embedding and len(args) > 1 and isinstance(args[1], Int8Weight):
            return args[1].rows[args[0]].to(args[1].dtype) * args[1].scales[args[0]][..., None]
        return super().__torch_function__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls.of(args[0].rows, args[0].scales)
        written = [each.whole() if isinstance(each, Int8Weight) else each for each in args]
        return func(*written, **(kwargs or {}))

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Int8Weight({tuple(self.shape)})"


def _linear(x: Tensor, weight: Int8Weight, bias: Tensor | None = None) -> Tensor:
    """(..., K) -> (..., N)."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    flat = x.reshape(-1, x.shape[-1])
    misaligned = x.dtype == torch.bfloat16 and x.shape[-1] % 16  # torch 2.13 crashes there
    if device != "cpu" or x.dtype == torch.float64 or misaligned or len(flat) > FEW:
        return F.linear(x, weight.whole().to(x.dtype), None if bias is None else bias.to(x.dtype))
    out = torch._weight_int8pack_mm(flat.contiguous(), weight.rows, weight.scales.to(x.dtype))
    out = out.reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias.to(x.dtype)
