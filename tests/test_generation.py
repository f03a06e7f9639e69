"""Generation: cached equals uncached, batched equals single, and every refusal comes before the first token."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from gptzoo.contracts import Abilities, Context, Dims, Kernel, Position, Tokenizer
from gptzoo.errors import GPTZooError, NotFinite, Problems
from gptzoo.generation import Options, generate, stream
from gptzoo.model import Model, initialise
from gptzoo.parts.attention import MultiHeadAttention
from gptzoo.parts.blocks import Pre
from gptzoo.parts.heads import Tied
from gptzoo.parts.inits import Gpt2Init
from gptzoo.parts.kernels import Naive, Sdpa
from gptzoo.parts.mlps import Gelu
from gptzoo.parts.norms import LayerNorm
from gptzoo.parts.positions import Learned
from gptzoo.parts.tokenizers import Byte
from gptzoo.precision import autocast

VOCAB = 23
LIMIT = 24
UNEVEN = [[3], [5, 1, 4, 2, 6], [7, 7, 7], [3]]
SAMPLED = {"temperature": 1.3, "top_k": 15, "top_p": 0.95, "min_p": 0.01}


class Window(MultiHeadAttention):
    """Sees itself and the two tokens before it."""

    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return (k_pos <= q_pos) & (q_pos - k_pos < 3)


class WithoutPadding(MultiHeadAttention):
    """Ordinary attention that says it cannot skip places without a token, and does not."""

    abilities: ClassVar[Abilities] = Abilities(padding=False)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        assert not bool((ctx.doc == -1).any())
        return super().forward(x, ctx)


class WithoutCache(MultiHeadAttention):
    """Ordinary attention that says it cannot continue from a cache."""

    abilities: ClassVar[Abilities] = Abilities(cached=False)

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: Any) -> Any:
        raise AssertionError("no cache was to be asked for")


class Bare(Naive):
    """A kernel that states nothing beyond plain attention."""

    abilities: ClassVar[Abilities] = Abilities()


def gpt(
    kernel: Kernel | None = None,
    attention: type[MultiHeadAttention] = MultiHeadAttention,
    position: type[Position] = Learned,
    vocab_size: int = VOCAB,
    tokenizer: Tokenizer | None = None,
) -> Model:
    """A float64 GPT of two layers whose scores are far from uniform."""
    dims = Dims(n_layer=2, n_head=2, n_embd=16, head_dim=8, context_length=LIMIT, vocab_size=vocab_size, dropout=0.5)
    model = Model(
        dims,
        layers=[Pre(dims, attention(dims.at(i)), Gelu(dims.at(i)), LayerNorm) for i in range(2)],
        positions=[position(dims, dims.head_dim)],
        layer_positions=[0, 0],
        embedding_position=0,
        kernels=[kernel or Naive()] * 2,
        norm_f=LayerNorm(dims.n_embd),
        head=Tied,
    )
    initialise(model, Gpt2Init(std=0.5), seed=1)
    model.tokenizer = tokenizer
    return model.double()


class Successor(nn.Module):
    """A head that scores what a table says follows the token, whose embedding is one-hot."""

    def __init__(self, follows: dict[int, int], size: int) -> None:
        super().__init__()
        table = torch.zeros(size, size, dtype=torch.float64)
        for token, after in follows.items():
            table[token, after] = 50.0
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.table


def chain(follows: dict[int, int], size: int = 257) -> Model:
    """A model over bytes that says after each token what the table says."""
    dims = Dims(n_layer=1, n_head=1, n_embd=size, head_dim=4, context_length=LIMIT, vocab_size=size)
    model = Model(
        dims,
        layers=[Pre(dims, MultiHeadAttention(dims), Gelu(dims, hidden=1), LayerNorm)],
        positions=[Position(dims, dims.head_dim)],
        layer_positions=[0],
        embedding_position=None,
        kernels=[Naive()],
        norm_f=nn.Identity(),
        head=lambda _dims, _wte: Successor(follows, size),
    ).double()
    initialise(model, Gpt2Init(std=0.0), seed=0)
    with torch.no_grad():
        model.wte.weight.copy_(torch.eye(size))
    model.tokenizer = Byte()
    return model


def recite(text: str, end: int = 256) -> Model:
    """A model that continues the first byte of a text, all of whose bytes differ, by the rest and then by `end`."""
    spelled = [*text.encode(), end]
    return chain(dict(pairwise(spelled)))


def new(model: Model, prompts: Any, **options: Any) -> list[tuple[int, ...]]:
    return [each.tokens for each in generate(model, prompts, **options)]


# Cached, uncached, batched, single


@pytest.mark.parametrize("options", [{"greedy": True}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("prompts", [UNEVEN, [[1, 2, 3]], [[1, 2], [3, 4]]], ids=["uneven", "single", "even"])
@pytest.mark.parametrize("attention", [MultiHeadAttention, Window])
@pytest.mark.parametrize("kernel", [Naive(), Sdpa()], ids=["naive", "sdpa"])
def test_the_cache_changes_no_token(kernel: Kernel, attention: Any, prompts: Any, options: dict[str, Any]) -> None:
    model = gpt(kernel, attention)
    with_cache = new(model, prompts, tokens=12, **options)
    assert with_cache == new(model, prompts, tokens=12, cache=False, **options)
    assert [len(each) for each in with_cache] == [12] * len(prompts)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("options", [{"greedy": True}, SAMPLED], ids=["greedy", "sampled"])
def test_a_prompt_continues_in_a_batch_as_it_does_alone(options: dict[str, Any], cache: bool) -> None:
    model = gpt()
    together = new(model, UNEVEN[:3], tokens=12, cache=cache, **options)
    assert together == [new(model, [prompt], tokens=12, cache=cache, **options)[0] for prompt in UNEVEN[:3]]


def test_equal_prompts_are_drawn_apart_and_the_first_as_if_it_were_alone() -> None:
    model = gpt()
    first, second = new(model, [[3, 4], [3, 4]], tokens=15)
    assert first != second
    assert first == new(model, [[3, 4]], tokens=15)[0]


def test_the_seed_alone_decides_the_draws() -> None:
    model = gpt()
    torch.manual_seed(1)
    once = new(model, UNEVEN, tokens=12, seed=7)
    torch.manual_seed(2)
    assert once == new(model, UNEVEN, tokens=12, seed=7)
    assert once != new(model, UNEVEN, tokens=12, seed=8)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_takes_the_argmax_of_the_plain_forward(cache: bool) -> None:
    model = gpt().eval()
    for prompt, continuation in zip(UNEVEN, new(model, UNEVEN, tokens=10, greedy=True, cache=cache), strict=True):
        text = list(prompt)
        for _ in range(10):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
        assert continuation == tuple(text[len(prompt) :])


def test_temperature_zero_is_greedy() -> None:
    model = gpt()
    assert new(model, UNEVEN, tokens=8, temperature=0.0) == new(model, UNEVEN, tokens=8, greedy=True, top_p=0.5)


@pytest.mark.parametrize("kernel", [Naive(), Sdpa()], ids=["naive", "sdpa"])
@pytest.mark.parametrize("attention", [MultiHeadAttention, Window])
def test_a_cached_forward_in_any_two_chunks_equals_the_full_one(kernel: Kernel, attention: Any) -> None:
    model = gpt(kernel, attention).eval()
    tokens = torch.randint(VOCAB, (2, LIMIT), generator=torch.Generator().manual_seed(0))
    full = model(tokens)
    for split in range(1, LIMIT):
        cache = model.new_cache(2, LIMIT)
        parts = [model(tokens[:, :split], cache=cache), model(tokens[:, split:], cache=cache)]
        torch.testing.assert_close(torch.cat(parts, 1), full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_left_padded_cached_forward_in_chunks_equals_each_row_alone(chunk: int) -> None:
    model = gpt().eval()
    lengths, generator = [9, 4, 1], torch.Generator().manual_seed(0)
    rows = [torch.randint(VOCAB, (length,), generator=generator) for length in lengths]
    padded = torch.stack([torch.cat([torch.zeros(9 - len(row), dtype=torch.int64), row]) for row in rows])
    pos = torch.tensor([[max(0, place - 9 + length) for place in range(9)] for length in lengths])
    doc = torch.tensor([[0 if place >= 9 - length else -1 for place in range(9)] for length in lengths])
    cache = model.new_cache(3, 9)
    pieces = [slice(start, start + chunk) for start in range(0, 9, chunk)]
    logits = torch.cat([model(padded[:, p], pos[:, p], doc[:, p], cache) for p in pieces], 1)
    for row, length, got in zip(rows, lengths, logits, strict=True):
        torch.testing.assert_close(got[9 - length :], model(row[None])[0], rtol=1e-10, atol=1e-10)


# What the parts can and cannot do


@pytest.mark.parametrize("options", [{"greedy": True}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "cannot",
    [{"attention": WithoutCache}, {"attention": WithoutPadding}, {"kernel": Bare()}],
    ids=["no cache", "no padding", "a kernel that states neither"],
)
def test_a_part_without_a_cache_or_padding_gives_the_same_tokens(cannot: dict[str, Any], options: Any) -> None:
    assert new(gpt(**cannot), UNEVEN, tokens=12, **options) == new(gpt(), UNEVEN, tokens=12, **options)


def test_a_kernel_that_states_no_padding_only_sees_plain_forwards() -> None:
    class Watched(Bare):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            assert kwargs["where"].plain
            return super().__call__(*args, **kwargs)

    assert len(new(gpt(Watched()), UNEVEN, tokens=4)) == 4


def test_a_cached_row_costs_one_token_a_step() -> None:
    widths = []
    model = gpt()
    model.layers[0].register_forward_hook(lambda _module, inputs, _output: widths.append(inputs[0].shape[1]))
    generate(model, UNEVEN, tokens=4)
    assert widths == [5, 1, 1, 1]


# Text


def test_text_goes_in_and_comes_out() -> None:
    done = generate(recite("abc"), "a")
    assert [(each.prompt, each.text, each.tokens) for each in done] == [("a", "bc", (98, 99))]


def test_prompts_may_be_token_numbers_where_there_is_a_tokenizer() -> None:
    done = generate(recite("abc"), [[97], [98]])
    assert [(each.prompt, each.text) for each in done] == [("a", "bc"), ("b", "c")]


@pytest.mark.parametrize("cache", [True, False])
def test_each_row_stops_at_its_own_end_token(cache: bool) -> None:
    done = generate(recite("abcdef"), ["a", "xyzd", "f"], cache=cache)
    assert [each.text for each in done] == ["bcdef", "ef", ""]


def test_rows_that_ended_leave_the_others_as_they_are() -> None:
    model = gpt(vocab_size=257, tokenizer=Byte())
    free = new(model, UNEVEN, tokens=15, stop_at_end=False, greedy=True)
    assert isinstance(model.tokenizer, Byte)
    model.tokenizer.end = free[1][4]
    stops = [each.index(model.tokenizer.end) if model.tokenizer.end in each else 15 for each in free]
    assert stops[1] <= 4
    assert new(model, UNEVEN, tokens=15, greedy=True) == [each[:stop] for each, stop in zip(free, stops, strict=True)]


def test_a_row_that_ended_is_no_token_to_the_model_from_then_on() -> None:
    model, docs = recite("abcd"), []
    model.layers[0].register_forward_hook(lambda _module, inputs, _output: docs.append(inputs[1].doc.tolist()))
    generate(model, ["a", "c"])
    assert docs == [[[0]], [[0]], [[0], [-1]], [[0], [-1]]]  # one row of positions serves all while they are equal


def test_a_row_that_ended_stays_a_token_where_the_model_has_no_padding() -> None:
    model, docs = gpt(vocab_size=257, tokenizer=Byte(), attention=WithoutPadding), []
    free = new(model, [[1, 2], [3, 4]], tokens=9, greedy=True)
    assert isinstance(model.tokenizer, Byte)
    model.tokenizer.end = next(token for token in free[0][:8] if token not in free[1])
    model.layers[0].register_forward_hook(lambda _module, inputs, _output: docs.append(inputs[1].doc))
    stopped = new(model, [[1, 2], [3, 4]], tokens=9, greedy=True)
    assert stopped == [free[0][: free[0].index(model.tokenizer.end)], free[1]]
    assert not any(bool((doc == -1).any()) for doc in docs)


def test_the_end_token_may_be_told_not_to_stop() -> None:
    model = chain({97: 256, 256: 98, 98: 97})
    assert new(model, "a", tokens=4, stop_at_end=False) == [(256, 98, 97, 256)]


@pytest.mark.parametrize("empty", ["", [[]]])
def test_an_empty_prompt_starts_from_the_end_token(empty: Any) -> None:
    done = generate(chain({256: 97, 97: 98, 98: 256}), empty)
    assert [(each.prompt, each.text) for each in done] == [("", "ab")]


def test_no_tokens_gives_empty_continuations_without_a_forward() -> None:
    model = gpt()
    model.forward = model.hidden = lambda *_: pytest.fail("a forward was run")  # type: ignore[method-assign]
    done = generate(model, UNEVEN[:2], tokens=0)
    assert [(each.text, each.tokens) for each in done] == [("", ()), ("", ())]


def test_no_prompts_give_no_continuations() -> None:
    assert generate(gpt(), []) == []


@pytest.mark.parametrize("options", [{"greedy": True}, {"temperature": 5.0}])
def test_numbers_beyond_the_tokenizers_vocabulary_are_never_sampled(options: dict[str, Any]) -> None:
    model = chain(dict.fromkeys(range(260), 258), size=260)
    model.tokenizer = Byte()
    done = new(model, [[token] for token in range(97, 117)], tokens=20, **options)
    assert max(max(each, default=0) for each in done) < 257


# Streaming


def pieces_of(model: Model, prompts: Any, **options: Any) -> tuple[list[list[str]], list[str]]:
    pieces: list[list[str]] = [[] for _ in prompts]
    done = generate(model, prompts, on_token=lambda row, piece: pieces[row].append(piece), **options)
    return pieces, [each.text for each in done]


def test_a_character_is_streamed_once_all_its_bytes_are_there() -> None:
    pieces, _ = pieces_of(recite("aé€😀b"), ["a"])
    assert pieces == [["é", "€", "😀", "b"]]


def test_an_unfinished_character_is_streamed_at_the_end_as_it_is_decoded() -> None:
    pieces, texts = pieces_of(recite("aé€"), ["a"], tokens=4)
    assert pieces == [["é", "�"]]
    assert texts == ["é�"]


@pytest.mark.parametrize("padding", [{}, {"attention": WithoutPadding}], ids=["padded", "in groups"])
def test_streamed_pieces_join_to_the_text_of_each_row(padding: dict[str, Any]) -> None:
    model = gpt(vocab_size=257, tokenizer=Byte(), **padding)  # random bytes: mostly broken characters
    prompts = ["é", "the", "", "x", "x"]
    pieces, texts = pieces_of(model, prompts, tokens=20, seed=3)
    assert ["".join(each) for each in pieces] == texts
    assert all(len(text) > 3 for text in texts)
    assert not any("" in each for each in pieces)


# Prefill in pieces


@pytest.mark.parametrize("kernel", [Naive(), Sdpa()], ids=["naive", "sdpa"])
@pytest.mark.parametrize("attention", [MultiHeadAttention, Window])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 99])
def test_a_prompt_taken_in_pieces_gives_the_same_scores(chunk: int, attention: Any, kernel: Kernel) -> None:
    model = gpt(kernel, attention)
    whole = generate(model, UNEVEN, tokens=6, greedy=True, logprobs=3)
    pieces = generate(model, UNEVEN, tokens=6, greedy=True, logprobs=3, prefill_chunk=chunk)
    for one, other in zip(whole, pieces, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-10)


def test_no_piece_is_longer_than_was_asked() -> None:
    widths = []
    model = gpt()
    model.layers[0].register_forward_hook(lambda _module, inputs, _output: widths.append(inputs[0].shape[1]))
    generate(model, [[1] * 8], tokens=3, prefill_chunk=3)
    assert widths == [3, 3, 2, 1, 1]


# Log-probabilities: those of a plain forward


def plain_logprobs(model: Model, text: list[int]) -> Tensor:
    """float64 (T, V): what a plain forward of a whole text says of each next token."""
    with torch.no_grad():
        return model.eval()(torch.tensor([text]))[0].double().log_softmax(-1)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("options", [{"greedy": True}, SAMPLED | {"repetition_penalty": 1.3}])
@pytest.mark.parametrize("kernel", [Naive(), Sdpa()], ids=["naive", "sdpa"])
def test_logprobs_are_those_of_a_plain_forward_in_float64(kernel: Kernel, options: dict[str, Any], cache: bool) -> None:
    model = gpt(kernel)
    for prompt, done in zip(UNEVEN, generate(model, UNEVEN, tokens=9, logprobs=4, cache=cache, **options), strict=True):
        plain = plain_logprobs(model, [*prompt, *done.tokens])[len(prompt) - 1 : -1]
        assert done.logprobs == pytest.approx([float(row[t]) for row, t in zip(plain, done.tokens, strict=True)], 1e-10)
        assert done.alternatives is not None
        for row, best in zip(plain, done.alternatives, strict=True):
            assert [token for token, _ in best] == row.topk(4).indices.tolist()
            assert [value for _, value in best] == pytest.approx(row.topk(4).values.tolist(), 1e-10)


def test_uncached_logprobs_are_a_plain_forward_to_the_bit_where_its_head_too_sees_the_last_place_alone() -> None:
    model, expected = gpt().float(), []
    (done,) = generate(model, [[3, 1, 4]], tokens=8, logprobs=0, cache=False)
    for count, token in enumerate(done.tokens):
        with torch.no_grad():
            x, _ = model.eval().hidden(torch.tensor([[3, 1, 4, *done.tokens[:count]]]))
            expected.append(float(model.head(x[:, -1:]).double().log_softmax(-1)[0, 0, token]))
    assert done.logprobs == tuple(expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernel", [Naive(), Sdpa()], ids=["naive", "sdpa"])
def test_cached_logprobs_are_as_near_the_truth_as_those_of_a_plain_forward(kernel: Kernel, precision: str) -> None:
    model, exact = gpt(kernel).float(), gpt(kernel)
    cached, plain, truth = [], [], []
    for seed in range(20):
        prompt = torch.randint(VOCAB, (5,), generator=torch.Generator().manual_seed(seed)).tolist()
        (done,) = generate(model, [prompt], tokens=8, seed=seed, logprobs=0, precision=precision)
        text = [*prompt, *done.tokens]
        with autocast("cpu", precision):
            low = plain_logprobs(model, text)[4:-1]
        index = torch.tensor(done.tokens)[:, None]
        cached.append(torch.tensor(done.logprobs, dtype=torch.float64))
        plain.append(low.gather(1, index)[:, 0])
        truth.append(plain_logprobs(exact, text)[4:-1].gather(1, index)[:, 0])
    errors = [(torch.cat(each) - torch.cat(truth)).norm() / torch.cat(truth).norm() for each in (cached, plain)]
    ulp = torch.finfo(torch.float32 if precision == "fp32" else torch.bfloat16).eps
    assert errors[0] <= 3 * errors[1] + 4 * ulp, f"cached {errors[0]:.2e}, plain {errors[1]:.2e}"


def test_logprobs_are_given_only_if_asked_for() -> None:
    (done,) = generate(gpt(), [[1]], tokens=3)
    assert (done.logprobs, done.alternatives) == (None, None)
    (done,) = generate(gpt(), [[1]], tokens=3, logprobs=0)
    assert done.logprobs is not None
    assert len(done.logprobs) == 3
    assert done.alternatives is None


def test_alternatives_are_tokens_that_the_tokenizer_has_while_probabilities_are_the_models() -> None:
    model = chain(dict.fromkeys(range(260), 258), size=260)
    model.tokenizer = Byte()
    (done,) = generate(model, [[97]], tokens=1, logprobs=257)
    assert done.alternatives is not None
    assert {token for token, _ in done.alternatives[0]} == set(range(257))
    assert sum(math.exp(value) for _, value in done.alternatives[0]) < 1e-6  # nearly all of it is token 258's


# What ends a row


def test_what_ended_each_row_is_told() -> None:
    done = generate(recite("abcdef"), ["a", "c", "e"], tokens=3, stop=["ef"])
    assert [(each.text, each.ended) for each in done] == [("bcd", "tokens"), ("d", "stop"), ("f", "end")]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        ("d", "bc", "bc"),
        ("cd", "b", "b"),
        (["f", "cde"], "b", "b"),
        ("bcd", "", ""),
        ("x", "bcdef", "bcdef"),
        ([], "bcdef", "bcdef"),
    ],
)
def test_a_stop_string_ends_a_row_also_across_tokens(stop: Any, text: str, tokens: str, cache: bool) -> None:
    (done,) = generate(recite("abcdef"), "a", stop=stop, cache=cache, logprobs=0)
    assert (done.text, done.tokens) == (text, tuple(tokens.encode()))
    assert done.logprobs is not None
    assert len(done.logprobs) == len(done.tokens)


def test_a_stop_string_that_begins_in_the_prompt_does_not_count() -> None:
    assert generate(recite("abcdef"), "ab", stop="bc")[0].text == "cdef"


def test_a_row_that_a_stop_string_ended_leaves_the_others_as_they_are() -> None:
    model = gpt(vocab_size=257, tokenizer=Byte())
    free = generate(model, UNEVEN, tokens=12, stop_at_end=False)
    word = free[2].text[3:5]
    stopped = generate(model, UNEVEN, tokens=12, stop_at_end=False, stop=word)
    assert stopped[2].ended == "stop"
    assert [each.text for each in stopped] == [each.text.split(word)[0] for each in free]


# Repetition


def test_a_penalty_makes_what_was_there_less_likely() -> None:
    model = gpt()
    (plain,) = new(model, [[1, 2]], tokens=20, greedy=True)
    (varied,) = new(model, [[1, 2]], tokens=20, greedy=True, repetition_penalty=1e9)
    assert len({*plain}) < len({*varied})
    assert new(model, [[1, 2]], tokens=20, greedy=True, repetition_penalty=1.0) == [plain]


def test_a_rows_penalty_is_on_its_own_tokens() -> None:
    model = gpt()
    together = new(model, UNEVEN, tokens=9, repetition_penalty=1.5, temperature=2.0)
    apart = [new(model, [prompt], tokens=9, repetition_penalty=1.5, temperature=2.0)[0] for prompt in UNEVEN[:3]]
    assert together[:3] == apart


# Streaming, piece by piece


@pytest.mark.parametrize("padding", [{}, {"attention": WithoutPadding}], ids=["padded", "in groups"])
def test_pieces_join_to_what_generate_gives(padding: dict[str, Any]) -> None:
    model = gpt(vocab_size=257, tokenizer=Byte(), **padding)
    options: dict[str, Any] = {"tokens": 15, "seed": 3, "logprobs": 0, "stop": ["e", "\n"]}
    pieces = list(stream(model, ["é", "the", "x", "x"], **options))
    for index, done in enumerate(generate(model, ["é", "the", "x", "x"], **options)):
        own = [piece for piece in pieces if piece.row == index]
        assert "".join(piece.text for piece in own) == done.text
        assert tuple(piece.token for piece in own)[: len(done.tokens)] == done.tokens
        assert tuple(piece.logprob for piece in own)[: len(done.tokens)] == done.logprobs
        assert [piece.ended for piece in own] == [None] * (len(own) - 1) + [done.ended]


def test_the_piece_of_an_end_token_says_so() -> None:
    assert [(piece.text, piece.token, piece.ended) for piece in stream(recite("ab"), "a")] == [
        ("b", 98, None),
        ("", 256, "end"),
    ]


def test_between_two_pieces_the_model_is_as_it_was() -> None:
    model = gpt().train()
    pieces = stream(model, [[1, 2]], tokens=4)
    assert next(pieces).row == 0
    assert model.training
    assert torch.is_grad_enabled()
    tokens = torch.tensor([[1, 2, 3]])
    model.loss(tokens, tokens).total.backward()
    assert [piece.token for piece in pieces] == list(new(model, [[1, 2]], tokens=4)[0][1:])


def test_a_stream_without_a_tokenizer_gives_tokens() -> None:
    assert [(p.text, p.token) for p in stream(gpt(), [[1]], tokens=5)] == [
        ("", t) for t in new(gpt(), [[1]], tokens=5)[0]
    ]


def test_what_generate_refuses_is_refused_when_the_stream_is_asked_for() -> None:
    with pytest.raises(GPTZooError, match="--top-k"):
        stream(gpt(), [[1]], top_k=0)


def test_an_option_that_generate_lacks_is_an_error() -> None:
    with pytest.raises(TypeError, match="topk"):
        stream(gpt(), [[1]], topk=3)  # type: ignore[call-arg]


def test_stream_knows_all_options_of_generate() -> None:
    assert set(generate.__kwdefaults__) - {"on_token"} == set(Options.__annotations__)  # type: ignore[arg-type]


# The model is left as it was


def test_training_flags_gradients_and_torchs_generator_are_left_as_they_were() -> None:
    model = gpt().train()
    model.layers[1].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    generate(model, UNEVEN, tokens=3)
    assert [module.training for module in model.modules()] == modes
    assert torch.get_rng_state().equal(state)
    assert torch.is_grad_enabled()
    tokens = torch.tensor([[1, 2, 3]])
    model.loss(tokens, tokens).total.backward()  # nothing made in generation stands in training's way


def test_training_flags_are_restored_after_an_interruption() -> None:
    def interrupt(_row: int, _piece: str) -> None:
        raise KeyboardInterrupt

    model = recite("abc").train()
    with pytest.raises(KeyboardInterrupt):
        generate(model, "a", on_token=interrupt)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_half_precision_writes_half_precision_into_the_cache() -> None:
    seen = []

    class Noting(MultiHeadAttention):
        def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: Any) -> Any:
            seen.append(dtype)
            return super().new_cache(batch, size, dtype, device)

    model = gpt(attention=Noting).float()
    assert len(new(model, UNEVEN, tokens=5, precision="bf16")[0]) == 5
    assert len(new(model, UNEVEN, tokens=5)[0]) == 5
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 2


# Limits


@pytest.mark.parametrize("cache", [True, False])
def test_a_prompt_may_be_continued_up_to_the_limit(cache: bool) -> None:
    prompts = [[1] * (LIMIT - 3), [2]]
    assert [len(each) for each in new(gpt(), prompts, tokens=3, cache=cache)] == [3, 3]
    assert new(gpt(), [[1] * LIMIT], tokens=0, cache=cache) == [()]


def test_a_model_without_a_limit_goes_on() -> None:
    assert len(new(gpt(position=Position), [[1, 2]], tokens=2 * LIMIT)[0]) == 2 * LIMIT


class Endless(Byte):
    """Has no end token."""

    end = None


LONG = [1] * (LIMIT + 1)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (
            [LONG],
            {},
            "prompt: its 25 tokens do not fit: the model's positions end at 24 (context_length). Shorten it.",
        ),
        (
            [[1], LONG],
            {"tokens": 0},
            "prompt 2 of 2: its 25 tokens do not fit: the model's positions end at 24 (context_length). Shorten it.",
        ),
        (
            [[1] * 20, [2]],
            {"tokens": 5},
            "--tokens: 5 tokens after the 20 of prompt 1 of 2 pass the model's limit of 24 (context_length). "
            "Use at most 4, or a shorter prompt.",
        ),
        ([[1]], {"tokens": -1}, "--tokens: -1 is below 0."),
        (
            [[1]],
            {"temperature": -1.0},
            "--temperature: -1.0 is not a finite number of at least 0. 0 always takes the likeliest token.",
        ),
        (
            [[1]],
            {"temperature": math.nan, "greedy": True},
            "--temperature: nan is not a finite number of at least 0. 0 always takes the likeliest token.",
        ),
        (
            [[1]],
            {"top_k": 24},
            "--top-k: 24 is above the size of the vocabulary, 23. Leave it out to admit every token.",
        ),
        ([[1], [23]], {}, "prompt 2 of 2: 23 is not a token: they run from 0 to 22."),
        ([[-1]], {}, "prompt: -1 is not a token: they run from 0 to 22."),
        ([1, 2], {}, "prompt 1 of 2: 1 is neither text nor a list of token numbers."),
        ([[0.5]], {}, "prompt: [0.5] is neither text nor a list of token numbers."),
        ("a", {}, "prompt: this model has no tokenizer. Give token numbers, or set model.tokenizer."),
        ([[]], {}, "prompt: it is empty, and there is no end token to start from. Give at least one token."),
        (
            [[1]],
            {"on_token": print},
            "on_token: it is handed text, and this model has no tokenizer. Set model.tokenizer.",
        ),
        ([[1]], {"precision": "bf61"}, "precision: no precision is called 'bf61'. Did you mean bf16?"),
        ([[1]], {"precision": "int8"}, "precision: no precision is called 'int8'. Known: fp32, bf16, fp16."),
        (
            [[1]],
            {"repetition_penalty": 0.0},
            "--repetition-penalty: 0.0 is not a finite number above 0. 1 changes nothing, 1.2 is usual.",
        ),
        ([[1]], {"logprobs": -1}, "--logprobs: -1 is below 0. 0 gives those of the written tokens alone."),
        ([[1]], {"logprobs": 24}, "--logprobs: 24 is above the size of the vocabulary, 23."),
        ([[1]], {"stop": "x"}, "--stop: it is text, and this model has no tokenizer. Set model.tokenizer."),
        ([[1]], {"prefill_chunk": 0}, "--prefill-chunk: 0 is below 1. Leave it out to take a prompt whole."),
        (
            [[1]],
            {"prefill_chunk": 2, "cache": False},
            "--prefill-chunk: pieces of a prompt go into a cache, and --no-cache is given. Leave it out.",
        ),
        (
            [[1]],
            {"compile": True, "cache": False},
            "--compile: what is compiled is a step with a cache, and --no-cache is given. Leave it out.",
        ),
    ],
)
def test_a_mistake_is_refused_in_one_line(prompts: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(), prompts, **{"tokens": 2, **options})
    assert str(refusal.value) == message
    assert refusal.value.exit_code == 2


class WithoutChunks(Naive):
    """A kernel that takes one token after cached ones, and no more."""

    abilities: ClassVar[Abilities] = replace(Naive.abilities, chunked=False)


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        (
            {"attention": WithoutCache},
            {"prefill_chunk": 2},
            "--prefill-chunk: pieces of a prompt go into a cache, and this model has a part that cannot use one. "
            "Leave it out.",
        ),
        (
            {"kernel": WithoutChunks()},
            {"prefill_chunk": 2},
            "--prefill-chunk: this model has a part that takes only one token after cached ones. Leave it out.",
        ),
        (
            {"attention": WithoutCache},
            {"compile": True},
            "--compile: what is compiled is a step with a cache, and this model has a part that cannot use one. "
            "Leave it out.",
        ),
        (
            {"attention": WithoutPadding},
            {"compile": True},
            "--compile: this model has a part that cannot skip empty places of a cache. Leave it out.",
        ),
    ],
)
def test_what_a_part_cannot_do_is_refused_where_it_was_asked_for(
    parts: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(**parts), [[1, 2]], tokens=2, **options)
    assert str(refusal.value) == message


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(GPTZooError) as refusal:
        generate(recite("ab"), "a", stop=["b", ""])
    assert str(refusal.value) == "--stop: an empty text is everywhere. Leave it out."


def test_all_options_that_are_out_of_range_are_named_at_once() -> None:
    with pytest.raises(Problems) as refusal:
        generate(gpt(), [[1]], tokens=-2, top_k=0, top_p=2.0, min_p=-1.0)
    assert refusal.value.lines == [
        "--tokens: -2 is below 0.",
        "--top-k: 0 is below 1. Leave it out to admit every token.",
        "--top-p: 2.0 is not above 0 and at most 1. Leave it out to admit every token.",
        "--min-p: -1.0 is not between 0 and 1. Leave it out to admit every token.",
    ]


def test_an_empty_prompt_needs_an_end_token() -> None:
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(vocab_size=257, tokenizer=Endless()), ["a", ""], tokens=2)
    assert str(refusal.value) == (
        "prompt 2 of 2: it is empty, and there is no end token to start from. Give at least one token."
    )


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    with pytest.raises(GPTZooError) as refusal:
        generate(gpt(tokenizer=Byte()), "a")
    assert str(refusal.value) == (
        "the tokenizer has 257 tokens and the model 23 (vocab_size). Use the tokenizer that the model was trained with."
    )


@pytest.mark.parametrize("greedy", [True, False])
def test_scores_that_are_not_finite_are_refused_and_the_model_is_left_as_it_was(greedy: bool) -> None:
    model = gpt().train()
    with torch.no_grad():
        model.wte.weight[3, 0] = math.nan
    with pytest.raises(NotFinite) as refusal:
        generate(model, [[1, 2]], tokens=3, greedy=greedy)
    assert refusal.value.exit_code == 6
    assert model.training
