"""Finding and loading plugins, each isolated from the others.

Order: the core, the shipped package `gptzoo_plugins`, entry points of group `gptzoo`, then what the user typed (`-p`,
`--plugins`, `GPTZOO_PLUGINS`). What the user typed must load; what merely is installed is quarantined when it breaks,
and stops a run only if a recipe needs it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from traceback import walk_tb
from types import CodeType, ModuleType

import pluggy

from gptzoo import __version__
from gptzoo.errors import GPTZooError, Problems, did_you_mean, raise_all
from gptzoo.isolation import untouched
from gptzoo.registry import SLOTS, Hooks, Owner, Registrar, Zoo

GROUP = "gptzoo"
SHIPPED = "gptzoo_plugins"
VARIABLE = "GPTZOO_PLUGINS"
_NOT_PLUGINS = ("_*", "test_*", "*_test.py", "conftest.py", "setup.py")


@dataclass(frozen=True)
class Quarantined:
    """A plugin that could not be loaded and is left out.

    Args:
        plugin: The plugin's name.
        origin: `gptzoo_plugins`, or the distribution it comes from.
        version: The version of the distribution, or an empty string.
        stage: Where it broke: `find`, `import`, `hook` or `register`.
        reason: `file:line: ErrorType: message`, at the last frame of the plugin's own code.
    """

    plugin: str
    origin: str
    version: str
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin} ({f'{self.origin} {self.version}'.strip()}) failed to load: {self.reason}"


@dataclass
class Loaded:
    """What loading gave.

    Args:
        zoo: All registered components.
        owners: The plugins that were loaded, in order.
        quarantined: The plugins that were left out.
        notes: What plugins did to the process while loading and what was undone, one line each.
    """

    zoo: Zoo
    owners: tuple[Owner, ...]
    quarantined: tuple[Quarantined, ...]
    notes: tuple[str, ...] = ()


def load_plugins(
    plugins: Sequence[str | Path] = (),
    folders: Sequence[str | Path] = (),
    *,
    strict: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """Load the core, everything installed, and what the user typed.

    Args:
        plugins: Module names or `.py` files.
        folders: Every `.py` file in them is a plugin, except `_*` and tests.
        strict: A broken installed plugin is an error, too.
        environ: Where `GPTZOO_PLUGINS` is looked up: files, folders or module names, separated as in `PATH`.

    Raises:
        GPTZooError: A plugin that was typed fails to load or takes a taken name; under `strict`, any plugin.
    """
    loading = _Loading()
    for found in _everything(plugins, folders, environ):
        loading.load(found)
    if strict:
        raise_all([GPTZooError(str(each)) for each in loading.quarantined])
    return Loaded(loading.zoo, tuple(loading.owners), tuple(loading.quarantined), tuple(loading.notes))


def explain_missing(loaded: Loaded, error: GPTZooError) -> GPTZooError:
    """The error; if it says that a component does not exist, with the plugins named that might have brought it."""
    if isinstance(error, Problems):
        return Problems([explain_missing(loaded, each) for each in error.problems])
    if not (loaded.quarantined and re.match(r"no \w+ is called ", error.what)):
        return error
    notes = "".join(f" Note: {each}." for each in loaded.quarantined[:3])
    more = f" {len(loaded.quarantined) - 3} more failed to load." if len(loaded.quarantined) > 3 else ""
    return GPTZooError(error.what + notes + more, error.where)


def shipped_folder() -> Path:
    """The folder of the package `gptzoo_plugins`, which a bare checkout makes importable here.

    Raises:
        GPTZooError: The package is neither installed nor beside `gptzoo/`.
    """
    return Path(_shipped_package().__path__[0])


# What there is to load.


@dataclass(frozen=True)
class _Candidate:
    """A plugin to be loaded.

    Args:
        owner: Who it will be; an empty origin and the hash are filled in when its file is known.
        module: Its module's name.
        load: Imports it.
        required: The user asked for it, so that its failure is an error.
        file: Its source, if that is known before the import.
    """

    owner: Owner
    module: str
    load: Callable[[], object]
    required: bool = False
    file: Path | None = None


def _everything(
    plugins: Sequence[str | Path], folders: Sequence[str | Path], environ: Mapping[str, str]
) -> Iterator[_Candidate | Quarantined]:
    yield _module("gptzoo.core", Owner("core", "core", __version__), required=True)
    yield from _shipped()
    yield from _entry_points()
    for word in plugins:
        yield from _typed(str(word), "")
    for folder in folders:
        yield from _in_folder(Path(folder), "")
    for word in environ.get(VARIABLE, "").split(os.pathsep):
        if word.strip():
            yield from _typed(word.strip(), VARIABLE)


def _module(name: str, owner: Owner, required: bool = False) -> _Candidate:
    return _Candidate(owner, name, lambda: importlib.import_module(name), required)


def _shipped() -> Iterator[_Candidate]:
    for module in pkgutil.iter_modules(_shipped_package().__path__):
        if not module.name.startswith("_"):
            yield _module(f"{SHIPPED}.{module.name}", Owner(module.name, SHIPPED, __version__))


def _shipped_package() -> ModuleType:
    if importlib.util.find_spec(SHIPPED) is not None:
        return importlib.import_module(SHIPPED)
    folder = Path(__file__).resolve().parent.parent / "plugins"
    if not folder.is_dir():
        raise GPTZooError(f"the package {SHIPPED} is missing. Install gptzoo again.", str(folder))
    spec = ModuleSpec(SHIPPED, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[SHIPPED] = importlib.util.module_from_spec(spec)
    return sys.modules[SHIPPED]


def _entry_points() -> Iterator[_Candidate | Quarantined]:
    seen = set()
    for name, version, distribution in sorted(_with_entry_points(), key=lambda each: each[0]):
        if name in seen:  # a second copy further down sys.path, which Python ignores as well
            continue
        seen.add(name)
        try:
            points = sorted(distribution.entry_points.select(group=GROUP), key=lambda point: point.name)
        except Exception as error:
            yield Quarantined(name, name, version, "find", f"entry_points.txt: {_say(error)}")
            continue
        for point in points:
            yield _Candidate(Owner(point.name, name, version), re.split(r"[:\[]", point.value)[0].strip(), point.load)


def _with_entry_points() -> Iterator[tuple[str, str, metadata.Distribution]]:
    """Distributions with a `[gptzoo]` section, with name and version; others may be broken as they like."""
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeError):
            continue
        if re.search(rf"^\[\s*{GROUP}\s*\]", text, re.MULTILINE):
            yield *_described(distribution), distribution


def _described(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        name, version = distribution.name, distribution.version
    except Exception:  # METADATA is missing or cannot be parsed; some versions of Python give None instead
        name, version = None, None
    return name or str(getattr(distribution, "_path", "unknown")), version or ""


def _typed(word: str, where: str) -> Iterator[_Candidate]:
    path = Path(word).expanduser()
    is_name = all(part.isidentifier() for part in word.split("."))
    if path.is_dir() and not (is_name and (path / "__init__.py").exists()):
        yield from _in_folder(path, where)
    elif is_name and path.suffix != ".py":
        yield _typed_module(word, where)
    else:
        yield _file(path, where)


def _typed_module(name: str, where: str) -> _Candidate:
    top = name.split(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        hint = f"Did you mean {name}.py?" if Path(f"{name}.py").exists() else "Install its package, or give a .py file."
        raise GPTZooError(f"there is no plugin module {name!r}. {hint}", where)
    installed = [each for each in metadata.packages_distributions().get(top, []) if each]  # None without METADATA
    origin, version = (installed[0], metadata.version(installed[0])) if installed else ("", "")
    return _module(name, Owner(name, origin, version), required=True)


def _in_folder(folder: Path, where: str) -> Iterator[_Candidate]:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise GPTZooError(f"there is no folder {str(folder)!r}.", where)
    files = [f for f in sorted(folder.glob("*.py")) if not any(f.match(pattern) for pattern in _NOT_PLUGINS)]
    if not files:
        raise GPTZooError(f"the folder {str(folder)!r} holds no plugin.", where)
    for file in files:
        yield _file(file, where)


def _file(path: Path, where: str) -> _Candidate:
    path = path.expanduser()
    if not path.is_file():
        there = [str(each) for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise GPTZooError(f"there is no plugin file {str(path)!r}.{did_you_mean(str(path), there)}", where)
    if path.suffix != ".py":
        raise GPTZooError(f"{str(path)!r} is not a .py file.", where)
    path = path.resolve()
    stem = re.sub(r"\W", "_", path.stem)
    module = f"gptzoo_plugin_{stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    return _Candidate(Owner(path.stem, str(path)), module, lambda: _run_file(module, path), required=True, file=path)


class _FileLoader(SourceFileLoader):
    """Runs the very bytes that are hashed, and leaves no bytecode beside the user's file."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, self.path)


