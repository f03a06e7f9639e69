"""Compiled decoding: one graph for all tokens, whose scores are those of a plain forward."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import gptzoo
from gptzoo.contracts import LayerCache
from gptzoo.decoding import Decoder, Ways
from gptzoo.errors import GPTZooError
from gptzoo.generation import generate

SIZES = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 90}
PROMPTS = [[3], [5, 1, 4, 2, 6], [7, 7, 7]]
PARTS = [
    {},
    {"model.position": "rope", "model.attention": "mqa"},
    {"model.position": "alibi", "model.kernel": "naive"},
    {"model.attention": "sliding_window", "model.attention.window": 4},
]


def gpt(**parts: Any) -> gptzoo.Model:
    """A small model of one layer, in float64 over bytes."""
    return gptzoo.build({"model": SIZES, "data": {"tokenizer": "byte"}}, overrides=parts).double().eval()


@pytest.fixture(autouse=True)
def _no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch writes a trace of all it compiles to this logger, and pytest would keep it."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Traces as always, but runs the traced graph without a C++ compiler, and counts the graphs."""
    torch.compiler.reset()
    counter, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **options: compile(*args, **options, backend=counter))
    return counter


def scores(model: gptzoo.Model, ways: Ways, tokens: int, done_after: int) -> Tensor:
    """float64 (tokens, B, V), greedy; the second row is done after some tokens."""
    decoder, seen = Decoder(model, PROMPTS, tokens, ways), []
    with torch.no_grad():
        for count in range(tokens):
            seen.append(decoder.logits())
            decoder.append(seen[-1].argmax(-1).tolist(), [False, count >= done_after, False])
    return torch.stack(seen)


def open_rows(scores: Tensor, done_after: int) -> list[Tensor]:
    return [scores[:, 0], scores[: done_after + 1, 1], scores[:, 2]]


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " ".join(map(str, parts.values())) or "gpt2")
def test_the_scores_are_those_of_a_plain_forward_from_one_graph(
    parts: dict[str, object], graphs: CompileCounter
) -> None:
    model = gpt(**{"model.n_layer": 2}, **parts)
    compiled = scores(model, Ways(cached=True, padding=True, compiled=True), 20, done_after=7)
    plain = scores(model, Ways(cached=False, padding=True), 20, done_after=7)
    for one, other in zip(open_rows(compiled, 7), open_rows(plain, 7), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert graphs.frame_count == 1


def test_prompts_of_like_length_and_models_of_equal_sizes_share_a_graph(graphs: CompileCounter) -> None:
    for length in (1, 5, 20):
        generate(gpt(), [[1] * length], tokens=9, compile=True, stop_at_end=False)
    assert graphs.frame_count == 1


def test_more_models_are_compiled_than_torch_would_by_default(graphs: CompileCounter) -> None:
    with torch._dynamo.config.patch(recompile_limit=1):
        for heads in (1, 2):
            generate(gpt(**{"model.n_head": heads}), [[1]], tokens=3, compile=True, stop_at_end=False)
    assert graphs.frame_count == 2


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_first_token_needs_no_graph(tokens: int, graphs: CompileCounter) -> None:
    generate(gpt(), [[1, 2]], tokens=tokens, compile=True, stop_at_end=False)
    assert graphs.frame_count == tokens - 1


def test_a_cache_may_be_filled_to_its_last_place(graphs: CompileCounter) -> None:
    model, prompt = gpt(), [[1] * 60]
    assert generate(model, prompt, tokens=30, greedy=True, compile=True) == generate(
        model, prompt, tokens=30, greedy=True
    )


def test_a_fixed_cache_holds_what_a_growing_one_does() -> None:
    growing, fixed = (LayerCache(2, 7, torch.float64, "cpu") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for count, tokens in enumerate([3, 1, 2, 1]):
        k = torch.randn(2, 1, tokens, 4, generator=generator, dtype=torch.float64)
        pos, doc = torch.randint(9, (2, tokens), generator=generator), torch.randint(-1, 2, (1, tokens))
        if count == 1:
            fixed.fix()
        seen, k_pos, k_doc = growing.extend(pos, doc, k=k)
        other, f_pos, f_doc = fixed.extend(pos, doc, k=k)
        length = k_pos.shape[1]
        assert other["k"][:, :, :length].equal(seen["k"])
        assert f_pos[:, :length].equal(k_pos)
        assert f_doc[:, :length].equal(k_doc)
        assert count == 0 or (f_doc.shape[1] == 7 and bool((f_doc[:, length:] == -1).all()))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch's own, when inductor is imported
def test_inductors_scores_are_as_near_as_any_other_kernels() -> None:
    model = gpt()
    compiled = generate(model, [[1, 2, 3]], tokens=12, greedy=True, logprobs=2, compile=True)
    (plain,) = generate(model, [[1, 2, 3]], tokens=12, greedy=True, logprobs=2)
    assert compiled[0].tokens == plain.tokens
    assert compiled[0].logprobs == pytest.approx(plain.logprobs, rel=1e-10)


class Growing(LayerCache):
    """Has an `extend` of its own, and does not say how to keep its shapes."""

    def extend(self, pos: Tensor, doc: Tensor, **tensors: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        return super().extend(pos, doc, **tensors)


def test_a_cache_whose_shapes_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptzoo.MultiHeadAttention, "new_cache", lambda self, *args: Growing(*args))
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(), [[1]], tokens=3, compile=True)
    assert str(refusal.value) == "--compile: the shapes of a Growing change from token to token. Leave it out."


def test_a_model_that_cannot_be_one_graph_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    forward = gptzoo.Gelu.forward

    def branching(self: gptzoo.Gelu, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return forward(self, x if float(x.sum()) > 0 else -x, ctx)

    monkeypatch.setattr(gptzoo.Gelu, "forward", branching)
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(), [[1]], tokens=3, compile=True, stop_at_end=False)
    assert str(refusal.value).startswith("--compile: torch.compile cannot take this model: ")
    assert str(refusal.value).endswith(". Leave it out.")
    assert "\n" not in str(refusal.value)
