"""Draws the READMEs' pictures: `python images/draw.py runs/positions` photographs the report of a study.

Needs a Chromium on the PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def photograph(page: Path, picture: Path, width: int = 1100, height: int = 1500) -> None:
    """A screenshot of the top of a page, in pixels."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("images/draw.py: there is no Chromium on the PATH.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                *QUIET,
                f"--user-data-dir={profile}",
                f"--window-size={width},{height}",
                f"--screenshot={picture}",
                page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python images/draw.py STUDY_FOLDER")
    photograph(Path(sys.argv[1]) / "report.html", FOLDER / "report.png")
