"""Loading plugins: what is found, in what order, and what a broken or rude one can and cannot do."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import random
import shutil
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gptzoo import __version__
from gptzoo.errors import GPTZooError, Problems
from gptzoo.loading import Loaded, Quarantined, explain_missing, load_plugins, shipped_folder

PLUGIN = '''"""A norm that does nothing."""

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.norm("nothing", Nothing, aliases=["nil"])


class Nothing:
    """Leaves everything as it is."""

    def __init__(self, size: int, times: "int | None" = None) -> None:
        self.size = size
'''

Install = Callable[..., None]


def load(*plugins: str | Path, **options: typing.Any) -> Loaded:
    return load_plugins(plugins, **{"environ": {}, **options})


def refused(*plugins: str | Path, **options: typing.Any) -> str:
    with pytest.raises(GPTZooError) as caught:
        load(*plugins, **options)
    return str(caught.value)


def strangers(loaded: Loaded) -> tuple[Quarantined, ...]:
    return tuple(each for each in loaded.quarantined if each.origin != "gptzoo_plugins")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(here: Path) -> Callable[[str, str], Path]:
    def write(name: str, source: str) -> Path:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    return write


@pytest.fixture
def install(write: Callable[[str, str], Path], here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make `site/`, a folder of installed distributions, and put one there."""
    before = set(sys.modules)

    def install(
        module: str, source: str, points: str = "", distribution: str = "zoo-extra", version: str = "1.2"
    ) -> None:
        write(f"site/{module}.py", source)
        info = f"site/{distribution.replace('-', '_')}-{version}.dist-info"
        write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        write(f"{info}/RECORD", f"{module}.py,,\n")
        write(f"{info}/entry_points.txt", points or f"[gptzoo]\n{module} = {module}\n")
        monkeypatch.syspath_prepend(str(here / "site"))

    yield install
    for name in set(sys.modules) - before:
        if name.startswith("extra"):
            del sys.modules[name]


# What is loaded, and who it is.


def test_the_core_comes_through_the_same_hook() -> None:
    core = load().owners[0]
    assert (core.plugin, core.origin, core.version, len(core.sha256)) == ("core", "core", __version__, 64)
    assert load().zoo.get("attention", "multi_head").owner == core


def test_everything_shipped_loads_and_leaves_the_process_as_it_was() -> None:
    loaded = load(strict=True)
    shipped = [owner.plugin for owner in loaded.owners if owner.origin == "gptzoo_plugins"]
    assert shipped == sorted(path.stem for path in shipped_folder().glob("[!_]*.py"))
    assert [note for note in loaded.notes if note.split()[1] in shipped] == []


def test_a_typed_file_is_registered_with_its_path_and_hash(write: Callable[[str, str], Path]) -> None:
    path = write("mine.py", PLUGIN)
    loaded = load("mine.py")
    owner = loaded.zoo.get("norm", "nil").owner
    assert owner == loaded.owners[-1]
    assert (owner.plugin, owner.origin) == ("mine", str(path))
    assert owner.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_file_given_twice_is_loaded_once(write: Callable[[str, str], Path], here: Path) -> None:
    path = write("mine.py", PLUGIN)
    loaded = load("mine.py", path, "./mine.py", folders=[here], environ={"GPTZOO_PLUGINS": str(path)})
    assert [owner.plugin for owner in loaded.owners].count("mine") == 1


def test_a_file_is_a_real_module_to_inspect_and_to_type_hints(write: Callable[[str, str], Path]) -> None:
    write("mine.py", PLUGIN)
    part = load("mine.py").zoo.get("norm", "nothing").factory
    assert sys.modules[part.__module__].__file__ == str(Path("mine.py").resolve())
    assert "Leaves everything as it is" in inspect.getsource(part)
    assert typing.get_type_hints(part.__init__)["times"] == int | None  # type: ignore[misc]


