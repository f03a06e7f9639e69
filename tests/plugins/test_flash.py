"""The flash kernel runs torch's flash kernel, or raises; it never falls back."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import gptzoo
from gptzoo_plugins.alibi import Alibi
from gptzoo_plugins.flash import Flash
from gptzoo_plugins.sliding_window import SlidingWindow

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]
FORWARD = "aten._scaled_dot_product_flash_attention_for_cpu.default"
BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"


class Recorder(TorchDispatchMode):
    """Notes which attention operators run, and every softmax, which a fallback would need."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "attention" in str(func) or "softmax" in str(func):
            self.ran.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def quiet() -> Iterator[None]:
    """torch warns with its reasons before it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def call(
    where: gptzoo.Where,
    *,
    dtype: torch.dtype = torch.float32,
    width: int = 8,
    v_width: int | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    mask: gptzoo.Mask | None = None,
) -> Tensor:
    length = where.q_pos.shape[1]
    q, k, v = (torch.randn(2, 4, length, w, dtype=dtype) for w in (width, width, v_width or width))
    mask = gptzoo.Mask(gptzoo.causal, "causal") if mask is None else mask
    out = Flash()(q, k, v, where=where, mask=mask, bias=bias, scale=0.3, dropout=dropout)
    assert isinstance(out, Tensor)
    return out


PACKED = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
DOC = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("n_kv_head", [4, 2])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("alibi", [False, True])
def test_the_operator_that_ran_is_torchs_flash_kernel_forward_and_backward(
    dims: MakeDims, context: MakeContext, window: int | None, n_kv_head: int, packed: bool, alibi: bool
) -> None:
    attention = (
        gptzoo.MultiHeadAttention(dims(), n_kv_head) if window is None else SlidingWindow(dims(), window, n_kv_head)
    )
    position = Alibi(dims(), 8) if alibi else None
    places = {"pos": PACKED, "doc": DOC} if packed else {}
    ctx = context(7, position, Flash(), **places)
    with Recorder() as recorder:
        attention(torch.randn(2, 7, 32), ctx).sum().backward()
    assert recorder.ran == [FORWARD, BACKWARD]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 3, 8, 64, 300])
def test_every_precision_and_width_that_it_declares_on_the_cpu_runs(
    context: MakeContext, dtype: torch.dtype, width: int
) -> None:
    with Recorder() as recorder:
        out = call(context(5).where, dtype=dtype, width=width)
    assert recorder.ran == [FORWARD]
    assert out.dtype == dtype


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(gptzoo.GPTZooError) as caught:
        run()
    return str(caught.value)


REFUSED = (
    "kernel 'flash': torch's flash kernel refuses these tensors, mask or bias on cpu. Use kernel naive, or sdpa with "
    "backend: auto."
)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.1}, {"v_width": 16}, {"bias": torch.zeros(1, 4, 5, 5).requires_grad_()}],
    ids=["dropout", "v-width", "gradient-of-a-bias"],
)
def test_what_it_cannot_do_is_refused_not_done_by_another_kernel(context: MakeContext, options: dict) -> None:
    with Recorder() as recorder:
        assert refusal(lambda: call(context(5).where, **options)) == REFUSED
    assert recorder.ran == []


def test_other_errors_stay_what_they_are(context: MakeContext) -> None:
    q, k = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 5, 8, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="same dtype"):
        Flash()(q, k, k, where=context(5).where, mask=gptzoo.Mask(gptzoo.causal, "causal"), scale=0.3)


def test_its_abilities_are_those_of_the_device() -> None:
    cpu, cuda, other = (Flash().abilities_on(device) for device in ("cpu", "cuda", "mps"))
    assert (cpu.window, cpu.documents, cpu.padding, cpu.chunked, cpu.bias) == (True, True, True, True, {"dense"})
    assert (cpu.dropout, cpu.bias_grad, cpu.v_width, cpu.lse, cpu.softcap) == (None,) * 5
    assert (cuda.gqa, cuda.dropout, cuda.dtypes) == (True, True, {"fp16", "bf16"})
    assert (cuda.max_head_dim, cuda.head_dim_multiple) == (256, 8)
    assert (cuda.window, cuda.documents, cuda.padding, cuda.cached, cuda.chunked, cuda.bias) == (None,) * 6
    assert all("mps" not in abilities.forward for abilities in (cpu, cuda, other) if abilities.forward)


def test_it_compiles_into_one_graph(dims: MakeDims, context: MakeContext) -> None:
    attention, x = gptzoo.MultiHeadAttention(dims()), torch.randn(2, 7, 32)

    def run(x: Tensor) -> Tensor:
        return attention(x, context(7, kernel=Flash()))

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), run(x), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_cuda_it_runs_the_plain_causal_mask_and_refuses_all_else(dtype: torch.dtype) -> None:
    pos = torch.arange(64, device="cuda")[None]
    doc = torch.zeros_like(pos)
    mask = gptzoo.Mask(gptzoo.causal, "causal")
    q, k, v = (torch.randn(2, 4, 64, 64, dtype=dtype, device="cuda", requires_grad=True) for _ in range(3))
    with Recorder() as recorder:
        plain = gptzoo.Where(pos, pos, doc, doc, plain=True, padded=False)
        out = Flash()(q, k, v, where=plain, mask=mask, scale=0.125)
        assert isinstance(out, Tensor)
        out.sum().backward()
    assert recorder.ran == [
        "aten._scaled_dot_product_flash_attention.default",
        "aten._scaled_dot_product_flash_attention_backward.default",
    ]
    packed = gptzoo.Where(pos, pos, doc, doc, plain=False, padded=False)
    assert "on cuda" in refusal(lambda: Flash()(q, k, v, where=packed, mask=mask, scale=0.125))
    assert "on cuda" in refusal(lambda: Flash()(q.float(), k.float(), v.float(), where=plain, mask=mask, scale=0.125))


# -- the package flash-attn, which is stood in for: its documented function, written with the readable kernel ---------


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """(B, T, H, D), (B, T, G, D) twice -> (B, T, H, D); the bias of key j for query i is -slope |i - j|."""
    assert causal
    assert q.dtype == k.dtype == v.dtype
    assert (dropout_p, window_size, deterministic, return_attn_probs) == (0.0, (-1, -1), False, False)
    assert softmax_scale is not None
    length = q.shape[1]
    distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
    bias = None if alibi_slopes is None else (-alibi_slopes[:, None, None] * distance)[None]
    s = gptzoo.scores(q.transpose(1, 2), k.transpose(1, 2), softmax_scale, softcap or None)
    w = gptzoo.weights(s, torch.ones(length, length, dtype=torch.bool).tril(), bias)
    return gptzoo.combine(w, v.transpose(1, 2)).transpose(1, 2)


@pytest.fixture
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("flash_attn")
    package.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
    package.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("groups", [4, 2])
def test_the_package_is_called_as_its_documentation_says(
    dims: MakeDims, context: MakeContext, groups: int, alibi: bool, softcap: float | None
) -> None:
    q, k, v = (torch.randn(2, heads, 7, 8, dtype=torch.float64, requires_grad=True) for heads in (4, groups, groups))
    bias = Alibi(dims(), 8).bias if alibi else None
    options = {"where": context(7).where, "mask": gptzoo.Mask(gptzoo.causal, "causal"), "scale": 0.3}
    direction, found = torch.randn(2, 4, 7, 8, dtype=torch.float64), []
    for kernel in (Flash(package="flash_attn"), gptzoo.Naive()):
        out = kernel(q, k, v, bias=bias, softcap=softcap, **options)
        assert isinstance(out, Tensor)
        found.append((out, *torch.autograd.grad((out * direction).sum(), (q, k, v))))
    torch.testing.assert_close(*found, rtol=1e-7 if alibi else 1e-10, atol=1e-12)


@pytest.mark.usefixtures("_package")
def test_the_package_gets_one_dtype_under_autocast(context: MakeContext) -> None:
    q, k, v = torch.randn(1, 4, 5, 8), torch.randn(1, 4, 5, 8).bfloat16(), torch.randn(1, 4, 5, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mask = gptzoo.Mask(gptzoo.causal, "causal")
        out = Flash(package="flash_attn")(q, k, v, where=context(5).where, mask=mask, scale=0.3)
    assert isinstance(out, Tensor)
    assert out.dtype == torch.bfloat16


@pytest.mark.usefixtures("_package")
def test_other_masks_are_not_for_the_package(dims: MakeDims, context: MakeContext) -> None:
    kernel, q = Flash(package="flash_attn"), torch.randn(1, 4, 7, 8)
    for where, mask in (
        (context(7, pos=PACKED, doc=DOC).where, gptzoo.Mask(gptzoo.causal, "causal")),
        (context(7).where, SlidingWindow(dims(), 3).visible),
    ):
        assert refusal(lambda where=where, mask=mask: kernel(q, q, q, where=where, mask=mask, scale=0.3)) == (
            "kernel 'flash': package flash_attn is given whole rows of one document under the causal mask only. Use "
            "kernel sdpa, flex or naive."
        )


@pytest.mark.usefixtures("_package")
def test_the_package_states_what_it_can_do_and_is_named_in_the_record() -> None:
    kernel = Flash(package="flash_attn")
    able = kernel.abilities_on("cuda")
    assert (able.bias, able.softcap, able.gqa, able.dropout) == ({"slopes"}, True, True, True)
    assert (able.window, able.documents, able.padding, able.cached, able.chunked, able.lse) == (None,) * 6
    assert kernel.abilities_on("cpu").forward == {"cuda"}
    assert (kernel.runs_as("cuda"), Flash().runs_as("cuda")) == ("flash-attn", None)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^package flash_attn is not installed \(pip install flash-attn\), "):
        Flash(package="flash_attn")
