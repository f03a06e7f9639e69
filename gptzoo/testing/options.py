"""The law of options: each one has an effect. An option that is parsed and ignored is a lie in a recipe."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gptzoo.contracts import Data, Tokenizer
from gptzoo.errors import GPTZooError
from gptzoo.recipe.schema import Part
from gptzoo.registry import SLOTS, InSlot
from gptzoo.testing.law import law
from gptzoo.testing.subject import SIZES, Around, Sizes, Subject, typed_part

EVERY = tuple(SLOTS)
WITH_THE_MODEL = ("tokenizer", "shared")
PARTS: Mapping[str, tuple[str, ...]] = {"norm": ("rmsnorm", "layernorm"), "mlp": ("gelu", "swiglu")}
"""What is tried where an option is itself a component, by its slot."""


@law(
    *EVERY,
    cases=lambda subject: st.just("all options"),
    applies=lambda subject: any(option not in WITH_THE_MODEL for option in subject.entry.options),
)
def every_option_has_an_effect(subject: Subject, case: str) -> None:
    places = _surroundings(subject)
    before = {place: _trace(subject, place) for place in places}
    beside_results = getattr(subject.entry.factory, "options_beside_results", ())
    for option in subject.entry.options:
        if option not in (*WITH_THE_MODEL, *beside_results):
            _has_an_effect(subject, option, before)


def _has_an_effect(subject: Subject, option: str, before: Mapping[object, object]) -> None:
    tried: list[object] = []
    for value in alternatives(subject, option):
        try:
            options = _written(subject, option, value)
            other = Subject(
                subject.zoo, typed_part(subject.zoo, subject.slot, subject.part.name, options), subject.device
            )
            if any(_trace(other, place) != trace for place, trace in before.items()):
                return
        except GPTZooError:
            continue  # it refuses this value, which shows that it reads it, but not that it uses it
        tried.append(value)
    now = subject.part.options.get(option)
    assert not tried, f"{option} has no effect: {', '.join(map(repr, tried[:5]))} give the same as {now!r}"


def _written(subject: Subject, option: str, value: object) -> dict[str, object]:
    from gptzoo.assembly import as_plain

    options = {k: as_plain(v) if isinstance(v, Part) else v for k, v in subject.part.options.items()}
    return {**options, option: value}


def alternatives(subject: Subject, option: str) -> Iterator[object]:
    """Other values that an option's type admits, as a recipe writes them."""
    now = subject.part.options.get(option)
    now = list(now) if isinstance(now, tuple) else now
    hints = _hints(subject)
    for value in _values(hints.get(option), now):
        if value != now:
            yield value
    if subject.slot == "logger" and isinstance(now, str):
        yield f"{now}-elsewhere"  # other texts name what must be there: a file, a data set
    for example in subject.entry.examples:
        if option in example and example[option] != now:
            yield example[option]


