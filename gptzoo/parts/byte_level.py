"""Tokenizers over bytes in the form of Hugging Face's `tokenizers`: the JSON that transformers reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

END = "<|endoftext|>"


def byte_level_json(tokens: Sequence[bytes], split: str = "") -> dict[str, object]:
    """The JSON of a tokenizer over bytes, with one special token after the others.

    Args:
        tokens: The bytes of each token, in the order of their numbers, which is that of merging, too.
        split: What no token crosses, a pattern; empty = nothing.
    """
    vocab = {spelled(token): rank for rank, token in enumerate(tokens)}
    merges = [(spelled(left), spelled(right)) for left, right in _merges({t: rank for rank, t in enumerate(tokens)})]
    words = (split,) if split else ()
    # A word that is a token needs no merging: so it is with tiktoken.
    return bytes_json(vocab, merges, words, {len(tokens): (END, True)}, ignore_merges=True)


def bytes_json(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, ...]],
    words: Sequence[str],
    added: Mapping[int, tuple[str, bool]],
    *,
    ignore_merges: bool,
) -> dict[str, object]:
    """The JSON of any tokenizer over bytes.

    Args:
        vocab: Tokens in GPT-2's alphabet and their numbers.
        merges: Pairs that become one token, the first ones first.
        words: Patterns that cut a text, each within what the one before has left.
        added: Tokens that are found before a text is cut, by number: spelling, and whether they are special.
        ignore_merges: Whether a word that is a token is taken as it is.
    """
    cuts = [{"type": "Split", "pattern": {"Regex": w}, "behavior": "Isolated", "invert": False} for w in words]
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": text, **plain, "special": special} for number, (text, special) in added.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, as_bytes]},
        "post_processor": None,
        "decoder": as_bytes,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": dict(vocab),
            "merges": [list(pair) for pair in merges],
        },
    }


def spelled(token: bytes) -> str:
    """Bytes in the alphabet of GPT-2's vocabulary: each byte is a character that can be seen."""
    return "".join(_ALPHABET[byte] for byte in token)


def _alphabet() -> dict[int, str]:
    """Bytes that are visible in Latin-1 stand for themselves; the others follow from U+0100 on, in order."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(0x100 + n) for n, byte in enumerate(rest)}


_ALPHABET: Mapping[int, str] = _alphabet()


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens that makes a token, those of lower rank first: a pair's rank is that of what it makes."""
    for token in ranks:
        halves = ((token[:at], token[at:]) for at in range(1, len(token)))
        yield from ((left, right) for left, right in halves if left in ranks and right in ranks)
