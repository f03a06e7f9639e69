"""Laws of kernels: softmax attention to the letter, for all that they say they can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from gptzoo.contracts import Abilities, Kernel, Mask, Where, causal
from gptzoo.testing.law import law
from gptzoo.testing.places import LAYOUTS, places
from gptzoo.testing.subject import Subject
from gptzoo.testing.tolerance import as_exact_as, close, finite

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Mix:
    """One call of a kernel."""

    heads: int
    groups: int
    width: int
    v_width: int
    batch: int
    queries: int
    cached: int
    layout: str
    window: int | None
    bias: str | None
    softcap: float | None
    seed: int


def _kernel(subject: Subject) -> Kernel:
    built = subject.construct()
    assert isinstance(built, Kernel), "a kernel is a gptzoo.Kernel"
    built.name = subject.part.name
    return built


def able(subject: Subject) -> Abilities:
    """What the kernel says that it can do on the subject's device."""
    return _kernel(subject).abilities_on(torch.device(subject.device).type)


def _cases(subject: Subject) -> st.SearchStrategy[Mix]:
    can = able(subject)
    width = can.head_dim_multiple or 1
    layouts = [
        layout
        for layout in LAYOUTS
        if ("padded" not in layout or can.padding) and ("packed" not in layout or can.documents)
    ]
    biases = [None, *(["position"] if can.bias else []), *(["ready"] if can.ready_bias else [])]

    @st.composite
    def draw(pick: st.DrawFn) -> Mix:
        groups = pick(st.sampled_from([1, 2, 3]))
        d = width * pick(st.sampled_from([8 // width or 1, 16 // width or 1, 4 // width or 1]))
        return Mix(
            heads=groups * (pick(st.sampled_from([1, 2, 4])) if can.gqa else 1),
            groups=groups,
            width=d,
            v_width=pick(st.sampled_from([d, 2 * d])) if can.v_width else d,
            batch=pick(st.integers(1, 3)),
            queries=pick(st.integers(1, 17)),
            cached=pick(st.sampled_from([0, 0, 1, 5])) if can.chunked else 0,
            layout=pick(st.sampled_from(layouts)),
            window=pick(st.sampled_from([None, None, 1, 3])) if can.window else None,
            bias=pick(st.sampled_from(biases)),
            softcap=pick(st.sampled_from([None, 2.0])) if can.softcap else None,
            seed=pick(st.integers(0, 5)),
        )

    return draw()


@dataclass(frozen=True)
class Call:
    """The arguments of one call."""

    q: Tensor
    k: Tensor
    v: Tensor
    where: Where
    mask: Mask
    bias: object

    def run(self, kernel: Kernel, mix: Mix, **more: Any) -> Tensor:
        """The output; under `return_lse`, both."""
        return kernel(  # type: ignore[call-overload, return-value]
            self.q,
            self.k,
            self.v,
            where=Where(  # a fresh one: dense views are memoised there
                self.where.q_pos,
                self.where.k_pos,
                self.where.q_doc,
                self.where.k_doc,
                self.where.plain,
                self.where.padded,
            ),
            mask=self.mask,
            bias=self.bias,  # type: ignore[arg-type]
            scale=mix.width**-0.5,
            softcap=mix.softcap,
            **more,
        )


def call_of(subject: Subject, mix: Mix, dtype: torch.dtype = torch.float64, *, grad: bool = False) -> Call:
    """Random arguments for a call, with gradients if they are wanted."""
    g, keys = torch.Generator().manual_seed(mix.seed), mix.queries + mix.cached

    def random(heads: int, length: int, width: int) -> Tensor:
        x = torch.randn(mix.batch, heads, length, width, generator=g, dtype=torch.float64)
        return x.to(dtype).to(subject.device).requires_grad_(grad)

    at = places(mix.layout, mix.batch, keys, mix.seed)
    pos, doc = at.rows(keys, mix.batch, subject.device)
    plain = at.pos is None and not mix.cached
    where = Where(pos[:, mix.cached :], pos, doc[:, mix.cached :], doc, plain, at.pos is not None)
    return Call(
        random(mix.heads, mix.queries, mix.width),
        random(mix.groups, keys, mix.width),
        random(mix.groups, keys, mix.v_width),
        where,
        Mask(causal, "causal") if mix.window is None else Mask(_window(mix.window), f"window {mix.window}"),
        _bias(mix, g, subject),
    )


def _window(size: int):  # type: ignore[no-untyped-def]  # a pointwise mask
    return lambda q_pos, k_pos: causal(q_pos, k_pos) & (q_pos - k_pos < size)


def _bias(mix: Mix, g: torch.Generator, subject: Subject):  # type: ignore[no-untyped-def]
    if mix.bias == "position":
        return lambda head, q_pos, k_pos: -0.3 * (head + 1) * (q_pos - k_pos).clamp_min(0).to(torch.float32)
    if mix.bias == "ready":
        shape = (mix.batch, mix.heads, mix.queries, mix.queries + mix.cached)
        return torch.randn(shape, generator=g).to(subject.device)
    return None


def by_hand(call: Call, mix: Mix) -> tuple[Tensor, Tensor]:
    """Row by row, head by head, query by query, in float64: the output and the log-sum-exp."""
    outs, lses, w = [], [], call.where
    for b in range(mix.batch):
        for h in range(mix.heads):
            group = h // (mix.heads // mix.groups)
            for i in range(mix.queries):
                at = w.q_pos[b, i], w.k_pos[b], w.q_doc[b, i], w.k_doc[b]
                seen = call.mask(*at).nonzero().flatten()
                scores = call.k[b, group, seen].double() @ call.q[b, h, i].double() * mix.width**-0.5
                if mix.softcap:
                    scores = mix.softcap * torch.tanh(scores / mix.softcap)
                if mix.bias == "ready":
                    scores = scores + call.bias[b, h, i, seen]  # type: ignore[index]
                elif mix.bias:
                    scores = scores + call.bias(h, w.q_pos[b, i], w.k_pos[b, seen])  # type: ignore[operator]
                weights = scores.softmax(0)
                zero = call.v.new_zeros(mix.v_width, dtype=torch.float64)
                outs.append(weights @ call.v[b, group, seen].double() if len(seen) else zero)
                lses.append(scores.logsumexp(0) if len(seen) else scores.new_tensor(-torch.inf))
    shape = (mix.batch, mix.heads, mix.queries)
    return torch.stack(outs).reshape(*shape, mix.v_width), torch.stack(lses).reshape(shape)


def _precision(subject: Subject) -> torch.dtype:
    """The highest that it takes."""
    dtypes = able(subject).dtypes or frozenset({"fp32"})
    return next(dtype for name, dtype in DTYPES.items() if name in dtypes)


def _trains(subject: Subject) -> bool:
    return torch.device(subject.device).type in (able(subject).backward or ())


@law("kernel", cases=_cases)
def a_kernel_is_softmax_attention(subject: Subject, mix: Mix) -> None:
    dtype = _precision(subject)
    call = call_of(subject, mix, dtype)
    rtol = 1e-6 if mix.bias == "position" else {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 2e-2)
    with torch.no_grad():
        out = call.run(_kernel(subject), mix)
        expected, _ = by_hand(call, mix)
    assert out.dtype == dtype, f"the output is {out.dtype}, and q, k and v are {dtype}"
    close(out, expected, "the output", rtol)


def _after_a_cache(subject: Subject) -> st.SearchStrategy[Mix]:
    plain = {"layout": "plain", "window": None, "bias": None, "softcap": None}
    return st.builds(lambda mix, cached: replace(mix, cached=cached, **plain), _cases(subject), st.integers(1, 9))


@law("kernel", cases=_after_a_cache, applies=lambda s: bool(able(s).chunked))
def new_tokens_see_all_cached_ones(subject: Subject, mix: Mix) -> None:
    """The mask of cached decoding is aligned with the last key, not with the first."""
    a_kernel_is_softmax_attention.check(subject, mix)


@law("kernel", cases=_cases, applies=lambda s: _precision(s).itemsize >= 4 and _trains(s))
def its_gradients_are_those_of_softmax_attention(subject: Subject, mix: Mix) -> None:
    dtype = _precision(subject)
    call = call_of(subject, mix, dtype, grad=True)
    out, (expected, _) = call.run(_kernel(subject), mix), by_hand(call, mix)
    direction = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(out.device)
    inputs = (call.q, call.k, call.v)
    ours = torch.autograd.grad((out.double() * direction).sum(), inputs)
    theirs = torch.autograd.grad((expected * direction).sum(), inputs, allow_unused=True)
    for name, one, two in zip("qkv", ours, theirs, strict=True):
        finite(one, f"the gradient of {name}")
        close(one, torch.zeros_like(one) if two is None else two, f"the gradient of {name}", 1e-5)


@law("kernel", cases=_cases, applies=lambda s: bool(able(s).lse))
def its_log_sum_exp_is_that_of_the_scores(subject: Subject, mix: Mix) -> None:
    call = call_of(subject, mix, _precision(subject))
    with torch.no_grad():
        out, lse = call.run(_kernel(subject), mix, return_lse=True)
        expected, expected_lse = by_hand(call, mix)
    close(out, expected, "the output beside the log-sum-exp", 1e-5)
    seen = expected_lse > -torch.inf
    close(lse[seen], expected_lse[seen], "the log-sum-exp", 1e-5)
    assert bool((lse[~seen] == -torch.inf).all()), "the log-sum-exp of a query that sees nothing is not -inf"


@law("kernel", cases=_cases, share=0.15)
def low_precision_is_as_exact_as_the_readable_kernel(subject: Subject, mix: Mix) -> None:
    naive = Subject(subject.zoo, type(subject.part)("kernel", "naive"), subject.device)
    for name in sorted(able(subject).dtypes or ()):
        if name == "fp64":
            continue

        def error(of: Subject, seed: int, dtype: torch.dtype = DTYPES[name]) -> tuple[Tensor, Tensor]:
            one = replace(mix, seed=seed)
            call = call_of(of, one, dtype)
            with torch.no_grad():
                return call.run(_kernel(of), one), by_hand(call, one)[0]

        as_exact_as(
            lambda seed: error(subject, seed),
            lambda seed: error(naive, seed),
            DTYPES[name],
            f"kernel {subject.part.name}",
            range(20),
        )


@law("kernel", cases=_cases, applies=lambda s: _precision(s).itemsize >= 4 and bool(able(s).dropout), share=0.1)
def dropout_keeps_the_mean(subject: Subject, mix: Mix) -> None:
    call, kernel = call_of(subject, mix, torch.float32), _kernel(subject)
    with torch.no_grad():
        exact = call.run(kernel, mix)
        draws = torch.stack([call.run(kernel, mix, dropout=0.25) for _ in range(300)])
    spread = draws.std(0) / 300**0.5
    off = (draws.mean(0) - exact).abs() / (spread + 1e-6)
    assert float(off.max()) < 7, f"the mean of 300 draws is {float(off.max()):.1f} standard errors off"
    assert mix.queries < 2 or float(draws.std(0).max()) > 0, "dropout drops nothing"
