"""The tokenizers of foreign models, as a recipe names them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gptzoo.contracts import Tokenizer
from gptzoo.interop.config import Config, read_json
from gptzoo.interop.folder import write_json

TOKENIZER = "tokenizer.json"

GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"
"""sha256 of the 50,000 merges of GPT-2's tokenizer, one per line."""


def tokenizer_of(folder: Path, config: Config) -> object:
    """The tokenizer of a folder, as a recipe names it; None if it is not known here."""
    values = config.values
    is_gpt2 = values.get("model_type") == "gpt2" and values.get("vocab_size", 50257) == 50257
    if is_gpt2 and _uses_gpt2_tokenizer(folder):
        return "gpt2"
    if not (folder / TOKENIZER).exists():
        return None
    end = _end_of(folder, config)
    return {"name": "tokenizer_json", "path": str(folder / TOKENIZER), **({} if end is None else {"end": end})}


def _end_of(folder: Path, config: Config) -> str | None:
    """The token between documents, as it is spelled: what the tokenizer's config says, or else the model's."""
    options = folder / "tokenizer_config.json"
    end = read_json(options).get("eos_token") if options.exists() else None
    end = end.get("content") if isinstance(end, dict) else end
    if isinstance(end, str):
        return end
    number = config.values.get("eos_token_id")
    number = number[0] if isinstance(number, list) and number else number
    return _spelling(read_json(folder / TOKENIZER), number)


def _spelling(tokenizer: dict[str, object], number: object) -> str | None:
    """A token of a tokenizer.json by its number."""
    added, model = tokenizer.get("added_tokens"), tokenizer.get("model")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and token.get("id") == number and isinstance(token.get("content"), str):
            return token["content"]
    vocab = model.get("vocab") if isinstance(model, dict) else None
    found = (token for token, each in vocab.items() if each == number) if isinstance(vocab, dict) else iter(())
    return next(found, None)


def write_tokenizer(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write the files of a tokenizer as transformers reads them; its own files, if it is none that transformers has."""
    made = tokenizer.as_json()
    if made is None:
        tokenizer.save(folder)
        return
    added = made["added_tokens"]
    assert isinstance(added, list)
    end = next((token["content"] for token in added if token["id"] == tokenizer.end), None)
    write_json(folder / TOKENIZER, made)
    options = {"model_max_length": context_length, "clean_up_tokenization_spaces": False}
    ends = {} if end is None else {"bos_token": end, "eos_token": end}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **ends, **options})


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
    path = folder / TOKENIZER
    if not path.exists():
        return None
    model = read_json(path).get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    return [pair if isinstance(pair, str) else " ".join(map(str, pair)) for pair in merges or ()]
