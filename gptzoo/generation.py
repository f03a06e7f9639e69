"""Continuing prompts: several at once, with a cache where every part has one, by full forwards where not."""

from __future__ import annotations

import contextlib
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from gptzoo.contracts import Tokenizer
from gptzoo.decoding import Decoder, Ways, ways_for
from gptzoo.errors import GPTZooError, raise_all
from gptzoo.evaluation import check_vocabulary, evaluating
from gptzoo.model import Model
from gptzoo.precision import autocast
from gptzoo.sampling import choose, penalised, problems_of
from gptzoo.seeds import stable_seed
from gptzoo.spelling import Spelling

MOST = 200
"""Tokens that are written unless a number is given."""

Ended = Literal["end", "stop", "tokens"]
"""What ended a continuation: the end token, a stop string, or the number of tokens."""

Alternatives = tuple[tuple[int, float], ...]
"""The likeliest tokens at a place with their log-probabilities, best first."""


@dataclass(frozen=True)
class Generated:
    """A prompt and how the model continues it.

    Args:
        prompt: As text; empty where there is no tokenizer.
        text: The continuation alone, without the stop string that ended it.
        tokens: The new tokens, without the end token. Where a stop string cut the text, those that the text is made
            of; the last of them may say more.
        ended: What ended it.
        logprobs: The log-probability of each token in nats, that of a plain forward; None unless asked for.
        alternatives: The likeliest tokens at each place; None unless asked for.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    ended: Ended = "tokens"
    logprobs: tuple[float, ...] | None = None
    alternatives: tuple[Alternatives, ...] | None = None


@dataclass(frozen=True)
class Piece:
    """What one token adds to a continuation.

    Args:
        row: The index of the prompt.
        text: What has become certain of the text; the pieces of a row join to its text. Empty while a character lacks
            bytes or a stop string may have begun.
        token: The token; the end token too.
        logprob: Its log-probability; None unless asked for.
        ended: What ends the row with this piece; None if it goes on.
    """

    row: int
    text: str
    token: int
    logprob: float | None
    ended: Ended | None


class Options(TypedDict, total=False):
    """The options of `generate` but for `on_token`; see there."""

    tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    seed: int
    greedy: bool
    stop: str | Sequence[str]
    stop_at_end: bool
    logprobs: int | None
    cache: bool
    prefill_chunk: int | None
    compile: bool
    precision: str | None


def generate(
    model: Model,
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    tokens: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    greedy: bool = False,
    stop: str | Sequence[str] = (),
    stop_at_end: bool = True,
    logprobs: int | None = None,
    cache: bool = True,
    prefill_chunk: int | None = None,
    compile: bool = False,
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
        repetition_penalty: Above 1, tokens of the prompt and the continuation are less likely to come again; in a
            greedy continuation too.
        seed: Equal seeds give equal texts.
        greedy: Always take the likeliest token; overrides the options of the draw.
        stop: A text that ends a row, or several; the first to appear, be it across tokens, is cut off with all that
            follows.
        stop_at_end: A row ends at the tokenizer's end token.
        logprobs: Give the log-probability of each token, and of so many of the likeliest at its place; 0 gives the
            token's own alone. They are the model's: before penalty, temperature and the rest.
        cache: Keep keys and values of past tokens. Where a part cannot, everything is computed anew for each token,
            with the same result.
        prefill_chunk: Most tokens of a prompt that are computed at a time, which bounds memory; all unless given.
        compile: Compile the step of one token with torch.compile: worth its wait for many tokens.
        on_token: Called with the row's index and the next piece of its text, as soon as no later token can change it.
        precision: `fp32`, `bf16` or `fp16`; that of the weights unless given.

    Raises:
        GPTZooError: An option is out of range, a prompt is not the model's, or all does not fit the model's positions.
        NotFinite: The model's scores are.
    """
    writing = _begun(
        model,
        prompts,
        on_token=on_token,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        greedy=greedy,
        stop=stop,
        stop_at_end=stop_at_end,
        logprobs=logprobs,
        cache=cache,
        prefill_chunk=prefill_chunk,
        compile=compile,
        precision=precision,
    )
    with writing.computing():
        for row in writing.steps():
            if on_token is not None and (text := row.news()):
                on_token(row.index, text)
    return [row.generated(logprobs) for row in writing.rows]


