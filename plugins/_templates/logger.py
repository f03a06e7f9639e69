"""my_logger: what it does, in one sentence. This one is an example: a CSV file that a spreadsheet opens."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `my_logger`."""
    zoo.logger("my_logger", MyLogger)


class MyLogger:
    """A CSV file with one row per value: step, name, value.

    Args:
        path: The file; rows are added to what it holds.
    """

    def __init__(self, path: str = "metrics.csv") -> None:
        self.path = Path(path)

    def log(self, step: int, mapping: Mapping[str, float]) -> None:
        """Called after each logged step."""
        new = not self.path.exists()
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(["step", "name", "value"])
            rows.writerows([step, name, value] for name, value in mapping.items())
