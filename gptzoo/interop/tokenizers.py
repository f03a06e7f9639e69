"""The tokenizers of foreign models, as a recipe names them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptzoo.interop.config import Config, read_json

GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"
"""sha256 of the 50,000 merges of GPT-2's tokenizer, one per line."""


def tokenizer_of(folder: Path, config: Config) -> object:
    """The tokenizer of a folder, as a recipe names it; None if it is not known here."""
    values = config.values
    is_gpt2 = values.get("model_type") == "gpt2" and values.get("vocab_size", 50257) == 50257
    return "gpt2" if is_gpt2 and _uses_gpt2_tokenizer(folder) else None


def _uses_gpt2_tokenizer(folder: Path) -> bool:
    """Whether the folder's tokenizer is GPT-2's: many of other languages have as many tokens. None there counts."""
    for read in (_merges_of_text, _merges_of_json):
        merges = read(folder)
        if merges is not None:
            return hashlib.sha256("\n".join(merges).encode(errors="replace")).hexdigest() == GPT2_MERGES
    return True


def _merges_of_text(folder: Path) -> list[str] | None:
    path = folder / "merges.txt"
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line for line in lines if line and not line.startswith("#version")]


def _merges_of_json(folder: Path) -> list[str] | None:
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    model = read_json(path).get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    return [pair if isinstance(pair, str) else " ".join(map(str, pair)) for pair in merges or ()]