def stream(
    model: Model, prompts: str | Sequence[str] | Sequence[Sequence[int]], **options: Unpack[Options]
) -> Iterator[Piece]:
    """Continue prompts and give each token as it comes: `for piece in stream(model, "Once"): print(piece.text)`.

    Between two pieces the model is as it was before, and may be used; leaving the loop ends the writing. The options
    are those of `generate`, and what it refuses is refused at the call.

    Raises:
        GPTZooError: As in `generate`.
        NotFinite: The model's scores are.
    """
    return _pieces(_begun(model, prompts, **{**(generate.__kwdefaults__ or {}), **options}))


def _pieces(writing: _Writing) -> Iterator[Piece]:
    steps = writing.steps()
    while True:
        with writing.computing():
            row = next(steps, None)
        if row is None:
            return
        yield Piece(row.index, row.news(), row.last, row.logprobs[-1] if row.logprobs else None, row.ended)


def check_room(model: Model, prompts: Sequence[str], tokens: int) -> None:
    """Refuse prompts that `generate` would refuse, without generating.

    Raises:
        GPTZooError: A prompt is not the model's, or it and its continuation do not fit the model's positions.
    """
    size = model.dims.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
    _checked_length(_rows(prompts, model.tokenizer, size, seed=0), tokens, model.max_length)


def _begun(
    model: Model,
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float,
    seed: int,
    greedy: bool,
    stop: str | Sequence[str],
    stop_at_end: bool,
    logprobs: int | None,
    cache: bool,
    prefill_chunk: int | None,
    compile: bool,
    on_token: Callable[[int, str], None] | None,
    precision: str | None,
) -> _Writing:
    """Everything checked, nothing computed."""
    tokenizer = model.tokenizer
    vocab_size = model.dims.vocab_size if tokenizer is None else tokenizer.vocab_size
    draw = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    stop = [stop] if isinstance(stop, str) else list(stop)
    if tokenizer is not None:
        check_vocabulary(model, tokenizer)
    raise_all(
        [
            *_problems_of(tokens or 0, logprobs, vocab_size),
            *_problems_of_text(tokenizer, on_token, stop),
            *problems_of(vocab_size, **draw, repetition_penalty=repetition_penalty),
        ]
    )
    rows = _rows(prompts, tokenizer, vocab_size, seed, stop)
    return _Writing(
        model,
        rows,
        most=_checked_length(rows, tokens, model.max_length),
        ways=ways_for(model, cache=cache, prefill_chunk=prefill_chunk, compile=compile, precision=precision),
        precision=precision or "fp32",
        vocab_size=vocab_size,
        draw=draw | ({"temperature": 0.0} if greedy else {}),
        penalty=repetition_penalty,
        end=tokenizer.end if tokenizer is not None and stop_at_end else None,
        logprobs=logprobs,
    )


@dataclass
class _Row:
    """One prompt on its way.

    Args:
        index: Where the caller put it.
        prompt: As text.
        start: As tokens, at least one.
        generator: Of its draws alone.
        spelling: Of its continuation.
        new: Tokens that continue it.
        last: The newest token, the end token too.
        ended: Why it takes no more.
        logprobs: Of each token, the end token too, if they are asked for; `alternatives` likewise.
    """

    index: int
    prompt: str
    start: list[int]
    generator: torch.Generator
    spelling: Spelling
    new: list[int] = field(default_factory=list)
    last: int = 0
    ended: Ended | None = None
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)

    def take(self, token: int, end: int | None, most: int) -> None:
        """A new token; at the end token, a stop string or the last of `most` tokens the row is done."""
        self.last = token
        if token == end:
            self.ended = "end"
            return
        self.new.append(token)
        if self.spelling.stops(self.new):
            self.ended = "stop"
        elif len(self.new) == most:
            self.ended = "tokens"

    def news(self) -> str:
        """Text that has become certain since the last call."""
        return self.spelling.news(self.new, done=self.ended is not None)

    def generated(self, logprobs: int | None) -> Generated:
        kept = self.spelling.kept(self.new)
        return Generated(
            self.prompt,
            self.spelling.text(self.new),
            tuple(self.new[:kept]),
            self.ended or "tokens",
            None if logprobs is None else tuple(self.logprobs[:kept]),
            None if not logprobs else tuple(self.alternatives[:kept]),
        )


