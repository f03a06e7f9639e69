"""What the READMEs show of the laws: `python -m tests.laws.table` prints it from results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
KINDS = {"triple": "position x attention x kernel", "pair": "pairs of norm, block, MLP and head", "random": "at random"}


def table(results: Mapping[str, Any]) -> str:
    """Three sections, each with the day, the machine and the minutes it took."""
    lines = ["$ python -m tests.laws"]
    if "parts" in results:
        p = results["parts"]
        lines.append(
            f"parts   {p['parts']} parts under {p['under_options']} settings: {p['laws_tried']:,} laws in "
            f"{p['cases']:,} cases, {p['failed']} broken{_when(p)}"
        )
    if "matrix" in results:
        m = results["matrix"]
        lines += [f"matrix  {title}: {_counts(m[kind])}{_when(m)}" for kind, title in KINDS.items()]
    if "bugs" in results:
        b = results["bugs"]
        lines.append(f"bugs    {b['planted']} planted, {b['caught']} caught{_when(b)}")
    return "\n".join(lines) + "\n"


def _counts(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{outcomes.get(name, 0):,} {name}" for name in ("passed", "refused", "failed"))


def _when(section: Mapping[str, Any]) -> str:
    return f" ({section['date']}, {section['minutes']:g} min)"


if __name__ == "__main__":
    print(table(json.loads(RESULTS.read_text())), end="")
