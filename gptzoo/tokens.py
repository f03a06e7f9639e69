"""From documents to batches: tokenize once into a memory-mapped file, then cut windows as pure functions.

The file is found again by its content (raw text, tokenizer, format version), so that an edited corpus or another
tokenizer can never meet old tokens. The order of the windows is a pure function of (seed, epoch), drawn from the raw
bits of a counter-based generator, which NumPy keeps the same in all versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gptzoo.contracts import Batch, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.files import (
    canonical_json,
    make_folder,
    remove,
    sha256_of,
    temporary_name,
    write_atomically,
    write_new,
    writing,
)
from gptzoo.seeds import stable_seed

FORMAT = 1
"""Raised whenever the same corpus and tokenizer would give other tokens; part of the content key."""

_STARTS = np.dtype("<i8")
_PIECE = 1 << 20  # characters that are in memory a second time while a document is hashed

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """A tokenized corpus: each document is followed by the tokenizer's end token, if it has one.

    Args:
        key: The content key.
        stream: uint16 or uint32 (tokens,), memory-mapped.
        starts: int64 (documents,), memory-mapped: where each document starts in the stream.
    """

    key: str
    stream: np.ndarray
    starts: np.ndarray


def open_tokens(read: Callable[[], Iterable[str]], tokenizer: Tokenizer) -> Tokens:
    """The tokens of a corpus, from the cache if they are there. Documents without a token are dropped.

    Args:
        read: Gives the documents, the same ones each time; they are read one by one, once to find the tokens and once
            more to make them.
        tokenizer: Fitted or loaded.

    Raises:
        GPTZooError: The corpus cannot be read or changes meanwhile, or the cache cannot be written.
        NoSpace: The disk is full.
    """
    key = content_key(documents_of(read), tokenizer)
    files = _Files(cache_folder(), key, _dtype(tokenizer))
    return files.open() or files.make(documents_of(read), tokenizer)


def cache_folder() -> Path:
    """Where tokens are kept: `tokens/` in `GPTZOO_CACHE`, or in `~/.cache/gptzoo`."""
    return Path(os.environ.get("GPTZOO_CACHE") or "~/.cache/gptzoo").expanduser() / "tokens"


def documents_of(read: Callable[[], Iterable[str]]) -> Iterator[str]:
    """The documents that hold text.

    Raises:
        GPTZooError: The corpus cannot be read.
    """
    try:
        yield from (text for text in read() if text)
    except OSError as error:
        raise GPTZooError(f"the corpus cannot be read: {error}.", "data") from error


def content_key(documents: Iterable[str], tokenizer: Tokenizer) -> str:
    """sha256 over the format version, the tokenizer's fingerprint and the documents, in order."""
    digest = _key_digest(tokenizer)
    for text in documents:
        digest.update(_digest_of(text))
    return digest.hexdigest()


