"""Measures what a suite asks for, and leaves the results beside the run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import singledispatchmethod
from pathlib import Path

from gptzoo import __version__, curves
from gptzoo.building import Overrides, Plan, build_data
from gptzoo.contracts import Data
from gptzoo.errors import GPTZooError
from gptzoo.evals.suite import (
    ChoiceEval,
    Eval,
    ExactEval,
    HarnessEval,
    LossEval,
    PositionEval,
    Suite,
    TextEval,
    read_lines,
    read_suite,
)
from gptzoo.evaluation import evaluate
from gptzoo.exact_match import exact_match, problems_of
from gptzoo.files import make_folder, write_atomically
from gptzoo.model import Model
from gptzoo.multiple_choice import Question, multiple_choice
from gptzoo.parts.text import read_text
from gptzoo.quantization import quantized
from gptzoo.running import load_with_plan
from gptzoo.scoring import rolling_scores, text_scores

Results = dict[str, dict[str, object]]
"""By the name of the evaluation."""


def evaluate_suite(
    run: str | os.PathLike[str],
    suite: str | os.PathLike[str],
    *,
    step: int | None = None,
    batch_size: int = 8,
    quantize: str | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    overrides: Overrides = (),
    told: Callable[[str, dict[str, object]], None] = lambda name, result: None,
) -> Results:
    """Measure a run by a suite; the results are also written to `evals/SUITE.json` in its folder.

    Args:
        run: The folder.
        suite: A path or a shipped name.
        step: Which checkpoint; the newest unless given.
        batch_size: Rows at a time.
        quantize: `int8` measures the model with its weights as integers.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        overrides: Recipe keys, dotted, such as `model.kernel`.
        told: Called with each result as soon as it is there.

    Raises:
        GPTZooError: The suite is wrong, the run cannot be loaded, or something cannot be measured of it.
    """
    asked = read_suite(suite)
    model, made = load_with_plan(run, step=step, plugins=plugins, folders=folders, overrides=overrides)
    model = model if quantize is None else quantized(model, quantize)
    measure = Measure(model, made, asked.folder, batch_size)
    results: Results = {}
    for name, each in asked.evals.items():
        try:
            results[name] = measure.of(each)
        except GPTZooError as error:
            raise type(error)(error.what, f"{name}: {error.where}" if error.where else name) from error
        told(name, results[name])
    _write(Path(run), asked, {"step": step, "quantize": quantize}, results, measure.curves)
    return results


def _write(run: Path, suite: Suite, how: dict[str, object], results: Results, drawn: dict[int, curves.Curve]) -> None:
    folder = run / "evals"
    make_folder(folder)
    for name, result in results.items():
        if (curve := drawn.get(id(result))) is not None:
            write_atomically(folder / f"{suite.name}-{name}.svg", curves.picture(curve))
    facts = {"gptzoo": __version__, **how, "suite": suite.written, "results": results}
    write_atomically(folder / f"{suite.name}.json", f"{json.dumps(facts, indent=2)}\n".encode())


@dataclass
class Measure:
    """Measures one thing after the other of a model.

    Args:
        model: With its tokenizer.
        made: The recipe that it was built from.
        folder: Where files are looked up.
        batch_size: Rows at a time.
    """

    model: Model
    made: Plan
    folder: Path
    batch_size: int = 8

    def __post_init__(self) -> None:
        assert self.model.tokenizer is not None, "a run has one"
        self.tokenizer = self.model.tokenizer
        self.curves: dict[int, curves.Curve] = {}
        self.how = {"batch_size": self.batch_size, "precision": self.made.recipe.train.precision}

    def data(self, length: int | None = None) -> Data:
        """The run's data, in rows of another length if one is given; the model stays as it is."""
        recipe = self.made.recipe
        recipe = recipe if length is None else replace(recipe, model=replace(recipe.model, context_length=length))
        return build_data(replace(self.made, recipe=recipe), self.tokenizer)

    @singledispatchmethod
    def of(self, asked: Eval) -> dict[str, object]:
        """The result, plain values."""
        raise TypeError(f"{type(asked).__name__} cannot be measured")

    @of.register
    def _(self, asked: LossEval) -> dict[str, object]:
        where = {"split": asked.split, "sequences": asked.sequences}
        if asked.stride is None:
            return _plain(evaluate(self.model, self.data(), **where, **self.how))
        return _plain(rolling_scores(self.model, self.data(), stride=asked.stride, **where, **self.how))  # type: ignore[arg-type]

    @of.register
    def _(self, asked: TextEval) -> dict[str, object]:
        file = self.folder / asked.path
        try:
            tokens = self.tokenizer.encode(read_text(file))
        except OSError as error:
            raise GPTZooError(f"it cannot be read: {error.strerror}.", str(file)) from error
        if len(tokens) < 2:
            raise GPTZooError("it holds fewer than two tokens.", str(file))
        window = self.model.dims.context_length
        return _plain(text_scores(self.model, tokens, window=window, stride=asked.stride, **self.how))

    @of.register
    def _(self, asked: PositionEval) -> dict[str, object]:
        data = self.data(asked.length)
        curve = curves.by_position(self.model, data, split=asked.split, sequences=asked.sequences, **self.how)
        result: dict[str, object] = asdict(curve)
        self.curves[id(result)] = curve
        return result

    @of.register
    def _(self, asked: ExactEval) -> dict[str, object]:
        if asked.path is None:
            problems = problems_of(self.data(), asked.split, asked.problems)
        else:
            lines = read_lines(self.folder, asked.path, {"prompt": str, "answer": str})[: asked.problems]
            problems = [(str(line["prompt"]), str(line["answer"])) for line in lines]
        share = exact_match(self.model, problems, problems=asked.problems, precision=self.made.recipe.train.precision)
        return {"exact_match": share, "problems": len(problems)}

    @of.register
    def _(self, asked: ChoiceEval) -> dict[str, object]:
        lines = read_lines(self.folder, asked.path, {"prompt": str, "choices": list, "answer": int})
        questions = [Question(**{**line, "choices": tuple(line["choices"])}) for line in lines[: asked.questions]]  # type: ignore[arg-type]
        return asdict(multiple_choice(self.model, questions, **self.how))

    @of.register
    def _(self, asked: HarnessEval) -> dict[str, object]:
        from gptzoo.evals.harness import run_tasks

        folder = None if asked.folder is None else self.folder / asked.folder
        return run_tasks(self.model, asked.tasks, folder=folder, limit=asked.limit, **self.how)


def _plain(scores: object) -> dict[str, object]:
    """Scores without what was not asked for."""
    return {key: value for key, value in asdict(scores).items() if value is not None and value != {}}  # type: ignore[call-overload]
