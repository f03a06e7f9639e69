"""What the READMEs show of the cheats: `python -m tests.cheats.table` prints it from results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


def table(results: Mapping[str, Any]) -> str:
    """One line for each kind: in how many ways it was tried, and the words that name the first."""
    cheats, width = results["cheats"], max(len(cheat["kind"]) for cheat in results["cheats"])
    lines = ["$ python -m tests.cheats"]
    for kind in dict.fromkeys(cheat["kind"] for cheat in cheats):
        own = [cheat for cheat in cheats if cheat["kind"] == kind]
        lines.append(f"{kind:{width}}  {len(own)} caught  {_short(own[0]['says'])}")
    lines.append(f"{results['kinds']} kinds in {len(cheats)} ways ({results['date']}, {results['minutes']:g} min)")
    return "\n".join(lines) + "\n"


def _short(words: str) -> str:
    """Without what stands before every such line."""
    for start in ("no verdict stands: ", "exploratory: ", "gptzoo: "):
        words = words.removeprefix(start)
    return words if len(words) <= 90 else f"{words[:87]}..."


if __name__ == "__main__":
    print(table(json.loads(RESULTS.read_text())), end="")
