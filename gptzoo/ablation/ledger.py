"""What a study keeps on disk beside its runs: the frozen plan, the list of its cells, and how each of them ended.

`study.json` is the truth, written in one move; `plan.yaml` is the same plan for people. Reading needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from gptzoo.ablation.plan import AblationPlan
from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.files import (
    TEMPORARY,
    canonical_json,
    make_folder,
    sha256_of,
    sync_folder,
    temporary_name,
    write_atomically,
)
from gptzoo.recipe.yaml_source import plain_value

PLAN, STUDY, CELL, CELLS = "plan.yaml", "study.json", "cell.json", "cells"
LOGITS, POSITIONS = "logits.json", "positions.json"

ENDED = ("done", "diverged")
"""States of a cell that is never run again."""

OUTCOMES = (*ENDED, "killed")
"""States that say something of an arm; a killed cell is run to its end if the plan no longer has the rung."""

SEALED = ("recipe.yaml", "metrics.jsonl", "environment.json", "timings.jsonl", LOGITS, POSITIONS)
"""Files of a cell that its report rests on; their hashes are recorded when it ends."""


@dataclass(frozen=True)
class CellRecord:
    """`cell.json`: what a cell is, and how it ended.

    Args:
        id: The run's identity.
        seed: The recipe's seed.
        status: `running`, `done`, `diverged`, `killed` or `failed`.
        reason: Why it diverged, was killed or failed.
        parameters: All, tied ones once.
        non_embedding: Those outside of embedding tables.
        peak_memory: Bytes; of the accelerator where there is one.
        init: Of each initial weight its shape and sha256, by path.
        data_hash: Over the batches of the run, in order.
        sealed: sha256 of the files that a report rests on.
        copied_from: The cell of another study that it was copied from, `study/folder`.
    """

    id: str
    seed: int
    status: str = "running"
    reason: str = ""
    parameters: int = 0
    non_embedding: int = 0
    peak_memory: int = 0
    init: Mapping[str, Sequence[object]] = field(default_factory=dict)
    data_hash: str = ""
    sealed: Mapping[str, str] = field(default_factory=dict)
    copied_from: str = ""


@dataclass(frozen=True)
class Ledger:
    """`study.json`.

    Args:
        plan: The text of `plan.yaml`.
        history: sha256 of every plan that the study had, the present one last.
        exploratory: What was changed after the first run, beyond more seeds or arms.
        base_recipe: The base, YAML.
        sets: For each way of matching: its arms, cells and notes, plain.
        journal: Whether a journal is kept beside it.
    """

    plan: str
    history: tuple[str, ...]
    exploratory: tuple[str, ...]
    base_recipe: str
    sets: tuple[dict[str, object], ...]
    journal: bool = False


def text_of(plan: AblationPlan, base: Mapping[str, object]) -> str:
    """The plan as it is frozen: YAML, with the resolved base in place of its name."""
    return "".join(f"{line}\n" for line in _lines({"base": base, **plan.described}, ""))


def _lines(value: Mapping[str, object], pad: str) -> Iterator[str]:
    for key, item in value.items():
        name = key if _is_word(key) else _json(key)
        if isinstance(item, Mapping) and any(isinstance(each, Mapping) for each in item.values()):
            yield f"{pad}{name}:"
            yield from _lines(item, f"{pad}  ")
        else:
            yield f"{pad}{name}: {_json(item)}"


def _is_word(key: str) -> bool:
    """Whether a key means itself to every reader without quotes."""
    try:
        return bool(_WORD.fullmatch(key)) and plain_value(key) == key
    except ValueError:  # `no`, `on`: readers disagree
        return False


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _json(value: object) -> str:
    """Flow YAML that means the same to every reader."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def hash_of(text: str) -> str:
    """sha256, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


# -- the study -------------------------------------------------------------------------------------------------------


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a study; None if the folder holds none yet.

    Raises:
        GPTZooError: It cannot be read.
    """
    path = Path(folder) / STUDY
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_bytes())
        lists = {name: tuple(kept[name]) for name in ("history", "exploratory", "sets")}
        journal = bool(kept.get("journal"))
        return Ledger(plan=kept["plan"], base_recipe=kept["base_recipe"], **lists, journal=journal)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise GPTZooError("this is not the ledger of a study. Restore the file.", str(path)) from error


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Write `study.json`, then `plan.yaml`.

    Raises:
        NoSpace: The disk is full.
        GPTZooError: The folder cannot be written.
    """
    text = json.dumps(asdict(ledger), indent=1, sort_keys=True, allow_nan=False)
    if not (folder / STUDY).exists() or (folder / STUDY).read_text() != f"{text}\n":
        write_atomically(folder / STUDY, f"{text}\n".encode())
    if not (folder / PLAN).exists() or (folder / PLAN).read_text() != ledger.plan:
        write_atomically(folder / PLAN, ledger.plan.encode())


def edited(folder: Path, ledger: Ledger) -> str:
    """Says that `plan.yaml` is none of the plans that the study had, or nothing."""
    path = folder / PLAN
    same = path.exists() and sha256_of(path) in ledger.history and hash_of(ledger.plan) == ledger.history[-1]
    return "" if same else f"{PLAN} is not what was frozen"


def changes_of_plan(
    old: AblationPlan, old_base: object, new: AblationPlan, new_base: Mapping[str, object]
) -> list[str]:
    """What makes a study exploratory: every change except more seeds or more arms."""
    before, now = old.described, new.described
    found = [
        f"{key}: {_json(before.get(key))} -> {_json(now.get(key))}"
        for key in _PINNED
        if before.get(key) != now.get(key)
    ]
    if new.seeds < old.seeds:
        found.append(f"seeds: {old.seeds} -> {new.seeds}")
    arms = {arm.name: dict(arm.changes) for arm in new.arms}
    for arm in old.arms:
        if arm.name not in arms:
            found.append(f"arms.{arm.name} was taken out")
        elif arms[arm.name] != arm.changes:
            found.append(f"arms.{arm.name}: {_json(dict(arm.changes))} -> {_json(arms[arm.name])}")
    bases = differences({**_mapping(old_base), "name": ""}, {**new_base, "name": ""})
    return found + [f"base.{key}: {_json(one)} -> {_json(two)}" for key, (one, two) in bases.items()]


_PINNED = (
    "baseline",
    "design",
    "generators",
    "looks",
    "rungs",
    "aa",
    "match",
    "free",
    "tune",
    "metric",
    "delta",
    "alpha",
)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def study_at(folder: Path) -> Ledger:
    """The ledger of the study that lies in a folder.

    Raises:
        GPTZooError: None lies there; studies beside it are named.
    """
    ledger = read_ledger(folder)
    if ledger is None:
        beside = [path.parent.name for path in folder.parent.glob(f"*/{STUDY}")] if folder.parent.is_dir() else []
        what = "has no study.json, so it is not a study" if folder.exists() else "there is no such study"
        raise GPTZooError(f"{what}.{did_you_mean(folder.name, beside)}", str(folder))
    return ledger


def differences(first: object, second: object) -> dict[str, tuple[object, object]]:
    """What differs between two plain recipes: dotted key -> (in the first, in the second).

    A part of another name differs as a whole; of the same name, in its options.
    """
    return dict(_differences(first, second, ""))


def _differences(first: object, second: object, key: str) -> list[tuple[str, tuple[object, object]]]:
    if first == second:
        return []
    one, two = _as_part(first, second), _as_part(second, first)
    if not isinstance(one, Mapping) or not isinstance(two, Mapping) or (key and one.get("name") != two.get("name")):
        return [(key, (first, second))]
    names = dict.fromkeys([*one, *two])
    found = [_differences(one.get(n), two.get(n), f"{key}.{n}" if key else n) for n in names]
    return [each for inner in found for each in inner]


def _as_part(value: object, other: object) -> object:
    """A part without options is written as its name: as a mapping beside one that has some."""
    return {"name": value} if isinstance(value, str) and isinstance(other, Mapping) else value


# -- cells -----------------------------------------------------------------------------------------------------------


def read_cell(folder: Path) -> CellRecord | None:
    """A cell's record; None where there is none, or it is damaged: such a cell is run again."""
    try:
        kept = json.loads((folder / CELL).read_bytes())
        return CellRecord(**kept)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_cell(folder: Path, record: CellRecord) -> None:
    """Write a cell's record.

    Raises:
        NoSpace: The disk is full.
        GPTZooError: The folder cannot be written.
    """
    write_atomically(folder / CELL, _text_of_cell(record).encode())


