"""Which parts are compared with a reference that nobody here wrote: `python -m tests.laws.twins` prints the table.

It is read from the `TWINS` of the files tests/laws/test_twins_*.py, without importing them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptzoo.loading import load_plugins
from gptzoo.registry import Zoo

FILES = sorted(Path(__file__).parent.glob("test_twins_*.py"))
LIBRARIES = ("transformers", "x-transformers", "torch", "schedulefree")


@dataclass(frozen=True)
class Twin:
    """A part and what it is compared with.

    Args:
        part: `slot.name`.
        beside: The references, as its test file names them.
        file: The test file.
    """

    part: str
    beside: str
    file: Path

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries among its references; none where it is a published formula alone."""
        words = self.beside.replace(":", " ").replace(".", " ").split()
        return tuple(library for library in LIBRARIES if library in words)


def twins() -> list[Twin]:
    """Every part that has one, by slot and name."""
    return sorted((twin for file in FILES for twin in _listed(file)), key=lambda twin: twin.part)


def _listed(file: Path) -> Iterator[Twin]:
    named = _definitions(file).get("TWINS")
    assert isinstance(named, ast.Assign), f"{file.name} names its twins"
    for part, beside in ast.literal_eval(named.value).items():
        yield Twin(part, beside, file)


def words_of_tests(file: Path) -> set[str]:
    """Every name and string that the tests of a file come to use, through whatever else the file defines."""
    known = _definitions(file)
    found: set[str] = set()
    waiting = [name for name in known if name.startswith("test_")]
    while waiting:
        new = set(_words(known[waiting.pop()])) - found
        found |= new
        waiting += [name for name in new if name in known and name != "TWINS"]
    return found


def _definitions(file: Path) -> dict[str, ast.stmt]:
    """What a file defines, by name."""
    known: dict[str, ast.stmt] = {}
    for statement in ast.parse(file.read_text()).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            known[statement.name] = statement
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            known[ast.unparse(target)] = statement
    return known


def _words(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def table(zoo: Zoo) -> str:
    """A line for each part, and the counts."""
    found = twins()
    width = max(len(twin.part) for twin in found)
    lines = [f"{twin.part:{width}}  {twin.beside}" for twin in found]
    beside = sum(bool(twin.libraries) for twin in found)
    counts = ", ".join(f"{name} {sum(name in twin.libraries for twin in found)}" for name in LIBRARIES)
    return "\n".join(
        [
            "$ python -m tests.laws.twins",
            *lines,
            f"{len(found)} of {len([*zoo.entries()])} parts have a twin, {beside} of them in a library: {counts}",
        ]
    )


if __name__ == "__main__":
    print(table(load_plugins().zoo))
