"""The compatibility matrix: which position goes with which attention under which kernel, as `resolve` answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gptzoo.registry import Zoo
from gptzoo.testing.compositions import Composition, fits, triples

DEVICES = ("cpu", "cuda")
HOW = {
    "cpu": "each admitted cell is tried by `python -m tests.laws`",
    "cuda": "declared; `python -m tests.laws --only matrix --device cuda` tries it where there is a GPU",
}


@dataclass(frozen=True)
class Matrix:
    """What is admitted.

    Args:
        positions: The columns.
        attentions: The rows.
        kernels: The kernels, each with its letter.
        trains: (device, position, attention, kernel) that can be trained.
        runs: The same of what can only be evaluated and sampled from.
    """

    positions: tuple[str, ...]
    attentions: tuple[str, ...]
    kernels: tuple[str, ...]
    trains: frozenset[tuple[str, str, str, str]]
    runs: frozenset[tuple[str, str, str, str]]

    def cell(self, device: str, attention: str, position: str) -> str:
        """The kernels' letters: capital = trains, small = runs; `.` = none."""
        letters = []
        for kernel in self.kernels:
            key = (device, position, attention, kernel)
            letters.append(letter(kernel).upper() if key in self.trains else letter(kernel) if key in self.runs else "")
        return "".join(letters) or "."

    def as_json(self) -> dict[str, object]:
        """Plain data: for each device and attention a mapping of positions to kernels."""
        return {
            device: {a: {p: self.cell(device, a, p) for p in self.positions} for a in self.attentions}
            for device in DEVICES
        }

    def counts(self, device: str) -> tuple[int, int, int]:
        """How many cells train, only run, and are refused."""
        total = len(self.positions) * len(self.attentions) * len(self.kernels)
        trains = sum(key[0] == device for key in self.trains)
        runs = sum(key[0] == device for key in self.runs - self.trains)
        return trains, runs, total - trains - runs


def letter(kernel: str) -> str:
    """The letter of a kernel: its first, but x for flex."""
    return {"flex": "x"}.get(kernel, kernel[0])


def matrix(zoo: Zoo, devices: Sequence[str] = DEVICES) -> Matrix:
    """Ask `resolve` about every cell, for training and for inference."""
    trains, runs = set(), set()
    for device in devices:
        for composition in triples(zoo):
            key = (device, *(composition.parts[slot] for slot in ("position", "attention", "kernel")))
            if fits(zoo, composition, device, training=True):
                trains.add(key)
                runs.add(key)
            elif fits(zoo, composition, device, training=False):
                runs.add(key)
    return Matrix(
        tuple(zoo.names("position")),
        tuple(zoo.names("attention")),
        tuple(zoo.names("kernel")),
        frozenset(trains),  # type: ignore[arg-type]
        frozenset(runs),  # type: ignore[arg-type]
    )


def as_text(found: Matrix) -> str:
    """Two tables, and what they say."""
    lines: list[str] = []
    for device in DEVICES:
        lines += [f"{device}: {HOW[device]}"]
        lines += list(_table(found, device))
        trains, runs, refused = found.counts(device)
        lines += [f"{trains} compositions train, {runs} only run, {refused} are refused with a reason", ""]
    told = ", ".join(f"{letter(kernel).upper()} {kernel}" for kernel in found.kernels)
    return "\n".join([*lines, f"{told}; small letters: runs, but cannot be trained; . : no kernel."])


def _table(found: Matrix, device: str) -> Iterator[str]:
    width = max(len(name) for name in found.attentions) + 2
    columns = [max(len(position), 5) for position in found.positions]
    yield " " * width + " ".join(p.ljust(w) for p, w in zip(found.positions, columns, strict=True)).rstrip()
    for attention in found.attentions:
        cells = (found.cell(device, attention, p).ljust(w) for p, w in zip(found.positions, columns, strict=True))
        yield (attention.ljust(width) + " ".join(cells)).rstrip()


def compositions_of(found: Matrix, device: str) -> list[Composition]:
    """Every admitted cell of a device."""
    return [
        Composition({"position": p, "attention": a, "kernel": k})
        for d, p, a, k in sorted(found.runs | found.trains)
        if d == device
    ]