def _text_of_cell(record: CellRecord) -> str:
    return f"{canonical_json(asdict(record))}\n"


def hash_unmarked(record: CellRecord) -> str:
    """sha256 that a cell's record had before the cell was copied: the mark of a copy is all that copying adds."""
    return hash_of(_text_of_cell(replace(record, copied_from="")))


def seals(folder: Path) -> dict[str, str]:
    """sha256 of the files that a report rests on."""
    return {name: sha256_of(folder / name) for name in SEALED if (folder / name).exists()}


def broken_seals(folder: Path, record: CellRecord) -> list[str]:
    """The files of an ended cell that are not what they were when it ended."""
    now = seals(folder)
    return [name for name, digest in record.sealed.items() if now.get(name) != digest]


def set_aside(folder: Path) -> None:
    """Move a cell that is no longer the planned one out of the way; nothing is deleted, and its id finds it again."""
    record = read_cell(folder)
    name = record.id if record else temporary_name(folder).name[-12:]
    target = folder.with_name(f"{folder.name}.{name}")
    if target.exists():
        target = folder.with_name(f"{folder.name}.{name}-{temporary_name(folder).name[-8:]}")
    folder.rename(target)
    sync_folder(folder.parent)


def ended_cells(runs: Path) -> dict[str, list[Path]]:
    """Folders of ended cells in all studies, by id."""
    found: dict[str, list[Path]] = {}
    for path in sorted(runs.glob(f"*/{CELLS}/*/{CELL}")):
        record = read_cell(path.parent) if TEMPORARY not in path.parent.name else None
        if record is not None and record.status in ENDED and not broken_seals(path.parent, record):
            found.setdefault(record.id, []).append(path.parent)
    return found


def copy_cell(source: Path, target: Path) -> None:
    """Copy an ended cell, whole or not at all, and mark the copy.

    Raises:
        GPTZooError: It cannot be copied.
    """
    record = read_cell(source)
    assert record is not None
    make_folder(target.parent)
    temporary = temporary_name(target)
    try:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".lock", f"*{TEMPORARY}*"))
        origin = f"{source.parent.parent.name}/{source.name}"
        write_cell(temporary, CellRecord(**{**asdict(record), "copied_from": record.copied_from or origin}))
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise GPTZooError(f"{source} cannot be copied: {error}.", str(target)) from error
    sync_folder(target.parent)
