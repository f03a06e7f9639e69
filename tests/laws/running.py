"""`python -m tests.laws`: every law on every part, every composition, every planted bug; results.json keeps the counts.

python -m tests.laws                  all of it, a quarter of an hour on two cores
python -m tests.laws --examples 6     quicker
python -m tests.laws --device cuda    what is only declared elsewhere, run where there is a GPU
python -m tests.laws --only matrix    parts | matrix | bugs
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from gptzoo.errors import GPTZooError
from gptzoo.loading import load_plugins
from gptzoo.registry import SLOTS
from gptzoo.testing import laws_of, subjects, try_law
from gptzoo.testing.checking import applies
from gptzoo.testing.compositions import Composition, at_random, judge, pairs, triples
from gptzoo.testing.law import EXAMPLES
from tests.laws.corpus import with_text
from tests.laws.planted import BUGS
from tests.laws.test_planted import caught
from tests.records import record, where

RESULTS = Path(__file__).with_name("results.json")
TORCH_ALONE = "1"


def main(argv: list[str]) -> int:
    """Run what was asked for; 1 where something failed."""
    options = _parser().parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = TORCH_ALONE
    failures = []
    for kind in (options.only,) if options.only else ("parts", "matrix", "bugs"):
        start = time.time()
        found = list(_all(list(_jobs(kind, options)), options.workers))
        failures += [each for each in found if each["failed"]]
        section = {**_where(options), **SUMMARIES[kind](found), "minutes": round((time.time() - start) / 60, 1)}
        print(json.dumps({kind: section}, indent=2))
        if _counts(options) and not failures:
            record(RESULTS, kind, section)
    for each in failures:
        print(f"FAILED {each['what']}: {each['failed']}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.laws")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="cases that each law is tried in")
    parser.add_argument("--device", default="cpu", help="where models are put")
    parser.add_argument("--only", choices=["parts", "matrix", "bugs"], help="a part of it")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--tenth", type=int, default=None, help="one tenth of the compositions, 0 to 9")
    return parser


Job = tuple[str, Any, str, int]
"""Kind, what, device, examples."""


def _jobs(kind: str, options: argparse.Namespace) -> Iterator[Job]:
    zoo = load_plugins().zoo
    if kind == "parts":
        for slot in SLOTS:
            for entry in zoo.entries(slot):
                yield "part", (slot, entry.name), options.device, options.examples
    elif kind == "matrix":
        every = [*triples(zoo), *pairs(zoo), *at_random(zoo)]
        chosen = every if options.tenth is None else every[options.tenth :: 10]
        for batch in _batched(chosen, 10):
            yield "compositions", [dict(c.parts) for c in batch], options.device, 1
    elif options.device == "cpu":
        for index in range(len(BUGS)):
            yield "bug", index, options.device, options.examples


def _batched(items: Iterable[Composition], size: int) -> Iterator[list[Composition]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _all(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_alone) as pool:
        for number, found in enumerate(pool.map(_run, jobs), 1):
            yield from found
            what = found[-1]["what"] if found else ""
            print(f"\r[{number}/{len(jobs)}] {what[:70]:70}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _alone() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _run(job: Job) -> list[dict[str, Any]]:
    kind, what, device, examples = job
    return {"part": _part, "compositions": _compositions, "bug": _bug}[kind](what, device, examples)


def _part(what: tuple[str, str], device: str, examples: int) -> list[dict[str, Any]]:
    zoo = with_text(load_plugins().zoo)
    slot, name = what
    found = []
    try:
        for subject in subjects(zoo, zoo.get(slot, name), device):
            outcomes = [try_law(law, subject, examples) for law in laws_of(slot) if applies(law, subject)]
            failed = "; ".join(f"{o.law.name}: {o.failure} ({o.case})" for o in outcomes if not o.passed)
            cases = sum(o.examples for o in outcomes)
            found.append(
                {
                    "kind": "part",
                    "name": f"{slot} {name}",
                    "what": str(subject),
                    "laws": len(outcomes),
                    "cases": cases,
                    "failed": failed,
                }
            )
    except GPTZooError as error:
        full = f"{slot} {name}"
        found.append({"kind": "part", "name": full, "what": full, "laws": 0, "cases": 0, "failed": str(error)})
    return found


def _compositions(what: list[dict[str, str]], device: str, _examples: int) -> list[dict[str, Any]]:
    zoo = load_plugins().zoo
    found = []
    for parts in what:
        verdict = judge(zoo, Composition(parts), device)
        failed = verdict.note if verdict.outcome == "failed" else ""
        kind = "triple" if len(parts) == 3 else "pair" if len(parts) == 4 else "random"
        found.append({"kind": kind, "what": str(verdict.composition), "outcome": verdict.outcome, "failed": failed})
    return found


def _bug(index: int, _device: str, _examples: int) -> list[dict[str, Any]]:
    bug = BUGS[index]
    missed = "" if not caught(bug).passed else f"{bug.law} does not see it"
    return [{"kind": "bug", "what": bug.what, "failed": missed}]


def _parts(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "parts": len({each["name"] for each in found}),
        "under_options": len(found),
        "laws_tried": sum(each["laws"] for each in found),
        "cases": sum(each["cases"] for each in found),
        "failed": sum(bool(each["failed"]) for each in found),
    }


def _matrix(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        kind: dict(sorted(Counter(each["outcome"] for each in found if each["kind"] == kind).items()))
        for kind in ("triple", "pair", "random")
    }


def _bugs(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"planted": len(found), "caught": sum(not each["failed"] for each in found)}


SUMMARIES = {"parts": _parts, "matrix": _matrix, "bugs": _bugs}


def _where(options: argparse.Namespace) -> dict[str, Any]:
    return {**where(), "device": options.device, "examples_per_law": options.examples}


def _counts(options: argparse.Namespace) -> bool:
    """Whether a run is one for the record: all of it, on the default number of examples."""
    return options.device == "cpu" and options.examples >= EXAMPLES and options.tenth is None