def test_two_files_of_one_name_are_two_modules(write: Callable[[str, str], Path]) -> None:
    write("a/mine.py", PLUGIN)
    write("b/mine.py", PLUGIN.replace("nothing", "other").replace("nil", "else"))
    zoo = load("a/mine.py", "b/mine.py").zoo
    assert zoo.get("norm", "nothing").factory is not zoo.get("norm", "other").factory


def test_an_unchanged_file_gives_the_same_class_again_and_a_changed_one_the_new_code(
    write: Callable[[str, str], Path],
) -> None:
    path = write("mine.py", PLUGIN)
    first = load("mine.py").zoo.get("norm", "nothing").factory
    assert load("mine.py").zoo.get("norm", "nothing").factory is first
    path.write_text(PLUGIN.replace("everything as it is", "all else as it was"))  # of the same length, at once
    assert "Leaves all else as it was." in (load("mine.py").zoo.get("norm", "nothing").factory.__doc__ or "")


def test_no_bytecode_is_left_beside_a_file(write: Callable[[str, str], Path], here: Path) -> None:
    write("mine.py", PLUGIN)
    load("mine.py")
    assert sorted(path.name for path in here.iterdir()) == ["mine.py"]


def test_a_folder_gives_all_its_plugins_in_order_but_no_tests(write: Callable[[str, str], Path]) -> None:
    write("zoo/b.py", PLUGIN)
    write("zoo/a.py", PLUGIN.replace("nothing", "other").replace("nil", "else"))
    for name in ("_private.py", "test_a.py", "a_test.py", "conftest.py", "notes.txt"):
        write(f"zoo/{name}", "raise SystemExit(1)")
    assert [owner.plugin for owner in load(folders=["zoo"]).owners[-2:]] == ["a", "b"]


def test_the_environment_names_files_folders_and_modules(write: Callable[[str, str], Path], install: Install) -> None:
    write("mine.py", PLUGIN)
    write("zoo/yours.py", PLUGIN.replace("nothing", "other").replace("nil", "else"))
    install("extra_environ", PLUGIN.replace("nothing", "third").replace("nil", "void"), "[other]\nx = y\n")
    words = os.pathsep.join(["mine.py", "zoo", "", "extra_environ"])
    owners = load(environ={"GPTZOO_PLUGINS": words}).owners[-3:]
    assert [owner.plugin for owner in owners] == ["mine", "yours", "extra_environ"]


def test_an_entry_point_is_registered_with_its_distribution(install: Install) -> None:
    install("extra_good", PLUGIN)
    loaded = load()
    owner = loaded.zoo.get("norm", "nothing").owner
    assert (owner.plugin, owner.origin, owner.version) == ("extra_good", "zoo-extra", "1.2")
    assert owner.sha256 == hashlib.sha256(PLUGIN.encode()).hexdigest()
    assert strangers(loaded) == ()


def test_an_entry_point_may_name_an_object_with_the_hook(install: Install) -> None:
    source = PLUGIN.replace("@gptzoo.hookimpl\ndef gptzoo_register(zoo):\n    ", "class Plugin:\n    @gptzoo.hookimpl\n"
                            "    def gptzoo_register(self, zoo):\n        ") + "\n\nplugin = Plugin()\n"  # fmt: skip
    install("extra_object", source, "[gptzoo]\nthing = extra_object:plugin\n")
    owner = load().zoo.get("norm", "nothing").owner
    assert (owner.plugin, owner.sha256) == ("thing", hashlib.sha256(source.encode()).hexdigest())


def test_a_typed_module_is_registered_with_its_distribution(install: Install) -> None:
    install("extra_typed", PLUGIN, "[console_scripts]\n")
    owner = load("extra_typed").owners[-1]
    assert (owner.plugin, owner.origin, owner.version) == ("extra_typed", "zoo-extra", "1.2")


def test_a_typed_module_that_is_an_entry_point_too_is_loaded_once(install: Install) -> None:
    install("extra_twice", PLUGIN)
    assert [owner.plugin for owner in load("extra_twice").owners].count("extra_twice") == 1


