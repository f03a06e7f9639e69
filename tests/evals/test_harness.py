"""The adapter for lm-evaluation-harness, on a task in local files: its numbers are those of plain forwards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'gptzoo[eval]'", exc_type=ImportError)

from lm_eval.api.instance import Instance

import gptzoo
from gptzoo.errors import GPTZooError
from gptzoo.evals.harness import HarnessModel, run_tasks

pytestmark = pytest.mark.filterwarnings("default")  # the harness's own
CONTEXT = 24


@pytest.fixture(scope="module")
def model() -> gptzoo.Model:
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": CONTEXT, "init": {"name": "gpt2", "std": 0.5}}
    model = gptzoo.build({"model": sizes}).double().eval()
    model.tokenizer = gptzoo.Byte()
    return model


def asked(kind: Any, *requests: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, index) for index, each in enumerate(requests)]


def direct(model: gptzoo.Model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """By one plain forward of the whole row."""
    with torch.no_grad():
        logprobs = model(torch.tensor([[*context, *continuation[:-1]]]))[0].log_softmax(-1)[len(context) - 1 :]
    total = sum(float(row[token]) for row, token in zip(logprobs, continuation, strict=True))
    return total, logprobs.argmax(-1).tolist() == continuation


def test_log_likelihoods_are_those_of_a_direct_forward(model: gptzoo.Model) -> None:
    pairs = [("ab", "cd"), ("", "xyz"), ("trailing ", "blank"), ("a" * 40, "long context"), ("é", "ö")]
    found = HarnessModel(model, batch_size=2).loglikelihood(asked("loglikelihood", *pairs), disable_tqdm=True)
    for (context, continuation), (logprob, greedy) in zip(pairs, found, strict=True):
        after = list(continuation.encode())
        before = (list(context.encode()) or [256])[-(CONTEXT + 1 - len(after)) :]
        if context.endswith(" "):  # the harness hands the blank to the continuation
            before, after = list(context[:-1].encode()), [32, *after]
        assert (pytest.approx(logprob, rel=1e-10), greedy) == direct(model, before, after)


def test_rolling_log_likelihoods_take_each_token_once_after_the_end_token(model: gptzoo.Model) -> None:
    texts = ["short", "a text of more than one window, which is to say more than twenty-four bytes"]
    found = HarnessModel(model).loglikelihood_rolling(asked("loglikelihood_rolling", *((t,) for t in texts)))
    tokens = [list(text.encode()) for text in texts]
    assert found[0] == pytest.approx(direct(model, [256], tokens[0])[0], rel=1e-10)
    expected, last = 0.0, len(tokens[1])
    for start in range(0, last - last % CONTEXT, CONTEXT):
        before = [256] if start == 0 else tokens[1][start - 1 : start]
        expected += direct(model, before, tokens[1][start : start + CONTEXT])[0]
    rest = last % CONTEXT
    window = tokens[1][last - CONTEXT - 1 : last]
    expected += direct(model, window[: CONTEXT + 1 - rest], window[CONTEXT + 1 - rest :])[0]
    assert found[1] == pytest.approx(expected, rel=1e-10)


def test_generation_is_ours_up_to_a_stop_string(model: gptzoo.Model) -> None:
    (whole,) = gptzoo.generate(model, "ab", tokens=8, greedy=True)
    stop = whole.text[2]
    requests = asked("generate_until", ("ab", {"until": [stop], "max_gen_toks": 8}), ("ab", {"max_gen_toks": 8}))
    assert HarnessModel(model).generate_until(requests) == [whole.text.split(stop)[0], whole.text]


def test_an_option_of_generation_that_is_not_known_is_refused(model: gptzoo.Model) -> None:
    with pytest.raises(GPTZooError) as refusal:
        HarnessModel(model).generate_until(asked("generate_until", ("a", {"temprature": 1.0})))
    assert str(refusal.value) == "no option of generation is called 'temprature'. Did you mean temperature?"


TASK = """
task: two_letters
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - {metric: acc}
"""
DOCS = [
    {"question": "ab", "choices": ["c", "d"], "answer": 0},
    {"question": "bc", "choices": ["e", "f"], "answer": 1},
    {"question": "cd", "choices": ["x", "yy"], "answer": 1},
]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCS)))
    (tmp_path / "two_letters.yaml").write_text(TASK.replace("FILE", str(tmp_path / "docs.jsonl")))
    return tmp_path


def test_a_task_in_local_files_gives_the_accuracy_of_direct_forwards(model: gptzoo.Model, task: Path) -> None:
    found = run_tasks(model, ["two_letters"], folder=task)
    right = 0
    for doc in DOCS:
        totals = [direct(model, list(doc["question"].encode()), list(c.encode()))[0] for c in doc["choices"]]  # type: ignore[attr-defined]
        right += totals.index(max(totals)) == doc["answer"]
    assert found["two_letters"]["acc"] == pytest.approx(right / 3)  # type: ignore[index]


def test_a_task_that_is_not_there_is_refused(model: gptzoo.Model, task: Path) -> None:
    with pytest.raises(GPTZooError) as refusal:
        run_tasks(model, ["two_leters"], folder=task)
    assert str(refusal.value).startswith("tasks: lm-eval has no task 'two_leters'. Did you mean two_letters")
