"""Where recipes are found: paths that the user types, shipped names, and the bases that a recipe may name."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptzoo.errors import GPTZooError, Problems, did_you_mean
from gptzoo.recipe.yaml_source import REFUSED, Node, Place, problem, read_file, shown

MAX_BASES = 100
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True)
class RecipeFile:
    """A file that holds a recipe.

    Args:
        path: The file.
        shown: How messages call it.
        root: The folder under which the files that it names must lie.
    """

    path: Path
    shown: str
    root: Path

    @property
    def identity(self) -> str:
        """Equal for two names of one file."""
        return os.path.realpath(self.path)


def shipped_folder() -> Path:
    """The folder of the recipes that come with GPTZoo."""
    spec = importlib.util.find_spec("gptzoo_recipes")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "recipes"


@dataclass(frozen=True)
class Library:
    """The shipped recipes, and the rules by which files are found."""

    folder: Path

    def names(self) -> list[str]:
        """The shipped names: `gpt2-tiny`, `ablations/positions`."""
        return sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.yaml"))

    def shipped(self, name: str) -> RecipeFile | None:
        """The recipe shipped under a name, if there is one."""
        path = self.folder / f"{name}.yaml"
        if _NAME.fullmatch(name) and os.path.isfile(path):
            return RecipeFile(path, f"{self.folder.name}/{name}.yaml", self.folder)
        return None

    def typed(self, recipe: str | os.PathLike[str], where: str = "") -> RecipeFile:
        """The recipe that a user typed: a shipped name, else a path.

        Raises:
            GPTZooError: There is neither; close matches are named.
        """
        text = os.fspath(recipe)
        if isinstance(recipe, str) and (found := self.shipped(text)):
            return found
        if os.path.exists(text):
            return RecipeFile(Path(text), text, Path(text).parent)
        raise GPTZooError(f"there is no recipe {shown(text)}.{self.hint(text, Path(text).parent)}", where)

    def base(self, name: str, naming: RecipeFile, place: Place) -> RecipeFile:
        """The recipe that another one names as a base: a shipped name, else a file beside it.

        Raises:
            GPTZooError: There is neither, or the file lies outside the folders that a recipe may read.
        """
        if found := self.shipped(name):
            return found
        folder = naming.path.parent
        path = folder / name.replace("\0", "?")
        if not any(_is_under(path, allowed) for allowed in (naming.root, self.folder)):
            what = f"{shown(name)} lies outside {naming.root}/. A base is a shipped name, or a file in that folder."
            raise problem(place, ("base",), what)
        if not os.path.exists(path):
            raise problem(place, ("base",), f"there is no recipe {shown(name)}.{self.hint(name, folder)}")
        return RecipeFile(path, os.path.normpath(os.path.join(os.path.dirname(naming.shown), name)), naming.root)

    def hint(self, name: str, folder: Path) -> str:
        """` Did you mean ...?`, from the shipped names and the files of a folder."""
        beside = [each for each in os.listdir(folder) if each.endswith(".yaml")] if os.path.isdir(folder) else []
        return did_you_mean(name.removesuffix(".yaml"), self.names()) or did_you_mean(Path(name).name, beside)


class Chain:
    """The bases of a recipe, in the order in which they are applied.

    Args:
        library: Finds them.
        problems: Where to put problems in files after which reading can go on.
    """

    def __init__(self, library: Library, problems: list[GPTZooError]) -> None:
        self.library, self.problems = library, problems
        self._read: dict[str, Node] = {}
        self._applied = 0

    def of(self, node: Node, naming: RecipeFile | None) -> Iterator[Node]:
        """The bases that a recipe names, each after its own.

        Args:
            node: The recipe.
            naming: Its file; None if the user gave it on the command line or in Python, and may name any file.

        Raises:
            GPTZooError: A base is missing, out of bounds or a circle.
        """
        yield from self._bases(node, naming, (naming,) if naming else ())

    def read(self, file: RecipeFile) -> Node:
        """The file's mapping, read once."""
        if file.identity not in self._read:
            self._read[file.identity] = read_file(file.path, file.shown, self.problems)
        return self._read[file.identity]

    def _bases(self, node: Node, naming: RecipeFile | None, above: tuple[RecipeFile, ...]) -> Iterator[Node]:
        for name, place in _named(node):
            if naming:
                file = self.library.base(name, naming, place)
            else:
                file = self.library.typed(name, f"{place}: base")
            if file.identity in [each.identity for each in above]:
                circle = " -> ".join(each.shown for each in (*above, file))
                raise problem(place, ("base",), f"{circle} is a circle.")
            self._applied += 1
            if self._applied > MAX_BASES:
                raise problem(place, ("base",), f"more than {MAX_BASES} bases are applied.")
            base = self.read(file)
            yield from self._bases(base, file, (*above, file))
            yield base


def _named(node: Node) -> list[tuple[str, Place]]:
    base = node.items.get("base")
    if base is None:
        return []
    named = []
    for each in base.value if isinstance(base.value, list) else [base]:
        if each.value is REFUSED:
            raise Problems([])  # it is reported already, and without its base a recipe means something else
        if not isinstance(each.value, str) or not each.value:
            raise problem(each.place, ("base",), f"{shown(each.plain())} is not a recipe's name, nor a list of names.")
        named.append((each.value, each.place))
    return named


def _is_under(path: Path, folder: Path) -> bool:
    return os.path.commonpath([os.path.realpath(path), real := os.path.realpath(folder)]) == real
