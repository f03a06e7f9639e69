"""Continuing prompts: several at once, with a cache where every part has one, by full forwards where not."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from gptzoo.contracts import Abilities, Tokenizer
from gptzoo.errors import GPTZooError, raise_all
from gptzoo.evaluation import check_vocabulary, evaluating
from gptzoo.model import Cache, Model
from gptzoo.precision import autocast, lowered
from gptzoo.sampling import choose, problems_of
from gptzoo.seeds import stable_seed

MOST = 200
"""Tokens that are written unless a number is given."""


@dataclass(frozen=True)
class Generated:
    """A prompt and how the model continues it.

    Args:
        prompt: As text; empty where there is no tokenizer.
        text: The continuation alone.
        tokens: The new tokens, without the end token that stopped them.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]


def generate(
    model: Model,
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    greedy: bool = False,
    cache: bool = True,
    stop_at_end: bool = True,
    on_token: Callable[[int, str], None] | None = None,
    precision: str | None = None,
) -> list[Generated]:
    """Continue prompts: `generate(model, "Once", tokens=50)[0].text`.

    A row's draws depend on the seed, its prompt and how many equal prompts precede it, not on the rows beside it.

    Args:
        model: Its `tokenizer` reads and writes text; its training flags are left as they were.
        prompts: A text, several, or several lists of token numbers; lengths may differ. An empty one starts from the
            end token.
        tokens: Most new tokens per prompt; unless given 200, or as many as fit.
        temperature: Of the draw; below 1 it favours likely tokens, 0 always takes the likeliest.
        top_k: Draw among the k likeliest.
        top_p: Draw among the fewest likeliest tokens that hold this much of the probability.
        min_p: Draw among tokens at least this share as likely as the likeliest.
        seed: Equal seeds give equal texts.
        greedy: Always take the likeliest token; overrides the options of the draw.
        cache: Keep keys and values of past tokens. Where a part cannot, everything is computed anew for each token,
            with the same result.
        stop_at_end: A row ends at the tokenizer's end token.
        on_token: Called with the row's index and the next piece of its text, as soon as no later token can change it.
        precision: `fp32`, `bf16` or `fp16`; that of the weights unless given.

    Raises:
        GPTZooError: An option is out of range, a prompt is not the model's, or all does not fit the model's positions.
        NotFinite: The model's scores are.
    """
    tokenizer = model.tokenizer
    vocab_size = model.dims.vocab_size if tokenizer is None else tokenizer.vocab_size
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    if tokenizer is not None:
        check_vocabulary(model, tokenizer)
    raise_all([*_problems_of(tokens or 0, tokenizer, on_token), *problems_of(vocab_size, **options)])
    options |= {"temperature": 0.0} if greedy else {}
    rows = _rows(prompts, tokenizer, vocab_size, seed)
    tokens = _checked_length(rows, tokens, model.max_length)
    device = model.wte.weight.device.type
    writer = _Writer(
        model,
        tokens=tokens,
        cached=cache and _able(model, "cached", device),
        padding=_able(model, "padding", device),
        dtype=lowered(precision or "fp32"),
        choose=lambda logits, generators: choose(logits[:, :vocab_size], generators, **options),
        end=tokenizer.end if tokenizer is not None and stop_at_end else None,
        taken=partial(_tell, tokenizer, on_token) if tokenizer is not None and on_token is not None else None,
    )
    with evaluating(model), autocast(device, precision or "fp32"):
        for group in _groups(rows, writer.padding):
            writer.write(group)
    return [row.generated(tokenizer) for row in rows]


def check_room(model: Model, prompts: Sequence[str], tokens: int) -> None:
    """Refuse prompts that `generate` would refuse, without generating.

    Raises:
        GPTZooError: A prompt is not the model's, or it and its continuation do not fit the model's positions.
    """
    size = model.dims.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
    _checked_length(_rows(prompts, model.tokenizer, size, seed=0), tokens, model.max_length)


