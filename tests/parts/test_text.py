"""Text finds the files that are meant, and says which one is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from gptzoo import Byte, GPTZooError, Text, Tokenizer
from gptzoo.parts.text import find_files, read_text


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: plays with two acts, a hidden file, a folder with two more."""
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "here"
    for name in ("plays/b.txt", "plays/a.txt", "plays/.hidden", "plays/.git/x.txt", "plays/old/c.txt", "notes.md"):
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n" * 20)
    monkeypatch.chdir(here)
    return here


def names(path: str | list[str]) -> list[str]:
    return [file.as_posix() for file in find_files(path)]


def refusal(path: str | list[str]) -> str:
    with pytest.raises(GPTZooError) as refused:
        find_files(path)
    return str(refused.value)


def test_a_folder_gives_all_its_files_sorted_without_hidden_ones() -> None:
    assert names("plays") == ["plays/a.txt", "plays/b.txt", "plays/old/c.txt"]


def test_a_glob_gives_files_also_from_folders_below() -> None:
    assert names("plays/*") == ["plays/a.txt", "plays/b.txt"]
    assert names("**/*.txt") == ["plays/a.txt", "plays/b.txt", "plays/old/c.txt"]
    assert names("plays/[bc].txt") == ["plays/b.txt"]


def test_a_name_that_looks_like_a_glob_but_exists_is_a_file(folder: Path) -> None:
    (folder / "a[1].txt").write_text("x")
    assert names("a[1].txt") == ["a[1].txt"]


def test_paths_keep_their_order_and_a_file_comes_once() -> None:
    assert names(["plays/b.txt", "./plays", "notes.md", "plays/../notes.md"]) == [
        "plays/b.txt",
        "plays/a.txt",
        "plays/old/c.txt",
        "notes.md",
    ]


def test_the_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert find_files("~/notes.md") == [folder / "notes.md"]
    assert find_files("~/*.md") == [folder / "notes.md"]


def test_a_missing_path_is_refused_with_close_matches_where_it_breaks_off() -> None:
    assert refusal("note.md") == "data.path: there is no file or folder 'note.md'. Did you mean notes.md?"
    assert refusal("play/a.txt") == "data.path: there is no file or folder 'play/a.txt'. Did you mean plays?"
    assert refusal("plays/a.tx") == "data.path: there is no file or folder 'plays/a.tx'. Did you mean a.txt or b.txt?"
    assert refusal("/nonexistent/x") == "data.path: there is no file or folder '/nonexistent/x'."
    assert refusal("a\0b") == "data.path: there is no file or folder 'a\\x00b'."


def test_all_missing_paths_are_told_at_once() -> None:
    with pytest.raises(GPTZooError) as refused:
        find_files(["qqq", "notes.md", "www"])
    assert refused.value.lines == [
        "data.path: there is no file or folder 'qqq'.",
        "data.path: there is no file or folder 'www'.",
    ]


def test_what_gives_no_files_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    assert refusal("empty") == "data.path: 'empty' gives no files."
    assert refusal("*.pdf") == "data.path: '*.pdf' gives no files."
    assert refusal("pipe") == "data.path: 'pipe' is neither a file nor a folder."
    assert refusal("") == "data.path: no path is given. Name a file, a folder or a glob."
    assert refusal([]) == "data.path: no path is given. Name a file, a folder or a glob."
    assert refusal("x" * 300) == f"data.path: {'x' * 300!r} cannot be read: File name too long."


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"abc\xff", "not UTF-8 at byte 3"),
        ("Öl".encode("latin-1"), "not UTF-8 at byte 0"),
        ("text".encode("utf-16"), "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbfab\x00c", "a NUL at byte 5"),
    ],
)
def test_a_file_that_is_not_text_is_refused_naming_the_byte(data: bytes, why: str, folder: Path) -> None:
    (folder / "odd.bin").write_bytes(data)
    with pytest.raises(GPTZooError) as refused:
        Text(Byte(), 4, ["notes.md", "odd.bin"])
    assert str(refused.value) == (
        f"odd.bin: this is not UTF-8 text: {why}. "
        "Convert it to UTF-8 text, or leave it out of data.path with a glob such as '**/*.txt'."
    )


def test_text_is_read_as_it_is_without_a_byte_order_mark(folder: Path) -> None:
    (folder / "odd.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\n<|endoftext|>")
    assert read_text(folder / "odd.txt") == "a\r\nb\rc\n\n<|endoftext|>"


def test_each_file_is_a_document(folder: Path) -> None:
    (folder / "plays" / "empty.txt").touch()
    data = Text(Byte(), 8, "plays", documents=True)
    assert data.documents
    assert len(data.tokens.starts) == 3
    decoded = [Byte().decode(part.tolist()) for part in np.split(data.tokens.stream, data.tokens.starts[1:])]
    assert decoded == ["plays/a.txt\n" * 20, "plays/b.txt\n" * 20, "plays/old/c.txt\n" * 20]
    assert (data.tokens.stream == 256).sum() == 3


def test_where_the_files_lie_does_not_change_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Text(Byte(), 8, "plays").key
    (folder / "plays").rename(folder / "dramas")
    assert Text(Byte(), 8, str(folder / "dramas")).key == key


def test_an_empty_file_is_refused(folder: Path) -> None:
    (folder / "empty.txt").touch()
    with pytest.raises(GPTZooError) as refused:
        Text(Byte(), 8, "empty.txt")
    assert str(refused.value) == "data.path: 'empty.txt' holds no text."


def test_too_little_text_is_refused_naming_the_path() -> None:
    with pytest.raises(GPTZooError) as refused:
        Text(Byte(), 100, ["notes.md", "plays/a.txt"])
    assert str(refused.value) == (
        "data.path: 'notes.md', 'plays/a.txt' gives 42 tokens for validation, and context_length 100 needs at least "
        "101. Give more text, a smaller context_length or a larger val_fraction."
    )


class Learned(Byte):
    """Bytes that have to be fitted."""

    learned = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> object:
        if name == "vocab_size" and not self.seen:
            raise AttributeError(name)
        return super().__getattribute__(name)

    def fit(self, texts: Iterable[str]) -> None:
        self.seen += texts


def test_a_learned_tokenizer_is_fitted_on_the_documents_once() -> None:
    tokenizer = Learned()
    Text(tokenizer, 8, "notes.md")
    assert tokenizer.seen == ["notes.md\n" * 20]
    Text(tokenizer, 8, "plays")
    assert len(tokenizer.seen) == 1


def test_a_tokenizer_that_learns_nothing_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "fit", lambda self, texts: pytest.fail("fitted"))
    Text(Byte(), 8, "notes.md")
