"""Laws of every component that stands in a model: causality, caches, documents, padding, state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from hypothesis import assume
from torch import Tensor

from gptzoo.contracts import Attention, Kernel
from gptzoo.model import Model
from gptzoo.registry import Zoo
from gptzoo.testing.law import Cases, Law, law
from gptzoo.testing.places import Case, Places, cases, suits
from gptzoo.testing.subject import Around, Subject, watched
from gptzoo.testing.tolerance import close, equal, finite

IN_A_MODEL = ("attention", "kernel", "position", "norm", "mlp", "block", "head")


def logits(model: Model, tokens: Tensor, places: Places = Places(None, None)) -> Tensor:  # noqa: B008 - frozen
    """(B, T) -> (B, T, vocab_size), for tokens that stand at these places."""
    pos, doc = (None if each is None else each.to(tokens.device) for each in (places.pos, places.doc))
    return model(tokens, pos, doc)


def decoded(model: Model, tokens: Tensor, places: Places, chunks: tuple[int, ...]) -> Tensor:
    """The logits of tokens that are fed to a cache chunk by chunk."""
    batch, length = tokens.shape
    pos, doc = places.rows(length, batch, str(tokens.device))
    cache = model.new_cache(batch, length)
    out, start = [], 0
    for size in chunks:
        new = slice(start, start + size)
        at = () if places.pos is None else (pos[:, new], doc[:, new])
        out.append(model(tokens[:, new], *at, cache=cache))
        start += size
    return torch.cat(out, 1)


def _model_cases(subject: Subject):  # type: ignore[no-untyped-def]  # a search strategy
    return cases(subject)


def _plain_cases(subject: Subject):  # type: ignore[no-untyped-def]
    return cases(subject, ["plain"])


def _eval_cases(subject: Subject):  # type: ignore[no-untyped-def]
    return cases(subject, training=False)


def _layout_cases(*layouts: str):  # type: ignore[no-untyped-def]
    return lambda subject: cases(subject, layouts, training=False)


def law_of_models(
    cases: Cases, applies: Callable[[Subject], bool] = lambda subject: True, share: float = 1.0
) -> Callable[[Callable[[Subject, Case], None]], Law]:
    """Declare a law of everything that stands in a model, wherever float64 can be computed in."""
    return law(*IN_A_MODEL, cases=cases, applies=lambda subject: in_float64(subject) and applies(subject), share=share)


def in_float64(subject: Subject) -> bool:
    """Whether models with the subject run in float64; on GPUs some kernels do not."""
    return subject.slot != "kernel" or takes_float64(subject.zoo, subject.part.name, subject.device)


def takes_float64(zoo: Zoo, kernel: str, device: str) -> bool:
    """Whether a kernel takes float64 on a device."""
    built = zoo.get("kernel", kernel).factory()
    assert isinstance(built, Kernel), f"kernel {kernel!r} is no gptzoo.Kernel"
    return "fp64" in (built.abilities_on(torch.device(device).type).dtypes or ())


def _trains(subject: Subject) -> bool:
    """Whether anything can be trained with it on this device."""
    return any(subject.surroundings(sizes) for sizes in subject.sizes())


def _takes(*layouts: str):  # type: ignore[no-untyped-def]
    return lambda subject: any(suits(subject, layout) for layout in layouts)


@law_of_models(cases=_eval_cases)
def future_tokens_change_no_bit_of_the_past(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    changed = tokens.clone()
    changed[:, case.cut :] = (changed[:, case.cut :] + 1) % 19
    with torch.no_grad():
        one, two = logits(model, tokens, case.places), logits(model, changed, case.places)
    equal(one[:, : case.cut], two[:, : case.cut], "logits before a token that was changed")


@law_of_models(cases=_model_cases, applies=_trains)
def no_gradient_comes_from_the_future(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    x, out = watched(model, lambda: logits(model, tokens, case.places))
    gradient = _gradient(out[:, case.cut], x, case.seed)
    finite(gradient, "the gradient of a logit")
    assert not gradient[:, case.cut + 1 :].any(), f"logits of token {case.cut} depend on tokens after it"


@law_of_models(cases=_plain_cases, applies=_trains)
def a_token_depends_on_what_it_may_see(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    x, out = watched(model, lambda: logits(model, tokens))
    gradient = _gradient(out[:, case.cut], x, case.seed)
    felt = gradient.abs().amax(-1)[:, : case.cut + 1] > 0  # (B, cut + 1)
    seen = _reach(model, case)[case.cut, : case.cut + 1]
    assert bool(felt[:, seen].all()), (
        f"logits of token {case.cut} do not depend on tokens {(~felt.all(0) & seen).nonzero().flatten().tolist()}"
    )


def _reach(model: Model, case: Case) -> Tensor:
    """bool (T, T): which tokens can influence which, through all layers, as far as the masks say."""
    pos = torch.arange(case.length, device=model.wte.weight.device)
    reach = torch.eye(case.length, dtype=torch.bool, device=pos.device)
    for attention in model.attentions:
        seen = attention.mask(pos[:, None], pos[None]).expand(case.length, case.length)
        reach = ((seen | torch.eye(case.length, dtype=torch.bool, device=pos.device)).float() @ reach.float()) > 0
    return reach


@law_of_models(cases=_eval_cases, applies=lambda subject: subject.can("cached"))
def decoding_with_a_cache_gives_what_the_whole_gives(subject: Subject, case: Case) -> None:
    case = case if subject.can("chunked") else replace(case, chunks=(1,) * case.length)
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    with torch.no_grad():
        whole = logits(model, tokens, case.places)
        pieces = decoded(model, tokens, case.places, case.chunks)
    there = _there(case, tokens)
    close(pieces[there], whole[there], f"logits decoded in chunks of {_short(case.chunks)}")


def _keeps_shapes(subject: Subject) -> bool:
    cached = subject.slot in ("attention", "position", "kernel") and subject.can("cached") and subject.can("padding")
    return cached and all(c.fixable for c in subject.model(subject.sizes()[0], _around(subject)).new_cache(1, 1).layers)


def _around(subject: Subject) -> Around:
    return subject.surroundings(subject.sizes()[0], training=False)[0]


@law_of_models(cases=_layout_cases("plain", "left-padded"), applies=_keeps_shapes, share=0.5)
def decoding_with_a_cache_of_fixed_shapes_gives_what_the_whole_gives(subject: Subject, case: Case) -> None:
    """As in compiled decoding: the first tokens at once, then the cache is fixed, then one token at a time."""
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    pos, doc = case.places.rows(case.length, case.batch, subject.device)
    cache = model.new_cache(case.batch, case.length)
    with torch.no_grad():
        whole = logits(model, tokens, case.places)
        start = case.cut + 1
        out = [model(tokens[:, :start], pos[:, :start], doc[:, :start], cache=cache)]
        for layer in cache.layers:
            layer.fix()
        for place in range(start, case.length):
            new = slice(place, place + 1)
            context = model.context(tokens[:, new], pos[:, new], doc[:, new])
            out.append(model.head(model.stack(tokens[:, new], context, cache.layers)))
    there = _there(case, tokens)
    close(torch.cat(out, 1)[there], whole[there], f"logits decoded after {start} with a cache of fixed shapes")


@law_of_models(cases=_layout_cases("left-padded", "packed and padded"), applies=_takes("left-padded"))
def padding_changes_nothing(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens, there = subject.tokens(case.batch, case.length, case.seed), _there(case)
    other = torch.where(there.to(tokens.device), tokens, (tokens + 7) % 19)
    with torch.no_grad():
        one, two = logits(model, tokens, case.places), logits(model, other, case.places)
        finite(one, "logits of rows with padding")
        close(one[there], two[there], "logits beside other padding")
        pos, doc = case.places.rows(case.length, case.batch, subject.device)
        for row in range(case.batch):
            kept = there[row]
            if kept.any():
                alone = logits(
                    model, tokens[row : row + 1, kept], Places(pos[row : row + 1, kept], doc[row : row + 1, kept])
                )
                close(alone[0], one[row, kept], "logits of a row without its padding")


@law_of_models(cases=_layout_cases("packed", "packed and padded"), applies=_takes("packed"))
def documents_in_a_row_do_not_see_each_other(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    _, doc = case.places.rows(case.length, case.batch, subject.device)
    with torch.no_grad():
        packed = logits(model, tokens, case.places)
        for row in range(case.batch):
            for number in doc[row].unique().tolist():
                own = doc[row] == number
                if number >= 0:
                    close(packed[row, own], logits(model, tokens[row : row + 1, own])[0], "logits of a packed document")


@law_of_models(cases=_eval_cases)
def rows_of_a_batch_do_not_see_each_other(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    with torch.no_grad():
        together = logits(model, tokens, case.places)
        for row in range(case.batch):
            at = case.places
            own = at if at.pos is None else Places(at.pos[row : row + 1], at.doc[row : row + 1])  # type: ignore[index]
            close(logits(model, tokens[row : row + 1], own)[0], together[row], "logits of a row on its own")


@law_of_models(cases=_model_cases, applies=lambda s: _trains(s) and suits(s, "left-padded"))
def gradients_are_finite_everywhere(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed, dtype=torch.float32)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    at = case.places
    if at.doc is not None:
        doc = at.doc.clone()
        doc[-1] = -1  # a row that is padding throughout
        at = Places(at.pos, doc)
    x, out = watched(model, lambda: logits(model, tokens, at))
    wanted = [x, *(p for p in model.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(out.square().mean(), wanted, allow_unused=True)
    finite(out, "logits")
    for gradient in gradients:
        if gradient is not None:
            finite(gradient, "a gradient")


@law(
    *IN_A_MODEL,
    cases=_plain_cases,
    applies=lambda subject: subject.slot not in ("norm", "head", "kernel") and subject.claims("uses_input"),
    share=0.3,
)
def every_parameter_takes_part(subject: Subject, case: Case) -> None:
    assume(case.length > 2)
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(3, 33, case.seed)
    out = logits(model, tokens)
    direction = _direction(out, case.seed)
    own = {id(p) for module in model.modules() for p in module.parameters(recurse=False)}
    named = [(name, p) for name, p in model.named_parameters() if id(p) in own]
    gradients = torch.autograd.grad((out * direction).sum(), [p for _, p in named], allow_unused=True)
    idle = [name for (name, _), g in zip(named, gradients, strict=True) if g is None or not g.any()]
    idle = [name for name in idle if not _is_shift_of_scores(name)]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def _is_shift_of_scores(name: str) -> bool:
    """A bias of the keys adds the same to all scores of a query, which softmax does not feel."""
    return name.endswith(".attention.k.bias")


@law_of_models(cases=_layout_cases("plain"), share=0.2)
def the_state_goes_round(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    other = subject.model(case.sizes, case.around, seed=case.seed + 10, fresh=True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other.load_state_dict(state, strict=True)
    with torch.no_grad():
        before = logits(model, tokens, case.places)
        equal(logits(other, tokens, case.places), before, "logits after state_dict and load_state_dict")
        equal(logits(copy.deepcopy(model), tokens, case.places), before, "logits of a deep copy")
        for name, tensor in other.state_dict().items():
            equal(tensor, state[name], f"{name} after a round trip")


@law_of_models(cases=_layout_cases("plain"), share=0.1)
def nothing_but_parameters_is_kept(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed)
    buffers = [name for name, _ in model.named_buffers()]
    assert not buffers, f"buffers {', '.join(buffers)}: casts and the meta device would corrupt them"


@law_of_models(cases=_eval_cases, share=0.3)
def a_forward_leaves_everything_as_it_was(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed, fresh=True)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    places, state = case.places, {name: t.clone() for name, t in model.state_dict().items()}
    pos, doc = (None if t is None else t.clone() for t in (places.pos, places.doc))
    kept, generator = tokens.clone(), torch.get_rng_state()
    with torch.no_grad():
        first = logits(model, tokens, places)
        second = logits(model, tokens, places)
        trained = logits(model.train(), tokens, places)  # the model has no dropout
    equal(second, first, "logits of the same tokens, the second time")
    equal(trained, first, "logits in training, without dropout")
    assert torch.equal(torch.get_rng_state(), generator), "a forward draws from torch's generator"
    equal(tokens, kept, "the tokens")
    if pos is not None and doc is not None:
        assert places.pos is not None
        assert places.doc is not None
        equal(places.pos, pos, "the positions")
        equal(places.doc, doc, "the documents")
    for name, tensor in model.state_dict().items():
        equal(tensor, state[name], name)


@law_of_models(cases=_layout_cases("plain"), share=0.2)
def equal_seeds_build_equal_bits(subject: Subject, case: Case) -> None:
    built = []
    for state in (1, 2):
        torch.manual_seed(state)
        model = subject.model(case.sizes, case.around, seed=case.seed + 20, fresh=True, loud=False, dtype=torch.float32)
        subject._models.clear()
        built.append(model.state_dict())
    for name, tensor in built[0].items():
        equal(built[1][name], tensor, f"{name}, built twice")
        finite(tensor, f"{name}, freshly built")


@law_of_models(cases=_plain_cases, applies=_trains, share=0.2)
def float64_is_kept(subject: Subject, case: Case) -> None:
    """A difference quotient over a step that float32 cannot see agrees with the gradient."""
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(1, case.length, case.seed)
    x, out = watched(model, lambda: logits(model, tokens))
    direction = _direction(out, case.seed)
    (gradient,) = torch.autograd.grad((out * direction).sum(), x)
    along = gradient / gradient.norm().clamp_min(1e-12)
    step = 1e-7
    with torch.no_grad():
        up, down = (_shifted(model, tokens, sign * step * along) for sign in (1, -1))
    measured = float(((up - down) * direction).sum() / (2 * step))
    expected = float(gradient.norm())
    assert abs(measured - expected) <= 1e-3 * max(expected, 1.0), (
        f"the gradient's norm is {expected:.6g} and the difference quotient {measured:.6g}: "
        "something is computed below float64, or is not differentiable"
    )


def _shifted(model: Model, tokens: Tensor, shift: Tensor) -> Tensor:
    handle = model.wte.register_forward_hook(lambda _m, _i, out: out + shift)  # type: ignore[arg-type,operator]
    try:
        return logits(model, tokens)
    finally:
        handle.remove()


@law_of_models(cases=_eval_cases, share=0.3)
def half_precision_is_finite_and_near(subject: Subject, case: Case) -> None:
    model = subject.model(case.sizes, case.around, seed=case.seed, dtype=torch.float32)
    exact = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    with torch.no_grad(), torch.autocast(subject.device, torch.bfloat16):
        low = logits(model, tokens, case.places)
    with torch.no_grad():
        high = logits(exact, tokens, case.places)
    there = _there(case, tokens)
    finite(low, "logits under bfloat16 autocast")
    error = float((low[there].double() - high[there]).norm() / high[there].norm().clamp_min(1e-9))
    assert error < 0.1, f"logits under bfloat16 autocast are off by {error:.1%}"  # two layers measured: at most 3%


def _there(case: Case, like: Tensor | None = None) -> Tensor:
    _, doc = case.places.rows(case.length, case.batch, "cpu" if like is None else str(like.device))
    return doc >= 0


def _direction(like: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, dtype=like.dtype, generator=g).to(like.device)


def _gradient(out: Tensor, x: Tensor, seed: int) -> Tensor:
    return torch.autograd.grad((out * _direction(out, seed)).sum(), x)[0]


def _short(chunks: tuple[int, ...]) -> str:
    text = ", ".join(map(str, chunks[:6]))
    return f"{text}, ..." if len(chunks) > 6 else text


def attention_of(model: Model) -> Attention:
    """The attention of the first layer."""
    return next(iter(model.attentions))
