"""Mixed precision: training, evaluation and generation compute in the same one."""

from __future__ import annotations

import contextlib
from types import MappingProxyType

import torch

from gptzoo.errors import GPTZooError, did_you_mean

HALF = MappingProxyType({"bf16": torch.bfloat16, "fp16": torch.float16})
"""What autocast lowers to, by the recipe's word; `fp32` lowers nothing."""


def lowered(precision: str) -> torch.dtype | None:
    """What operations are lowered to; None in `fp32`.

    Raises:
        GPTZooError: There is no such precision.
    """
    if precision != "fp32" and precision not in HALF:
        known = ["fp32", *HALF]
        hint = did_you_mean(precision, known) or f" Known: {', '.join(known)}."
        raise GPTZooError(f"no precision is called {precision!r}.{hint}", "precision")
    return HALF.get(precision)


def autocast(device_type: str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Where operations run that `precision` may lower; weights keep their dtype, and float64 is never lowered.

    Raises:
        GPTZooError: There is no such precision.
    """
    dtype = lowered(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_type, dtype)
