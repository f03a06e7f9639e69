"""TensorBoard as a logger. metrics.jsonl is written in any case and is the record."""

from __future__ import annotations

from collections.abc import Mapping

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the logger."""
    zoo.logger("tensorboard", TensorBoard)


class TensorBoard:
    """Every measured number as a scalar for TensorBoard.

    Source: torch.utils.tensorboard.

    Args:
        folder: Where the event files go: `tensorboard --logdir FOLDER`.
    """

    def __init__(self, folder: str = "tensorboard") -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # late: it is an extra
        except ImportError as error:
            raise ValueError(
                "TensorBoard is not installed. Install it with: pip install 'gptzoo[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(folder)

    def log(self, step: int, mapping: Mapping[str, float]) -> None:
        """One scalar per number."""
        for name, value in mapping.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
