"""`python -m tests.calibration`: 10,000 simulated studies per row, with and without looks, and the power of plans.

python -m tests.calibration                         all of it, some minutes; results.json keeps what was found
python -m tests.calibration --study runs/positions  and with noise resampled from a study's own runs of its baseline
python -m tests.calibration --studies 500           quicker, and not recorded
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gptzoo.ablation.calibration import Calibration, Row, Shape, calibrate
from gptzoo.ablation.collecting import runs_of_baseline
from gptzoo.ablation.trials import put_to_trial
from tests.calibration.table import RESULTS, table
from tests.records import record, where

STUDIES = 10_000
POWER_STUDIES = 4000
"""As `gptzoo ablate power` simulates: a share is known to one point."""

LOOKS = (3, 5, 8, 12)
SEEDS = (3, 5, 8)
ARMS = (2, 4, 8)
FAMILY_ERROR, COVERAGE = (0.03, 0.055), (0.93, 0.97)
"""What is promised of normal noise, all rows together; with looks the family error may be lower, coverage higher."""

APART = 0.05
"""How far the power that a plan prints may lie from that of simulated studies."""


def main() -> int:
    """Run it; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration")
    parser.add_argument("--studies", type=int, default=STUDIES, help="simulated studies per row")
    parser.add_argument("--study", type=Path, help="a study's folder: resample its runs of the baseline, too")
    options = parser.parse_args()
    runs = runs_of_baseline(options.study) if options.study else []
    broken = []
    for kind, find in SECTIONS.items():
        start = time.time()
        section = find(options.studies, runs)
        if not section:
            continue
        minutes = round((time.time() - start) / 60, 1)
        full = {**where(), "studies": options.studies, **section, "minutes": minutes}
        print(table({kind: full}), end="", flush=True)
        broken += [f"{kind}: {each}" for each in section["broken"]]  # type: ignore[attr-defined]
        if options.studies >= STUDIES:
            record(RESULTS, kind, full)
    print("\n".join(f"BROKEN {each}" for each in broken) or "every promise is kept")
    return 1 if broken else 0


def _without_looks(studies: int, _: list[float]) -> dict[str, object]:
    made = calibrate(arms=ARMS, seeds=SEEDS, studies=studies)
    return {**_pooled(made), "broken": _broken(made, FAMILY_ERROR, COVERAGE)}


def _with_looks(studies: int, _: list[float]) -> dict[str, object]:
    made = calibrate(arms=ARMS, looks=LOOKS, studies=studies)
    limits = (0.0, FAMILY_ERROR[1]), (COVERAGE[0], 1.0)
    return {"looks": list(LOOKS), **_pooled(made), "broken": _broken(made, *limits)}


def _resampled(studies: int, runs: list[float]) -> dict[str, object]:
    """The noise of real trainings; few runs are a coarse noise, so that it is shown, not judged."""
    if not runs:
        return {}
    made = calibrate(arms=ARMS, seeds=SEEDS, noise=(), studies=studies, runs=runs)
    return {"runs": len(runs), **_pooled(made), "broken": []}


def _power(studies: int, _: list[float]) -> dict[str, object]:
    """The largest gap over plans of 2, 4 and 8 arms, with three or five seeds or with looks, and delta or none."""
    shapes = [Shape(k, n, delta=delta) for k in ARMS for n in SEEDS for delta in (None, 1.5)]
    shapes += [Shape(k, LOOKS[-1], looks=LOOKS, delta=delta) for k in ARMS for delta in (None, 1.5)]
    studies = min(studies, POWER_STUDIES)
    trials = [put_to_trial(shape, title="", studies=studies) for shape in shapes]
    gap, questions = max(each.largest for each in trials), sum(len(each.trials) for each in trials)
    broken = [f"printed power is {gap:.1%} apart"] if gap > APART else []
    return {
        "studies": studies,
        "shapes": len(shapes),
        "questions": questions,
        "largest_gap": round(gap, 4),
        "broken": broken,
    }


SECTIONS: Mapping[str, Callable[[int, list[float]], dict[str, object]]] = {
    "one analysis": _without_looks,
    "with looks": _with_looks,
    "own runs": _resampled,
    "power": _power,
}


def _pooled(made: Calibration) -> dict[str, object]:
    """By noise: all rows together, and the worst of them."""
    return {
        "rows": len(made.rows),
        "noises": {noise: _summary([r for r in made.rows if r.noise == noise]) for noise in _noises(made)},
    }


def _summary(rows: list[Row]) -> dict[str, float]:
    return {
        "family_error": round(sum(r.family_error for r in rows) / len(rows), 4),
        "highest_family_error": round(max(r.family_error for r in rows), 4),
        "coverage": round(sum(r.coverage for r in rows) / len(rows), 4),
        "lowest_coverage": round(min(r.coverage for r in rows), 4),
    }


def _noises(made: Calibration) -> list[str]:
    return list(dict.fromkeys(row.noise for row in made.rows))


def _broken(made: Calibration, family_error: tuple[float, float], coverage: tuple[float, float]) -> list[str]:
    """What normal noise breaks of the promises."""
    found = _summary([row for row in made.rows if row.noise == "normal"])
    limits = {"family_error": family_error, "coverage": coverage}
    return [
        f"{name} is {found[name]:.2%}, promised: {low:.1%} to {high:.1%}"
        for name, (low, high) in limits.items()
        if not low <= found[name] <= high
    ]


if __name__ == "__main__":
    sys.exit(main())
