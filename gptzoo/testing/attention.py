"""Laws of attentions: what a score is, which keys are seen, and that every kernel gives the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from hypothesis import assume
from torch import Tensor, nn

from gptzoo.contracts import Attention, causal
from gptzoo.model import Model
from gptzoo.testing.law import law
from gptzoo.testing.places import Case, Places, cases
from gptzoo.testing.subject import Around, Subject, typed_part, watched
from gptzoo.testing.tolerance import as_exact_as, close, equal
from gptzoo.testing.whole import _direction, attention_of, logits, takes_float64


def _alone(subject: Subject):  # type: ignore[no-untyped-def]  # a search strategy
    return cases(subject, ["plain"], training=False)


def _everywhere(subject: Subject):  # type: ignore[no-untyped-def]
    return cases(subject, training=True)


def _has(subject: Subject, *projections: str) -> bool:
    model = subject.model(subject.sizes()[0], Around("none", "auto"))
    return all(isinstance(getattr(attention_of(model), name, None), nn.Linear) for name in projections)


def _mixes_alone(subject: Subject) -> bool:
    return getattr(subject.entry.factory, "kernels", None) == ()


@law("attention", cases=_everywhere, applies=lambda subject: not _mixes_alone(subject))
def every_kernel_gives_the_same(subject: Subject, case: Case) -> None:
    every = [k for k in subject.zoo.names("kernel") if takes_float64(subject.zoo, k, subject.device)]
    kernels = [k for k in every if subject.fits(case.sizes, replace(case.around, kernel=k))]
    assume(kernels)
    tokens, found = subject.tokens(case.batch, case.length, case.seed), []
    there = case.places.rows(case.length, case.batch, subject.device)[1] >= 0
    for kernel in kernels:
        model = subject.model(case.sizes, replace(case.around, kernel=kernel), seed=case.seed)
        x, out = watched(model, lambda model=model: logits(model, tokens, case.places))
        kept = torch.where(there[..., None], out, 0.0)
        wanted = [x, *model.parameters()]
        gradients = torch.autograd.grad((kept * _direction(out, case.seed)).sum(), wanted, allow_unused=True)
        found.append((kept, [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, gradients, strict=True)]))
    for kernel, (out, gradients) in zip(kernels[1:], found[1:], strict=True):
        close(out, found[0][0], f"logits under kernel {kernel} and under {kernels[0]}", rtol=1e-9)
        for ours, theirs in zip(gradients, found[0][1], strict=True):
            close(ours, theirs, f"a gradient under kernel {kernel} and under {kernels[0]}", rtol=1e-8)


@law(
    "attention",
    cases=_alone,
    applies=lambda s: s.claims("unit_scores") and s.part.options.get("scale") is None and _has(s, "q", "k", "v", "o"),
    share=0.4,
)
def scores_of_unit_normal_queries_and_keys_have_unit_variance(subject: Subject, case: Case) -> None:
    """A value that is nudged moves the output by its weight, and the logs of weights spread as the scores do."""
    sizes = max(subject.sizes(), key=lambda s: s.head_dim * s.n_head)
    model = subject.model(sizes, Around("none", case.around.kernel), seed=case.seed, loud=False)
    attention = attention_of(model)
    spread = [_spread_of_scores(model, attention, subject.tokens(4, 48, seed), seed) for seed in range(3)]
    variance = float(torch.stack(spread).mean())
    low, _high = (
        (0.1, 1.3) if subject.part.options.get("softcap") or subject.part.options.get("qk_norm") else (0.75, 1.3)
    )
    assert low <= variance <= 1.3, f"the variance of the scores is {variance:.3g}; is the scale 1 / sqrt(head_dim)?"


def _spread_of_scores(model: Model, attention: nn.Module, tokens: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    values: list[Tensor] = []
    mixed: list[Tensor] = []

    def unit_normal(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return torch.randn(output.shape, generator=g, dtype=output.dtype).to(output.device)

    def leaf(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        values.append(output.detach().requires_grad_())
        return values[-1]

    hooks = [
        attention.q.register_forward_hook(unit_normal),  # type: ignore[union-attr]
        attention.k.register_forward_hook(unit_normal),  # type: ignore[union-attr]
        attention.v.register_forward_hook(leaf),  # type: ignore[union-attr]
        attention.o.register_forward_pre_hook(lambda _m, inputs: mixed.append(inputs[0])),  # type: ignore[union-attr]
    ]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    (weights,) = torch.autograd.grad(mixed[0][:, -1, 0].sum(), values[0])  # of head 0 of the last token
    weights = weights[..., 0]
    return torch.stack([row[row > 0].log().var() for row in weights]).mean()


@law("attention", cases=_alone, applies=lambda s: "n_kv_head" in s.part.options and _has(s, "q", "k", "v", "o"))
def a_group_of_query_heads_reads_its_key_value_head(subject: Subject, case: Case) -> None:
    """As many key/value heads as query heads, each a copy of its group's, give the same."""
    wide = subject.with_options(
        n_kv_head=None if subject.entry.options["n_kv_head"].default is None else case.sizes.n_head
    )
    assume(wide.fits(case.sizes, case.around, training=False))
    model, other = (s.model(case.sizes, case.around, seed=case.seed, fresh=True) for s in (subject, wide))
    state = model.state_dict()
    groups: int = attention_of(model).n_kv_head  # type: ignore[assignment]
    for name in ("k", "v"):
        for path in [p for p in state if f".attention.{name}." in p]:
            heads = state[path].unflatten(0, (groups, -1))
            state[path] = heads.repeat_interleave(case.sizes.n_head // groups, 0).flatten(0, 1)
    other.load_state_dict(state, strict=True)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    with torch.no_grad():
        close(
            logits(model, tokens), logits(other, tokens), "logits with key/value heads written out for each query head"
        )


@law("attention", cases=_alone, applies=lambda s: s.claims("order_free"), share=0.5)
def without_positions_the_past_has_no_order(subject: Subject, case: Case) -> None:
    model = subject.model(replace(case.sizes, n_layer=1), Around("none", case.around.kernel), seed=case.seed)
    attention, length = attention_of(model), case.length
    tokens, pos = subject.tokens(1, length, case.seed), torch.arange(length, device=subject.device)
    if type(attention).mask is not Attention.mask:
        assume(bool(attention.mask(pos[-1], pos).all()))
    g = torch.Generator().manual_seed(case.seed)
    shuffled = torch.cat((tokens[:, torch.randperm(length - 1, generator=g)], tokens[:, -1:]), 1)
    with torch.no_grad():
        close(
            logits(model, shuffled)[:, -1],
            logits(model, tokens)[:, -1],
            "logits of the last token after a shuffled past",
        )


@law("attention", cases=_everywhere, applies=lambda s: s.can("any_order"), share=0.5)
def where_a_token_stands_in_the_row_does_not_matter(subject: Subject, case: Case) -> None:
    """Only `pos` and `doc` tell: tokens in another order, with their positions, give the same in that order."""
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(case.batch, case.length, case.seed)
    pos, doc = case.places.rows(case.length, case.batch, subject.device)
    order = torch.randperm(case.length, generator=torch.Generator().manual_seed(case.seed)).to(subject.device)
    there = doc[:, order] >= 0
    with torch.no_grad():
        straight = logits(model, tokens, Places(pos, doc))[:, order]
        shuffled = logits(model, tokens[:, order], Places(pos[:, order], doc[:, order]))
    close(shuffled[there], straight[there], "logits of a row in another order")


@law("attention", cases=_alone, applies=lambda s: s.claims("shift_invariant"), share=0.5)
def a_row_that_starts_later_gives_the_same(subject: Subject, case: Case) -> None:
    assume(case.around.position in ("none", "rope", "alibi"))
    model = subject.model(case.sizes, case.around, seed=case.seed)
    tokens = subject.tokens(1, case.length, case.seed)
    pos = torch.arange(case.length, device=subject.device)[None]
    doc = torch.zeros_like(pos)
    assume(subject.can("documents"))
    with torch.no_grad():
        here = logits(model, tokens, Places(pos, doc))
        later = logits(model, tokens, Places(pos + 1000 + case.cut, doc))
    close(later, here, "logits of a row at later positions", rtol=1e-8)


@law(
    "attention",
    cases=_alone,
    applies=lambda s: isinstance(s.part.options.get("window"), int) and s.claims("window_alone"),
    share=0.3,
)
def a_window_is_so_many_tokens_the_token_itself_included(subject: Subject, case: Case) -> None:
    window = subject.part.options["window"]
    attention = attention_of(subject.model(case.sizes, Around("none", "auto")))
    pos = torch.arange(3 * window + 5)  # type: ignore[operator]
    seen = attention.mask(pos[:, None], pos[None])
    assert bool((seen <= causal(pos[:, None], pos[None])).all()), "the window shows the future"
    counts = seen.sum(-1)
    expected = (pos + 1).clamp_max(window)  # type: ignore[call-overload]
    equal(counts, expected, f"tokens seen through a window of {window}")


@law("attention", cases=_everywhere, share=0.5)
def without_its_output_projection_it_is_silent(subject: Subject, case: Case) -> None:
    """What writes into the residual stream is called `o`: inits and optimizers know it by that name."""
    model = subject.model(case.sizes, case.around, seed=case.seed, fresh=True)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if ".attention.o." in path:
                parameter.zero_()
    outputs: list[Tensor] = []
    attention_of(model).register_forward_hook(lambda _m, _i, out: outputs.append(out))  # type: ignore[arg-type]
    with torch.no_grad():
        logits(model, subject.tokens(case.batch, case.length, case.seed), case.places)
    assert not outputs[0].any(), "with every parameter of `o` at zero it still writes into the stream"


@law("attention", cases=_alone, share=0.05)
def low_precision_is_as_exact_as_plain_attention(subject: Subject, case: Case) -> None:
    plain = Subject(subject.zoo, typed_part(subject.zoo, "attention", "multi_head", {}), subject.device)
    for dtype in (torch.bfloat16, torch.float32):
        as_exact_as(
            _low_and_exact(subject, dtype, case.around.kernel),
            _low_and_exact(plain, dtype, "naive"),
            dtype,
            f"{subject.part.name} under kernel {case.around.kernel}",
            factor=6.0,  # whole attentions of other shapes: see `python -m tests.laws --precision`
        )


def _low_and_exact(subject: Subject, dtype: torch.dtype, kernel: str) -> Callable[[int], tuple[Tensor, Tensor]]:
    sizes, around = subject.sizes()[-1], Around("none", kernel)
    low, high = (subject.model(sizes, around, dtype=d, fresh=True) for d in (dtype, torch.float64))
    high.load_state_dict({name: tensor.double() for name, tensor in low.state_dict().items()})
    tokens = subject.tokens(2, 24, 0)

    def run(seed: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(2, 24, sizes.n_embd, generator=torch.Generator().manual_seed(seed)).to(dtype).to(subject.device)
        with torch.no_grad():
            return _mixed(low, x, tokens), _mixed(high, x.double(), tokens)

    return run


def _mixed(model: Model, x: Tensor, tokens: Tensor) -> Tensor:
    ctx = model.context(tokens)
    ctx.position, ctx.kernel = model.positions[0], model.kernels[0]  # type: ignore[assignment]
    return attention_of(model)(x, ctx)
