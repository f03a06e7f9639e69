"""Data sets of the hub, read from a folder laid out like one: no network is used here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import pytest

import gptzoo
from gptzoo_plugins.algebra import Table
from gptzoo_plugins.huggingface import HuggingFace

NAME = "ozlobin/simple_algebra_1m"


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict[str, Any]], split: str = "train") -> None:
    file = Path(name, "data", f"{split}.jsonl")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def texts(path: str = NAME, context_length: int = 4, **options: Any) -> list[str]:
    return list(HuggingFace(gptzoo.Byte(), context_length, path, **options).read_documents())


def refusal(path: str = NAME, **options: Any) -> str:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        HuggingFace(gptzoo.Byte(), 4, path, **options)
    return str(refused.value)


@pytest.fixture
def algebra() -> list[dict[str, str]]:
    rows = [dict(record) for record in Table(rows=60).records("train")]
    write(NAME, rows)
    return rows


@pytest.mark.parametrize("streaming", [False, True])
def test_simple_algebra_is_read_by_its_name(algebra: list[dict[str, str]], streaming: bool) -> None:
    assert texts(streaming=streaming) == [row["instruction"] + row["answer"] for row in algebra]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_template_says_how_a_row_becomes_text(algebra: list[dict[str, str]], streaming: bool) -> None:
    template = "{{{instruction}}}\n{reasoning}{answer}\n"
    expected = [f"{{{row['instruction']}}}\n{row['reasoning']}{row['answer']}\n" for row in algebra]
    assert texts(text=template, streaming=streaming) == expected


def test_a_column_called_text_is_the_text() -> None:
    write("org/plays", [{"text": "Exeunt omnes", "instruction": "i", "answer": "a"}] * 4)
    assert texts("org/plays") == ["Exeunt omnes"] * 4


def test_empty_values_are_empty_and_numbers_are_written_out() -> None:
    write("org/mixed", [{"a": 12, "b": None}, {"a": 345, "b": "xyz"}])
    assert texts("org/mixed", text="{a}{b}", context_length=1, val_fraction=0.4) == ["12", "345xyz"]


@pytest.mark.parametrize("streaming", [False, True])
def test_only_so_many_documents_are_read(algebra: list[dict[str, str]], streaming: bool) -> None:
    assert len(texts(max_documents=7, streaming=streaming)) == 7


def test_a_stream_is_read_only_as_far_as_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for split, word in (("train-0", "first"), ("train-1", "second")):
        write("org/shards", [{"text": f"{word} {number}"} for number in range(20)], split)
    broken = Path("org/shards/data/train-2.jsonl")
    broken.write_text("this is not JSON")
    assert texts("org/shards", streaming=True, max_documents=20)[-1] == "first 19"
    assert refusal("org/shards", streaming=True).startswith("data.path: the data set 'org/shards' cannot be read: ")


def test_streamed_and_loaded_rows_give_the_same_tokens(algebra: list[dict[str, str]]) -> None:
    loaded, streamed = (HuggingFace(gptzoo.Byte(), 8, NAME, streaming=streaming) for streaming in (False, True))
    assert loaded.key == streamed.key
    assert loaded.key != HuggingFace(gptzoo.Byte(), 8, NAME, max_documents=50).key


def test_documents_are_isolated_on_request(algebra: list[dict[str, str]]) -> None:
    stream, isolated = (HuggingFace(gptzoo.Byte(), 32, NAME, documents=documents) for documents in (False, True))
    assert int(stream.batch("train", 0, 0, 1).doc.max()) == 0
    assert int(isolated.batch("train", 0, 0, 1).doc.max()) > 0


def test_a_part_of_a_split_can_be_read(algebra: list[dict[str, str]]) -> None:
    assert len(texts(split="train[:20]")) == 20


def test_a_folder_is_read_by_its_path(algebra: list[dict[str, str]], tmp_path: Path) -> None:
    assert texts(str(tmp_path / NAME)) == texts()


def test_a_recipe_names_it(algebra: list[dict[str, str]]) -> None:
    data = {"name": "huggingface", "path": NAME, "tokenizer": "char"}
    model = gptzoo.build({"model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}, "data": data})
    assert model.dims.vocab_size == len("0123456789+-= ") + 1


# what is refused


def test_an_absent_name_without_a_network_is_one_clear_line() -> None:
    for streaming in (False, True):
        assert refusal("org/absent", streaming=streaming) == (
            "data.path: the data set 'org/absent' cannot be read: Couldn't reach 'org/absent' on the Hub "
            "(OfflineModeIsEnabled). Check the name and the network, or name a folder."
        )
    assert refusal("") == "data.path: no data set is named. Give a name on the hub or a folder."


def test_an_unknown_split_is_refused_with_those_there_are(algebra: list[dict[str, str]]) -> None:
    assert refusal(split="tset") == (
        f"data.path: the data set {NAME!r} cannot be read: Unknown split \"tset\". Should be one of ['train']. "
        "Check the name and the network, or name a folder."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{anser}", "there is no column 'anser'. It has instruction, answer, reasoning."),
        ("plain", "'plain' names no column. Write one in braces: {instruction}."),
        ("{answer", "'{answer' is no template: expected '}' before end of string. Write a brace itself twice."),
        ("{}", "'{}' holds more than columns in braces. Write {column}."),
        ("{answer!r}", "'{answer!r}' holds more than columns in braces. Write {column}."),
        ("{answer:>9}", "'{answer:>9}' holds more than columns in braces. Write {column}."),
        ("{answer.__class__}", "'{answer.__class__}' holds more than columns in braces. Write {column}."),
        ("{answer[0]}", "'{answer[0]}' holds more than columns in braces. Write {column}."),
    ],
)
def test_a_template_is_columns_in_braces(algebra: list[dict[str, str]], text: str, message: str) -> None:
    assert refusal(text=text) == f"data.text: {message}"


def test_a_data_set_without_a_usual_column_needs_a_template() -> None:
    write("org/odd", [{"prose": "x"}])
    assert refusal("org/odd") == (
        "data.text: there is no column 'text' among prose. Say how a row becomes text, {prose}."
    )


def test_too_few_documents_are_refused(algebra: list[dict[str, str]]) -> None:
    assert refusal(max_documents=0) == "data.max_documents: 0 is not at least 1."