@dataclass
class _Row:
    """One prompt on its way.

    Args:
        index: Where the caller put it.
        prompt: As text.
        start: As tokens, at least one.
        generator: Of its draws alone.
        new: Tokens that continue it.
        done: It takes no more.
        told: Characters that went to `on_token`.
    """

    index: int
    prompt: str
    start: list[int]
    generator: torch.Generator
    new: list[int] = field(default_factory=list)
    done: bool = False
    told: int = 0

    def take(self, token: int, end: int | None, tokens: int) -> None:
        """A new token; at the end token or the last of `tokens` the row is done."""
        if token != end:
            self.new.append(token)
        self.done = token == end or len(self.new) == tokens

    def generated(self, tokenizer: Tokenizer | None) -> Generated:
        return Generated(self.prompt, "" if tokenizer is None else tokenizer.decode(self.new), tuple(self.new))


@dataclass
class _Writer:
    """Continues rows, all in one batch.

    Args:
        model: In evaluation.
        tokens: Most new tokens.
        cached: Whether to use a cache.
        padding: Whether the model skips places that hold no token.
        dtype: Of the cache; the weights' unless given.
        choose: Logits (B, vocab_size) and B generators to tokens (B,).
        end: The token that ends a row.
        taken: Told after each token of a row.
    """

    model: Model
    tokens: int
    cached: bool
    padding: bool
    dtype: torch.dtype | None
    choose: Callable[[Tensor, list[torch.Generator]], Tensor]
    end: int | None
    taken: Callable[[_Row], None] | None

    def write(self, rows: Sequence[_Row]) -> None:
        """Continue rows until all are done. Where there is no padding, they must be of equal length."""
        batch = _Batch(rows, self.model.wte.weight.device)
        size = batch.tokens.shape[1] + self.tokens
        cache = self.model.new_cache(len(rows), size, self.dtype) if self.cached and self.tokens else None
        for _ in range(self.tokens):
            last = self._choose(rows, self._logits(batch, cache))
            if all(row.done for row in rows):
                return
            batch.append(last, [row.done and self.padding for row in rows])

    def _choose(self, rows: Sequence[_Row], logits: Tensor) -> list[int]:
        """A token for every row, 0 for those that were done before."""
        last = [0] * len(rows)
        open_rows = [index for index, row in enumerate(rows) if not row.done]
        picked = self.choose(logits[open_rows], [rows[index].generator for index in open_rows])
        for index, token in zip(open_rows, picked.tolist(), strict=True):
            last[index] = token
            rows[index].take(token, self.end, self.tokens)
            if self.taken is not None:
                self.taken(rows[index])
        return last

    def _logits(self, batch: _Batch, cache: Cache | None) -> Tensor:
        """Scores (B, V) of the next token. With a cache only the tokens that it lacks are computed."""
        known = 0 if cache is None else cache.length
        where = (None, None) if batch.plain else (batch.pos[:, known:], batch.doc[:, known:])
        x, _ = self.model.hidden(batch.tokens[:, known:], *where, cache)
        return self.model.head(x[:, -1:])[:, 0]


class _Batch:
    """Tokens (B, T) with their positions and documents, padded on the left.

    Attributes:
        plain: Every place holds a token, so that the model needs to be told neither positions nor documents.
    """

    def __init__(self, rows: Sequence[_Row], device: torch.device) -> None:
        longest = max(len(row.start) for row in rows)
        padding = [longest - len(row.start) for row in rows]
        self.plain = not any(padding)
        start = [[0] * pad + row.start for pad, row in zip(padding, rows, strict=True)]
        pos = [[0] * pad + list(range(longest - pad)) for pad in padding]
        doc = [[-1] * pad + [0] * (longest - pad) for pad in padding]
        self.tokens, self.pos, self.doc = (torch.tensor(each, device=device) for each in (start, pos, doc))

    def append(self, tokens: list[int], empty: list[bool]) -> None:
        """One more place per row, which is no token where `empty`."""
        void = torch.tensor(empty, device=self.tokens.device)[:, None]
        self.plain = self.plain and not any(empty)
        self.tokens = torch.cat([self.tokens, self.tokens.new_tensor(tokens)[:, None]], 1)
        self.pos = torch.cat([self.pos, (self.pos[:, -1:] + 1).masked_fill(void, 0)], 1)
        self.doc = torch.cat([self.doc, -void.long()], 1)


