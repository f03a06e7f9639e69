"""Read a RESULTS.csv: columns `arm`, `seed` and `metric`, in any order; other columns are ignored.

A metric of `nan` or `inf` is a run that diverged, which is an outcome. A missing row is a hole, which the analysis
allows for; so is a row without a metric whose `status`, if there is such a column, is `failed` or `missing`: the form
in which studies write their results.csv. With status `killed` it is an outcome: a run that was far behind. Everything
else that is not a number is refused, all problems at once.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gptzoo.ablation.verdicts import Cell
from gptzoo.errors import GPTZooError, did_you_mean, raise_all

COLUMNS = ("arm", "seed", "metric")
HOLES, KILLED = ("failed", "missing"), "killed"  # words of the column `status`

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)

Row = tuple[int, list[str]]  # line number, fields


def read_results(path: str | os.PathLike[str]) -> list[Cell]:
    """The cells of a results file, in its order.

    Raises:
        GPTZooError: The file cannot be read, its header lacks a column, a row is not a result, an arm has two results
            at one seed, or there are fewer than two arms. One line per problem, with file and line.
    """
    rows = _rows(Path(path))
    header = next(rows, None)
    if header is None:
        raise GPTZooError(f"the file is empty. Its first line must be {','.join(COLUMNS)}.", f"{path}:1")
    columns = _columns(header, path)
    cells: list[Cell] = []
    problems: list[GPTZooError] = []
    first_line: dict[tuple[str, int], int] = {}
    for line, fields in rows:
        status = _status(fields, header[1], columns)
        if status in HOLES:
            continue
        try:
            cell = _cell(fields, columns, len(header[1]), killed=status == KILLED)
            if (cell.arm, cell.seed) in first_line:
                raise GPTZooError(_twice(cell, first_line[cell.arm, cell.seed]))
        except GPTZooError as problem:
            problems.append(GPTZooError(problem.what, ": ".join(filter(None, (f"{path}:{line}", problem.where)))))
            continue
        first_line[cell.arm, cell.seed] = line
        cells.append(cell)
    raise_all(problems)
    _check_arms(cells, path)
    return cells


def _rows(path: Path) -> Iterator[Row]:
    """Rows that are not blank, with the line each one ends on.

    Raises:
        GPTZooError: The file cannot be opened, is not text or is not CSV.
    """
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num, [field.strip() for field in fields]
    except UnicodeDecodeError:
        raise GPTZooError("this is not a text file in UTF-8. Save the results as CSV.", str(path)) from None
    except csv.Error as error:
        line = reader.line_num if reader else 1
        raise GPTZooError(f"this is not CSV ({error}). Save the results as CSV.", f"{path}:{line}") from None
    except OSError as error:
        raise GPTZooError(f"the file cannot be read ({error.strerror}). Check the path.", str(path)) from None


def _columns(header: Row, path: str | os.PathLike[str]) -> dict[str, int]:
    """Where each column stands."""
    line, names = header
    for column in COLUMNS:
        if names.count(column) != 1:
            many = "two columns are" if names.count(column) else "no column is"
            has = did_you_mean(column, names) or f" It has {', '.join(map(_shown, names))}."
            raise GPTZooError(
                f"{many} called {column!r}. The header must be {','.join(COLUMNS)}.{has}", f"{path}:{line}"
            )
    return {column: names.index(column) for column in COLUMNS}


def _status(fields: list[str], names: list[str], columns: dict[str, int]) -> str:
    """What a row says itself of why it has no metric; empty where it has one, or says nothing."""
    if len(fields) != len(names) or names.count("status") != 1 or fields[columns["metric"]]:
        return ""
    return fields[names.index("status")]


def _cell(fields: list[str], columns: dict[str, int], width: int, *, killed: bool = False) -> Cell:
    if len(fields) != width:
        raise GPTZooError(f"{_count(len(fields))} where the header has {width}. A decimal point is '.', not ','.")
    arm, seed, metric = (fields[columns[column]] for column in COLUMNS)
    if not arm or not arm.isprintable():
        raise GPTZooError(f"{_shown(arm)} is not the name of an arm. Write a word.", "arm")
    if not _WHOLE.fullmatch(seed):
        raise GPTZooError(f"{_shown(seed)} is not a whole number. Write 0, 1, 2 and so on.", "seed")
    if killed:
        return Cell(arm, int(seed), math.nan, killed=True)
    if not _NUMBER.fullmatch(metric):
        remedy = "Write nan for a run that diverged; leave out the row of a run that is missing."
        raise GPTZooError(f"{_shown(metric)} is not a number. {remedy}", "metric")
    return Cell(arm, int(seed), float(metric))


def _check_arms(cells: list[Cell], path: str | os.PathLike[str]) -> None:
    arms = {cell.arm for cell in cells}
    if not arms:
        raise GPTZooError("there are no results under the header. Add a row for each arm and seed.", f"{path}:2")
    if len(arms) == 1:
        last = f"there is only the arm {arms.pop()!r}: nothing to compare. Add rows of a second arm."
        raise GPTZooError(last, str(path))


def _twice(cell: Cell, line: int) -> str:
    return f"arm {cell.arm!r} has a result at seed {cell.seed} already, on line {line}. Keep one."


def _count(fields: int) -> str:
    return f"{fields} field" if fields == 1 else f"{fields} fields"


def _shown(text: str) -> str:
    """A user's text, quoted and short."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
