"""`python -m tests.cheats`: every cheat in a copy of an honest study. Exit code 1 if one goes through.

results.json keeps, of each, what it does, what catches it and the words that a reader sees.
"""

from __future__ import annotations

import json
import os
import tempfile
import textwrap
import time
from pathlib import Path

from gptzoo.ablation.collecting import collect
from tests.cheats.desk import Desk
from tests.cheats.judging import Caught, caught
from tests.cheats.planted import CHEATS, KINDS, Cheat
from tests.records import where

RESULTS = Path(__file__).with_name("results.json")
WIDTHS = (24, 44, 30, 64)


def main() -> int:
    """Commit all of them; 1 where one goes through, or the honest study is accused."""
    os.environ["OMP_NUM_THREADS"] = "1"
    start, rows = time.time(), []
    with tempfile.TemporaryDirectory(prefix="gptzoo-cheats-") as folder:
        honest = Desk.laid(Path(folder) / "honest")
        accused = _accused(honest)
        _row("kind", "what the cheat does", "what catches it", "what a reader sees")
        for number, cheat in enumerate(sorted(CHEATS, key=lambda cheat: KINDS.index(cheat.kind))):
            found = caught(cheat, honest, Path(folder) / str(number))
            rows.append((cheat, found))
            _row(cheat.kind, cheat.what, cheat.catches if found.passed else "NOTHING", found.words or found.text)
    through = [cheat for cheat, found in rows if not found.passed]
    kinds = {cheat.kind for cheat, found in rows if found.passed} - {cheat.kind for cheat in through}
    print(f"\n{len(kinds)} of {len(KINDS)} kinds of cheats caught, in {len(rows) - len(through)} of {len(rows)} ways.")
    print(f"The honest study is {'ACCUSED: ' + accused if accused else 'accused of nothing'}.")
    if not through and not accused:
        _record(rows, time.time() - start)
    return 1 if through or accused else 0


def _accused(honest: Desk) -> str:
    """What the honest study is accused of; nothing if it is not."""
    with honest.working():
        answer, study = honest.reported(), collect(honest.study)
    said = "; ".join([study.exploratory, *study.mismatches]).strip("; ")
    return said or ("" if answer.stands else "it has no verdict")


def _row(*texts: str) -> None:
    columns = [textwrap.wrap(text, width) or [""] for text, width in zip(texts, WIDTHS, strict=True)]
    for line in range(max(map(len, columns))):
        parts = [own[line] if line < len(own) else "" for own in columns]
        print("  ".join(f"{part:{width}}" for part, width in zip(parts, WIDTHS, strict=True)).rstrip(), flush=True)


def _record(rows: list[tuple[Cheat, Caught]], seconds: float) -> None:
    kept = {
        **where(),
        "minutes": round(seconds / 60, 1),
        "kinds": len(KINDS),
        "cheats": [
            {"kind": cheat.kind, "what": cheat.what, "caught_by": cheat.catches, "says": found.words}
            for cheat, found in rows
        ],
    }
    RESULTS.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    print(f"wrote {RESULTS.name}")
