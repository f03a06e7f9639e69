"""Any tokenizer of Hugging Face: a `tokenizer.json`, run by their library `tokenizers`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import gptzoo

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how tokenizers with a byte fallback spell a byte


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the tokenizer."""
    zoo.tokenizer("tokenizer_json", TokenizerJson)


class TokenizerJson(gptzoo.Tokenizer):
    """What a tokenizer.json says. Its file goes with the run, so that the path is needed only once.

    Source: the library `tokenizers`. Text comes back as it was from tokenizers over bytes (GPT-2, Llama 3, SmolLM); a
    file that normalizes (Qwen's NFC) or has an unknown token changes text, here as elsewhere.

    Args:
        path: The file, or a folder that holds it; unless given, a tokenizer of the 256 bytes.
        end: The token between documents, as the file spells it: `<|endoftext|>`.
        special: Whether special tokens that are spelled out in a text are special; otherwise they are ordinary text.
    """

    learned = True
    examples = ({"end": "<|endoftext|>"},)

    def __init__(self, path: str = "", end: str | None = None, special: bool = False) -> None:
        self.path, self.end_text, self.special = path, end, special

    @property
    def vocab_size(self) -> int:  # type: ignore[override]
        """Token numbers are below this."""
        return 1 + max(self._library.get_vocab(with_added_tokens=True).values())

    @property
    def end(self) -> int | None:  # type: ignore[override]
        """The token between documents."""
        return None if self.end_text is None else self._library.token_to_id(self.end_text)

    def encode(self, text: str) -> list[int]:
        return self._library.encode(gptzoo.valid_unicode(text), add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        end = self.end
        return self._library.decode([token for token in tokens if token != end], skip_special_tokens=not self.special)

    def byte_lengths(self) -> np.ndarray:
        lengths = np.zeros(self.vocab_size, np.int64)
        over_bytes = isinstance(self._library.decoder, _byte_level())
        for token, number in self._library.get_vocab(with_added_tokens=False).items():
            lengths[number] = len(token) if over_bytes else _utf8_length(token)
        for number, token in self._library.get_added_tokens_decoder().items():
            lengths[number] = 0 if token.special else len(token.content.encode())
        return lengths

    def fingerprint(self) -> str:
        facts = json.dumps([self.as_json(), self.end_text, self.special], sort_keys=True)
        return f"tokenizer_json:{hashlib.sha256(facts.encode()).hexdigest()}"

    def as_json(self) -> dict[str, object]:
        return json.loads(self._library.to_str())

    def save(self, folder: str | os.PathLike[str]) -> None:
        Path(folder, FILE).write_text(self._library.to_str(), encoding="utf-8")

    def load(self, folder: str | os.PathLike[str]) -> None:
        """Read the file that `save` wrote.

        Raises:
            GPTZooError: It is missing, or no tokenizer.
        """
        self.__dict__["_library"] = self._read(Path(folder, FILE))

    @cached_property
    def _library(self) -> tokenizers.Tokenizer:
        if not self.path:
            return self._made(json.dumps(gptzoo.Byte().as_json()), Path(FILE))
        path = Path(self.path).expanduser()
        return self._read(path / FILE if path.is_dir() else path)

    def _read(self, file: Path) -> tokenizers.Tokenizer:
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise gptzoo.GPTZooError(f"there is no such file. Name a {FILE}.", str(file)) from error
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split()).rstrip(".")[:200]
            raise gptzoo.GPTZooError(f"this is no tokenizer that can be read: {why}.", str(file)) from error
        return self._made(text, file)

    def _made(self, text: str, file: Path) -> tokenizers.Tokenizer:
        try:
            import tokenizers  # late: it is an extra
        except ImportError as error:
            what = "tokenizer_json needs the package tokenizers: pip install gptzoo[hf]. Or name another tokenizer."
            raise gptzoo.GPTZooError(what, "data.tokenizer") from error
        try:
            made = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises a bare Exception
            why = " ".join(str(error).split()).rstrip(".")[:200]
            raise gptzoo.GPTZooError(f"this is no tokenizer that can be read: {why}.", str(file)) from error
        made.encode_special_tokens = not self.special
        made.no_truncation()
        made.no_padding()
        if self.end_text is not None and made.token_to_id(self.end_text) is None:
            what = f"it has no token {self.end_text!r}. Name one that it has, or null."
            raise gptzoo.GPTZooError(what, "data.tokenizer.end")
        return made


def _byte_level() -> type:
    from tokenizers.decoders import ByteLevel

    return ByteLevel


def _utf8_length(token: str) -> int:
    """Bytes of text that a token of SentencePiece's kind stands for."""
    return 1 if _BYTE.fullmatch(token) else len(token.replace("\u2581", " ").encode())
