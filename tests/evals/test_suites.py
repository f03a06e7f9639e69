"""Suites as a user writes them: strictly read, measured as the functions measure, left beside the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gptzoo
from gptzoo.cli import run
from gptzoo.curves import by_position
from gptzoo.errors import GPTZooError
from gptzoo.evals.measuring import evaluate_suite
from gptzoo.evals.suite import KINDS, read_suite
from gptzoo.evaluation import evaluate
from gptzoo.exact_match import exact_match
from gptzoo.multiple_choice import Question, multiple_choice
from gptzoo.running import load_with_plan
from gptzoo.scoring import text_scores

RECIPE = """
name: squares
model: {n_layer: 1, n_embd: 16, n_head: 2, context_length: 16, position: rope}
data: {name: text, path: text.txt, tokenizer: byte}
train: {steps: 2, batch_size: 2, eval_sequences: 2}
"""
SUITE = """evals:
  val: {kind: loss, sequences: 3}
  near: {kind: loss, sequences: 3, stride: 4}
  other: {kind: text, path: other.txt, stride: 5}
  curve: {kind: positions, length: 40, sequences: 4}
  sums: {kind: exact_match, path: sums.jsonl}
  quiz: {kind: multiple_choice, path: quiz.jsonl, questions: 2}
"""
QUIZ = [
    {"prompt": "1 + 1 = ", "choices": ["2", "three"], "answer": 0},
    {"prompt": "", "choices": ["a", "b", "cd"], "answer": 2},
    {"prompt": "x", "choices": ["y", "z"], "answer": 1},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    (folder / "text.txt").write_text("".join(f"{n} squared is {n * n}.\n" for n in range(300)))
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "other.txt").write_text("another text, of another origin")
    (folder / "sums.jsonl").write_text('{"prompt": "1 + 1 = ", "answer": "2"}\n\n{"prompt": "1", "answer": ""}\n')
    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, QUIZ)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "squares.yaml").write_text(RECIPE)
        gptzoo.train("squares.yaml", directory=folder / "run")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_a_suite_measures_what_the_functions_measure(folder: Path) -> None:
    results = evaluate_suite("run", "suite.yaml")
    model, made = load_with_plan("run")
    data = gptzoo.Text(gptzoo.Byte(), 16, path="text.txt")
    assert results["val"]["loss"] == evaluate(model, data, sequences=3).loss
    assert results["near"]["tokens"] == 48
    assert results["near"]["loss"] != results["val"]["loss"]
    text = list((folder / "other.txt").read_bytes())
    assert results["other"]["bits_per_byte"] == text_scores(model, text, window=16, stride=5).bits_per_byte
    longer = gptzoo.Text(gptzoo.Byte(), 40, path="text.txt")
    assert results["curve"]["losses"] == by_position(model, longer, sequences=4).losses
    assert results["sums"] == {"exact_match": exact_match(model, [("1 + 1 = ", "2"), ("1", "")]), "problems": 2}
    questions = [Question(str(q["prompt"]), tuple(q["choices"]), int(q["answer"])) for q in QUIZ[:2]]  # type: ignore[call-overload]
    assert results["quiz"]["accuracy_per_byte"] == multiple_choice(model, questions).accuracy_per_byte
    assert made.recipe.model.context_length == 16


def test_the_results_are_left_beside_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "run", "--suite", "suite.yaml", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((folder / "run/evals/suite.json").read_text())
    assert written["results"] == printed
    assert set(printed) == {"val", "near", "other", "curve", "sums", "quiz"}
    picture = (folder / "run/evals/suite-curve.svg").read_text()
    assert "position in the document" in picture
    assert run(["evaluate", "run", "--suite", "suite.yaml"]) == 0
    assert (folder / "run/evals/suite-curve.svg").read_text() == picture
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "val"
    assert f"  loss                 {printed['val']['loss']:.4f}" in lines
    assert any("beyond the trained length" in line for line in lines)


def test_the_shipped_suite_measures_any_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "run", "--suite", "basics", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"val", "positions"}


def test_per_position_prints_and_leaves_the_curve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "run", "--per-position", "--length", "40", "--sequences", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["0-7", "8-15", "16-31", "32-39"]
    assert [line.endswith("beyond the trained length") for line in lines[:-1]] == [False, False, True, True]
    curve = json.loads((folder / "run/evals/per-position.json").read_text())
    assert (len(curve["losses"]), curve["trained"]) == (40, 16)
    assert (folder / "run/evals/per-position.svg").read_text().startswith("<?xml")


def test_stride_lets_each_token_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    scores = []
    for stride in ("16", "1"):
        assert run(["evaluate", "run", "--stride", stride, "--sequences", "5", "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert [each["tokens"] for each in scores] == [80, 80]
    assert scores[0]["loss"] != scores[1]["loss"]


BAD = {
    "evls: {}\n": [
        "bad.yaml:1: evls: there is no such key. Did you mean evals?",
        "bad.yaml:1: evals: it is missing. Write evals: {NAME: {kind: loss}}.",
    ],
    "evals: [loss]\n": ["bad.yaml:1: evals: it is no mapping of names."],
    "evals:\n  a: loss\n": ["bad.yaml:2: evals.a: 'loss' is no mapping with a kind. Write {kind: loss}."],
    "evals:\n  a/b: {kind: loss}\n": [
        "bad.yaml:2: evals.a/b: 'a/b' cannot name a file. Use letters, digits, '.', '_' and '-'."
    ],
    "evals:\n  a: {kind: lsos}\n  b:\n    kind: loss\n    strid: 3\n    sequences: 0\n  c: {kind: text}\n": [
        "bad.yaml:2: evals.a.kind: no kind is called 'lsos'. Did you mean loss?",
        "bad.yaml:5: evals.b.strid: there is no such key. Did you mean stride?",
        "bad.yaml:6: evals.b.sequences: 0 must be at least 1.",
        "bad.yaml:7: evals.c.path: it is missing.",
    ],
    "evals:\n  a: {split: val}\n": [
        "bad.yaml:2: evals.a.kind: it is missing. "
        "Known: loss, text, positions, exact_match, multiple_choice or lm_eval."
    ],
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text.strip().replace("\n", " ")[:40])
def test_a_suite_is_read_strictly(folder: Path, text: str) -> None:
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(GPTZooError) as refusal:
        read_suite("bad.yaml")
    assert refusal.value.lines == BAD[text]


def test_every_kind_is_documented() -> None:
    for kind in KINDS.values():
        fields = kind.__annotations__
        assert all(f"        {name}: " in (kind.__doc__ or "") for name in fields), kind


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "quiz2.jsonl: it holds no line."),
        ("{", "quiz2.jsonl:1: this is not JSON: "),
        (
            '\n{"prompt": "a"}',
            "quiz2.jsonl:2: this is not an object with the keys prompt, choices, answer and no others.",
        ),
        ('{"prompt": "a", "choices": ["b", "c"], "answer": true}', "quiz2.jsonl:1: answer is not a int."),
        ('{"prompt": "a", "choices": ["b", 3], "answer": 1}', "quiz: question 1: it needs two choices or more, each"),
    ],
)
def test_bad_lines_are_refused_by_file_and_line(folder: Path, lines: str, message: str) -> None:
    (folder / "quiz2.jsonl").write_text(lines)
    (folder / "quizzes.yaml").write_text("evals: {quiz: {kind: multiple_choice, path: quiz2.jsonl}}")
    with pytest.raises(GPTZooError) as refusal:
        evaluate_suite("run", "quizzes.yaml")
    assert message in str(refusal.value)
    assert not (folder / "run/evals/quizzes.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "basisc"], "--suite: there is no suite 'basisc'. Did you mean basics?"),
        (["--suite", "basics", "--stride", "3"], "--stride: a suite says what to measure. Leave it out."),
        (["--length", "3"], "--length: it is the length of the curve. Give --per-position, too."),
        (["--per-position", "--length", "0"], "--length: 0 is below 1."),
        (
            ["--per-position", "--stride", "3"],
            "--stride: --per-position measures something else. Leave one of them out.",
        ),
        (["--stride", "17"], "--stride: 17 is not from 1 to 16, the tokens in a window."),
        (["--problems", "-1"], "--problems: -1 is below 0."),
        (["--stride", "2", "--sequences", "0"], "--sequences: 0 is below 1. Leave it out to take all of the split."),
    ],
)
def test_evaluate_refuses_what_it_would_have_to_ignore(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(["evaluate", "run", *options]) == 2
    assert capsys.readouterr().err == f"gptzoo: {message}\n"
