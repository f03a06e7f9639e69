"""`naive` is the formula; `sdpa` is `naive`; the kernel on record is the kernel that ran."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from gptzoo.building import build
from gptzoo.contracts import Mask, Where, causal
from gptzoo.errors import GPTZooError
from gptzoo.parts.kernels import Naive, Sdpa

F64 = torch.float64


def where_of(pos: Tensor, doc: Tensor, *, new: int | None = None, plain: bool = False) -> Where:
    """The last `new` tokens as queries, all tokens as keys."""
    start = 0 if new is None else pos.shape[1] - new
    return Where(pos[:, start:], pos, doc[:, start:], doc, plain=plain, padded=bool((doc < 0).any()))


def plain_where(tokens: int) -> Where:
    pos = torch.arange(tokens)[None]
    return where_of(pos, torch.zeros_like(pos), plain=True)


def formula(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """Softmax attention, row by row, in Python loops."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    group = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = allowed[b, 0, i].nonzero()[:, 0]
                if len(seen) == 0:
                    continue
                score = torch.stack([(q[b, h, i] * k[b, h // group, j]).sum() * scale for j in seen])
                score = score if bias is None else score + bias[b, h, i, seen]
                weight = score.exp() / score.exp().sum()
                out[b, h, i] = sum(w * v[b, h // group, j] for w, j in zip(weight, seen, strict=True))
    return out


def random_qkv(b: int, h: int, g: int, t: int, d: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((b, h, t, d), (b, g, t, d), (b, g, t, d))
    return [torch.randn(shape, dtype=F64, generator=generator) for shape in shapes]


def window_of(width: int) -> Mask:
    return Mask(lambda q_pos, k_pos: causal(q_pos, k_pos) & (q_pos - k_pos < width), ("window", width))


MASKS = {"causal": Mask(causal, "causal"), "window": window_of(2)}


@pytest.mark.parametrize("kernel", [Naive(), Sdpa(), Sdpa(backend="math"), Sdpa(backend="flash")])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_a_kernel_equals_the_formula(kernel: Naive, mask: str, groups: int) -> None:
    q, k, v = random_qkv(2, 4, groups, 7, 6)
    where = plain_where(7)
    out = kernel(q, k, v, where=where, mask=MASKS[mask], scale=0.3)
    expected = formula(q, k, v, where.dense_mask(MASKS[mask]).expand(2, 1, 7, 7), 0.3)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def packed(tokens: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions and documents with padding anywhere."""
    generator = torch.Generator().manual_seed(seed)
    doc = torch.randint(-1, 2, (rows, tokens), generator=generator)
    pos = torch.zeros_like(doc)
    for row in range(rows):
        seen = {-1: 0, 0: 0, 1: 0}
        for t, d in enumerate(doc[row].tolist()):
            pos[row, t] = seen[d] if d >= 0 else 0
            seen[d] += 1
    return pos, doc


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 12), new=st.integers(1, 12), seed=st.integers(0, 10**6), mask=st.sampled_from(list(MASKS)))
def test_sdpa_is_naive_with_documents_padding_and_cached_keys_outputs_and_gradients(
    tokens: int, new: int, seed: int, mask: str
) -> None:
    pos, doc = packed(tokens, 2, seed)
    where = where_of(pos, doc, new=min(new, tokens))
    q, k, v = random_qkv(2, 4, 2, tokens, 8, seed)
    q = q[:, :, -min(new, tokens) :]
    results = []
    for kernel in (Naive(), Sdpa()):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = kernel(*leaves, where=where, mask=MASKS[mask], scale=0.5)
        assert isinstance(out, Tensor)
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, reference in zip(results[1], results[0], strict=True):
        assert ours is not None
        assert bool(ours.isfinite().all())
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_a_query_that_sees_nothing_gives_zero_with_a_finite_gradient() -> None:
    doc = torch.tensor([[-1, -1, 0, 0]])
    where = where_of(torch.tensor([[0, 0, 0, 1]]), doc)
    for kernel in (Naive(), Sdpa()):
        q, k, v = (x.requires_grad_() for x in random_qkv(1, 2, 2, 4, 4))
        out = kernel(q, k, v, where=where, mask=MASKS["causal"], scale=1.0)
        assert isinstance(out, Tensor)
        assert torch.equal(out[:, :, :2], torch.zeros_like(out[:, :, :2]))
        out.sum().backward()
        assert q.grad is not None
        assert bool(q.grad.isfinite().all())


@pytest.mark.parametrize("kernel", [Naive(), Sdpa()])
def test_a_bias_is_added_to_the_scores_before_the_mask(kernel: Naive) -> None:
    q, k, v = random_qkv(1, 3, 3, 6, 4)
    bias = torch.randn(1, 3, 6, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    where = plain_where(6)
    out = kernel(q, k, v, where=where, mask=MASKS["causal"], bias=bias, scale=0.5)
    expected = formula(q, k, v, where.dense_mask(MASKS["causal"]), 0.5, bias)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)


def test_naive_caps_scores_and_returns_their_log_sum() -> None:
    q, k, v = random_qkv(1, 1, 1, 5, 4)
    where = plain_where(5)
    out, lse = Naive()(q, k, v, where=where, mask=MASKS["causal"], scale=2.0, softcap=1.5, return_lse=True)
    s = (1.5 * torch.tanh(2.0 * (q @ k.mT) / 1.5)).masked_fill(~where.dense_mask(MASKS["causal"]), -torch.inf)
    torch.testing.assert_close(lse, s.logsumexp(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out, s.softmax(-1) @ v, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_sdpa_errs_no_more_than_three_times_naive(dtype: torch.dtype) -> None:
    where, worst = plain_where(33), 0.0
    for seed in range(20):
        rounded = [x.to(dtype) for x in random_qkv(1, 2, 2, 33, 16, seed)]
        reference = Naive()(*(x.double() for x in rounded), where=where, mask=MASKS["causal"], scale=0.25)
        assert isinstance(reference, Tensor)
        errors = []
        for kernel in (Naive(), Sdpa()):
            out = kernel(*rounded, where=where, mask=MASKS["causal"], scale=0.25)
            assert isinstance(out, Tensor)
            errors.append(float((out.double() - reference).norm() / reference.norm()))
        worst = max(worst, (errors[1] - 4 * torch.finfo(dtype).eps) / errors[0])
    assert worst <= 3.0


def test_equal_masks_are_made_dense_once_per_forward() -> None:
    where, calls = plain_where(4), []

    def counted(q_pos: Tensor, k_pos: Tensor) -> Tensor:
        calls.append(1)
        return causal(q_pos, k_pos)

    assert where.dense_mask(Mask(counted, "a")) is where.dense_mask(Mask(counted, "a"))
    assert len(calls) == 1


def test_backends_for_gpus_alone_say_so() -> None:
    efficient, cudnn = Sdpa("efficient").abilities_on("cpu"), Sdpa("cudnn").abilities_on("cpu")
    assert efficient.forward == efficient.backward == cudnn.forward == cudnn.backward == {"cuda"}
    assert (efficient.dtypes, cudnn.dtypes) == ({"fp16", "bf16", "fp32"}, {"fp16", "bf16"})
    assert Sdpa("math").abilities_on("cpu") == Sdpa().abilities_on("cpu") == Sdpa.abilities
    message = r"kernel 'sdpa' does not run on cpu\."
    with pytest.raises(GPTZooError, match=message):
        build("gpt2-tiny", overrides={"model.kernel": {"name": "sdpa", "backend": "efficient"}})
