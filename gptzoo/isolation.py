"""What a plugin must leave as it was: process-wide state that its import may change, and how to put that back."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO


class _Diverted:
    """Another stream in the place of stdout, which remembers whether it was used."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.used = False

    def write(self, text: str) -> int:
        self.used = True
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_State = tuple[str, Callable[[], Any], Callable[[Any], object]]
"""A name, how to read the state as a comparable value, how to put it back."""


@contextmanager
def untouched() -> Iterator[list[str]]:
    """Undo what the block does to the process; the list says what that was, when the block has ended."""
    changes: list[str] = []
    before = [(what, read, write, read()) for what, read, write in _states()]
    output = _Diverted(sys.stderr)
    try:
        with redirect_stdout(output):  # pyright: ignore[reportArgumentType]
            yield changes
    finally:
        for what, read, write, value in before:
            if read() != value:
                write(value)
                changes.append(f"changed {what} while loading; it was put back.")
        if output.used:
            changes.append("printed while loading; that went to stderr.")


def _states() -> list[_State]:
    states: list[_State] = [
        ("sys.argv", lambda: list(sys.argv), lambda argv: setattr(sys, "argv", argv)),
        ("Python's random state", random.getstate, random.setstate),
    ]
    if "numpy" in sys.modules:
        states += _numpy_states()
    if "torch" in sys.modules:
        states += _torch_states()
    return states


def _numpy_states() -> list[_State]:
    import numpy as np

    def read() -> tuple:
        name, key, *rest = np.random.get_state()
        return (name, np.asarray(key).tobytes(), *rest)

    def write(state: tuple) -> None:
        name, key, *rest = state
        np.random.set_state((name, np.frombuffer(key, np.uint32), *rest))

    return [("numpy's random state", read, write)]


def _torch_states() -> list[_State]:
    import torch

    def set_device(device: torch.device) -> None:
        torch.set_default_device(None if device.type == "cpu" else device)  # None removes the mode, which slows calls

    matmuls = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # pyright: ignore[reportAttributeAccessIssue]

    def read_precision() -> list[Any]:
        try:
            overall = torch.get_float32_matmul_precision()
        except RuntimeError:  # torch does so where the old and the new way of setting it were mixed
            overall = "mixed"
        return [overall, *(matmul.fp32_precision for matmul in matmuls)]

    def set_precision(precisions: list[Any]) -> None:
        if precisions[0] != "mixed":
            torch.set_float32_matmul_precision(precisions[0])
        for matmul, precision in zip(matmuls, precisions[1:], strict=True):
            matmul.fp32_precision = precision

    def set_random(state: bytes) -> None:
        torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    return [
        ("torch's default device", torch.get_default_device, set_device),
        ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        ("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        ("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
        ("torch's determinism", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        ("torch's matmul precision", read_precision, set_precision),
        ("torch's random state", lambda: torch.get_rng_state().numpy().tobytes(), set_random),
    ]