# What the user typed must load.

BROKEN = {
    "import missing_thing\n": "mine.py:1: plugin mine failed to load: "
    "ModuleNotFoundError: No module named 'missing_thing'",
    "x = 1\ndef f(:\n": "mine.py:2: plugin mine failed to load: SyntaxError: invalid syntax",
    "import sys\n\nsys.exit(3)\n": "mine.py:3: plugin mine failed to load: SystemExit: 3",
    "\ndef f():\n    raise ValueError('two\\nlines')\n\nf()\n": "mine.py:3: plugin mine failed to load: "
    "ValueError: two lines",
    "import json\njson.loads('{')\n": "mine.py:2: plugin mine failed to load: JSONDecodeError: Expecting property name "
    "enclosed in double quotes: line 1 column 2 (char 1)",
    "x = 1\n": "mine.py: plugin mine failed to load: it has no hook. Define gptzoo_register(zoo).",
    "import gptzoo\n@gptzoo.hookimpl\ndef gptzoo_regster(zoo): ...\n": "mine.py:2: plugin mine failed to load: "
    "no hook is called 'gptzoo_regster'. Did you mean gptzoo_register?",
    "def gptzoo_registr(zoo): ...\n": "mine.py:1: plugin mine failed to load: "
    "no hook is called 'gptzoo_registr'. Did you mean gptzoo_register?",
    "import gptzoo\n@gptzoo.hookimpl\ndef register(zoo): ...\n": "mine.py:2: plugin mine failed to load: "
    "no hook is called 'register'. Did you mean gptzoo_register?",
    "def gptzoo_register(zoo): ...\n": "mine.py:1: plugin mine failed to load: "
    "gptzoo_register lacks its decorator. Write @gptzoo.hookimpl above it.",
    "import gptzoo\n@gptzoo.hookimpl\ndef gptzoo_register(zoo, more): ...\n": "mine.py:2: plugin mine failed to load: "
    "the hook must be gptzoo_register(zoo), not gptzoo_register(zoo, more).",
    "import gptzoo\n@gptzoo.hookimpl\ndef gptzoo_register(): ...\n": "mine.py:2: plugin mine failed to load: "
    "the hook must be gptzoo_register(zoo), not gptzoo_register().",
    "import gptzoo\n@gptzoo.hookimpl\nasync def gptzoo_register(zoo): ...\n": "mine.py:2: plugin mine failed to load: "
    "the hook must be gptzoo_register(zoo), not a coroutine or generator.",
    "import gptzoo\n@gptzoo.hookimpl\ndef gptzoo_register(zoo):\n    zoo.atention('x', 3)\n": "mine.py:4: plugin mine "
    "failed to load: AttributeError: 'Registrar' object has no attribute 'atention'. Did you mean attention?",
    "import gptzoo\n@gptzoo.hookimpl\ndef gptzoo_register(zoo):\n    zoo.norm('x', 3)\n": "mine.py:4: plugin mine "
    "failed to load: norm 'x' of plugin mine ({path}) is not a class or function.",
    PLUGIN.replace("nil", "layernorm"): "mine.py:6: plugin mine failed to load: "
    "norm 'layernorm' of plugin mine ({path}) is taken by plugin core. Choose another name.",
    PLUGIN.replace('"nothing"', '"layernorm"'): "mine.py:6: plugin mine failed to load: "
    "norm 'layernorm' of plugin mine ({path}) is taken by plugin core. Choose another name.",
}


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_a_typed_plugin_that_breaks_is_one_line_with_its_place(write: Callable[[str, str], Path], source: str) -> None:
    path = write("mine.py", source)
    assert refused("mine.py") == BROKEN[source].format(path=path)


def test_an_error_in_a_library_names_the_plugins_own_line(write: Callable[[str, str], Path]) -> None:
    write("mine.py", "import torch\n\nx = torch.nn.Linear(2, 2)(torch.zeros(3))\n")
    assert refused("mine.py").startswith("mine.py:3: plugin mine failed to load: RuntimeError: ")


