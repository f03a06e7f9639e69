"""`gptzoo check`: the laws, on any component: a registered one, a plugin file's, or a class that is not registered."""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import gptzoo.testing.attention
import gptzoo.testing.corpora
import gptzoo.testing.formulas
import gptzoo.testing.kernel
import gptzoo.testing.layers
import gptzoo.testing.options
import gptzoo.testing.position
import gptzoo.testing.training
import gptzoo.testing.whole  # noqa: F401 - each declares its laws
from gptzoo.contracts import Attention, Data, Kernel, Position, Tokenizer
from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.loading import load_plugins
from gptzoo.registry import SLOTS, Entry, Owner, Zoo
from gptzoo.testing.law import EXAMPLES, LAWS, Law, Outcome, laws_of, try_law
from gptzoo.testing.places import Untrainable
from gptzoo.testing.subject import Subject, subjects, typed_part

BASES: tuple[tuple[type, str], ...] = (
    (Attention, "attention"),
    (Position, "position"),
    (Kernel, "kernel"),
    (Data, "data"),
    (Tokenizer, "tokenizer"),
    (torch.optim.Optimizer, "optimizer"),
)


@dataclass
class Report:
    """What the laws said of some components.

    Args:
        outcomes: One for each law and subject.
        seconds: How long it took.
        untried: Laws that have nothing to say of a subject, by subject.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    untried: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failures(self) -> list[Outcome]:
        return [each for each in self.outcomes if not each.passed]

    @property
    def examples(self) -> int:
        return sum(each.examples for each in self.outcomes)


def check(
    what: str,
    *,
    slot: str | None = None,
    options: Mapping[str, object] | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    examples: int = EXAMPLES,
    laws: str = "*",
    device: str = "cpu",
    seed: int | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Try the laws on a component, or on all that a plugin registers.

    Args:
        what: A component's name (or `slot.name`), a plugin's `.py` file, or `package.module:Class`.
        slot: The slot of a class that is not registered, where its base class does not tell.
        options: Options to try it under, as a recipe writes them, in place of its own `examples`.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        examples: Cases that each law is tried in.
        laws: A shell pattern of law names.
        device: Where models are put.
        seed: Of the search; the same cases each time unless given.
        on_outcome: Told of each law.

    Raises:
        GPTZooError: There is no such component, file, class, option or law.
    """
    zoo, entries = find(what, slot, plugins, folders)
    report, start = Report(), time.perf_counter()
    if not any(fnmatch.fnmatch(each.name, laws) for each in LAWS):
        raise GPTZooError(f"no law is called {laws!r}.{did_you_mean(laws, [each.name for each in LAWS])}", "--law")
    for entry in entries:
        for subject in _subjects(zoo, entry, options, device):
            for each in laws_of(entry.slot):
                if not fnmatch.fnmatch(each.name, laws):
                    continue
                if not applies(each, subject):
                    report.untried.setdefault(str(subject), []).append(each.name)
                    continue
                report.outcomes.append(try_law(each, subject, examples, seed))
                on_outcome(report.outcomes[-1])
    report.seconds = time.perf_counter() - start
    return report


def applies(law: Law, subject: Subject) -> bool:
    """Whether a law speaks of a subject; one that cannot even be built is spoken of, so that it fails."""
    try:
        return law.applies(subject) and law.cases(subject) is not None
    except Untrainable:
        return False
    except Exception:
        return True


def obey(what: str, law: Law, *, examples: int = EXAMPLES, plugins: Sequence[str] = (), **more: object) -> None:
    """For a test: raise AssertionError where a component breaks a law, with the smallest case.

    `@pytest.mark.parametrize("law", laws_of("attention"), ids=str)` and `obey("my_attention", law)` make a test of
    every law that there is.
    """
    report = check(what, examples=examples, plugins=plugins, laws=law.name, **more)  # type: ignore[arg-type]
    assert not report.failures, "\n".join(said(each) for each in report.failures)


def said(outcome: Outcome) -> str:
    """An outcome as text: a line, and for a failure what is wrong and where."""
    if outcome.passed:
        return f"ok     {outcome.law.sentence} ({outcome.examples} cases)"
    lines = [f"FAILED {outcome.law.sentence}", f"       {outcome.failure}"]
    if outcome.case is not None:
        lines.append(f"       smallest case: {outcome.case}")
    return "\n".join(lines)


def find(
    what: str, slot: str | None = None, plugins: Sequence[str] = (), folders: Sequence[str] = ()
) -> tuple[Zoo, list[Entry]]:
    """The zoo, and the components in it that a word means.

    Raises:
        GPTZooError: There are none.
    """
    if what.endswith(".py"):
        return _of_file(what, plugins, folders)
    if re.fullmatch(r"[\w.]+:\w+", what):
        return _of_class(what, slot, plugins, folders)
    zoo = load_plugins(plugins, folders).zoo
    return zoo, [zoo.get(slot, what) if slot else zoo.find(what)]


def _of_file(what: str, plugins: Sequence[str], folders: Sequence[str]) -> tuple[Zoo, list[Entry]]:
    loaded = load_plugins([*plugins, what], folders)
    path = Path(what).resolve()
    own = [e for e in loaded.zoo.entries() if Path(e.owner.origin).resolve() == path]
    if not own:
        raise GPTZooError("the plugin registers nothing.", what)
    return loaded.zoo, own


def _of_class(what: str, slot: str | None, plugins: Sequence[str], folders: Sequence[str]) -> tuple[Zoo, list[Entry]]:
    module, _, name = what.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise GPTZooError(f"{error}. Is its package installed, or its folder on PYTHONPATH?", what) from error
    if not callable(found):
        known = [each for each, value in vars(importlib.import_module(module)).items() if inspect.isclass(value)]
        raise GPTZooError(f"module {module} has no class {name!r}.{did_you_mean(name, known)}", what)
    slot = slot or next((s for base, s in BASES if inspect.isclass(found) and issubclass(found, base)), None)
    if slot is None:
        raise GPTZooError(f"its base class does not tell its slot. Give --slot, one of {', '.join(SLOTS)}.", what)
    zoo = load_plugins(plugins, folders).zoo
    entry = Entry(slot, f"checked_{name.lower()}", found, Owner(module, module))
    zoo.add(entry)
    return zoo, [entry]


def _subjects(zoo: Zoo, entry: Entry, options: Mapping[str, object] | None, device: str) -> Iterator[Subject]:
    if options is None:
        yield from subjects(zoo, entry, device)
    else:
        yield Subject(zoo, typed_part(zoo, entry.slot, entry.name, options), device)
