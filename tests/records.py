"""Dated records of commands that take too long for every change: where they were made, and when."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path


def where() -> dict[str, object]:
    """The day, the commit and the machine."""
    import torch

    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    return {"date": date.today().isoformat(), "commit": done.stdout.strip(), "machine": machine}


def record(path: Path, kind: str, section: Mapping[str, object]) -> None:
    """Put a section into a file of records, beside the others."""
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, kind: section}, indent=2) + "\n")
    print(f"wrote {path.name}: {kind}")
