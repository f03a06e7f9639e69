"""The house keeps its order."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.house import LAYERS, ROOT, imports, layer_of, modules, upward_imports


def test_imports_go_one_way() -> None:
    assert upward_imports() == []


def test_no_import_goes_in_a_circle() -> None:
    known = modules()
    graph = {name: {target for target in imports(path) if target != name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_every_layer_entry_exists() -> None:
    names = set(modules())
    assert [entry for layer in LAYERS for entry in layer if entry not in names] == []
    assert all(layer_of(name) for name in names)


def test_the_model_knows_nothing_of_recipes_registry_or_files() -> None:
    forbidden = ("gptzoo.recipe", "gptzoo.files", "gptzoo.runs", "gptzoo.loading")
    assert [name for name in imports(modules()["gptzoo.model"]) if name.startswith(forbidden)] == []


def test_no_module_bears_a_public_functions_name() -> None:
    import gptzoo

    public = set(gptzoo._HOME_OF)
    assert [name for name in modules() if name.removeprefix("gptzoo.") in public] == []


def test_every_public_name_can_be_had() -> None:
    import gptzoo

    for name in gptzoo._HOME_OF:
        assert getattr(gptzoo, name) is not None


def test_what_type_checkers_see_is_what_there_is() -> None:
    import gptzoo

    tree = ast.parse((ROOT / "gptzoo" / "__init__.py").read_text())
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gptzoo.")
        for alias in node.names
    }
    assert seen == gptzoo._HOME_OF


def test_plugins_import_gptzoo_and_not_its_insides() -> None:
    for path in sorted((ROOT / "plugins").glob("[!_]*.py")):
        assert set(imports(path)) <= {"gptzoo"}, path.name


def test_nothing_unpickles_evaluates_or_runs_a_shell() -> None:
    forbidden = {"eval", "exec", "compile"}
    for path in [*modules().values(), *(ROOT / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and path.name != "unpickle.py":
                assert (node.value.id, node.attr) not in {("torch", "load"), ("yaml", "load")}, (
                    f"{path.name}:{node.lineno}"
                )
            if isinstance(node, ast.keyword):
                assert node.arg not in {"shell", "trust_remote_code"}, f"{path.name}:{node.value.lineno}"


def test_the_one_pickle_is_read_for_its_weights_only() -> None:
    tree = ast.parse(modules()["gptzoo.interop.unpickle"].read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    assert [{k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] for call in calls] == ["True"]


def test_help_imports_neither_torch_nor_plugins() -> None:
    script = (
        "import sys, contextlib, io\n"
        "from gptzoo.cli import run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): run(['--help'])\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'gptzoo_plugins', 'numpy', 'datasets')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