def _able(model: Model, ability: str, device: str) -> bool:
    """Whether all parts can: kernels say so, other parts do not deny it."""
    stated = [part.abilities for part in model.modules() if isinstance(getattr(part, "abilities", None), Abilities)]
    kernels = [kernel.abilities_on(device) for kernel in model.kernels if kernel is not None]
    undenied = all(getattr(each, ability) is not False for each in stated)
    return undenied and all(getattr(each, ability) is True for each in kernels)


def _groups(rows: Sequence[_Row], padding: bool) -> list[list[_Row]]:
    """Rows that are continued in one batch: all, or where there is no padding those of equal length."""
    by_length: dict[int, list[_Row]] = {}
    for row in rows:
        by_length.setdefault(0 if padding else len(row.start), []).append(row)
    return list(by_length.values())


def _tell(tokenizer: Tokenizer, on_token: Callable[[int, str], None], row: _Row) -> None:
    """Hand on what is new in a row's text, except a character that may still lack bytes."""
    text = tokenizer.decode(row.new)
    certain = text if row.done else text.rstrip("\N{REPLACEMENT CHARACTER}")
    if len(certain) > row.told:
        on_token(row.index, certain[row.told :])
        row.told = len(certain)


def _problems_of(
    tokens: int, tokenizer: Tokenizer | None, on_token: Callable[[int, str], None] | None
) -> Iterator[GPTZooError]:
    if tokens < 0:
        yield GPTZooError(f"{tokens} is below 0.", "--tokens")
    if on_token is not None and tokenizer is None:
        yield GPTZooError("it is handed text, and this model has no tokenizer. Set model.tokenizer.", "on_token")


def _rows(
    prompts: str | Sequence[str] | Sequence[Sequence[int]], tokenizer: Tokenizer | None, vocab_size: int, seed: int
) -> list[_Row]:
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    rows: list[_Row] = []
    twins: Counter[tuple[int, ...]] = Counter()
    for index, prompt in enumerate(listed):
        place = _place(index, len(listed))
        start = _encoded(prompt, tokenizer, vocab_size, place)
        text = prompt if isinstance(prompt, str) else "" if tokenizer is None else tokenizer.decode(start)
        start = start or [_end_of(tokenizer, place)]
        of_its_own = torch.Generator().manual_seed(stable_seed(seed, "sample", start, twins[tuple(start)]))
        twins[tuple(start)] += 1
        rows.append(_Row(index, text, start, of_its_own))
    return rows


def _place(index: int, prompts: int) -> str:
    return "prompt" if prompts == 1 else f"prompt {index + 1} of {prompts}"


def _encoded(prompt: str | Sequence[int], tokenizer: Tokenizer | None, vocab_size: int, place: str) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise GPTZooError("this model has no tokenizer. Give token numbers, or set model.tokenizer.", place)
        return list(tokenizer.encode(prompt))
    try:
        start = [operator.index(token) for token in prompt]
    except TypeError:
        raise GPTZooError(f"{prompt!r} is neither text nor a list of token numbers.", place) from None
    for token in start:
        if not 0 <= token < vocab_size:
            raise GPTZooError(f"{token} is not a token: they run from 0 to {vocab_size - 1}.", place)
    return start


def _end_of(tokenizer: Tokenizer | None, place: str) -> int:
    if tokenizer is None or tokenizer.end is None:
        raise GPTZooError("it is empty, and there is no end token to start from. Give at least one token.", place)
    return tokenizer.end


def _checked_length(rows: Sequence[_Row], tokens: int | None, limit: int | None) -> int:
    """How many tokens to write: as asked, if the model's positions go so far."""
    if limit is None:
        return MOST if tokens is None else tokens
    for row in rows:
        length, place = len(row.start), _place(row.index, len(rows))
        if length > limit:
            what = f"its {length} tokens do not fit: the model's positions end at {limit} (context_length). Shorten it."
            raise GPTZooError(what, place)
        if tokens is not None and length + tokens > limit:
            raise GPTZooError(
                f"{tokens} tokens after the {length} of {place} pass the model's limit of {limit} (context_length). "
                f"Use at most {limit - length}, or a shorter prompt.",
                "--tokens",
            )
    room = min((limit - len(row.start) for row in rows), default=MOST)
    return min(MOST, room) if tokens is None else tokens
