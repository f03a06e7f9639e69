"""Parts that read files get some to read: examples for the laws, in a folder of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gptzoo.registry import Zoo

POEM = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"


def with_text(zoo: Zoo) -> Zoo:
    """The zoo, with a path in the examples of `text` and `huggingface`."""
    folder = Path(tempfile.mkdtemp(prefix="gptzoo-laws-"))
    (folder / "poem.txt").write_text("".join(f"{i}. {POEM}" for i in range(400)))
    rows = "".join(f'{{"text": "{i}. To be, or not to be, that is the question."}}\n' for i in range(400))
    (folder / "rows.jsonl").write_text(rows)
    for name, options in {
        "text": ({"path": str(folder / "poem.txt")}, {"path": str(folder / "poem.txt"), "documents": True}),
        "huggingface": ({"path": str(folder)},),
    }.items():
        if name in zoo.names("data"):
            zoo.get("data", name).factory.examples = options  # type: ignore[attr-defined]
    return zoo