@dataclass
class _Writing:
    """The continuation of rows.

    Args:
        model: Any model.
        rows: All of them.
        most: Most new tokens.
        ways: How scores are computed.
        precision: In which precision.
        vocab_size: Tokens that may be written are below this.
        draw: Options of the draw.
        penalty: On tokens that a row holds.
        end: The token that ends a row.
        logprobs: How many alternatives to keep with their log-probabilities; None keeps none at all.
    """

    model: Model
    rows: list[_Row]
    most: int
    ways: Ways
    precision: str
    vocab_size: int
    draw: dict[str, Any]
    penalty: float
    end: int | None
    logprobs: int | None

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Where `steps` are taken: in evaluation, in the precision; outside, the model is as it was."""
        with evaluating(self.model), autocast(self.model.wte.weight.device.type, self.precision):
            yield

    def steps(self) -> Iterator[_Row]:
        """Give a row each time it has taken a token."""
        for group in _groups(self.rows, self.ways.padding) if self.most else ():
            yield from self._steps(group)

    def _steps(self, rows: Sequence[_Row]) -> Iterator[_Row]:
        decoder = Decoder(self.model, [row.start for row in rows], self.most, self.ways)
        while True:
            open_rows = [index for index, row in enumerate(rows) if row.ended is None]
            self._extend([rows[index] for index in open_rows], decoder.logits()[open_rows])
            yield from (rows[index] for index in open_rows)
            done = [row.ended is not None for row in rows]
            if all(done):
                return
            decoder.append([row.last for row in rows], done)

    def _extend(self, rows: Sequence[_Row], logits: Tensor) -> None:
        """One more token for each row, from the scores (B, V) of what follows it."""
        seen = [row.start + row.new for row in rows] if self.penalty != 1 else []
        scores = penalised(logits[:, : self.vocab_size], seen, self.penalty)
        picked = choose(scores, [row.generator for row in rows], **self.draw).tolist()
        if self.logprobs is not None:
            self._note(rows, logits.cpu().double().log_softmax(-1), picked)
        for row, token in zip(rows, picked, strict=True):
            row.take(token, self.end, self.most)

    def _note(self, rows: Sequence[_Row], logprobs: Tensor, picked: Sequence[int]) -> None:
        """Keep the log-probabilities (B, V) of the picked tokens and of the likeliest."""
        best = logprobs[:, : self.vocab_size].topk(self.logprobs or 0)
        for row, own, values, tokens, token in zip(rows, logprobs, best.values, best.indices, picked, strict=True):
            row.logprobs.append(float(own[token]))
            row.alternatives.append(tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def _groups(rows: Sequence[_Row], padding: bool) -> list[list[_Row]]:
    """Rows that are continued in one batch: all, or where there is no padding those of equal length."""
    by_length: dict[int, list[_Row]] = {}
    for row in rows:
        by_length.setdefault(0 if padding else len(row.start), []).append(row)
    return list(by_length.values())


def _problems_of(tokens: int, logprobs: int | None, vocab_size: int) -> Iterator[GPTZooError]:
    if tokens < 0:
        yield GPTZooError(f"{tokens} is below 0.", "--tokens")
    if logprobs is not None and logprobs < 0:
        yield GPTZooError(f"{logprobs} is below 0. 0 gives those of the written tokens alone.", "--logprobs")
    if logprobs is not None and logprobs > vocab_size:
        yield GPTZooError(f"{logprobs} is above the size of the vocabulary, {vocab_size}.", "--logprobs")


def _problems_of_text(
    tokenizer: Tokenizer | None, on_token: Callable[[int, str], None] | None, stop: Sequence[str]
) -> Iterator[GPTZooError]:
    if on_token is not None and tokenizer is None:
        yield GPTZooError("it is handed text, and this model has no tokenizer. Set model.tokenizer.", "on_token")
    if stop and tokenizer is None:
        yield GPTZooError("it is text, and this model has no tokenizer. Set model.tokenizer.", "--stop")
    if "" in stop:
        yield GPTZooError("an empty text is everywhere. Leave it out.", "--stop")


def _rows(
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    tokenizer: Tokenizer | None,
    vocab_size: int,
    seed: int,
    stop: Sequence[str] = (),
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
        rows.append(_Row(index, text, start, of_its_own, Spelling(tokenizer, stop)))
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
