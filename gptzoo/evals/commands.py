"""`gptzoo evaluate`: scores, the curve over positions, or a suite. The latter two are left with the run, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from jsonargparse import Namespace

from gptzoo import curves
from gptzoo.contracts import Data
from gptzoo.errors import GPTZooError, raise_all
from gptzoo.evals.measuring import Measure, evaluate_suite
from gptzoo.evaluation import Scores, evaluate
from gptzoo.exact_match import PROBLEMS, Problem, exact_match, problems_of
from gptzoo.files import make_folder, write_atomically
from gptzoo.quantization import quantized
from gptzoo.running import load_with_plan
from gptzoo.scoring import rolling_scores

DEFAULTS: Mapping[str, object] = {
    "sequences": None,
    "split": "val",
    "problems": None,
    "stride": None,
    "per_position": False,
    "length": None,
}


def run(options: Namespace, overrides: list[tuple[str, str]], plugins: Mapping[str, list[str]]) -> int:
    """Measure what the options ask for; returns the exit code."""
    raise_all(list(_problems_of(options)))
    if options.suite is not None:
        return _suite(options, overrides, plugins)
    model, made = load_with_plan(options.run, step=options.step, overrides=overrides, **plugins)
    model = model if options.quantize is None else quantized(model, options.quantize)
    measure = Measure(model, made, Path(), options.batch_size)
    return _per_position(options, measure) if options.per_position else _scores(options, measure)


def _problems_of(options: Namespace) -> Iterator[GPTZooError]:
    """Options that would have to be ignored, and numbers out of range."""
    given = [name for name, default in DEFAULTS.items() if options[name] != default]
    if options.suite is not None:
        for name in given:
            yield GPTZooError("a suite says what to measure. Leave it out.", f"--{name.replace('_', '-')}")
        return
    if options.length is not None and not options.per_position:
        yield GPTZooError("it is the length of the curve. Give --per-position, too.", "--length")
    if options.length is not None and options.length < 1:
        yield GPTZooError(f"{options.length} is below 1.", "--length")
    for name in ("stride", "problems"):
        if options.per_position and name in given:
            yield GPTZooError("--per-position measures something else. Leave one of them out.", f"--{name}")
    if options.problems is not None and options.problems < 0:
        yield GPTZooError(f"{options.problems} is below 0.", "--problems")


def _suite(options: Namespace, overrides: list[tuple[str, str]], plugins: Mapping[str, list[str]]) -> int:
    results = evaluate_suite(
        options.run,
        options.suite,
        step=options.step,
        batch_size=options.batch_size,
        quantize=options.quantize,
        overrides=overrides,
        told=(lambda name, result: None) if options.json else _tell,
        **plugins,
    )
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        print(f"wrote {Path(options.run, 'evals')}")
    return 0


def _tell(name: str, result: Mapping[str, object]) -> None:
    """A line per number; of a curve, a line per span of positions."""
    print(name)
    if "losses" in result:
        text = curves.as_text(curves.Curve(**result))  # type: ignore[arg-type]
    else:
        text = "\n".join(f"{key:20} {_said(value)}" for key, value in _flat(result))
    print("\n".join(f"  {line}" for line in text.splitlines()))


def _flat(result: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for key, value in result.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _said(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _per_position(options: Namespace, measure: Measure) -> int:
    data = measure.data(options.length)
    curve = curves.by_position(measure.model, data, split=options.split, sequences=options.sequences, **measure.how)
    folder = Path(options.run) / "evals"
    make_folder(folder)
    write_atomically(folder / "per-position.json", f"{json.dumps(asdict(curve), indent=2)}\n".encode())
    write_atomically(folder / "per-position.svg", curves.picture(curve))
    if options.json:
        print(json.dumps(asdict(curve), indent=2))
        return 0
    print(curves.as_text(curve))
    print(f"wrote {folder / 'per-position.svg'} and per-position.json")
    return 0


def _scores(options: Namespace, measure: Measure) -> int:
    data = measure.data()
    where = {"split": options.split, "sequences": options.sequences}
    if options.stride is None:
        scores = evaluate(measure.model, data, **where, **measure.how)
    else:
        scores = rolling_scores(measure.model, data, stride=options.stride, **where, **measure.how)  # type: ignore[arg-type]
    problems = _problems(options, data)
    if problems:
        precision = measure.made.recipe.train.precision
        scores = replace(scores, exact_match=exact_match(measure.model, problems, precision=precision))
    if options.json:
        print(json.dumps(asdict(scores), indent=2))
    else:
        print("\n".join(_lines(scores, len(problems), options.split)))
    return 0


def _lines(scores: Scores, problems: int, split: str) -> Iterator[str]:
    yield f"loss           {scores.loss:.4f} nats per token"
    yield f"perplexity     {scores.perplexity:.3f}"
    if scores.bits_per_byte is not None:
        yield f"bits per byte  {scores.bits_per_byte:.4f}"
    for name, value in scores.added.items():
        yield f"{name:14} {value:.4f}"
    if scores.exact_match is not None:
        yield f"exact match    {scores.exact_match:.2%} of {problems:,} problems"
    yield f"on             {scores.tokens:,} tokens in {scores.sequences:,} sequences of {split}"


def _problems(options: Namespace, data: Data) -> list[Problem]:
    """As many problems as were asked for, which must be there; if none were asked for, what there is."""
    if options.problems:
        return problems_of(data, options.split, options.problems)
    return [] if options.problems == 0 else data.problems(options.split, PROBLEMS)
