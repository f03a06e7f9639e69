"""The laws of the token stream: what is trained on, in which order, and what the cache may and may not do."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gptzoo import Batch, Byte, GPTZooError, NoSpace, Tokenizer, TokenStream
from gptzoo.tokens import Tokens, cache_folder, open_tokens, train_rows, train_starts, val_starts, windows

quick = settings(deadline=None, max_examples=60)
sizes = st.tuples(st.integers(1, 9), st.integers(2, 120)).filter(lambda size: size[1] > size[0])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


class Corpus(TokenStream):
    """Documents from memory."""

    def __init__(
        self, texts: Sequence[str], context_length: int, documents: bool = False, val_fraction: float = 0.1
    ) -> None:
        self.texts = texts
        super().__init__(Byte(), context_length, documents, val_fraction)

    def read_documents(self) -> Iterator[str]:
        return iter(self.texts)


class Wide(Byte):
    """Bytes in a vocabulary that needs more than 16 bits."""

    vocab_size = 70_000
    end = 69_999

    def fingerprint(self) -> str:
        return "wide"


def counting(length: int) -> Tokens:
    """A stream whose tokens are their own places."""
    return Tokens("key", np.arange(length, dtype=np.uint32), np.zeros(1, np.int64))


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("tokens", "targets", "pos", "doc"))


# Windows


@quick
@given(sizes, st.integers(0, 3), st.integers(0, 5))
def test_every_token_is_used_at_most_once_per_epoch_and_fewer_than_two_rows_are_left_over(
    size: tuple[int, int], seed: int, epoch: int
) -> None:
    context_length, length = size
    starts = train_starts(length, context_length, seed, epoch)
    batch = windows(counting(length), starts, context_length)
    used = batch.tokens.flatten().tolist()
    assert len(starts) == train_rows(length, context_length) > 0
    assert len(set(used)) == len(used) > length - 2 * context_length
    assert batch.targets.max() < length


@quick
@given(sizes, st.integers(0, 3))
def test_epoch_zero_has_no_phase_and_windows_tile_the_stream_in_each_epoch(size: tuple[int, int], seed: int) -> None:
    context_length, length = size
    assert train_starts(length, context_length, seed, 0).min() == 0
    for epoch in range(4):
        starts = np.sort(train_starts(length, context_length, seed, epoch))
        assert set(np.diff(starts)) <= {context_length}
        assert 0 <= starts[0] < context_length


def test_targets_are_inputs_one_later_also_across_the_edges_of_windows() -> None:
    starts = np.sort(train_starts(100, 8, 0, 1))
    batch = windows(counting(100), starts, 8)
    assert torch.equal(batch.tokens[:, 1:], batch.targets[:, :-1])
    assert torch.equal(batch.tokens[1:, 0], batch.targets[:-1, -1])


def test_the_order_depends_on_seed_and_epoch() -> None:
    orders = [tuple(train_starts(5000, 8, seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16
    assert tuple(train_starts(5000, 8, 2, 3)) == orders[2 * 4 + 3]


def test_phases_reach_every_place() -> None:
    assert {int(train_starts(100, 8, 0, epoch).min()) for epoch in range(1, 200)} == set(range(8))


def test_the_order_is_what_it_was_in_earlier_versions() -> None:
    assert train_starts(40, 4, 0, 0).tolist() == [0, 20, 8, 16, 4, 24, 32, 28, 12]
    assert train_starts(40, 4, 7, 3).tolist() == [27, 11, 23, 35, 15, 31, 3, 19, 7]
    assert val_starts(40, 30, 4, "key").tolist() == [52, 64, 56, 44, 40, 48, 60]


@quick
@given(sizes, st.integers(0, 50))
def test_validation_windows_tile_their_part_from_its_first_token(size: tuple[int, int], first: int) -> None:
    context_length, length = size
    starts = val_starts(first, length, context_length, "key")
    assert sorted(starts) == list(range(first, first + length - context_length, context_length))


# Documents


def rows_by_hand(lengths: list[int], starts: list[int], context_length: int, end: bool) -> Iterator[list[list[int]]]:
    """(tokens, targets, pos, doc) of each row, one token at a time."""
    owner = [doc for doc, length in enumerate(lengths) for _ in range(length + end if length else 0)]
    for start in starts:
        tokens, targets, pos, doc = [], [], [], []
        for place in range(start, start + context_length):
            opens = place == start or owner[place] != owner[place - 1]
            tokens.append(place)
            targets.append(place + 1 if owner[place + 1] == owner[place] else -100)
            pos.append(0 if opens else pos[-1] + 1)
            doc.append(0 if place == start else doc[-1] + opens)
        yield [tokens, targets, pos, doc]


@quick
@given(st.data(), st.integers(1, 7), st.booleans())
def test_isolated_documents_agree_with_a_slow_reference(data: st.DataObject, context_length: int, end: bool) -> None:
    special = [0, 1, max(context_length - 1, 0), context_length, context_length + 1]
    lengths = data.draw(st.lists(st.sampled_from(special) | st.integers(0, 20), min_size=1, max_size=12))
    ends = np.cumsum([length + end for length in lengths if length])
    if not len(ends) or ends[-1] <= context_length:
        return
    stream = np.arange(ends[-1])
    tokens = Tokens("key", stream, np.concatenate([[0], ends[:-1]]))
    starts = np.arange(ends[-1] - context_length)
    batch = windows(tokens, starts, context_length, documents=True)
    expected = torch.tensor(list(rows_by_hand(lengths, starts.tolist(), context_length, end)))
    for index, got in enumerate((batch.tokens, batch.targets, batch.pos, batch.doc)):
        assert torch.equal(got, expected[:, index])


def test_the_end_token_is_predicted_and_predicts_nothing() -> None:
    data = Corpus(["ab", "", "cde", "x" * 99], 8, documents=True)
    row = windows(data.tokens, np.array([0]), 8, documents=True)
    assert row.tokens.tolist() == [[97, 98, 256, 99, 100, 101, 256, 120]]
    assert row.targets.tolist() == [[98, 256, -100, 100, 101, 256, -100, 120]]
    assert row.pos.tolist() == [[0, 1, 2, 0, 1, 2, 3, 0]]
    assert row.doc.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2]]


def test_the_parts_of_a_batch_share_no_memory() -> None:
    for documents in (False, True):
        batch = windows(counting(9), np.array([0]), 8, documents)
        parts = (batch.tokens, batch.targets, batch.pos, batch.doc)
        assert len({part.untyped_storage().data_ptr() for part in parts}) == 4
        assert all(part.is_contiguous() for part in parts)


def test_as_one_stream_a_row_is_one_document() -> None:
    data = Corpus(["ab", "", "cde", "x" * 99], 8)
    row = windows(data.tokens, np.array([0]), 8)
    assert row.targets.tolist() == [[98, 256, 99, 100, 101, 256, 120, 120]]
    assert row.plain
    assert all(each.dtype == torch.int64 for each in (row.tokens, row.targets, row.pos, row.doc))


# Batches


def test_any_step_can_be_jumped_to() -> None:
    walked, text = Corpus(["abcdefghij" * 40], 8), ["abcdefghij" * 40]
    batches = [walked.batch("train", 5, step, 16) for step in range(12)]
    assert walked.sequences("train") == 44  # 12 steps are more than four epochs
    for step in (11, 0, 7, 3):
        assert equal(Corpus(text, 8).batch("train", 5, step, 16), batches[step])
        assert equal(walked.batch("train", 5, step, 16), batches[step])


def test_an_order_is_drawn_once_per_epoch_and_never_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []

    def watched(length: int, context_length: int, seed: int, epoch: int) -> np.ndarray:
        drawn.append((seed, epoch))
        return train_starts(length, context_length, seed, epoch)

    monkeypatch.setattr("gptzoo.parts.text.train_starts", watched)
    data = Corpus(["abcdefghij" * 40], 8)
    for step in range(22):
        data.batch("train", 0, step, 4)
    assert drawn == [(0, 0), (0, 1)]
    assert not equal(data.batch("train", 0, 0, 4), data.batch("train", 1, 0, 4))
    assert drawn == [(0, 0), (0, 1), (0, 0), (1, 0)]


@pytest.mark.parametrize("micro", [1, 2, 3, 6])
def test_the_stream_is_the_same_for_every_micro_batch(micro: int) -> None:
    data = Corpus(["abcdefghij" * 40], 8)
    whole = [data.batch("train", 0, step, 12) for step in range(10)]
    parts = [data.batch("train", 0, step, micro) for step in range(10 * 12 // micro)]
    assert torch.equal(torch.cat([b.tokens for b in whole]), torch.cat([b.tokens for b in parts]))
    assert torch.equal(whole[3].rows(0, micro).targets, parts[3 * 12 // micro].targets)


def test_a_batch_may_span_several_epochs() -> None:
    data = Corpus(["abcdefghij" * 10], 8)
    rows = data.sequences("train")
    tokens = data.batch("train", 0, 0, 3 * rows + 1).tokens
    assert torch.equal(tokens[2 * rows : 3 * rows], data.batch("train", 0, 2, rows).tokens)


@quick
@given(st.integers(1, 8), st.integers(40, 200), st.floats(0.3, 0.7))
def test_training_and_validation_share_no_token(context_length: int, length: int, val_fraction: float) -> None:
    data = Corpus(["a" * length], context_length, val_fraction=val_fraction)
    stream = Tokens("key", np.arange(length + 1), np.zeros(1, np.int64))
    data.tokens = stream
    train = [data.batch("train", 1, epoch, data.sequences("train")) for epoch in range(4)]
    val = data.batch("val", 1, 0, data.sequences("val"))
    assert max(int(batch.targets.max()) for batch in train) < int(val.tokens.min()) == data.train_tokens
    assert int(val.targets.max()) <= length


def test_the_validation_order_does_not_depend_on_the_seed_and_the_last_batch_is_short() -> None:
    data = Corpus(["abcdefghij" * 40], 8)
    assert data.sequences("val") == 4
    assert equal(data.batch("val", 1, 0, 3), data.batch("val", 2, 0, 3))
    assert len(data.batch("val", 1, 1, 3).tokens) == 1
    with pytest.raises(AssertionError, match="val has 4 rows, none from 6 on"):
        data.batch("val", 0, 2, 3)


def test_drawing_batches_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Corpus(["abcdefghij" * 40], 8).batch("train", 0, 0, 4)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_key_follows_text_tokenizer_and_options_but_not_the_context_length() -> None:
    key = Corpus(["abc" * 50], 8).key
    assert Corpus(["abc" * 50], 4).key == key
    assert Corpus(["", "abc" * 50], 8).key == key
    others = [
        Corpus(["abd" * 50], 8),
        Corpus(["abc" * 25, "abc" * 25], 8),
        Corpus(["abc" * 50], 8, documents=True),
        Corpus(["abc" * 50], 8, val_fraction=0.2),
    ]
    assert len({key, *(other.key for other in others)}) == 5


def test_isolating_documents_keeps_the_windows() -> None:
    texts = ["abc" * 50, "de" * 40]
    plain, isolated = Corpus(texts, 8), Corpus(texts, 8, documents=True)
    for split in ("train", "val"):
        assert torch.equal(plain.batch(split, 0, 0, 2).tokens, isolated.batch(split, 0, 0, 2).tokens)


def test_a_corpus_that_is_too_small_is_refused_naming_both_numbers() -> None:
    with pytest.raises(GPTZooError) as refused:
        Corpus(["a" * 99], 16)
    assert str(refused.value) == (
        "data: the corpus gives 10 tokens for validation, and context_length 16 needs at least 17. Give more text, a "
        "smaller context_length or a larger val_fraction."
    )
    with pytest.raises(GPTZooError) as refused:
        Corpus(["a" * 19], 16)
    assert len(refused.value.lines) == 1
    with pytest.raises(GPTZooError) as refused:
        Corpus(["a" * 9], 16)
    assert refused.value.lines[0] == (
        "data: the corpus gives 9 tokens for training, and context_length 16 needs at least 17. Give more text, a "
        "smaller context_length or a smaller val_fraction."
    )
    assert len(refused.value.lines) == 2


def test_the_smallest_corpus_gives_one_row_in_each_split() -> None:
    data = Corpus(["abcdefghi"], 4, val_fraction=0.5)
    assert data.sequences("train") == data.sequences("val") == 1
    assert data.batch("train", 0, 5, 1).tokens.tolist() == [[97, 98, 99, 100]]
    assert data.batch("val", 0, 0, 1).targets.tolist() == [[103, 104, 105, 256]]


def test_an_empty_corpus_is_refused_and_leaves_no_file(cache: Path) -> None:
    with pytest.raises(GPTZooError) as refused:
        Corpus(["", ""], 4)
    assert str(refused.value) == "data: the corpus holds no text."
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("val_fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_val_fraction_outside_of_its_range_is_refused(val_fraction: float) -> None:
    with pytest.raises(GPTZooError) as refused:
        Corpus(["abc"], 1, val_fraction=val_fraction)
    assert str(refused.value) == f"data.val_fraction: {val_fraction} is not above 0 and below 1."


# The cache


def test_tokens_are_made_once_and_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_tokens(lambda: ["abc", "", "de"], Byte())
    monkeypatch.setattr(Byte, "encode", lambda self, text: pytest.fail("tokenized again"))
    again = open_tokens(lambda: ["abc", "de"], Byte())
    assert first.key == again.key
    assert again.stream.tolist() == [97, 98, 99, 256, 100, 101, 256]
    assert again.starts.tolist() == [0, 4]
    assert again.stream.dtype == np.uint16
    assert isinstance(again.stream.base, np.memmap)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".starts", ".tokens"]


def test_a_large_vocabulary_takes_four_bytes_per_token() -> None:
    tokens = open_tokens(lambda: ["abc"], Wide())
    assert tokens.stream.dtype == np.uint32
    assert tokens.stream.tolist() == [97, 98, 99, 69_999]


def test_another_tokenizer_never_meets_old_tokens() -> None:
    assert open_tokens(lambda: ["abc"], Byte()).key != open_tokens(lambda: ["abc"], Wide()).key


def test_a_tokenizer_without_an_end_token_joins_documents_directly() -> None:
    class Endless(Byte):
        end = None

        def fingerprint(self) -> str:
            return "endless"

    tokens = open_tokens(lambda: ["abc", "de"], Endless())
    assert tokens.stream.tolist() == [97, 98, 99, 100, 101]
    assert tokens.starts.tolist() == [0, 3]


def test_documents_without_a_token_are_dropped() -> None:
    class Letters(Byte):
        def encode(self, text: str) -> list[int]:
            return super().encode("".join(filter(str.isalpha, text)))

    tokens = open_tokens(lambda: ["ab", "12", "cd"], Letters())
    assert tokens.starts.tolist() == [0, 3]


def damage_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "damage", "why"),
    [
        ("tokens", damage_a_byte, "{} has another sha256"),
        ("tokens", lambda path: path.write_bytes(path.read_bytes()[:-2]), "{} has 12 bytes, not 14"),
        ("tokens", Path.unlink, "a file is missing"),
        ("starts", damage_a_byte, "{} has another sha256"),
        ("json", lambda path: path.write_text("{"), "it cannot be read"),
        ("json", lambda path: path.write_text("[1]"), "it cannot be read"),
        ("json", lambda path: path.write_text('{"tokens": [14]}'), "it cannot be read"),
    ],
)
def test_a_damaged_cache_is_made_again_with_one_warning(
    kind: str, damage: object, why: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = open_tokens(lambda: ["abc", "de"], Byte())
    path = cache / f"{whole.key}.{kind}"
    content = path.read_bytes()
    assert callable(damage)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert open_tokens(lambda: ["abc", "de"], Byte()).stream.tolist() == [97, 98, 99, 256, 100, 101, 256]
    where, why = cache / f"{whole.key}.tokens", why.format(path.name)
    assert caplog.messages == [f"{where}: the cached tokens are damaged ({why}); tokenizing again."]
    assert path.read_bytes() == content


def test_half_written_files_of_a_killed_process_are_not_read(cache: Path) -> None:
    key = open_tokens(lambda: ["abc", "de"], Byte()).key
    (cache / f"{key}.json").unlink()  # it is written last
    damage_a_byte(cache / f"{key}.tokens")
    assert open_tokens(lambda: ["abc", "de"], Byte()).stream.tolist() == [97, 98, 99, 256, 100, 101, 256]


def test_a_corpus_that_changes_while_it_is_read_is_refused(cache: Path) -> None:
    corpora = iter([["abc"], ["abd"]])
    with pytest.raises(GPTZooError) as refused:
        open_tokens(lambda: next(corpora), Byte())
    assert str(refused.value) == "data: the corpus changed while it was being read. Start again."
    assert not list(cache.glob("*.json"))


def test_a_token_outside_of_the_vocabulary_is_refused(cache: Path) -> None:
    class Wrong(Byte):
        vocab_size = 99

    with pytest.raises(GPTZooError) as refused:
        open_tokens(lambda: ["abcd"], Wrong())
    assert str(refused.value) == "data.tokenizer: Wrong gives token 256, outside of its vocab_size of 99."


def test_a_full_disk_is_told_and_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptzoo.files.os.fsync", lambda descriptor: None)
    monkeypatch.setattr("gptzoo.tokens.os.replace", full)
    with pytest.raises(NoSpace):
        open_tokens(lambda: ["abc"], Byte())
    assert list(cache.iterdir()) == []


def test_a_corpus_that_cannot_be_read_is_not_blamed_on_the_cache() -> None:
    def broken() -> Iterator[str]:
        yield "abc"
        raise PermissionError(13, "Permission denied", "b.txt")

    with pytest.raises(GPTZooError) as refused:
        open_tokens(broken, Byte())
    assert str(refused.value) == "data: the corpus cannot be read: [Errno 13] Permission denied: 'b.txt'."


def test_without_a_setting_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPTZOO_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "gptzoo" / "tokens"


def test_processes_may_race_for_the_same_tokens(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(30)
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".starts", ".tokens"]
    (facts,) = cache.glob("*.json")
    assert json.loads(facts.read_bytes())["tokens"][0] == 2 * 50_001


def _race() -> None:
    assert len(open_tokens(lambda: ["abcde" * 10_000], Byte()).stream) == 50_001


def test_long_documents_are_encoded_piece_by_piece() -> None:
    longest = 0

    class Watched(Byte):
        def encode(self, text: str) -> list[int]:
            nonlocal longest
            longest = max(longest, len(text))
            return super().encode(text)

    text = "é" + "a" * 2_500_000
    tokens = open_tokens(lambda: [text], Watched())
    assert longest == 1 << 20
    assert bytes(tokens.stream[:-1].astype(np.uint8)).decode() == text


def test_a_tokenizer_needs_no_pieces() -> None:
    class Plain(Tokenizer):
        vocab_size = 128

        def encode(self, text: str) -> list[int]:
            return list(text.encode("ascii"))

        def fingerprint(self) -> str:
            return "plain"

    assert open_tokens(lambda: ["abc"], Plain()).stream.tolist() == [97, 98, 99]
