"""A tiny training to save, and children to kill."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from gptzoo.runs.checkpoint import Checkpoint, write_checkpoint


def tiny_checkpoint(step: int = 5, seed: int = 0, **state: object) -> Checkpoint:
    """A checkpoint of two small weights after one AdamW update."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(3, 2, generator=generator, requires_grad=True) for name in ("wte.weight", "layers.0.o")
    }
    optimizer = torch.optim.AdamW([{"params": [weight]} for weight in weights.values()], lr=1e-3)
    torch.stack([(weight**2).sum() for weight in weights.values()]).sum().backward()
    optimizer.step()
    model = {name: weight.detach() for name, weight in weights.items()}
    rng = {"torch": generator.get_state()[:64].clone()}
    aliases = {"lm_head.weight": "wte.weight"}
    return Checkpoint(step, model, aliases, optimizer.state_dict(), rng, {"tokens": 40 * step, **state})


def in_child(work: Callable[[], object], environment: Mapping[str, str] | None = None) -> int:
    """Do work in a forked child; its exit status, negative the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            os.environ.update(environment or {})
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


KILLED = -signal.SIGKILL


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint on disk."""
    path = tmp_path / "step-000005"
    write_checkpoint(path, tiny_checkpoint())
    return path


@pytest.fixture
def make() -> Callable[..., Checkpoint]:
    return tiny_checkpoint


@pytest.fixture
def fork() -> Callable[..., int]:
    return in_child
