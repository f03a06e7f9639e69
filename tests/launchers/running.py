"""`python -m tests.launchers`: one small study by the pool, by submitit and by Ray, each started for the purpose.

Numbers, weights and results must be equal to the byte; exit code 1 if they are not. results.json keeps the digests.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tests.ablation.studies import SLOW, TWO_ARMS, Place
from tests.launchers.comparing import digest, metrics, results, weights
from tests.records import where

RESULTS = Path(__file__).with_name("results.json")
LAUNCHERS = {
    "pool": (),
    "submitit": ("--launcher", "submitit", "--cluster", "local"),
    "ray": ("--launcher", "ray"),
}
ARMS = {**TWO_ARMS, "rope": {"model.position": "rope"}, "wild": {"train.learning_rate": 1e38, "train.clip": None}}
WORKERS = 2


@dataclass(frozen=True)
class Row:
    """What a launcher made of the study.

    Args:
        launcher: `pool`, `submitit` or `ray`.
        version: Of its package.
        cells: That ended.
        files: Whose bytes are compared.
        metrics: sha256 over metrics.jsonl of all cells.
        weights: sha256 over the tensors of all checkpoints.
        results: sha256 over results.csv without what is measured.
        seconds: Of the whole, the start of a cluster included.
    """

    launcher: str
    version: str
    cells: int
    files: int
    metrics: str
    weights: str
    results: str
    seconds: float


def main() -> int:
    """Run and compare; 1 where something differs."""
    with tempfile.TemporaryDirectory(prefix="gptzoo-launchers-") as folder:
        rows = [run(laid(Path(folder)), launcher) for launcher in LAUNCHERS]
    equal = len({(row.metrics, row.weights, row.results) for row in rows}) == 1
    print(table([asdict(row) for row in rows]), end="")
    print(f"{rows[0].files} files of {rows[0].cells} cells: {'equal to the byte' if equal else 'THEY DIFFER'}")
    if equal:
        record(rows)
    return 0 if equal else 1


def laid(folder: Path) -> Place:
    """The study's text and plugin."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "text.txt").write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
    return Place(folder)


def run(place: Place, launcher: str) -> Row:
    """The study by a launcher, from the command line."""
    start = time.monotonic()
    environment = {"RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"}
    process = place.start(place.plan(ARMS), launcher, WORKERS, more=LAUNCHERS[launcher], **environment)
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{launcher} left with exit code {process.returncode}:\n{out}{errors}")
    folder = place.study(launcher)
    own = version("gptzoo" if launcher == "pool" else launcher)
    numbers, tensors = metrics(folder), weights(folder)
    seconds = round(time.monotonic() - start, 1)
    print(f"{launcher}: {len(numbers)} cells in {seconds} s", flush=True)
    return Row(
        launcher,
        own,
        len(numbers),
        len(numbers) + len(tensors),
        digest(numbers),
        digest(tensors),
        digest(results(folder)),
        seconds,
    )


def table(rows: list[dict]) -> str:
    """Digests, side by side."""
    lines = [
        f"{'launcher':9} {'version':9} {'cells':>5}  {'metrics.jsonl':13} {'weights':12} {'results.csv':12} {'s':>5}"
    ]
    for row in rows:
        digests = f"{row['metrics'][:12]:13} {row['weights'][:12]:12} {row['results'][:12]:12}"
        lines.append(f"{row['launcher']:9} {row['version']:9} {row['cells']:5}  {digests} {row['seconds']:5.0f}")
    return "\n".join(lines) + "\n"


def record(rows: list[Row]) -> None:
    """Keep what was found."""
    kept = {
        **where(),
        "launchers": [asdict(row) for row in rows],
    }
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"wrote {RESULTS.name}")
