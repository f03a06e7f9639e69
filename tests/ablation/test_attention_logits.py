"""The largest attention logit: it is the one that the definition gives, and measuring it changes nothing."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gptzoo.ablation.attention_logits import Recorder, largest_logits
from gptzoo.ablation.collecting import collect, gradients, logits
from gptzoo.ablation.ledger import LOGITS, read_cell
from gptzoo.building import build_data, build_model, build_tokenizer, plan, with_vocab_size
from gptzoo.contracts import Data, Mask, Where, causal
from gptzoo.model import Model
from gptzoo.parts.kernels import Naive
from gptzoo.runs import Records
from tests.ablation.studies import Place, as_if_run


def built(place: Place, **model: object) -> tuple[Model, Data]:
    """A fresh model of two layers, and its data."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16}
    recipe = {
        "model": {**sizes, **model},
        "data": {"name": "text", "path": str(place.folder / "text.txt"), "tokenizer": "byte"},
        "train": {"steps": 1, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"},
    }
    made = plan(recipe)
    tokenizer = build_tokenizer(made)
    made = with_vocab_size(made, tokenizer)
    return build_model(made).eval(), build_data(made, tokenizer)


def measured(model: Model, data: Data) -> list[float | None]:
    return largest_logits(model, data, sequences=4, batch_size=4, precision="fp32")


def by_hand(model: Model, tokens: Tensor) -> list[float]:
    """Query by query and key by key, from what each attention is given."""
    seen: list[Tensor] = []
    handles = [each.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for each in model.attentions]
    with torch.no_grad():
        model(tokens)
    for handle in handles:
        handle.remove()
    found = []
    for attention, x in zip(model.attentions, seen, strict=True):
        q, k, _ = (each.detach() for each in attention.project(x))  # type: ignore[operator]
        rows, heads, length, width = q.shape
        pairs = ((b, h, i, j) for b in range(rows) for h in range(heads) for i in range(length) for j in range(i + 1))
        found.append(max(float(q[b, h, i] @ k[b, h, j]) / math.sqrt(width) for b, h, i, j in pairs))
    return found


@pytest.mark.parametrize("kernel", ["naive", "sdpa"])
def test_the_largest_logit_is_that_of_the_definition(place: Place, kernel: str) -> None:
    model, data = built(place, position="none", kernel=kernel)
    tokens = data.batch("val", 0, 0, 4).tokens
    assert measured(model, data) == pytest.approx(by_hand(model, tokens), rel=1e-5)


def test_measuring_leaves_the_model_and_its_output_alone(place: Place) -> None:
    model, data = built(place, position="rope")
    tokens, kernels = data.batch("val", 0, 0, 4).tokens, list(model.kernels)
    before = model(tokens)
    measured(model.train(), data)
    assert model.training
    assert all(one is other for one, other in zip(model.kernels, kernels, strict=True))
    model.kernels = [kernel and Recorder(kernel) for kernel in kernels]
    assert torch.equal(model.eval()(tokens), before)


def test_a_pair_that_may_not_see_each_other_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 4, generator=generator) for _ in range(3))
    pos = torch.arange(6)[None].expand(2, 6)
    doc = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, -1, -1]])
    recorder = Recorder(Naive())
    where = Where(pos, pos, doc, doc, plain=False, padded=True)
    recorder(q, k, v, where=where, mask=Mask(causal, "causal"), scale=0.5)
    allowed = [(b, i, j) for b, i, j in itertools.product(range(2), range(6), range(6)) if i >= j]
    allowed = [(b, i, j) for b, i, j in allowed if doc[b, i] == doc[b, j] != -1]
    wanted = max(0.5 * float(q[b, h, i] @ k[b, h, j]) for b, i, j in allowed for h in range(2))
    assert recorder.largest == pytest.approx(wanted)
    assert float((0.5 * q @ k.mT).max()) > wanted + 0.1


def test_the_cap_is_in_the_logits_as_softmax_gets_them(place: Place) -> None:
    model, data = built(place, kernel="naive", attention={"name": "multi_head", "softcap": 0.01, "scale": 100.0})
    assert all(0.005 < largest <= 0.01 for largest in measured(model, data) if largest is not None)


@pytest.mark.parametrize("attention", ["gated_delta", "talking_heads"])
def test_an_attention_that_mixes_by_itself_has_none(place: Place, attention: str) -> None:
    sizes = {"position": "none", "attention": attention}
    model, data = built(place, **sizes)
    assert measured(model, data) == [None, None]


# In a study


@pytest.fixture
def folder(serial: Place, tmp_path: Path) -> Path:
    """A study of one's own to spoil."""
    return Path(shutil.copytree(serial.study(), tmp_path / "tiny"))


def test_every_cell_that_is_done_has_its_logits_and_its_gradients(folder: Path) -> None:
    for cell in collect(folder).cells:
        assert len(cell.logits) == 2
        assert all(isinstance(each, float) for each in cell.logits)
        norms = {r["step"]: r["grad_norm"] for r in Records.read(folder / cell.path / "metrics.jsonl") if "loss" in r}
        assert dict(cell.gradients) == norms
        assert list(norms) == [1, 2, 3, 4, 5, 6]
        record = read_cell(folder / cell.path)
        assert record is not None
        assert LOGITS in record.sealed


def test_logits_that_were_changed_by_hand_block_the_verdicts(folder: Path) -> None:
    path = folder / "cells" / "none-1" / LOGITS
    path.write_text(json.dumps({**json.loads(path.read_text()), "largest": [1.0, 2.0]}))
    assert collect(folder).mismatches == ("cells/none-1/logits.json was changed after the run",)


def test_a_run_from_before_they_were_measured_has_none_and_is_sound(folder: Path) -> None:
    cell = folder / "cells" / "none-1"
    (cell / LOGITS).unlink()
    as_if_run(folder)
    assert logits(cell) == ()
    assert gradients(cell)
    assert collect(folder).mismatches == ()


def test_a_part_that_cannot_be_measured_leaves_its_run_done(
    serial: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptzoo.ablation import attention_logits

    def broken(*_: object, **__: object) -> Callable[[], None]:
        raise TypeError("this kernel has no\nlevers")

    monkeypatch.setattr(attention_logits, "largest_logits", broken)
    cell = Path(shutil.copytree(serial.study() / "cells" / "none-0", tmp_path / "cell"))
    made = plan(cell / "recipe.yaml", plugins=[serial.plugin])
    tokenizer = build_tokenizer(made)
    attention_logits.write_logits(cell, with_vocab_size(made, tokenizer), build_data(made, tokenizer))
    assert json.loads((cell / LOGITS).read_text()) == {"step": 6, "trouble": "TypeError: this kernel has no levers"}
    assert logits(cell) == ()