def test_an_interrupt_is_no_broken_plugin(write: Callable[[str, str], Path]) -> None:
    write("mine.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load("mine.py")


def test_a_broken_file_can_be_mended_and_loaded(write: Callable[[str, str], Path]) -> None:
    path = write("mine.py", "raise ValueError\n")
    assert refused("mine.py") == "mine.py:1: plugin mine failed to load: ValueError"
    path.write_text(PLUGIN)
    assert load("mine.py").zoo.get("norm", "nothing").owner.plugin == "mine"


def test_what_does_not_exist_is_named_with_close_matches(write: Callable[[str, str], Path]) -> None:
    write("mine.py", PLUGIN)
    write("empty/notes.txt", "")
    assert refused("mien.py") == "there is no plugin file 'mien.py'. Did you mean mine.py?"
    assert refused("empty/notes.txt") == "'empty/notes.txt' is not a .py file."
    assert refused("mine") == "there is no plugin module 'mine'. Did you mean mine.py?"
    assert refused("nobodys.thing") == (
        "there is no plugin module 'nobodys.thing'. Install its package, or give a .py file."
    )
    assert refused(folders=["nowhere"]) == "there is no folder 'nowhere'."
    assert refused(folders=["empty"]) == "the folder 'empty' holds no plugin."
    assert refused(environ={"GPTZOO_PLUGINS": "mien.py"}) == (
        "GPTZOO_PLUGINS: there is no plugin file 'mien.py'. Did you mean mine.py?"
    )


# What merely is installed is quarantined.


@pytest.mark.parametrize(
    ("source", "stage", "reason"),
    [
        ("import missing_thing\n", "import", "{0}:1: ModuleNotFoundError: No module named 'missing_thing'"),
        ("def f(:\n", "import", "{0}:1: SyntaxError: invalid syntax"),
        ("raise SystemExit\n", "import", "{0}:1: SystemExit"),
        ("x = 1\n", "hook", "{0}: it has no hook. Define gptzoo_register(zoo)."),
        (
            PLUGIN.replace("zoo.norm", "1 / 0; zoo.norm"),
            "register",
            "{0}:8: ZeroDivisionError: division by zero",
        ),
        (
            PLUGIN.replace('"nothing"', '"layernorm"'),
            "register",
            "{0}:6: norm 'layernorm' of plugin extra_bad (zoo-extra 1.2) is taken by plugin core. Choose another name.",
        ),
    ],
)
def test_a_broken_entry_point_is_quarantined_and_the_rest_loads(
    write: Callable[[str, str], Path], install: Install, source: str, stage: str, reason: str
) -> None:
    install("extra_bad", source)
    write("mine.py", PLUGIN)
    loaded = load("mine.py")
    where = str(Path("site", "extra_bad.py"))
    assert strangers(loaded) == (Quarantined("extra_bad", "zoo-extra", "1.2", stage, reason.format(where)),)
    assert loaded.owners[-1].plugin == "mine"


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ("[gptzoo]\nx = nobodys_module\n", "ModuleNotFoundError: No module named 'nobodys_module'"),
        ("[gptzoo]\nx = extra_points:nothing\n", "AttributeError: module 'extra_points' has no attribute 'nothing'"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_quarantined(install: Install, points: str, reason: str) -> None:
    install("extra_points", PLUGIN, points)
    assert strangers(load()) == (Quarantined("x", "zoo-extra", "1.2", "import", reason),)


def test_a_distribution_with_unreadable_entry_points_is_quarantined(install: Install) -> None:
    install("extra_torn", PLUGIN, "[gptzoo]\nno equals sign\n")
    (found,) = strangers(load())
    assert (found.plugin, found.stage) == ("zoo-extra", "find")
    assert found.reason.startswith("entry_points.txt: TypeError: ")


def test_a_distribution_without_metadata_still_loads(install: Install, here: Path) -> None:
    install("extra_bare", PLUGIN)
    (here / "site/zoo_extra-1.2.dist-info/METADATA").unlink()
    owner = load().zoo.get("norm", "nothing").owner
    assert (owner.plugin, owner.origin, owner.version) == ("extra_bare", str(here / "site/zoo_extra-1.2.dist-info"), "")


def test_a_clash_between_two_distributions_leaves_out_the_second_whole(install: Install) -> None:
    install("extra_a", PLUGIN, distribution="zoo-a")
    install("extra_b", PLUGIN.replace("zoo.norm", "zoo.mlp('fresh', Nothing); zoo.norm"), distribution="zoo-b")
    loaded = load()
    (found,) = strangers(loaded)
    assert found.reason == (
        f"{Path('site', 'extra_b.py')}:6: norm 'nothing' of plugin extra_b (zoo-b 1.2) is taken by plugin extra_a "
        "(zoo-a 1.2). Choose another name."
    )
    assert "fresh" not in loaded.zoo.names("mlp")


def test_a_broken_shipped_plugin_is_quarantined_until_it_is_typed(
    write: Callable[[str, str], Path], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_folder()
    package = importlib.import_module("gptzoo_plugins")
    monkeypatch.setattr(package, "__path__", [str(here / "shipped")])
    write("shipped/broken.py", "raise ValueError('no')\n")
    write("shipped/good.py", PLUGIN)
    loaded = load()
    where = Path("shipped", "broken.py")
    assert loaded.quarantined == (
        Quarantined("broken", "gptzoo_plugins", __version__, "import", f"{where}:1: ValueError: no"),
    )
    assert loaded.zoo.get("norm", "nothing").owner.origin == "gptzoo_plugins"
    assert refused(where) == f"{where}:1: plugin broken failed to load: ValueError: no"
    monkeypatch.delitem(sys.modules, "gptzoo_plugins.good")


def test_a_shipped_plugin_that_is_typed_as_a_file_is_loaded_once() -> None:
    first = next(iter(sorted(shipped_folder().glob("[!_]*.py"))), None)
    if first is not None:
        assert [owner.plugin for owner in load(first).owners].count(first.stem) == 1


def test_strict_makes_every_quarantine_fatal(install: Install) -> None:
    install("extra_one", "raise ValueError('no')\n", "[gptzoo]\none = extra_one\ntwo = extra_two\n")
    with pytest.raises(Problems) as caught:
        load(strict=True)
    assert [line for line in caught.value.lines if "zoo-extra" in line] == [
        f"plugin one (zoo-extra 1.2) failed to load: {Path('site', 'extra_one.py')}:1: ValueError: no",
        "plugin two (zoo-extra 1.2) failed to load: ModuleNotFoundError: No module named 'extra_two'",
    ]


def test_a_missing_name_is_explained_by_the_plugins_that_failed(install: Install) -> None:
    install("extra_late", "raise ValueError('no')\n")
    loaded = load()
    loaded.quarantined = strangers(loaded)
    with pytest.raises(GPTZooError) as caught:
        loaded.zoo.get("norm", "layernrm", "a.yaml:3: model.norm")
    failed = f"plugin extra_late (zoo-extra 1.2) failed to load: {Path('site', 'extra_late.py')}:1: ValueError: no"
    assert str(explain_missing(loaded, caught.value)) == (
        f"a.yaml:3: model.norm: no norm is called 'layernrm'. Did you mean layernorm? Note: {failed}."
    )


def test_other_errors_and_whole_zoos_need_no_explanation() -> None:
    broken = Loaded(load().zoo, (), (Quarantined("x", "p", "1", "import", "r"),) * 5)
    other, missing = GPTZooError("steps must be positive"), GPTZooError("no norm is called 'x'.")
    assert explain_missing(broken, other) is other
    assert explain_missing(Loaded(broken.zoo, (), ()), missing) is missing
    note = " Note: plugin x (p 1) failed to load: r."
    explained = explain_missing(broken, Problems([other, missing])).lines
    assert explained == ["steps must be positive", f"no norm is called 'x'.{note * 3} 2 more failed to load."]


# What a plugin does to the process is undone.

RUDE = {
    "import sys\nsys.argv = ['other']\nsys.argv.append('more')\n": "sys.argv",
    "import random\nrandom.seed(1)\n": "Python's random state",
    "import numpy\nnumpy.random.seed(1)\n": "numpy's random state",
    "import torch\ntorch.manual_seed(1)\n": "torch's random state",
    "import torch\ntorch.set_default_dtype(torch.float64)\n": "torch's default dtype",
    "import torch\ntorch.set_default_device('meta')\n": "torch's default device",
    "import torch\ntorch.set_num_threads(torch.get_num_threads() + 1)\n": "torch's number of threads",
    "import torch\ntorch.set_grad_enabled(False)\n": "torch's gradient mode",
    "import torch\ntorch.use_deterministic_algorithms(True)\n": "torch's determinism",
    "import torch\ntorch.set_float32_matmul_precision('medium')\n": "torch's matmul precision",
    "import torch\ntorch.backends.cuda.matmul.fp32_precision = 'tf32'\n": "torch's matmul precision",
}


def state() -> list[object]:
    algorithm, key, *rest = np.random.get_state()
    return [
        list(sys.argv),
        random.getstate(),
        (algorithm, np.asarray(key).tolist(), rest),
        torch.get_rng_state().tolist(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    ]


@pytest.mark.parametrize("rude", RUDE, ids=range(len(RUDE)))
def test_what_an_import_changes_is_put_back_and_noted(write: Callable[[str, str], Path], rude: str) -> None:
    write("mine.py", rude + PLUGIN)
    before = state()
    assert load("mine.py").notes[-1:] == (f"plugin mine changed {RUDE[rude]} while loading; it was put back.",)
    assert state() == before


def test_what_the_hook_changes_is_put_back_even_if_it_fails(write: Callable[[str, str], Path]) -> None:
    rude = "import torch; torch.manual_seed(1); torch.set_default_dtype(torch.float64); 1 / 0; zoo.norm"
    write("mine.py", PLUGIN.replace("zoo.norm", rude))
    before = state()
    assert refused("mine.py") == "mine.py:8: plugin mine failed to load: ZeroDivisionError: division by zero"
    assert state() == before


def test_a_polite_plugin_is_not_noted(write: Callable[[str, str], Path]) -> None:
    write("mine.py", PLUGIN)
    assert [note for note in load("mine.py").notes if "mine" in note] == []


def test_what_a_plugin_prints_goes_to_stderr(
    write: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write("mine.py", "print('hello')\n" + PLUGIN.replace("zoo.norm", "print('hook'); zoo.norm"))
    assert load("mine.py").notes[-1:] == ("plugin mine printed while loading; that went to stderr.",)
    assert capsys.readouterr() == ("", "hello\nhook\n")


def test_a_folder_on_the_path_makes_the_shipped_package_importable_in_a_checkout(
    here: Path, write: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("gptzoo/loading.py", "")
    write("plugins/lion.py", "ROARS = True\n")
    monkeypatch.setattr("gptzoo.loading.__file__", str(here / "gptzoo/loading.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in [name for name in sys.modules if name.split(".")[0] == "gptzoo_plugins"]:
        monkeypatch.delitem(sys.modules, name)
    assert shipped_folder() == here / "plugins"
    lion: ModuleType = importlib.import_module("gptzoo_plugins.lion")
    assert lion.ROARS
    monkeypatch.delitem(sys.modules, "gptzoo_plugins.lion")
    shutil.rmtree(here / "plugins")
    with pytest.raises(GPTZooError) as caught:
        shipped_folder()
    assert str(caught.value) == f"{here / 'plugins'}: the package gptzoo_plugins is missing. Install gptzoo again."
