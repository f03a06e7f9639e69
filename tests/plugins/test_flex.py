"""The flex kernel agrees with the readable one on everything that it declares, and refuses what it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

import gptzoo
from gptzoo_plugins.alibi import Alibi
from gptzoo_plugins.flex import Flex
from gptzoo_plugins.grouped_query import GroupedQuery
from gptzoo_plugins.rmsnorm import RMSNorm
from gptzoo_plugins.rope import Rope
from gptzoo_plugins.sliding_window import SlidingWindow

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11)
CAUSAL = gptzoo.Mask(gptzoo.causal, "causal")
PLACES: dict[str, dict[str, Tensor]] = {
    "plain": {},
    "packed-and-padded": {
        "pos": torch.tensor([[0, 1, 2, 0, 1, 0, 1, 2], [0, 0, 0, 1, 2, 0, 1, 0], [0] * 8]),
        "doc": torch.tensor([[0, 0, 0, 1, 1, 7, 7, 7], [-1, -1, 4, 4, 4, 2, 2, -1], [-1] * 8]),
    },
    "shuffled": {"pos": torch.tensor([[3, 0, 5, 1, 7, 2, 4, 6]])},
}


class Learned(gptzoo.Position):
    """A bias with weights, indexed by integers: each head learns a price for every distance."""

    bias_has_weights = True

    def __init__(self) -> None:
        super().__init__(DIMS, 8)
        self.weight = nn.Parameter(torch.randn(6, 4))

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.weight[(q_pos - k_pos).clamp(0, 5), head]


ATTENTIONS: dict[str, Callable[[], gptzoo.MultiHeadAttention]] = {
    "multi_head": lambda: gptzoo.MultiHeadAttention(DIMS),
    "grouped-softcap": lambda: GroupedQuery(DIMS, 2, softcap=2.0),
    "window": lambda: SlidingWindow(DIMS, 3, n_kv_head=1),
}
POSITIONS: dict[str, Callable[[], gptzoo.Position]] = {
    "rope": lambda: Rope(DIMS, 8),
    "alibi": lambda: Alibi(DIMS, 8),
    "learned-bias": Learned,
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_it_is_the_readable_kernel(context: MakeContext, attention: str, position: str, places: str) -> None:
    mixer, encoding = ATTENTIONS[attention]().double(), POSITIONS[position]().double()
    x = torch.randn(3, 8, 32, dtype=torch.float64)
    ours, theirs = (mixer(x, context(8, encoding, k, **PLACES[places])) for k in (Flex(), gptzoo.Naive()))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("places", ["plain", "packed-and-padded"])
@pytest.mark.parametrize("position", ["rope", "learned-bias"])
@torch.no_grad()
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, position: str, places: str) -> None:
    mixer, encoding = SlidingWindow(DIMS, 3, n_kv_head=2).double(), POSITIONS[position]().double()
    x, at = torch.randn(3, 8, 32, dtype=torch.float64), PLACES[places]
    pos = at.get("pos", torch.arange(8)[None]).expand(3, 8)
    doc = at.get("doc", torch.zeros(1, 1, dtype=torch.int64)).expand(3, 8)
    whole = mixer(x, context(8, encoding, gptzoo.Naive(), **at))
    for chunks in [(1,) * 8, (3, 1, 4), (7, 1), (2, 6), (8,)]:
        cache, out = mixer.new_cache(3, 8, x.dtype, "cpu"), []
        for new in torch.arange(8).split(list(chunks)):
            ctx = context(0, encoding, Flex(), pos=pos[:, new], doc=doc[:, new], cache=cache)
            out.append(mixer(x[:, new], ctx))
        torch.testing.assert_close(torch.cat(out, 1), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (3, 1), (1, 1)])
@torch.no_grad()
def test_a_ready_bias_wide_values_and_the_log_sum_exp(
    context: MakeContext, shape: tuple[int, int], places: str
) -> None:
    where = context(8, **PLACES[places]).where
    q, k, v = (torch.randn(3, heads, 8, w, dtype=torch.float64) for heads, w in ((4, 8), (2, 8), (2, 12)))
    bias = torch.randn(*shape, 8, 8, dtype=torch.float64)
    ours, theirs = (
        kernel(q, k, v, where=where, mask=CAUSAL, bias=bias, scale=0.4, softcap=1.5, return_lse=True)
        for kernel in (Flex(), gptzoo.Naive())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    if places == "packed-and-padded":
        assert ours[1][2].eq(-torch.inf).all()
        assert ours[0][2].eq(0).all()


@torch.no_grad()
def test_a_bias_may_go_while_places_become_one(context: MakeContext) -> None:
    """torch's reasons for compiling anew read what earlier calls held: masks that differ, then no bias, crashed it."""
    torch.compiler.reset()
    q, k, v = (torch.randn(1, 4, 4, 8, dtype=torch.float64) for _ in range(3))
    together = context(4).where  # pos as q_pos and as k_pos
    parts = [gptzoo.causal, lambda i, j: j <= i, lambda i, j: (j <= i) & (j >= 0)]
    masks = [gptzoo.Mask(part, n) for n, part in enumerate(parts)]
    apart = [replace(together, k_pos=together.k_pos.clone(), k_doc=together.k_doc.clone()) for _ in masks]
    for where, mask in zip(apart, masks, strict=True):
        Flex()(q, k, v, where=where, mask=mask, bias=Learned().bias, scale=0.4)
    ours, theirs = (kernel(q, k, v, where=together, mask=CAUSAL, scale=0.4) for kernel in (Flex(), gptzoo.Naive()))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_the_softcap_comes_before_the_bias_and_after_the_scale(context: MakeContext) -> None:
    q, k, v = (torch.randn(1, 1, 2, 4, dtype=torch.float64) for _ in range(3))
    bias = torch.tensor([[0.0, 0.0], [5.0, 0.0]], dtype=torch.float64)[None, None]
    out = Flex()(q, k, v, where=context(2).where, mask=CAUSAL, bias=bias, scale=3.0, softcap=2.0)
    scores = [2 * torch.tanh(3 * q[0, 0, 1] @ k[0, 0, j] / 2) + bias[0, 0, 1, j] for j in (0, 1)]
    expected = torch.stack(scores).softmax(0) @ v[0, 0]
    torch.testing.assert_close(out[0, 0, 1], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_low_precision_is_as_exact_as_the_readable_kernel(context: MakeContext, dtype: torch.dtype) -> None:
    position, ctx = Alibi(DIMS, 8), context(24)

    def error(kernel: gptzoo.Kernel, seed: int) -> float:
        torch.manual_seed(seed)
        q, k, v = (torch.randn(2, 4, 24, 8).to(dtype) for _ in range(3))
        options = {"where": ctx.where, "mask": CAUSAL, "bias": position.bias, "scale": 0.35}
        out, exact = kernel(q, k, v, **options), gptzoo.Naive()(q.double(), k.double(), v.double(), **options)
        assert isinstance(out, Tensor)
        assert isinstance(exact, Tensor)
        assert out.dtype == dtype
        return ((out.double() - exact).norm() / exact.norm()).item()

    ours, naive = (max(error(k, seed) for seed in range(20)) for k in (Flex(), gptzoo.Naive()))
    assert ours <= 3 * naive + 4 * torch.finfo(dtype).eps


@torch.no_grad()
def test_under_autocast_a_normalised_query_is_lowered_like_the_values(context: MakeContext) -> None:
    mixer = gptzoo.MultiHeadAttention(DIMS, qk_norm=RMSNorm)
    ctx = context(8, Alibi(DIMS, 8), Flex())
    q, k, v = (t.bfloat16() for t in mixer.project(torch.randn(2, 8, 32)))
    with torch.autocast("cpu", torch.bfloat16):
        out = mixer.mix(q.float(), k.float(), v, ctx, ctx.where)
    assert torch.equal(out, mixer.mix(q, k, v, ctx, ctx.where))


@torch.no_grad()
def test_layers_with_equal_masks_share_their_blocks(context: MakeContext) -> None:
    ctx = context(8, kernel=Flex())
    x = torch.randn(1, 8, 32)
    for _ in range(2):
        gptzoo.MultiHeadAttention(DIMS)(x, ctx)
        SlidingWindow(DIMS, 3)(x, ctx)
    assert len(ctx.where._made) == 3  # one causal, and two windows, each its own for want of a `key`


REFUSED = (
    "kernel 'flex': torch's FlexAttention has no backward on cpu. Call it under torch.no_grad(), or use kernel sdpa or "
    "naive."
)


def call(where: gptzoo.Where, grad: bool = False, **options: object) -> Tensor:
    q, k, v = (torch.randn(1, 4, 5, 8, requires_grad=grad) for _ in range(3))
    out = Flex()(q, k, v, where=where, mask=CAUSAL, scale=0.3, **options)  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize(
    "options",
    [{"grad": True}, {"bias": Learned().bias}, {"bias": torch.zeros(1, 4, 5, 5).requires_grad_()}],
    ids=["q-k-v", "weights-of-a-bias", "a-ready-bias"],
)
def test_a_gradient_on_the_cpu_is_refused(context: MakeContext, options: dict) -> None:
    with pytest.raises(gptzoo.GPTZooError) as caught:
        call(context(5).where, **options)
    assert str(caught.value) == REFUSED


def test_without_anything_to_train_it_runs_with_gradients_on(context: MakeContext) -> None:
    assert call(context(5).where, bias=Alibi(DIMS, 8).bias).isfinite().all()


def test_its_abilities_are_those_of_the_device_and_of_the_compiler() -> None:
    cpu, compiled, cuda = Flex().abilities_on("cpu"), Flex(True).abilities_on("cpu"), Flex().abilities_on("cuda")
    assert cpu.bias == cuda.bias == {"pointwise"}
    assert (cpu.backward, cuda.backward) == ({"cuda"}, {"cuda"})
    assert (cpu.bias_grad, cuda.bias_grad) == (None, True)
    assert (cpu.lse, compiled.lse, cuda.lse) == (True, None, True)
    assert "fp64" in (cpu.dtypes or ())
    assert compiled.dtypes == cuda.dtypes == {"fp16", "bf16", "fp32"}
    assert {cpu.dropout, compiled.dropout, cuda.dropout} == {None}
    assert "mps" not in (Flex().abilities_on("mps").forward or ())


@pytest.mark.parametrize(("compile", "device", "fuses"), [("auto", "cpu", False), ("auto", "cuda", True)])
def test_auto_fuses_on_gpus_only(compile: str, device: str, fuses: bool) -> None:
    assert Flex("auto").fuses(device) is fuses
    assert Flex(True).fuses(device) is True
    assert Flex(False).fuses(device) is False


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
@torch.no_grad()
def test_it_is_part_of_a_model_that_is_compiled(context: MakeContext) -> None:
    mixer, position, x = SlidingWindow(DIMS, 3), Learned(), torch.randn(2, 7, 32)

    def run(x: Tensor) -> Tensor:
        return mixer(x, context(7, position, Flex()))

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x), rtol=1e-6, atol=1e-6)


needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@needs_a_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler
@torch.no_grad()
def test_masks_and_biases_are_compiled_into_the_kernel(context: MakeContext) -> None:
    """One compilation holds what eager mode would forgive: softcap, bias, window and documents of ALiBi's kind."""
    mixer, position = SlidingWindow(DIMS, 3, n_kv_head=2), Alibi(DIMS, 8)
    ctx = context(8, position, **PLACES["packed-and-padded"])
    q, k, v = mixer.project(torch.randn(3, 8, 32))
    options = {"where": ctx.where, "mask": mixer.visible, "bias": position.bias, "scale": 0.35, "softcap": 2.0}
    ours, theirs = (kernel(q, k, v, **options) for kernel in (Flex(compile=True), gptzoo.Naive()))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@torch.no_grad()
def test_where_nothing_can_compile_it_says_so_in_one_line(
    context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> Tensor:
        raise TorchDynamoException("\nNo working C++ compiler found\nand much more")

    monkeypatch.setattr("gptzoo_plugins.flex._compiled", lambda device: broken)
    q = torch.randn(1, 4, 5, 8)
    with pytest.raises(gptzoo.GPTZooError) as caught:
        Flex(compile=True)(q, q, q, where=context(5).where, mask=CAUSAL, scale=0.3)
    assert str(caught.value) == (
        "kernel 'flex' could not be compiled on cpu: No working C++ compiler found. Give it compile: false, or use "
        "kernel sdpa or naive."
    )
