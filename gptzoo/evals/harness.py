"""Any model as one of lm-evaluation-harness: its three methods, on our likelihoods and our generation.

    from gptzoo.evals.harness import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel(gptzoo.load("runs/mine")), tasks=["hellaswag"])

Needs the extra `eval`: `pip install 'gptzoo[eval]'`.
"""

# pyright: reportMissingImports=false
# An extra brings what is imported here.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptzoo.errors import GPTZooError, did_you_mean
from gptzoo.generation import MOST, generate
from gptzoo.model import Model
from gptzoo.scoring import log_likelihoods

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise GPTZooError("lm-eval is not installed. pip install 'gptzoo[eval]'.", "lm_eval") from error

GENERATION = frozenset({"until", "max_gen_toks", "temperature", "do_sample", "top_k", "top_p", "min_p", "seed"})
"""What a task may say of generation."""


class HarnessModel(TemplateLM):
    """A model with its tokenizer, as lm-evaluation-harness calls it. Contexts that are too long lose their beginning.

    Args:
        model: With a tokenizer that has an end token.
        batch_size: Rows at a time, which does not change a result.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: The model has no tokenizer, or that has no end token.
    """

    def __init__(self, model: Model, batch_size: int = 8, precision: str = "fp32") -> None:
        super().__init__()
        if model.tokenizer is None or model.tokenizer.end is None:
            raise GPTZooError("lm-eval needs a tokenizer with an end token. Set model.tokenizer.")
        self.model, self.batch_size, self.precision = model, batch_size, precision
        self.text = model.tokenizer

    @property
    def max_length(self) -> int:
        """Tokens of a row: as many as it was trained at."""
        return self.model.dims.context_length

    @property
    def eot_token_id(self) -> int:
        assert self.text.end is not None, "refused in the constructor"
        return self.text.end

    @property
    def tokenizer_name(self) -> str:
        return self.text.fingerprint()

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Ordinary text: special tokens are never added."""
        return list(self.text.encode(string))

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: object
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(context, continuation) for _, context, continuation in requests]
        found = log_likelihoods(self.model, pairs, batch_size=self.batch_size, precision=self.precision)
        return [(each.logprob, each.greedy) for each in found]

    def _fitted(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        room = self.max_length + 1 - len(continuation)
        if room < 1:
            raise GPTZooError(
                f"a continuation of {len(continuation)} tokens does not fit a context_length of {self.max_length}.",
                "lm_eval",
            )
        return context[-room:], continuation

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, by windows that do not overlap, each after one token of context."""
        windows = [
            [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1
                )
            ]
            for request in requests
        ]
        found = iter(self._loglikelihood_tokens([(None, *window) for each in windows for window in each]))
        return [sum(next(found)[0] for _ in each) for each in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to one of the task's stop strings."""
        return [self._continued(*request.args) for request in requests]

    def _continued(self, context: str, asked: dict[str, Any]) -> str:
        if unknown := sorted(set(asked) - GENERATION):
            raise GPTZooError(
                f"no option of generation is called {unknown[0]!r}.{did_you_mean(unknown[0], GENERATION)}"
            )
        until = asked.get("until") or []
        most = min(asked.get("max_gen_toks", MOST), self.max_length - 1)
        prompt = (self.tok_encode(context) or [self.eot_token_id])[-(self.max_length - most) :]
        sampled = asked.get("do_sample", False) and asked.get("temperature", 1.0) > 0
        draw = {key: asked[key] for key in ("temperature", "top_k", "top_p", "min_p", "seed") if key in asked}
        (done,) = generate(
            self.model,
            [prompt],
            tokens=most,
            stop=[each for each in ([until] if isinstance(until, str) else until) if each],
            precision=self.precision,
            greedy=not sampled,
            **(draw if sampled else {}),
        )
        return done.text


def run_tasks(
    model: Model,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    precision: str = "fp32",
) -> dict[str, object]:
    """The metrics of some tasks: `{task: {metric: value}}`.

    Args:
        model: With its tokenizer.
        tasks: Their names.
        folder: Where further tasks are defined; the harness's own are known as well.
        limit: Documents per task; all unless given.
        batch_size: Rows at a time.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: There is no such task, or a task asks what cannot be done.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    where = None if folder is None else str(folder)
    manager = TaskManager(include_path=where, include_defaults=False)  # finding the thousands there are takes a while
    if not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=where)
    for task in tasks:
        if task not in manager.all_tasks:
            raise GPTZooError(f"lm-eval has no task {task!r}.{did_you_mean(task, manager.all_tasks)}", "tasks")
    found = simple_evaluate(
        model=HarnessModel(model, batch_size, precision),
        tasks=list(tasks),
        limit=limit,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=False,
    )
    assert found is not None, "there is one process"
    results: Any = found["results"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    return {task: _numbers(metrics) for task, metrics in results.items()}


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {key.split(",")[0]: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
