"""The matrix is checked, not claimed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.registry import Entry, Owner
from gptzoo.testing.compositions import Composition, fits, judge, pairs, refusal, triples
from gptzoo.testing.matrix import matrix

IMAGES = Path(__file__).resolve().parents[2] / "images"


def test_the_picture_shows_what_resolve_says_today() -> None:
    shown = json.loads((IMAGES / "matrix.json").read_text())
    assert shown == matrix(load_plugins().zoo).as_json(), "draw it anew: python images/matrix.py"


def test_a_refusal_names_both_keys_and_a_way_out() -> None:
    zoo = load_plugins().zoo
    refused = [c for c in triples(zoo) if not fits(zoo, c, "cpu", training=False)]
    for composition in refused[::7]:
        said = refusal(zoo, composition, "cpu")
        assert any(f"model.{slot}" in said for slot in composition.parts), said
        assert composition.parts["attention"] in said or composition.parts["position"] in said, said
        assert "Use " in said or "No registered part would work" in said, said


def test_every_two_parts_around_the_attention_meet_in_some_row() -> None:
    zoo = load_plugins().zoo
    rows = [set(row.parts.items()) for row in pairs(zoo)]
    names = {slot: zoo.names(slot) for slot in ("norm", "block", "mlp", "head")}
    for a in names:
        for b in names:
            for x in names[a]:
                for y in names[b]:
                    assert a >= b or any({(a, x), (b, y)} <= row for row in rows), (a, x, b, y)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plain_gpt2_is_admitted_everywhere(device: str) -> None:
    zoo = load_plugins().zoo
    composition = Composition({"position": "learned", "attention": "multi_head", "kernel": "sdpa"})
    assert fits(zoo, composition, device)


class Crashes(gptzoo.MultiHeadAttention):
    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        raise TypeError("of its own")


def test_a_crash_is_told_with_where_it_was() -> None:
    zoo = load_plugins().zoo
    zoo.add(Entry("attention", "crashes", Crashes, Owner("test", "test")))
    verdict = judge(zoo, Composition({"position": "learned", "attention": "crashes", "kernel": "naive"}))
    assert verdict.outcome == "failed"
    told = "future tokens change no bit of the past: TypeError: of its own (in mix at "
    assert verdict.note.startswith(f"{told}{__file__}:"), verdict.note
    assert ", from forward at " in verdict.note
