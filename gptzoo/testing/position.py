"""Laws of positions: what is rotated, what is added, and from where it counts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, strategies as st
from torch import Tensor

from gptzoo.contracts import Position, Where
from gptzoo.errors import GPTZooError
from gptzoo.testing.law import law
from gptzoo.testing.subject import CONTEXT, Around, Sizes, Subject, speak_up
from gptzoo.testing.tolerance import as_exact_as, close, equal, finite


@dataclass(frozen=True)
class At:
    """Queries and keys at some positions."""

    sizes: Sizes
    batch: int
    length: int
    start: int
    shift: int
    seed: int


def _cases(subject: Subject) -> st.SearchStrategy[At]:
    return st.builds(
        At,
        st.sampled_from(subject.sizes()),
        st.integers(1, 3),
        st.integers(1, 20),
        st.sampled_from([0, 0, 1, 20]),
        st.sampled_from([1, 2, 17, 43, 5000, 300_000]),
        st.integers(0, 5),
    )


def _position(subject: Subject, at: At) -> Position:
    with torch.random.fork_rng(devices=[]):
        built = subject.construct(subject.dims(at.sizes), at.sizes.head_dim)
    assert isinstance(built, Position), "a position is a gptzoo.Position"
    speak_up(built, at.seed)
    return built.double().to(subject.device)


def _heads(at: At, subject: Subject) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(at.seed)
    q = torch.randn(at.batch, at.sizes.n_head, at.length, at.sizes.head_dim, dtype=torch.float64, generator=g)
    k = torch.randn(at.batch, 1, at.length, at.sizes.head_dim, dtype=torch.float64, generator=g)
    return q.to(subject.device), k.to(subject.device)


def _pos(at: At, subject: Subject) -> Tensor:
    return torch.arange(at.start, at.start + at.length, device=subject.device)[None]


def _shift(position: Position, at: At) -> int:
    """How far a case is moved, within the length that the position bears: beyond it the model refuses."""
    limit = position.max_length
    return at.shift if limit is None else min(at.shift, max(0, limit - at.start - at.length))


def _rotates(subject: Subject) -> bool:
    return getattr(subject.entry.factory, "rotate", Position.rotate) is not Position.rotate


def _biased(subject: Subject) -> bool:
    return getattr(subject.entry.factory, "bias", None) is not None


def _embeds(subject: Subject) -> bool:
    return getattr(subject.entry.factory, "embed", Position.embed) is not Position.embed


@law("position", cases=_cases, applies=_rotates)
def rotation_takes_the_shapes_it_is_given(subject: Subject, at: At) -> None:
    position, (q, k), pos = _position(subject, at), _heads(at, subject), _pos(at, subject)
    kept = q.clone(), k.clone()
    for x, turned in zip((q, k), position.rotate(q, k, pos), strict=True):
        assert turned.shape == x.shape and turned.dtype == x.dtype, "rotate changes the shape or the dtype"
    equal(q, kept[0], "the queries given to rotate")
    equal(k, kept[1], "the keys given to rotate")
    low = position.rotate(q.bfloat16(), k.bfloat16(), pos)
    assert low[0].dtype == low[1].dtype == torch.bfloat16, "rotate changes bfloat16 into something else"


@law("position", cases=_cases, applies=lambda s: _rotates(s) and s.claims("norm_preserving"))
def rotation_keeps_norms(subject: Subject, at: At) -> None:
    position, (q, k), pos = _position(subject, at), _heads(at, subject), _pos(at, subject)
    for x, turned in zip((q, k), position.rotate(q, k, pos + _shift(position, at)), strict=True):
        close(turned.norm(dim=-1), x.norm(dim=-1), "the norms of rotated heads")


@law("position", cases=_cases, applies=lambda s: _rotates(s) and s.claims("shift_invariant"))
def scores_after_rotation_depend_on_the_distance_alone(subject: Subject, at: At) -> None:
    position, (q, k), pos = _position(subject, at), _heads(at, subject), _pos(at, subject)
    shift = _shift(position, at)
    here, there = (q_ @ k_.mT for q_, k_ in (position.rotate(q, k, p) for p in (pos, pos + shift)))
    close(there, here, f"scores {shift} tokens later", rtol=1e-9)


@law("position", cases=_cases, applies=_rotates)
def rotation_of_a_slice_is_the_slice_of_the_rotation(subject: Subject, at: At) -> None:
    position, (q, k), pos = _position(subject, at), _heads(at, subject), _pos(at, subject)
    cut = at.length // 2
    whole, tail = position.rotate(q, k, pos), position.rotate(q[:, :, cut:], k[:, :, cut:], pos[:, cut:])
    rows = position.rotate(q, k, pos.expand(at.batch, -1).contiguous())
    for all_, some, each in zip(whole, tail, rows, strict=True):
        close(some, all_[:, :, cut:], "a slice, rotated")
        close(each, all_, "rows that each have their own positions, rotated")


@law("position", cases=_cases, applies=_rotates, share=0.2)
def rotation_in_low_precision_is_as_exact_as_a_cast(subject: Subject, at: At) -> None:
    """float32 in the rotation, whatever comes in: the error is that of rounding the result, and no more."""
    position, pos = _position(subject, at), _pos(at, subject)

    def turned(seed: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(seed)
        q = torch.randn(1, 2, at.length, at.sizes.head_dim, generator=g).bfloat16().to(subject.device)
        return position.rotate(q, q, pos + 1000)[0], position.rotate(q.double(), q.double(), pos + 1000)[0]

    def rounded(seed: int) -> tuple[Tensor, Tensor]:
        exact = turned(seed)[1]
        return exact.bfloat16(), exact

    as_exact_as(turned, rounded, torch.bfloat16, "rotation", range(5))


@law("position", cases=_cases, applies=_biased)
def its_bias_is_pointwise_and_finite(subject: Subject, at: At) -> None:
    position, pos = _position(subject, at), _pos(at, subject)
    head = torch.arange(at.sizes.n_head, device=subject.device)[None, :, None, None]
    q_pos, k_pos = pos[:, None, :, None], torch.cat((pos, pos + at.shift), 1)[:, None, None, :]
    assert position.bias is not None
    dense = position.bias(head, q_pos, k_pos)
    finite(dense, "the bias, of keys in the future too")
    dense = dense.expand(1, at.sizes.n_head, at.length, 2 * at.length)
    g = torch.Generator().manual_seed(at.seed)
    for _ in range(8):
        h, i, j = (int(torch.randint(n, (1,), generator=g)) for n in dense.shape[1:])
        one = position.bias(head.flatten()[h], q_pos.flatten()[i], k_pos.flatten()[j])
        assert one.shape == (), f"the bias of one pair has shape {tuple(one.shape)}"
        close(one, dense[0, h, i, j], "the bias of one pair", rtol=1e-6)
    weights = [p for p in position.parameters() if p.requires_grad]
    declared = getattr(type(position), "bias_has_weights", False)
    assert declared == (dense.requires_grad and bool(weights)), "bias_has_weights is not what it says"
    if dense.requires_grad:
        for gradient in torch.autograd.grad(dense.sum(), weights, allow_unused=True):
            if gradient is not None:
                finite(gradient, "a gradient of the bias, of keys in the future too")


@law("position", cases=_cases, applies=lambda s: _biased(s) and hasattr(s.entry.factory, "bias_all"))
def its_bias_of_all_heads_is_its_bias_head_by_head(subject: Subject, at: At) -> None:
    position, pos = _position(subject, at), _pos(at, subject)
    k_pos = torch.cat((pos, pos + at.shift), 1)
    head = torch.arange(at.sizes.n_head, device=subject.device)[None, :, None, None]
    one_by_one = position.bias(head, pos[:, None, :, None], k_pos[:, None, None, :])  # type: ignore[misc]
    at_once = position.bias_all(pos, k_pos)  # type: ignore[operator]
    close(at_once.expand_as(one_by_one), one_by_one, "bias_all", rtol=1e-6)


@law("position", cases=_cases, applies=lambda s: _biased(s) and s.claims("shift_invariant"))
def its_bias_depends_on_the_distance_alone(subject: Subject, at: At) -> None:
    position, pos = _position(subject, at), _pos(at, subject)
    head = torch.arange(at.sizes.n_head, device=subject.device)[None, :, None, None]
    assert position.bias is not None
    here, later = (position.bias(head, p[:, None, :, None], p[:, None, None, :]) for p in (pos, pos + at.shift))
    close(later, here, f"the bias {at.shift} tokens later", rtol=1e-6)


@law("position", cases=_cases, applies=lambda s: _biased(s) and hasattr(s.entry.factory, "slopes"))
def its_slopes_are_its_bias(subject: Subject, at: At) -> None:
    position, pos = _position(subject, at), _pos(at, subject)
    head = torch.arange(at.sizes.n_head, device=subject.device)[None, :, None, None]
    q_pos, k_pos = pos[:, None, :, None], pos[:, None, None, :]
    slopes = position.slopes().to(subject.device)[None, :, None, None]  # type: ignore[operator]
    bias = position.bias(head, q_pos, k_pos)  # type: ignore[misc]
    close(-slopes * (q_pos - k_pos).clamp_min(0), torch.where(k_pos > q_pos, 0.0, bias), "slopes", rtol=1e-6)


@law("position", cases=_cases, applies=_biased, share=0.3)
def its_bias_is_no_less_than_float32_under_autocast(subject: Subject, at: At) -> None:
    position, pos = _position(subject, at).float(), _pos(at, subject)
    assert position.bias is not None
    with torch.no_grad():
        outside = Where(pos, pos, pos * 0, pos * 0, plain=True, padded=False).dense_bias(position.bias, at.sizes.n_head)
        with torch.autocast(subject.device, torch.bfloat16):
            inside = Where(pos, pos, pos * 0, pos * 0, plain=True, padded=False).dense_bias(
                position.bias, at.sizes.n_head
            )
    assert inside.dtype in (torch.float32, torch.float64), f"the bias is {inside.dtype} under autocast"
    equal(inside, outside, "the bias under autocast")


@law("position", cases=_cases, applies=_embeds)
def an_embedding_counts_from_the_positions_it_is_given(subject: Subject, at: At) -> None:
    position = _position(subject, at)
    g = torch.Generator().manual_seed(at.seed)
    x = torch.randn(at.batch, at.length, at.sizes.n_embd, dtype=torch.float64, generator=g).to(subject.device)
    pos = _pos(at, subject)
    with torch.no_grad():
        whole, cut = position.embed(x, pos), at.length // 2
        close(position.embed(x[:, cut:], pos[:, cut:]), whole[:, cut:], "a slice, embedded")
        close(
            position.embed(x, pos.expand(at.batch, -1).contiguous()), whole, "rows with their own positions, embedded"
        )
        order = torch.randperm(at.length, generator=g).to(subject.device)
        close(position.embed(x[:, order], pos[:, order]), whole[:, order], "tokens in another order, embedded")


@law("position", cases=_cases, share=0.2)
def beyond_its_end_it_refuses(subject: Subject, at: At) -> None:
    """No silent wrap: past `max_length` there is one clear error; without an end, any length runs."""
    model = subject.model(at.sizes, Around("none", "auto"), seed=at.seed)
    limit = model.max_length
    length = (CONTEXT if limit is None else limit) + at.batch
    tokens = subject.tokens(1, length, at.seed)
    with torch.no_grad():
        if limit is None:
            finite(model(tokens), f"logits of {length} tokens, {at.batch} more than the context")
            _goes_on_counting(subject, at)
            return
        finite(model(tokens[:, :limit]), "logits of a row as long as the limit")
        with pytest.raises(GPTZooError, match="do not fit"):
            model(tokens)


def _goes_on_counting(subject: Subject, at: At) -> None:
    """Neither held at the end of the context nor begun anew there: tokens behind it, exchanged, are told apart."""
    if subject.part.name == "none":
        return
    model, length = subject.model(at.sizes, Around("none", "auto"), seed=at.seed), 2 * CONTEXT
    tokens = torch.zeros(1, length, dtype=torch.int64, device=subject.device)
    for places in ([length - 3, length - 8], [length - 5, length - 5 - CONTEXT]):
        one, two = tokens.clone(), tokens.clone()
        one[:, places[0]], two[:, places[1]] = 1, 1
        difference = float((model(one) - model(two))[:, -1].abs().max())
        assert difference > 1e-9, f"behind {CONTEXT} tokens, places {places[0]} and {places[1]} look alike"


@law("position", cases=_cases, applies=lambda s: s.part.name != "none", share=0.5)
def it_tells_one_order_from_another(subject: Subject, at: At) -> None:
    model = subject.model(at.sizes, Around("none", "auto"), seed=at.seed)
    tokens = subject.tokens(1, 12, at.seed)
    assume(int(tokens[0, 2]) != int(tokens[0, 9]))
    swapped = tokens.clone()
    swapped[:, [2, 9]] = tokens[:, [9, 2]]
    with torch.no_grad():
        difference = float((model(tokens) - model(swapped))[:, -1].abs().max())
    assert difference > 1e-9, "two tokens of the past, exchanged, leave the last one's logits as they were"
