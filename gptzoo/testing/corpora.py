"""Laws of data and tokenizers: what a model reads."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from gptzoo.contracts import Batch, Data, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.testing.law import law
from gptzoo.testing.subject import Subject
from gptzoo.testing.tolerance import equal

SENTENCES = (
    "To be, or not to be",
    "def f(x):\n    return x\n",
    "Привет, мир",
    "1 + 1 = 2",
    "  \t\r\n\0",
    "😀 naïve café",
)


@dataclass(frozen=True)
class Draw:
    """A batch to be drawn."""

    split: str
    seed: int
    step: int
    size: int


def _draws(subject: Subject) -> st.SearchStrategy[Draw]:
    return st.builds(
        Draw, st.sampled_from(["train", "val"]), st.integers(0, 5), st.integers(0, 3), st.sampled_from([1, 2, 4])
    )


def data_of(subject: Subject) -> Data:
    """The subject, built once, on texts that it has or generates.

    Raises:
        GPTZooError: It needs something that is not here, such as a file.
    """
    built = subject._models.get("data")
    if built is None:
        part = subject.part.options.get("tokenizer")
        from gptzoo.assembly import construct

        tokenizer = construct(part, subject.zoo) if part is not None else None  # type: ignore[arg-type]
        built = subject.construct(tokenizer, getattr(subject.entry.factory, "laws_context", 64))
        subject._models["data"] = built  # type: ignore[assignment]
    assert isinstance(built, Data), "data is a gptzoo.Data"
    return built


def at_hand(subject: Subject) -> bool:
    """Whether its defaults or an example name something that exists here."""
    try:
        data_of(subject)
    except GPTZooError:
        return False
    return True


def _batch(data: Data, draw: Draw) -> Batch:
    return data.batch(draw.split, draw.seed, draw.step % _steps(data, draw), draw.size)


def _steps(data: Data, draw: Draw) -> int:
    return max(1, data.sequences("val") // draw.size) if draw.split == "val" else 4


@law("data", cases=_draws, applies=at_hand)
def a_batch_is_a_function_of_its_arguments(subject: Subject, draw: Draw) -> None:
    data, state = data_of(subject), torch.get_rng_state()
    one = _batch(data, draw)
    _batch(data, Draw("train", draw.seed + 1, draw.step + 1, 3))  # something else in between
    two = _batch(data, draw)
    for name in ("tokens", "targets", "pos", "doc"):
        equal(getattr(two, name), getattr(one, name), f"{name} of the same batch, drawn again")
    assert torch.equal(torch.get_rng_state(), state), "it draws from torch's generator"


@law("data", cases=_draws, applies=at_hand)
def a_batch_has_its_shapes_and_bounds(subject: Subject, draw: Draw) -> None:
    data = data_of(subject)
    batch = _batch(data, draw)
    shape = batch.tokens.shape
    assert shape[1] <= data.context_length, f"rows of {shape[1]} tokens, and a context of {data.context_length}"
    assert shape[0] == draw.size or draw.split == "val", f"{shape[0]} rows, {draw.size} were asked for"
    for name in ("tokens", "targets", "pos", "doc"):
        tensor = getattr(batch, name)
        assert tensor.dtype == torch.int64 and tensor.shape == shape, f"{name} is {tensor.dtype} {tuple(tensor.shape)}"
    size = data.tokenizer.vocab_size
    assert int(batch.tokens.min()) >= 0 and int(batch.tokens.max()) < size, f"a token outside of 0 .. {size - 1}"
    targets = batch.targets[batch.targets != -100]
    assert not len(targets) or (int(targets.min()) >= 0 and int(targets.max()) < size), (
        "a target outside of the vocabulary"
    )
    assert int(batch.doc.min()) >= -1 and int(batch.pos.min()) >= 0, "a negative position, or a document below -1"
    assert not bool((batch.targets[batch.doc < 0] != -100).any()), "a target where there is no token"


@law("data", cases=_draws, applies=at_hand)
def positions_count_from_the_start_of_a_document(subject: Subject, draw: Draw) -> None:
    batch = _batch(data_of(subject), draw)
    for pos, doc in zip(batch.pos, batch.doc, strict=True):
        for number in doc.unique().tolist():
            if number >= 0:
                own = pos[doc == number]
                equal(own, torch.arange(len(own)), f"positions of document {number}")


@law("data", cases=_draws, applies=lambda s: at_hand(s) and s.claims("predicts_the_next_token"))
def a_target_is_the_next_token(subject: Subject, draw: Draw) -> None:
    batch = _batch(data_of(subject), draw)
    same = (batch.doc[:, 1:] == batch.doc[:, :-1]) & (batch.doc[:, 1:] >= 0) & (batch.targets[:, :-1] != -100)
    equal(batch.targets[:, :-1][same], batch.tokens[:, 1:][same], "targets beside the tokens that follow")


@law("data", cases=_draws, applies=at_hand)
def validation_does_not_depend_on_the_seed(subject: Subject, draw: Draw) -> None:
    data = data_of(subject)
    one, two = (_batch(data, Draw("val", seed, draw.step, draw.size)) for seed in (draw.seed, draw.seed + 1))
    equal(two.tokens, one.tokens, "validation tokens under another seed")


@law("data", cases=_draws, applies=at_hand, share=0.3)
def training_depends_on_seed_and_step(subject: Subject, draw: Draw) -> None:
    data = data_of(subject)
    base = data.batch("train", draw.seed, draw.step, 4).tokens
    assert not torch.equal(data.batch("train", draw.seed + 1, draw.step, 4).tokens, base), (
        "another seed, the same batch"
    )
    assert not torch.equal(data.batch("train", draw.seed, draw.step + 1, 4).tokens, base), (
        "another step, the same batch"
    )


@law("data", cases=_draws, applies=at_hand)
def a_batch_is_made_of_smaller_ones(subject: Subject, draw: Draw) -> None:
    """Row i of step s is sample s * size + i, however many are taken at a time."""
    data = data_of(subject)
    whole = data.batch("train", draw.seed, draw.step, 4).tokens
    halves = [data.batch("train", draw.seed, 2 * draw.step + half, 2).tokens for half in (0, 1)]
    equal(torch.cat(halves), whole, "four samples, and two times two")


@law("data", cases=_draws, applies=at_hand, share=0.1)
def a_key_is_of_the_content(subject: Subject, draw: Draw) -> None:
    data = data_of(subject)
    assert data.key == data.key, "the key changes from one look to the next"
    assert isinstance(data.key, str), "the key is a text"
    assert len(data.key) > 7, "the key is short"


# Tokenizers


def _texts(subject: Subject) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(SENTENCES), st.text(max_size=60))


def tokenizer_of(subject: Subject) -> Tokenizer:
    """The subject, fitted if it learns."""
    built = subject._models.get("tokenizer")
    if built is None:
        built = subject.construct()
        assert isinstance(built, Tokenizer), "a tokenizer is a gptzoo.Tokenizer"
        if built.learned:
            numbers = " ".join(str(i * 7919 % 100_003) for i in range(4000))
            built.fit([*SENTENCES * 40, "".join(map(chr, range(32, 127))), numbers])
        subject._models["tokenizer"] = built  # type: ignore[assignment]
    assert isinstance(built, Tokenizer)
    return built


def _reads(subject: Subject) -> bool:
    try:
        tokenizer_of(subject).encode("a")  # some fetch their vocabulary only now
    except GPTZooError:
        return False
    return True


def _encoded(subject: Subject, text: str) -> list[int] | None:
    try:
        return tokenizer_of(subject).encode(text)
    except GPTZooError:
        assert not subject.claims("any_text"), f"{text!r} is refused"
        return None


@law("tokenizer", cases=_texts, applies=_reads)
def decoding_gives_back_what_was_encoded(subject: Subject, text: str) -> None:
    tokens = _encoded(subject, text)
    if tokens is not None:
        decoded = tokenizer_of(subject).decode(tokens)
        same = decoded == text if subject.claims("keeps_blanks") else decoded.split() == text.split()
        assert same, f"{text!r} comes back as another text"


@law("tokenizer", cases=_texts, applies=_reads)
def tokens_are_below_the_vocabulary_size(subject: Subject, text: str) -> None:
    tokens, tokenizer = _encoded(subject, text), tokenizer_of(subject)
    assert all(0 <= token < tokenizer.vocab_size for token in tokens or ()), "a token outside of the vocabulary"
    assert tokenizer.end is None or 0 <= tokenizer.end < tokenizer.vocab_size, "the end token is outside"
    assert tokenizer.end not in (tokens or ()), "ordinary text gives the end token"


@law(
    "tokenizer",
    cases=_texts,
    applies=lambda s: _reads(s) and type(tokenizer_of(s)).byte_lengths is not Tokenizer.byte_lengths,
)
def byte_lengths_add_up(subject: Subject, text: str) -> None:
    tokens = _encoded(subject, text)
    if tokens is not None:
        lengths = tokenizer_of(subject).byte_lengths()
        total = int(sum(lengths[token] for token in tokens))
        assert total == len(text.encode()), f"{total} bytes by the table, {len(text.encode())} in {text!r}"


@law("tokenizer", cases=_texts, applies=_reads, share=0.3)
def special_tokens_in_text_are_text(subject: Subject, text: str) -> None:
    special = f"{text}<|endoftext|>"
    tokens = _encoded(subject, special)
    if tokens is not None:
        assert tokenizer_of(subject).end not in tokens, "<|endoftext|> in a text ends it"


@law("tokenizer", cases=_texts, applies=lambda s: _reads(s) and tokenizer_of(s).learned, share=0.2)
def a_saved_tokenizer_is_the_same(subject: Subject, text: str) -> None:
    tokenizer, other = tokenizer_of(subject), subject.construct()
    assert isinstance(other, Tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        other.load(folder)
    tokens = _encoded(subject, text)
    if tokens is not None:
        assert other.encode(text) == tokens, f"{text!r} gives other tokens after save and load"
    assert other.vocab_size == tokenizer.vocab_size, "the vocabulary's size changes with save and load"
    assert other.fingerprint() == tokenizer.fingerprint(), "the fingerprint changes with save and load"
