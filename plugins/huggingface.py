"""Data sets of the Hugging Face hub, or of a folder laid out like one."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import gptzoo

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

USUAL = ("{text}", "{instruction}{answer}")
"""Templates that are tried where none is given, in this order."""


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register the data."""
    zoo.data("huggingface", HuggingFace)


class HuggingFace(gptzoo.TokenStream):
    """A data set by `datasets.load_dataset`; each of its rows is a document.

    The tokens are kept, so that only the text is read again when a training starts. Nothing of a data set is ever run.

    Args:
        path: A name on the hub, such as `ozlobin/simple_algebra_1m`, or a folder.
        config: Which of its configurations, if it has several.
        split: The split to read; `train[:10%]` is a part of it.
        text: How a row becomes text: a template of columns, `{instruction}{answer}`. Unless given, the column `text`,
            or `instruction` followed by `answer`.
        streaming: Read from the network as it goes, without a copy on disk; once to find the tokens of earlier
            trainings, once more to make them.
        max_documents: Rows, at most; the first ones.
        documents: Keep documents apart, rather than treat each row of a batch as one.
        val_fraction: Share of the tokens, the last ones, that is kept for validation.

    Raises:
        GPTZooError: The data set cannot be had, lacks a column, or is too small.
    """

    options_beside_results = ("streaming",)  # the same rows, read another way

    where = "data.path"

    def __init__(
        self,
        tokenizer: gptzoo.Tokenizer,
        context_length: int,
        path: str,
        config: str | None = None,
        split: str = "train",
        text: str | None = None,
        streaming: bool = False,
        max_documents: int | None = None,
        documents: bool = False,
        val_fraction: float = 0.1,
    ) -> None:
        if max_documents is not None and max_documents < 1:
            raise gptzoo.GPTZooError(f"{max_documents} is not at least 1.", "data.max_documents")
        self.source = repr(path)
        self.path, self.max_documents = path, max_documents
        self.rows = _load(path, config, split, streaming)
        self.text = _checked(text, _columns(self.rows))
        super().__init__(tokenizer, context_length, documents, val_fraction)

    def read_documents(self) -> Iterator[str]:
        """The rows as text.

        Raises:
            GPTZooError: A row cannot be read, as where the network fails.
        """
        names = _names(self.text)
        try:
            for row in islice(self.rows.select_columns(names), self.max_documents):
                yield self.text.format_map({name: "" if row[name] is None else row[name] for name in names})
        except Exception as error:  # whatever the reader of some file format raises
            raise _unreadable(self.path, error) from error


def _load(path: str, config: str | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    from datasets import load_dataset  # late: it costs a second

    if not path:
        raise gptzoo.GPTZooError("no data set is named. Give a name on the hub or a folder.", "data.path")
    try:
        return load_dataset(path, config, split=split, streaming=streaming)
    except Exception as error:  # of datasets, huggingface_hub, its HTTP library or pyarrow
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> gptzoo.GPTZooError:
    why = next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
    what = f"the data set {path!r} cannot be read: {why}."
    return gptzoo.GPTZooError(f"{what} Check the name and the network, or name a folder.", "data.path")


def _columns(rows: Dataset | IterableDataset) -> list[str]:
    """The columns; of a stream that does not say, those of its first row."""
    return list(rows.column_names or next(iter(rows), {}))


def _checked(text: str | None, columns: Sequence[str]) -> str:
    """The template, or the first usual one for which there are columns."""
    if text is None:
        text = next((each for each in USUAL if set(_names(each)) <= set(columns)), None)
        if text is None:
            what = f"there is no column 'text' among {', '.join(columns)}. Say how a row becomes text, {{{columns[0]}}}"
            raise gptzoo.GPTZooError(f"{what}.", "data.text")
    names = _names(text)
    if not names:
        raise gptzoo.GPTZooError(f"{text!r} names no column. Write one in braces: {{{columns[0]}}}.", "data.text")
    for name in names:
        if name not in columns:
            raise gptzoo.GPTZooError(f"there is no column {name!r}. It has {', '.join(columns)}.", "data.text")
    return text


def _names(text: str) -> list[str]:
    """The columns of a template.

    Raises:
        GPTZooError: It is not a template of plain columns.
    """
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise gptzoo.GPTZooError(
            f"{text!r} is no template: {error}. Write a brace itself twice.", "data.text"
        ) from error
    names = []
    for _, name, form, conversion in fields:
        if name is None:
            continue
        if form or conversion or not name.strip() or not set(".[]").isdisjoint(name):
            raise gptzoo.GPTZooError(f"{text!r} holds more than columns in braces. Write {{column}}.", "data.text")
        names.append(name)
    return list(dict.fromkeys(names))
