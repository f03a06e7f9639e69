"""Record files: equal records, equal bytes; torn ends repaired; cut back on resume."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.errors import GPTZooError, NoSpace
from gptzoo.runs import Records


def test_records_come_back_as_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Records(path) as records:
        records.append({"step": 1, "loss": 0.1})
        records.append({"step": 2, "text": "a\nb\u2028é"})
        assert records.length == path.stat().st_size
    assert Records.read(path) == [{"step": 1, "loss": 0.1}, {"step": 2, "text": "a\nb\u2028é"}]
    assert path.read_bytes().splitlines()[0] == b'{"loss":0.1,"step":1}'


def test_a_record_is_on_file_before_the_next_statement(tmp_path: Path, fork: Callable[..., int]) -> None:
    def work() -> None:
        Records(tmp_path / "a").append({"step": 1})
        os.kill(os.getpid(), 9)

    assert fork(work) == -9
    assert Records.read(tmp_path / "a") == [{"step": 1}]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_a_resumed_file_equals_that_of_a_run_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole, resumed = (tmp_path_factory.mktemp("run") / "metrics.jsonl" for _ in range(2))
    count = data.draw(st.integers(0, 6))
    saved = data.draw(st.integers(0, count))
    with Records(whole) as records:
        for step in range(count):
            records.append({"step": step})
    with Records(resumed) as records:
        for step in range(saved):
            records.append({"step": step})
        length = records.length
        for step in range(saved, count):
            records.append({"step": step})
    size = resumed.stat().st_size
    os.truncate(resumed, data.draw(st.integers(length, size)))
    with Records(resumed) as records:
        records.truncate(length)
        assert records.length == length
        for step in range(saved, count):
            records.append({"step": step})
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_torn_last_line_is_not_read_and_dropped_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"step":1}\n{"step":2')
    assert Records.read(path) == [{"step": 1}]
    Records(path).close()
    assert path.read_bytes() == b'{"step":1}\n'


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert Records.read(tmp_path / "a") == []


@pytest.mark.parametrize("line", [b"{", b"3", b"\xff", b"[" * 100000])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(b'{"step":1}\n' + line + b'\n{"step":2}\n')
    with pytest.raises(GPTZooError) as caught:
        Records.read(path)
    expected = f"{path}:2: not a JSON object. The file was changed by hand or damaged: remove this line."
    assert str(caught.value) == expected


@pytest.mark.parametrize("length", [5, 12, 99, -1])
def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a"
    with Records(path) as records:
        records.append({"step": 1})
        with pytest.raises(GPTZooError) as caught:
            records.truncate(length)
    assert str(caught.value) == (
        f"{path}: 11 bytes long, which does not continue from byte {length}, where the checkpoint left it. "
        "Restore the file, or remove the checkpoints that are newer than it."
    )
    assert path.stat().st_size == 11


def test_a_record_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path, fork: Callable[..., int]) -> None:
    path = tmp_path / "a"

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
        with Records(path) as records:
            records.append({"step": 1})
            with pytest.raises(NoSpace):
                records.append({"text": "x" * 50})
            records.append({"step": 2})
            assert records.length == 22

    assert fork(work) == 0
    assert Records.read(path) == [{"step": 1}, {"step": 2}]


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with Records(tmp_path / "a") as records, pytest.raises(GPTZooError, match="cannot be stored as JSON"):
        records.append({"loss": float("nan")})
    assert (tmp_path / "a").read_bytes() == b""
