"""Reading a results file: what is taken, and what each mistake is told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings, strategies as st

from gptzoo.ablation.results import read_results
from gptzoo.ablation.verdicts import Cell
from gptzoo.errors import GPTZooError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes r.csv, and reads it by its bare name."""
    monkeypatch.chdir(tmp_path)

    def text(content: str | bytes) -> str:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "r.csv").write_bytes(data)
        return "r.csv"

    return text


def refusal(path: str) -> str:
    with pytest.raises(GPTZooError) as caught:
        read_results(path)
    return str(caught.value)


def test_a_file_is_its_cells_in_order(write):
    cells = read_results(write("arm,seed,metric\nb,0,2.5\na,0,2.25e0\nb,1,-.5\na,-1,3\n"))
    assert cells == [Cell("b", 0, 2.5), Cell("a", 0, 2.25), Cell("b", 1, -0.5), Cell("a", -1, 3.0)]


def test_column_order_further_columns_blank_lines_and_spreadsheet_habits_do_no_harm(write):
    cells = read_results(write(b'\xef\xbb\xbfseed, metric ,note,arm\r\n0,1.5,"x, y",a\r\n\r\n,,,\r\n 1 ,2,,"b, c"\r\n'))
    assert cells == [Cell("a", 0, 1.5), Cell("b, c", 1, 2.0)]


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-Inf", "Infinity", "1e999"])
def test_a_run_that_diverged_is_an_outcome(write, word):
    cells = read_results(write(f"arm,seed,metric\na,0,{word}\nb,0,1\n"))
    assert not math.isfinite(cells[0].value)
    assert cells[0].diverged
    assert not cells[1].diverged


def test_a_hole_is_taken(write):
    assert len(read_results(write("arm,seed,metric\na,0,1\na,1,1\nb,1,2\n"))) == 3


HEADER = "The header must be arm,seed,metric."
REMEDY = "Write nan for a run that diverged; leave out the row of a run that is missing."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "r.csv:1: the file is empty. Its first line must be arm,seed,metric."),
        ("\n\n", "r.csv:1: the file is empty. Its first line must be arm,seed,metric."),
        ("arm,seed,metric\n", "r.csv:2: there are no results under the header. Add a row for each arm and seed."),
        (
            "arm,seed,loss\na,0,1\n",
            f"r.csv:1: no column is called 'metric'. {HEADER} It has 'arm', 'seed', 'loss'.",
        ),
        ("arm,seed,metrics\n", f"r.csv:1: no column is called 'metric'. {HEADER} Did you mean metrics?"),
        ("arm;seed;metric\n", f"r.csv:1: no column is called 'arm'. {HEADER} It has 'arm;seed;metric'."),
        ("a,0,1\nb,0,1\n", f"r.csv:1: no column is called 'arm'. {HEADER} It has 'a', '0', '1'."),
        (
            "arm,seed,metric,metric\n",
            f"r.csv:1: two columns are called 'metric'. {HEADER} Did you mean metric?",
        ),
        ("arm,seed,metric\na,0,low\nb,0,1\n", f"r.csv:2: metric: 'low' is not a number. {REMEDY}"),
        ("arm,seed,metric\na,0,\nb,0,1\n", f"r.csv:2: metric: '' is not a number. {REMEDY}"),
        ("arm,seed,metric\na,0,1_0\nb,0,1\n", f"r.csv:2: metric: '1_0' is not a number. {REMEDY}"),
        (
            "arm,seed,metric\na,0,2,5\nb,0,1\n",
            "r.csv:2: 4 fields where the header has 3. A decimal point is '.', not ','.",
        ),
        (
            "arm,seed,metric\na\nb,0,1\n",
            "r.csv:2: 1 field where the header has 3. A decimal point is '.', not ','.",
        ),
        (
            "arm,seed,metric\na,0.5,1\nb,0,1\n",
            "r.csv:2: seed: '0.5' is not a whole number. Write 0, 1, 2 and so on.",
        ),
        (
            "arm,seed,metric\n,0,1\nb,0,1\n",
            "r.csv:2: arm: '' is not the name of an arm. Write a word.",
        ),
        (
            "arm,seed,metric\n\x1b[31m,0,1\nb,0,1\n",
            "r.csv:2: arm: '\\x1b[31m' is not the name of an arm. Write a word.",
        ),
        (
            "arm,seed,metric\na,0,1\nb,0,1\na,0,2\n",
            "r.csv:4: arm 'a' has a result at seed 0 already, on line 2. Keep one.",
        ),
        (
            "arm,seed,metric\na,0,1\na,1,1\n",
            "r.csv: there is only the arm 'a': nothing to compare. Add rows of a second arm.",
        ),
        (b"\xff\xfe\x00\x01", "r.csv: this is not a text file in UTF-8. Save the results as CSV."),
        (
            'arm,seed,metric\n"a,0,1\n',
            "r.csv:2: this is not CSV (unexpected end of data). Save the results as CSV.",
        ),
    ],
)
def test_each_mistake_is_one_line_with_its_place(write, content, message):
    assert refusal(write(content)) == message


def test_all_problems_are_told_at_once(write):
    text = refusal(write("arm,seed,metric\na,x,1\nb,0,y\nc,0,1\n"))
    assert text.split("\n") == [
        "r.csv:2: seed: 'x' is not a whole number. Write 0, 1, 2 and so on.",
        f"r.csv:3: metric: 'y' is not a number. {REMEDY}",
    ]


def test_a_file_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("none.csv") == "none.csv: the file cannot be read (No such file or directory). Check the path."
    assert refusal(".") == ".: the file cannot be read (Is a directory). Check the path."


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: ("arm,seed,metric\n" + text).encode()))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_cells_or_a_refusal(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "r.csv"
    path.write_bytes(data)
    try:
        arms, lines = {cell.arm for cell in read_results(path)}, []
    except GPTZooError as error:
        arms, lines = set(), error.lines
    assert len(arms) > 1 or lines
    assert all(line.startswith(str(path)) for line in lines)


def test_a_row_that_says_why_it_has_no_metric_is_a_hole(write):
    rows = "a,0,1,done\na,1,,failed\nb,0,nan,diverged\nb,1,,missing\n"
    cells = read_results(write(f"arm,seed,metric,status\n{rows}"))
    assert [(cell.arm, cell.seed, cell.diverged) for cell in cells] == [("a", 0, False), ("b", 0, True)]


@pytest.mark.parametrize("status", ["done", "diverged", "", "lost"])
def test_an_empty_metric_that_its_status_does_not_explain_is_refused(write, status):
    path = write(f"arm,seed,metric,status\na,0,,{status}\nb,0,1,done\n")
    assert refusal(path) == f"r.csv:2: metric: '' is not a number. {REMEDY}"
