"""What the READMEs show of the launchers: `python -m tests.launchers.table` prints it from results.json."""

from __future__ import annotations

import json

from tests.launchers.running import RESULTS, table

if __name__ == "__main__":
    kept = json.loads(RESULTS.read_text())
    first = kept["launchers"][0]
    print(f"$ python -m tests.launchers\n{table(kept['launchers'])}", end="")
    print(f"{first['files']} files of {first['cells']} cells: equal to the byte ({kept['date']})")