def _run_file(name: str, path: Path) -> ModuleType:
    """The file as a module: the same one as long as the file is the same."""
    loader = _FileLoader(name, str(path), path.read_bytes())
    module = sys.modules.get(name)
    if module is not None and getattr(module.__loader__, "source", None) == loader.source:
        return module
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# Loading one.


class _BrokenError(Exception):
    """A plugin fails: at what stage, in which place, with what words."""

    def __init__(self, stage: str, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.stage, self.where, self.what = stage, where, what


class _Loading:
    """The zoo while it fills."""

    def __init__(self) -> None:
        self.zoo = Zoo()
        self.owners: list[Owner] = []
        self.quarantined: list[Quarantined] = []
        self.notes: list[str] = []
        self._seen: dict[object, object] = {}

    def load(self, found: _Candidate | Quarantined) -> None:
        """Load a plugin, all of it or nothing."""
        if isinstance(found, Quarantined):
            self.quarantined.append(found)
        elif found.file is None or found.file not in self._seen:
            with untouched() as changes:
                self._attempt(found)
            self.notes += [f"plugin {found.owner.plugin} {change}" for change in changes]

    def _attempt(self, candidate: _Candidate) -> None:
        owner = candidate.owner
        try:
            self._register(candidate)
        except _BrokenError as broken:
            if candidate.required:
                raise GPTZooError(f"plugin {owner.plugin} failed to load: {broken.what}", broken.where) from broken
            self.quarantined.append(Quarantined(owner.plugin, owner.origin, owner.version, broken.stage, str(broken)))

    def _register(self, candidate: _Candidate) -> None:
        with _stage("import", candidate.module):
            plugin = candidate.load()
        file = _source_file(plugin)
        key = file if isinstance(plugin, ModuleType) and file else id(plugin)
        if key in self._seen:
            return
        origin = candidate.owner.origin or str(file or candidate.module)
        owner = replace(candidate.owner, origin=origin, sha256=_sha256(plugin, file))
        registrar = self.zoo.registering(owner)
        place = _call_hook(plugin, registrar, candidate.module)
        try:
            registrar.commit()
        except GPTZooError as error:
            raise _BrokenError("register", place, str(error)) from error
        self.owners.append(owner)
        self._seen[key] = plugin


def _source_file(plugin: object) -> Path | None:
    if not isinstance(plugin, ModuleType):
        module = getattr(plugin, "__module__", None) or type(plugin).__module__
        return _source_file(sys.modules[module]) if module in sys.modules else None
    file = getattr(plugin, "__file__", None)
    return Path(file).resolve() if file else None


def _sha256(plugin: object, file: Path | None) -> str:
    source = getattr(getattr(plugin, "__loader__", None), "source", None)
    if source is None:
        source = file.read_bytes() if file and file.is_file() else None
    return "" if source is None else hashlib.sha256(source).hexdigest()


def _call_hook(plugin: object, registrar: Registrar, module: str) -> str:
    """Call the plugin's hook; return the place of its definition."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    with _stage("hook", module):
        hook = _the_hook(plugin, manager)
        manager.register(plugin)
        manager.check_pending()
    with _stage("register", module, registrar):
        manager.hook.gptzoo_register(zoo=registrar)
    return _definition(hook)


def _the_hook(plugin: object, manager: pluggy.PluginManager) -> Callable[..., object]:
    """The plugin's hook, after a look at everything in it that might be meant as one."""
    specs = [name for name in vars(Hooks) if name.startswith("gptzoo_")]
    found = None
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None and not (name.startswith("gptzoo_") and inspect.isroutine(getattr(plugin, name))):
            continue
        function = getattr(plugin, name)
        hook = (options and options.get("specname")) or name
        place = _definition(function)
        if hook not in specs:
            raise _BrokenError("hook", place, f"no hook is called {hook!r}.{did_you_mean(hook, specs)}")
        if options is None:
            raise _BrokenError("hook", place, f"{name} lacks its decorator. Write @gptzoo.hookimpl above it.")
        _check_signature(function, hook)
        found = function
    if found is None:
        raise _BrokenError("hook", _shown(_source_file(plugin)), "it has no hook. Define gptzoo_register(zoo).")
    return found


def _check_signature(function: Callable[..., object], hook: str) -> None:
    wanted = [name for name in inspect.signature(getattr(Hooks, hook)).parameters if name != "self"]
    given = [name for name, p in inspect.signature(function).parameters.items() if p.default is p.empty]
    lazy = inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
    if given != wanted or lazy:
        kind = "a coroutine or generator" if lazy else f"{hook}({', '.join(given)})"
        raise _BrokenError("hook", _definition(function), f"the hook must be {hook}({', '.join(wanted)}), not {kind}.")


# Saying what went wrong.


@contextmanager
def _stage(stage: str, module: str, registrar: Registrar | None = None) -> Iterator[None]:
    """Whatever a plugin raises here, SystemExit too, becomes a `_BrokenError`; KeyboardInterrupt passes."""
    try:
        yield
    except _BrokenError:
        raise
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, AttributeError) and registrar is not None and error.obj is registrar:
            hint = did_you_mean(error.name or "", SLOTS)
        raise _BrokenError(stage, _place(error, module), _say(error) + (f".{hint}" if hint else "")) from error


def _place(error: BaseException, module: str) -> str:
    """`file:line` of the last frame of the plugin's own code; else of the last frame that is not the machinery's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}:{error.lineno}"
    own, other = "", ""
    for frame, line in walk_tb(error.__traceback__):
        top = frame.f_globals.get("__name__", "").split(".")[0]
        place = f"{_shown(frame.f_code.co_filename)}:{line}"
        if frame.f_globals.get("__name__") == module or (top == module.split(".")[0] and top != "gptzoo"):
            own = place
        elif top not in ("importlib", "pluggy", "contextlib", "gptzoo") and not place.startswith("<frozen"):
            other = place
    return own or other


def _say(error: BaseException) -> str:
    """`ErrorType: message` on one line; a `GPTZooError` speaks for itself."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(message.split())
    if isinstance(error, GPTZooError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _definition(function: Callable[..., object]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{_shown(code.co_filename)}:{code.co_firstlineno}" if code else ""


def _shown(path: str | Path | None) -> str:
    """A path as one would type it: relative where it lies below the working directory."""
    path = Path(path or "")
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
