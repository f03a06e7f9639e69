"""What two cells must share for their difference to mean something: the bits they start from, the batches they see."""

from __future__ import annotations

import hashlib
import resource
import sys
from pathlib import Path

import torch
from torch import Tensor

from gptzoo.contracts import Batch, Data
from gptzoo.model import Model, named_parameters

FIRST_BATCHES, EVERY = 8, 100


def initial_weights(model: Model) -> dict[str, list[object]]:
    """Shape and sha256 of each weight, by its path."""
    return {each.name: [list(each.tensor.shape), _digest(each.tensor)] for each in named_parameters(model)}


def data_order(data: Data, seed: int, steps: int, size: int) -> str:
    """sha256 over the batches that a run sees: the first eight, every hundredth and the last one."""
    chosen = sorted({*range(min(FIRST_BATCHES, steps)), *range(0, steps, EVERY), steps - 1})
    total = hashlib.sha256()
    for step in chosen:
        batch: Batch = data.batch("train", seed, step, size)
        for tensor in (batch.tokens, batch.targets, batch.pos, batch.doc):
            total.update(f"{step} {tuple(tensor.shape)} ".encode())
            total.update(_bytes(tensor))
    return total.hexdigest()


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor)).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class PeakMemory:
    """The most memory used from here on: the accelerator's where there is one, else the process's.

    Linux forgets its mark on request; elsewhere the process's own highest mark stands in, earlier cells included.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self.resettable = True
        except OSError:
            self.resettable = False

    def read(self) -> int:
        """Bytes."""
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            return torch.cuda.max_memory_allocated()
        if self.resettable:
            marks = Path("/proc/self/status").read_text().splitlines()
            found = [line.split()[1] for line in marks if line.startswith("VmHWM:")]
            if found:
                return int(found[0]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
