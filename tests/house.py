"""The house, measured from its syntax trees: layers of imports, lines of the core, lengths of functions.

`python -m tests.house` prints the figures.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAYERS: tuple[tuple[str, ...], ...] = (
    ("gptzoo",),
    ("gptzoo.errors", "gptzoo.isolation"),
    ("gptzoo.registry", "gptzoo.files"),
    ("gptzoo.contracts", "gptzoo.precision", "gptzoo.recipe", "gptzoo.seeds"),
    ("gptzoo.tokens", "gptzoo.model", "gptzoo.runs"),
    ("gptzoo.parts",),
    ("gptzoo.core", "gptzoo.transfer", "gptzoo.costs", "gptzoo.quantization"),
    ("gptzoo.loading", "gptzoo.assembly", "gptzoo.company", "gptzoo.sampling", "gptzoo.spelling"),
    ("gptzoo.resolving", "gptzoo.listing", "gptzoo.scaffold", "gptzoo.evaluation", "gptzoo.decoding"),
    ("gptzoo.building", "gptzoo.generation"),
    ("gptzoo.exact_match", "gptzoo.coordinates", "gptzoo.dataset_card", "gptzoo.scoring"),
    ("gptzoo.curves", "gptzoo.multiple_choice"),
    ("gptzoo.environment", "gptzoo.trainer", "gptzoo.diffing"),
    ("gptzoo.interop",),
    ("gptzoo.running",),
    ("gptzoo.showing", "gptzoo.progress", "gptzoo.exchange", "gptzoo.evals", "gptzoo.ablation", "gptzoo.testing"),
    ("gptzoo.cli",),
    ("gptzoo.__main__",),
)
"""Bottom first. A module imports from layers below its own, or from its own package; `gptzoo.recipe` stands for all of
its modules. `gptzoo` itself resolves names on use and imports nothing."""

CORE = ("contracts", "registry", "model", "resolving", "assembly", "building", "trainer", "running")
"""What someone reads who wants to know how it works."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / "gptzoo").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, typing: bool = False) -> Iterator[str]:
    """Modules of ours that a file imports, anywhere in it; those under TYPE_CHECKING only if asked for."""
    tree = ast.parse(path.read_text())
    hidden = set() if typing else {id(inner) for node in ast.walk(tree) if _is_typing(node) for inner in ast.walk(node)}
    known = modules()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gptzoo")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gptzoo":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def layer_of(module: str) -> tuple[int, str]:
    """Index of a module's layer, and the entry of LAYERS that it belongs to."""
    for index, layer in enumerate(LAYERS):
        for entry in layer:
            if module == entry or (entry != "gptzoo" and module.startswith(f"{entry}.")):
                return index, entry
    raise KeyError(f"{module} is in no layer: add it to LAYERS")


def upward_imports() -> list[str]:
    """Imports that do not go down."""
    wrong = []
    for module, path in modules().items():
        index, entry = layer_of(module)
        for imported in imports(path):
            below, other = layer_of(imported)
            if other != entry and below >= index:
                wrong.append(f"{module} -> {imported}")
    return wrong


def function_lengths(paths: list[Path]) -> list[int]:
    """Lines of each function, from its signature to its end."""
    trees = (ast.parse(path.read_text()) for path in paths)
    nodes = (node for tree in trees for node in ast.walk(tree))
    return [n.end_lineno - n.lineno + 1 for n in nodes if isinstance(n, ast.FunctionDef) and n.end_lineno]


def code_lines(paths: list[Path]) -> int:
    """Lines that are neither blank, comment nor docstring."""
    return sum(_code_lines(path) for path in paths)


def _code_lines(path: Path) -> int:
    text = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in prose and line.strip() and not line.strip().startswith("#"))


def report() -> str:
    """The figures, as text."""
    everything = modules()
    core = [everything[f"gptzoo.{name}"] for name in CORE]
    parts = [path for name, path in everything.items() if name.startswith("gptzoo.parts.")]
    plugins = sorted((ROOT / "plugins").glob("[!_]*.py"))
    lines = [
        f"{title:28} {len(paths):3} files  {code_lines(paths):5} lines of code  {_all_lines(paths):5} lines  "
        f"median function {statistics.median(function_lengths(paths)):g}"
        for title, paths in (
            ("core", core),
            ("core parts (gptzoo/parts)", parts),
            ("plugins", plugins),
            ("the whole package", list(everything.values())),
        )
    ]
    lines += ["", "layers, each importing only from those above it:"]
    lines += [f"  {', '.join(entry.removeprefix('gptzoo.') for entry in layer)}" for layer in LAYERS]
    return "\n".join(lines)


def _all_lines(paths: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


if __name__ == "__main__":
    print(report())
