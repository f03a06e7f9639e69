"""The standard library as a corpus: the same text each time, and no tests in it."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

import gptzoo
from gptzoo_plugins.python_source import PythonSource, source_files


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small standard library."""
    folder = tmp_path / "lib"
    files = {
        "os.py": "öö" * 20,
        "json/a.py": "j" * 30,
        "json.py": "k" * 30,
        "test/t.py": "t",
        "site-packages/s.py": "s",
    }
    for name, text in {**files, "json/tests/t.py": "t", "json/data.txt": "d"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "latin.py").write_bytes(b"# \xff")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    return folder


def documents(max_bytes: int) -> list[str]:
    return list(PythonSource(gptzoo.Byte(), 1, max_bytes).read_documents())


def test_sources_come_sorted_by_path_without_tests_and_packages(library: Path) -> None:
    assert documents(1000) == ["k" * 30, "j" * 30, "öö" * 20]


def test_the_last_file_is_cut_at_the_limit_between_characters(library: Path) -> None:
    assert documents(50) == ["k" * 30, "j" * 20]
    assert documents(60) == ["k" * 30, "j" * 30]
    assert documents(65) == ["k" * 30, "j" * 30, "öö"]


def test_the_running_library_is_enough_for_a_first_model() -> None:
    data = PythonSource(gptzoo.Byte(), 256, max_bytes=100_000)
    assert 99_990 < len(data.tokens.stream) < 100_100
    assert data.sequences("train") > 300
    assert "import" in gptzoo.Byte().decode(data.tokens.stream.tolist())
    assert data.key == PythonSource(gptzoo.Byte(), 64, max_bytes=100_000).key
    assert not any("test" in file.parts for file in source_files(Path(sysconfig.get_path("stdlib"))))


def test_too_small_a_limit_is_refused(library: Path) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        PythonSource(gptzoo.Byte(), 8, max_bytes=0)
    assert str(refused.value) == "data.max_bytes: 0 is not at least 1."


def test_a_machine_without_sources_is_told(library: Path) -> None:
    shutil.rmtree(library)
    with pytest.raises(gptzoo.GPTZooError) as refused:
        PythonSource(gptzoo.Byte(), 8)
    assert str(refused.value) == "data: the standard library's source holds no text."