def _hints(subject: Subject) -> dict[str, object]:
    factory = subject.entry.factory
    try:
        return typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _values(hint: object, now: object) -> Iterator[object]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        slots = [each.slot for each in arguments[1:] if isinstance(each, InSlot)]
        yield from (PARTS.get(slots[0], ()) if slots else _values(arguments[0], now))
    elif origin in (typing.Union, types.UnionType):
        for each in arguments:
            yield from [None] if each is type(None) else _values(each, now)
    elif origin is typing.Literal:
        yield from arguments
    elif hint is bool:
        yield from (True, False)
    elif hint is int:
        base = now if isinstance(now, int) and not isinstance(now, bool) else 4
        yield from (base + 1, 2 * base, base * 3, 2, 1, 3, 5, 4, 8, 16, 0, max(0, base - 1), base // 2, -1)
    elif hint is float:
        base = float(now) if isinstance(now, int | float) and not isinstance(now, bool) else 0.5
        yield from (base * 2, base / 2, base + 0.3, 0.3, 0.5, 0.1, 0.9, 1.5, 4.0, base * 100, 1e-2, 0.0)
    elif origin is tuple and arguments:
        inner = list(_values(arguments[0], None))
        yield from ([v] for v in inner)
        yield inner
    elif origin is list and arguments:
        yield from ([v] for v in _values(arguments[0], None))


# What a component does, as bits


def _surroundings(subject: Subject) -> list[object]:
    if subject.slot in ("attention", "kernel", "position", "norm", "mlp", "block", "head"):
        found: list[object] = []
        for sizes in (SIZES[0], SIZES[2], Sizes(4, 16, 64, 2)):
            found += [
                (sizes, around)
                for around in (Around("none", "naive"), Around("rope", "auto"), Around("alibi", "auto"))
                if _fits(subject, sizes, around)
            ]
        return found[:4]
    return [None]


def _fits(subject: Subject, sizes: Sizes, around: Around) -> bool:
    return (subject.slot != "position" or around.position == "none") and subject.fits(sizes, around, training=False)


def _trace(subject: Subject, surroundings: object) -> object:
    """Something that tells two behaviours apart: bits, not values."""
    if surroundings is not None:
        return _trace_in_a_model(subject, *surroundings)  # type: ignore[misc]
    return {
        "init": _trace_init,
        "optimizer": _trace_optimizer,
        "schedule": _trace_schedule,
        "data": _trace_data,
        "tokenizer": _trace_tokenizer,
        "logger": _trace_logger,
    }[subject.slot](subject)


def _trace_logger(subject: Subject) -> object:
    """What it keeps, and where it writes; files may be named after the time."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            logger = subject.construct()
            logger.log(1, {"loss": 0.5, "learning_rate": 1e-3})  # type: ignore[attr-defined]
        written = sorted({str(path.parent) for path in Path().rglob("*") if path.is_file()})
    kept = re.sub(r"0x[0-9a-f]+", "", repr(sorted(vars(logger).items(), key=str)).replace(folder, ""))
    return kept, written, said.getvalue()


def _trace_in_a_model(subject: Subject, sizes: Sizes, around: Around) -> object:
    quiet = subject.model(sizes, around, loud=False)
    built = [(name, tuple(p.shape), _bits(p)) for name, p in quiet.named_parameters()]
    model = subject.model(sizes, around)
    tokens = subject.tokens(2, 40, 0)
    tokens[:, 7] = tokens[:, 3]
    if subject.slot == "kernel":
        return _trace_kernel(subject, model)
    torch.manual_seed(0)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            out = _bits(model(tokens))
        later = torch.arange(3000, 3040, device=tokens.device)[None]
        far = None if model.max_length is not None else _bits(model(tokens, later, tokens * 0))
        cache = model.new_cache(2, 40)
        model(tokens, cache=cache)
    torch.manual_seed(0)
    losses = model.loss(tokens, tokens.roll(1, 1))
    added = {name: float(value.detach()) for name, value in losses.added.items()}
    shapes = [{name: tuple(t.shape) for name, t in layer.tensors.items()} for layer in cache.layers]
    return built, out, far, added, float(losses.total.detach()), shapes, counter.get_total_flops()


def _trace_kernel(subject: Subject, model: nn.Module) -> object:
    return repr(sorted(vars(subject.construct()).items(), key=str)), repr(subject.construct().abilities_on("cpu"))  # type: ignore[attr-defined]


def _bits(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().double().numpy().tobytes()


def _trace_init(subject: Subject) -> object:
    found = []
    for sizes in (Sizes(4, 8, 32, 2), Sizes(4, 32, 128, 3)):
        model = subject.model(sizes, Around("learned", "auto"), loud=False)
        found.append([_bits(p) for p in model.parameters()])
    return found


def _trace_optimizer(subject: Subject) -> object:
    from gptzoo.testing.training import _optimizer, _trained

    model = subject.model(Sizes(4, 8, 32, 2), Around("learned", "auto"), loud=False, fresh=True).train()
    model = model.float()
    optimizer = _optimizer(subject, model)
    _trained(subject, model, optimizer, 4, 0)
    return [_bits(p) for p in model.parameters()]


def _trace_schedule(subject: Subject) -> object:
    schedule = subject.construct()
    return [schedule(step, steps) for steps in (10, 1000, 20_000) for step in range(0, steps, max(1, steps // 200))]  # type: ignore[operator]


def _trace_data(subject: Subject) -> object:
    from gptzoo.testing.corpora import data_of

    data: Data = data_of(subject)
    batches = [data.batch("train", 0, step, 4) for step in (0, 1, 2)] + [data.batch("val", 0, 0, 2)]
    sizes = [data.sequences(split) for split in ("train", "val")]
    return (
        sizes,
        data.key,
        data.documents,
        [tuple(map(_bits, vars(b).values())) for b in batches],
        data.problems("val", 5),
    )


def _trace_tokenizer(subject: Subject) -> object:
    from gptzoo.testing.corpora import SENTENCES, tokenizer_of

    texts = (*SENTENCES, "to be<|endoftext|>")
    tokenizer: Tokenizer = tokenizer_of(Subject(subject.zoo, replace(subject.part), subject.device))
    texts = (*SENTENCES, "<|endoftext|>")  # an option may make special what is spelled out
    return (
        tokenizer.vocab_size,
        tokenizer.end,
        [tokenizer.encode(text) for text in texts if _encodes(tokenizer, text)],
    )


def _encodes(tokenizer: Tokenizer, text: str) -> bool:
    try:
        tokenizer.encode(text)
    except GPTZooError:
        return False
    return True
