"""Durable writing: whole or not at all, and one line when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo import files
from gptzoo.errors import GPTZooError, NoSpace


def in_child(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(name: str, work: Callable[[], object]) -> bool:
    def doomed() -> None:
        os.environ["GPTZOO_FAILPOINT"] = name
        work()

    return in_child(doomed) == -signal.SIGKILL


def test_a_file_is_replaced_whole_and_no_temporary_stays(tmp_path: Path) -> None:
    for data in (b"old", b"", b"the new content"):
        files.write_atomically(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", [name for name in files.FAILPOINTS if name.startswith("write.")])
def test_a_kill_while_writing_leaves_the_old_content_or_the_new(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    files.write_atomically(path, b"old")
    assert killed_at(name, lambda: files.write_atomically(path, b"new"))
    assert path.read_bytes() == (b"new" if name == "write.renamed" else b"old")
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_everything_is_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    real = {"fsync": fsync, "replace": replace}
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), real["fsync"](fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), real["replace"](a, b)))
    files.write_atomically(tmp_path / "a", b"x")
    assert events[0].startswith(f"{tmp_path}/a.tmp-")
    assert events[1:] == ["replace", str(tmp_path)]


def test_the_nth_hit_of_a_failpoint_kills(tmp_path: Path) -> None:
    def work() -> None:
        for index in range(5):
            files.append_line(tmp_path / "log", str(index))

    assert killed_at("append.written:3", work)
    assert (tmp_path / "log").read_text() == "0\n1\n2\n"


def test_a_failpoint_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTZOO_FAILPOINT", "write.sinced")
    with pytest.raises(GPTZooError) as caught:
        files.failpoint("write.synced")
    assert str(caught.value) == (
        "GPTZOO_FAILPOINT: no fail-point is called 'write.sinced'. "
        "Did you mean write.synced, write.started or write.renamed?"
    )
    monkeypatch.setenv("GPTZOO_FAILPOINT", "write.synced:x")
    with pytest.raises(GPTZooError) as caught:
        files.failpoint("write.synced")
    assert str(caught.value) == "GPTZOO_FAILPOINT: 'x' is not a count. Write write.synced:2 for the second hit."
    files.failpoint("write.started")


def test_a_file_over_the_limit_is_no_space_and_the_old_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(NoSpace) as caught:
            files.write_atomically(path, bytes(5000))
        assert str(caught.value) == f"{path}: no space: need 5.0 kB, have 1.0 kB"
        assert caught.value.exit_code == 5

    assert in_child(work) == 0
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: _Usage(free=7))
    with pytest.raises(NoSpace) as caught:
        files.write_atomically(tmp_path / "a", bytes(2_500_000))
    assert str(caught.value) == f"{tmp_path}/a: no space: need 2.5 MB, have 7 B"
    assert os.listdir(tmp_path) == []


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    files.append_line(path, "a" * 600)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(NoSpace):
            files.append_line(path, "b" * 600)
        files.append_line(path, "c" * 300)

    assert in_child(work) == 0
    assert path.read_text() == "a" * 600 + "\n" + "c" * 300 + "\n"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GPTZooError) as caught:
        files.write_atomically(tmp_path / "none" / "a", b"")
    assert str(caught.value) == f"{tmp_path}/none/a: cannot be written: No such file or directory."
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(GPTZooError) as caught:
        files.make_folder(tmp_path / "file" / "b")
    assert str(caught.value) == f"{tmp_path}/file/b: cannot be written: Not a directory."


def test_an_interrupted_write_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


@settings(deadline=None, max_examples=30)
@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20), max_size=5),
    torn=st.sampled_from(["", "t", "torn" * 40000]),
)
def test_a_torn_last_line_is_dropped_before_the_next(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], torn: str
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    for line in lines:
        files.append_line(path, line)
    with open(path, "ab") as file:
        file.write(torn.encode())
    files.append_line(path, "last")
    assert path.read_bytes().decode().split("\n") == [*lines, "last", ""]


def test_sweeping_removes_files_and_folders_under_temporary_names_alone(tmp_path: Path) -> None:
    (tmp_path / "a.tmp-1").write_bytes(b"")
    (tmp_path / "b.tmp-2" / "c").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "d.tmp-3").symlink_to(tmp_path / "kept")
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert files.canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5,null]}'
    assert files.canonical_json({"a": 1, "b": 2}) == files.canonical_json({"b": 2, "a": 1})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_lacks(number: float) -> None:
    with pytest.raises(GPTZooError, match=r"^cannot be stored as JSON: Out of range float values"):
        files.canonical_json({"a": [number]})


def test_too_little_space_is_refused_before_writing(tmp_path: Path) -> None:
    files.check_space(tmp_path, 1)
    with pytest.raises(NoSpace, match=r"no space: need 1000000\.0 TB, have "):
        files.check_space(tmp_path, 10**18)


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (10**9, "1.0 GB")])
def test_sizes_are_printed_for_people(size: int, text: str) -> None:
    assert files.human_size(size) == text
