"""How equal is equal: bitwise, in float64, or as exact as the readable form in the same precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RELATIVE = 1e-10
"""Formulas in float64, relative to the largest element."""


def equal(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Bit for bit."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        raise AssertionError(f"{what}: {_kind(ours)} is not {_kind(theirs)}")
    if not torch.equal(ours, theirs):
        differ = ours != theirs
        raise AssertionError(
            f"{what}: {int(differ.sum())} of {differ.numel()} numbers differ, {_largest(ours, theirs)}"
        )


def close(ours: Tensor, theirs: Tensor, what: str, rtol: float = RELATIVE) -> None:
    """Equal but for rounding, relative to the largest element of the second, which must not be all zero's size."""
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: shape {tuple(ours.shape)} is not {tuple(theirs.shape)}")
    if not ours.numel():
        return
    finite(ours, what)
    largest = float(theirs.detach().abs().max().clamp_min(1.0))
    error = float((ours.detach().double() - theirs.detach().double()).abs().max())
    if not error <= rtol * largest:
        raise AssertionError(f"{what}: {_largest(ours, theirs)}, allowed is {rtol * largest:.1e}")


def finite(x: Tensor, what: str) -> None:
    """No infinity and no NaN."""
    if not bool(x.isfinite().all()):
        raise AssertionError(f"{what}: {int((~x.isfinite()).sum())} of {x.numel()} numbers are not finite")


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """The relative Frobenius norm of the difference."""
    return float((ours.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-30))


def as_exact_as(
    candidate: Callable[[int], tuple[Tensor, Tensor]],
    plain: Callable[[int], tuple[Tensor, Tensor]],
    dtype: torch.dtype,
    what: str,
    seeds: Sequence[int] = range(20),
    factor: float = 3.0,
) -> None:
    """The largest error over seeds is at most `factor` times the plain form's in the same dtype, and 4 ulp.

    Args:
        candidate: Of a seed: the result in `dtype`, and the exact one in float64 from the same rounded inputs.
        plain: The same of the plain eager form.
        dtype: The precision.
        what: What is compared, for the message.
        seeds: Of the draws.
        factor: 3 is room for another order of summation: the worst ratio measured is 2.
    """
    ours = max(relative_error(*candidate(seed)) for seed in seeds)
    theirs = max(relative_error(*plain(seed)) for seed in seeds)
    limit = factor * theirs + 4 * torch.finfo(dtype).eps
    if not ours <= limit:
        raise AssertionError(f"{what} in {dtype}: relative error {ours:.2e}, the plain form's {theirs:.2e}")


def _kind(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"


def _largest(ours: Tensor, theirs: Tensor) -> str:
    return f"the largest difference is {float((ours.double() - theirs.double()).abs().max()):.3g}"
