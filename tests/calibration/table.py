"""What the READMEs show of the calibration: `python -m tests.calibration.table` prints it from results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


def table(results: Mapping[str, Any]) -> str:
    """A line for each noise, and one for the power of plans."""
    lines = []
    for kind, found in results.items():
        where = f"{found['studies']:,} studies a row, {found['date']}, {found['minutes']:g} min"
        if kind == "power":
            lines.append(
                f"printed power of {found['shapes']} plans: at most {100 * found['largest_gap']:.1f} points from the "
                f"simulated one, {found['questions']} questions ({where})"
            )
            continue
        looks = f" at {', '.join(map(str, found['looks']))} seeds" if "looks" in found else ""
        lines.append(f"{kind}{looks}, {found['rows']} rows ({where})")
        for noise, each in found["noises"].items():
            lines.append(
                f"  {noise:<15} family error {each['family_error']:.1%} (highest row "
                f"{each['highest_family_error']:.1%}), coverage {each['coverage']:.1%} (lowest row "
                f"{each['lowest_coverage']:.1%})"
            )
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    print(table(json.loads(RESULTS.read_text())), end="")
