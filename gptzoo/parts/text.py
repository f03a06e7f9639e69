"""Text on disk as training data, and the base class of all data that is a stream of tokens."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from gptzoo.contracts import Batch, Data, Tokenizer
from gptzoo.errors import GPTZooError, did_you_mean, raise_all
from gptzoo.files import canonical_json
from gptzoo.tokens import documents_of, open_tokens, train_rows, train_starts, val_starts, windows


class TokenStream(Data):
    """Data that is a stream of documents, tokenized once; a subclass supplies only `read_documents`.

    Each document is followed by the end token, and rows are windows that tile the stream. Training takes the windows in
    an order and from a phase that are drawn anew for each epoch. The constructor reads the corpus: a subclass sets its
    own attributes first.

    Args:
        tokenizer: A learned one that has no `vocab_size` yet is fitted on the documents.
        context_length: Tokens in a row.
        documents: Keep documents apart, rather than treat each row as one document.
        val_fraction: Share of the tokens, the last ones, that is kept for validation.

    Raises:
        GPTZooError: The corpus is empty, or too small for one row in each split.

    Attributes:
        tokens: The whole stream.
        train_tokens: How many of its tokens are for training; the rest are for validation.
    """

    where = "data"
    """Where it stands in a recipe, for messages."""
    source = "the corpus"
    """What it reads, for messages."""

    def __init__(
        self, tokenizer: Tokenizer, context_length: int, documents: bool = False, val_fraction: float = 0.1
    ) -> None:
        if not 0 < val_fraction < 1:
            raise GPTZooError(f"{val_fraction} is not above 0 and below 1.", "data.val_fraction")
        self.tokenizer, self.context_length, self.val_fraction = tokenizer, context_length, val_fraction
        self._documents = documents
        if tokenizer.learned and not hasattr(tokenizer, "vocab_size"):
            tokenizer.fit(documents_of(self.read_documents))
        self.tokens = open_tokens(self.read_documents, tokenizer)
        total = len(self.tokens.stream)
        self.train_tokens = total - int(total * val_fraction)
        self._refuse_too_small()
        self._val = val_starts(self.train_tokens, total - self.train_tokens, context_length, self.tokens.key)
        self._epoch: tuple[object, np.ndarray] = (None, self._val)

    def read_documents(self) -> Iterator[str]:
        """The documents, one by one: the same ones in the same order at each call."""
        raise TypeError(f"{type(self).__name__} defines no read_documents")

    @property
    def key(self) -> str:
        """Changes with the text, the tokenizer, `documents` and `val_fraction`; not with `context_length`."""
        facts = canonical_json([self.tokens.key, self.documents, self.val_fraction])
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def documents(self) -> bool:
        return self._documents

    def sequences(self, split: str) -> int:
        assert split in ("train", "val"), split
        return train_rows(self.train_tokens, self.context_length) if split == "train" else len(self._val)

    def batch(self, split: str, seed: int, step: int, size: int) -> Batch:
        """Rows `step * size` to `(step + 1) * size - 1`; in `val`, fewer where these are the last ones."""
        assert split in ("train", "val"), split
        assert step >= 0 < size, (step, size)
        first = step * size
        starts = self._train_starts(seed, first, size) if split == "train" else self._val[first : first + size]
        assert len(starts), f"val has {len(self._val)} rows, none from {first} on"
        return windows(self.tokens, starts, self.context_length, self.documents)

    def _train_starts(self, seed: int, first: int, size: int) -> np.ndarray:
        rows = self.sequences("train")
        taken: list[np.ndarray] = []
        while size > 0:
            epoch, row = divmod(first, rows)
            taken.append(self._order(seed, epoch)[row : row + size])
            first, size = first + len(taken[-1]), size - len(taken[-1])
        return np.concatenate(taken)

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        key, starts = self._epoch  # one tuple, so that a second thread sees a key with its own order
        if key != (seed, epoch):
            starts = train_starts(self.train_tokens, self.context_length, seed, epoch)
            self._epoch = ((seed, epoch), starts)
        return starts

    def _refuse_too_small(self) -> None:
        total, need = len(self.tokens.stream), self.context_length + 1
        if not total:
            raise GPTZooError(f"{self.source} holds no text.", self.where)
        raise_all(
            [
                GPTZooError(
                    f"{self.source} gives {have} tokens for {use}, and context_length {self.context_length} needs at "
                    f"least {need}. Give more text, a smaller context_length or {remedy}.",
                    self.where,
                )
                for have, use, remedy in (
                    (self.train_tokens, "training", "a smaller val_fraction"),
                    (total - self.train_tokens, "validation", "a larger val_fraction"),
                )
                if have < need
            ]
        )


class Text(TokenStream):
    """Text files, folders or globs of them; each file is a document.

    A folder gives all files below it that are not hidden, in sorted order; so does a glob, `**` included. Several paths
    are taken in the order given, and a file that comes twice only once. Files are UTF-8; a byte order mark and empty
    files are dropped, line ends are kept.

    Args:
        path: A file, folder or glob, or a list of them; `~` is the home folder.
        documents: Keep files apart, rather than treat each row as one document.
        val_fraction: Share of the tokens, the last ones, that is kept for validation.

    Raises:
        GPTZooError: A path leads nowhere, a file is not UTF-8 text, or the corpus is too small.
    """

    where = "data.path"

    def __init__(
        self,
        tokenizer: Tokenizer,
        context_length: int,
        path: str | list[str],
        documents: bool = False,
        val_fraction: float = 0.1,
    ) -> None:
        self.path = path
        self.source = ", ".join(map(repr, _listed(path)))
        self.files = find_files(path)
        super().__init__(tokenizer, context_length, documents, val_fraction)

    def read_documents(self) -> Iterator[str]:
        return (read_text(file) for file in self.files)


def find_files(path: str | list[str]) -> list[Path]:
    """The files that paths, folders and globs name; each once.

    Raises:
        GPTZooError: One of them names none. All such problems are reported at once.
    """
    found: dict[Path, Path] = {}
    problems: list[GPTZooError] = []
    for each in _listed(path) or [""]:
        try:
            for file in _files_of(each):
                found.setdefault(file.resolve(), file)
        except GPTZooError as problem:
            problems.append(problem)
        except OSError as error:
            problems.append(GPTZooError(f"{each!r} cannot be read: {error.strerror}.", "data.path"))
    raise_all(problems)
    return list(found.values())


def read_text(file: Path) -> str:
    """A file's text.

    Raises:
        GPTZooError: It is not UTF-8, or holds a NUL; the byte is named.
    """
    data = file.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _not_text(file, f"not UTF-8 at byte {error.start}") from error
    if (at := data.find(0)) >= 0:
        raise _not_text(file, f"a NUL at byte {at}")
    return text.removeprefix("\ufeff")


def _listed(path: str | list[str]) -> list[str]:
    return [path] if isinstance(path, str) else path


def _files_of(path: str) -> list[Path]:
    if not path:
        raise GPTZooError("no path is given. Name a file, a folder or a glob.", "data.path")
    here = Path(path).expanduser()
    if here.is_dir():
        found = _files_under(here)
    elif here.is_file():
        found = [here]
    elif here.exists():
        raise GPTZooError(f"{path!r} is neither a file nor a folder.", "data.path")
    elif glob.has_magic(path):
        found = sorted(file for name in glob.iglob(str(here), recursive=True) if (file := Path(name)).is_file())
    else:
        raise _missing(here, path)
    if not found:
        raise GPTZooError(f"{path!r} gives no files.", "data.path")
    return found


def _files_under(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error  # os.walk would pass over an unreadable folder without a word

    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.is_file())


def _missing(here: Path, path: str) -> GPTZooError:
    """Close matches stand where the path breaks off: the first of its parts that does not exist."""
    parents = [here, *here.parents]
    broken = next(part for part, parent in pairwise(parents) if parent.is_dir())
    hint = did_you_mean(broken.name, sorted(os.listdir(broken.parent)))
    return GPTZooError(f"there is no file or folder {path!r}.{hint}", "data.path")


def _not_text(file: Path, why: str) -> GPTZooError:
    remedy = "Convert it to UTF-8 text, or leave it out of data.path with a glob such as '**/*.txt'"
    return GPTZooError(f"this is not UTF-8 text: {why}. {remedy}.", str(file))
