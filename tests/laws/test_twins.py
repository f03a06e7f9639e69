"""The table of twins says what the tests do."""

from __future__ import annotations

from gptzoo.loading import load_plugins
from tests.laws.twins import FILES, table, twins, words_of_tests

ZOO = load_plugins().zoo


def test_at_least_12_parts_have_a_twin_in_a_library() -> None:
    assert sum(bool(twin.libraries) for twin in twins()) >= 12


def test_every_twin_is_a_registered_part_that_its_file_tests() -> None:
    used = {file: words_of_tests(file) for file in FILES}
    for twin in twins():
        entry = ZOO.get(*twin.part.split("."))
        assert twin.part == f"{entry.slot}.{entry.name}", "by its name, not an alias"
        class_name = getattr(entry.factory, "__name__", "")
        assert {entry.name, class_name} & used[twin.file], f"no test of {twin.file.name} uses {twin.part}"


def test_no_part_is_listed_twice_and_each_has_a_line() -> None:
    parts = [twin.part for twin in twins()]
    assert len(set(parts)) == len(parts)
    lines = table(ZOO).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == parts
    assert lines[-1].startswith(f"{len(parts)} of {len([*ZOO.entries()])} parts have a twin, ")