def train_rows(length: int, context_length: int) -> int:
    """Rows of an epoch over `length` tokens. The same for each phase, hence one fewer than would fit without one."""
    return max(1, length // context_length - 1) if length > context_length else 0


def train_starts(length: int, context_length: int, seed: int, epoch: int) -> np.ndarray:
    """Where the windows of an epoch start, in the order of training: int64 (train_rows,).

    The windows tile the stream from a phase in [0, context_length), which is 0 in epoch 0.
    """
    rows = train_rows(length, context_length)
    bits = np.random.Philox(key=stable_seed(seed, "data", epoch)).random_raw(rows + 1)
    phases = min(context_length, length - rows * context_length)
    phase = int(bits[0] % phases) if epoch else 0
    return phase + context_length * np.argsort(bits[1:], kind="stable")


def val_starts(first: int, length: int, context_length: int, key: str) -> np.ndarray:
    """Where the validation windows start, in an order that depends on the data alone: int64 (rows,).

    Args:
        first: Where the validation tokens start in the stream.
        length: How many there are.
    """
    rows = max(0, (length - 1) // context_length)
    bits = np.random.Philox(key=stable_seed("val", key)).random_raw(rows)
    return first + context_length * np.argsort(bits, kind="stable")


def windows(tokens: Tokens, starts: np.ndarray, context_length: int, documents: bool = False) -> Batch:
    """The rows that start at `starts` (B,): inputs, and as targets the same places one token later.

    Args:
        documents: Keep documents apart: their numbers in the row, positions from the first token of each in the row,
            and no target across a border. Otherwise a row is one document.
    """
    places = starts[:, None] + np.arange(context_length + 1)  # (B, T + 1)
    rows = torch.from_numpy(tokens.stream[places].astype(np.int64))
    inputs, targets = rows[:, :-1].clone(), rows[:, 1:].clone()  # a view of one row would count as contiguous
    if not documents:
        pos = torch.arange(context_length).repeat(len(starts), 1)
        return Batch(inputs, targets, pos, torch.zeros_like(pos))
    owner = np.searchsorted(tokens.starts, places, side="right") - 1  # (B, T + 1)
    begin = np.maximum(tokens.starts[owner], starts[:, None])
    targets[torch.from_numpy(owner[:, 1:] != owner[:, :-1])] = -100
    pos = torch.from_numpy((places - begin)[:, :-1].copy())
    return Batch(inputs, targets, pos, torch.from_numpy((owner - owner[:, :1])[:, :-1].copy()))


@dataclass(frozen=True)
class _Files:
    """The files of one tokenized corpus: tokens and starts, and beside them their sizes and hashes, written last."""

    folder: Path
    key: str
    dtype: np.dtype

    def path(self, kind: str) -> Path:
        return self.folder / f"{self.key}.{kind}"

    def open(self) -> Tokens | None:
        """What the cache holds, verified; None if there is nothing or if it is damaged."""
        try:
            facts = json.loads(self.path("json").read_bytes())
            return self._mapped(facts)
        except FileNotFoundError:
            if not self.path("json").exists():
                return None
            damage = "a file is missing"
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage = str(error) if isinstance(error, _DamageError) else "it cannot be read"
        _log.warning("%s: the cached tokens are damaged (%s); tokenizing again.", self.path("tokens"), damage)
        return None

    def make(self, documents: Iterable[str], tokenizer: Tokenizer) -> Tokens:
        """Tokenize into the cache. Two processes may do so at once: both write the same."""
        make_folder(self.folder)
        making = _Making(tokenizer, self.dtype)
        tokens = self._write("tokens", making.rows(documents))
        if making.digest.hexdigest() != self.key:
            raise GPTZooError("the corpus changed while it was being read. Start again.", "data")
        if not making.total:
            remove(self.path("tokens"))
            return Tokens(self.key, np.zeros(0, self.dtype), np.zeros(0, _STARTS))
        starts = self._write("starts", [np.array(making.starts, _STARTS).tobytes()])
        facts = {"tokens": tokens, "starts": starts}
        write_atomically(self.path("json"), canonical_json(facts).encode())
        return self._mapped(facts)

    def _write(self, kind: str, parts: Iterable[bytes]) -> list[int | str]:
        path = self.path(kind)
        temporary = temporary_name(path)
        with writing(path, undo=lambda: remove(temporary)):
            facts = write_new(temporary, parts)
            os.replace(temporary, path)
        return list(facts)

    def _mapped(self, facts: dict[str, list[int | str]]) -> Tokens:
        for kind in ("tokens", "starts"):
            path, (size, sha256) = self.path(kind), facts[kind]
            if path.stat().st_size != size:
                raise _DamageError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
            if sha256_of(path) != sha256:
                raise _DamageError(f"{path.name} has another sha256")
        stream = np.asarray(np.memmap(self.path("tokens"), self.dtype, "r"))
        return Tokens(self.key, stream, np.asarray(np.memmap(self.path("starts"), _STARTS, "r")))


class _DamageError(ValueError):
    """A cached file is not what was written."""


class _Making:
    """What is counted while the documents pass by."""

    def __init__(self, tokenizer: Tokenizer, dtype: np.dtype) -> None:
        self.tokenizer, self.dtype = tokenizer, dtype
        self.digest = _key_digest(tokenizer)
        self.starts = array("q")
        self.total = 0
        end = [] if tokenizer.end is None else [tokenizer.end]
        self.end = self._row(end)

    def rows(self, documents: Iterable[str]) -> Iterator[bytes]:
        """The bytes of the token file, piece by piece."""
        for text in documents:
            self.digest.update(_digest_of(text))
            start = self.total
            for piece in _pieces(self.tokenizer, text):
                yield self._count(self._row(self.tokenizer.encode(piece)))
            if self.total > start:
                self.starts.append(start)
                yield self._count(self.end)

    def _count(self, row: np.ndarray) -> bytes:
        self.total += len(row)
        return row.tobytes()

    def _row(self, tokens: list[int]) -> np.ndarray:
        row = np.array(tokens, np.int64)
        if len(row) and not 0 <= row.min() <= row.max() < self.tokenizer.vocab_size:
            wrong = int(row.min()) if row.min() < 0 else int(row.max())
            name, size = type(self.tokenizer).__name__, self.tokenizer.vocab_size
            raise GPTZooError(f"{name} gives token {wrong}, outside of its vocab_size of {size}.", "data.tokenizer")
        return row.astype(self.dtype)


def _pieces(tokenizer: Tokenizer, text: str) -> Iterable[str]:
    """A document in pieces that may be encoded apart, where the tokenizer can tell: `pieces(text)` is optional."""
    pieces = getattr(tokenizer, "pieces", None)
    return [text] if pieces is None else pieces(text)


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.vocab_size <= 65536 else "<u4")


def _key_digest(tokenizer: Tokenizer) -> hashlib._Hash:
    head = canonical_json(["gptzoo tokens", FORMAT, tokenizer.fingerprint()])
    return hashlib.sha256(hashlib.sha256(head.encode()).digest())


def _digest_of(text: str) -> bytes:
    """sha256 of a document; its length is fixed, so that no two lists of documents look alike."""
    digest = hashlib.sha256()
    for start in range(0, len(text), _PIECE):
        digest.update(text[start : start + _PIECE].encode("utf-8", "surrogatepass"))
    return digest.digest()
