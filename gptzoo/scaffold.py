"""`gptzoo new SLOT NAME`: a plugin to start from, with its tests, both working as they are."""

from __future__ import annotations

import re
from pathlib import Path

from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.files import make_folder, write_atomically
from gptzoo.loading import shipped_folder
from gptzoo.registry import RESERVED, SLOTS, Zoo


def new(slot: str, name: str, folder: Path, zoo: Zoo) -> list[Path]:
    """Write `<folder>/<name>.py` and `<folder>/test_<name>.py` from the slot's template.

    Args:
        slot: What the component is for.
        name: What recipes will call it; the class is called the same in CamelCase.
        folder: Made if it is not there.
        zoo: The registered components, whose names are taken.

    Returns:
        The two files.

    Raises:
        GPTZooError: No such slot, the name is taken or none, a file exists, or the folder cannot be written.
    """
    _check(slot, name, zoo)
    folder = Path(folder)
    files = {folder / f"{name}.py": f"{slot}.py", folder / f"test_{name}.py": f"{slot}_tests.py"}
    for file in files:
        if file.exists():
            raise GPTZooError("the file exists. Choose another name or --folder.", str(file))
    texts = {file: _filled(template, slot, name) for file, template in files.items()}
    make_folder(folder)
    for file, text in texts.items():
        write_atomically(file, text.encode())
    return list(texts)


def class_name(name: str) -> str:
    """`sliding_window` -> `SlidingWindow`."""
    return "".join(part.capitalize() for part in name.split("_"))


def _check(slot: str, name: str, zoo: Zoo) -> None:
    if slot not in SLOTS:
        hint = did_you_mean(slot, SLOTS) or f" Slots: {', '.join(SLOTS)}."
        raise GPTZooError(f"no slot is called {slot!r}.{hint}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise GPTZooError(f"{name!r} is not a name for a plugin. Use lower case letters, digits and '_'.")
    if re.fullmatch(r"test_.*|.*_test|conftest|setup", name):
        raise GPTZooError(
            f"{name}.py would be taken for a test or a setup file, not for a plugin. Choose another name."
        )
    if name in RESERVED.get(slot, ()):
        raise GPTZooError(f"{slot} {name!r} is a reserved word. Choose another name.")
    taken = [entry.owner for entry in zoo.entries(slot) if name in (entry.name, *entry.aliases)]
    if taken:
        raise GPTZooError(f"{slot} {name!r} is taken by plugin {taken[0]}. Choose another name.")


def _filled(template: str, slot: str, name: str) -> str:
    """A template's text with the name and the class name put in."""
    text = (shipped_folder() / "_templates" / template).read_text(encoding="utf-8")
    return text.replace(f"my_{slot}", name).replace(class_name(f"my_{slot}"), class_name(name))
