"""Every kernel on a GPU: as exact as the readable one, forward and backward, or refused; never something else.

`python -m pytest tests/cuda -q -s` prints the errors. The tolerance is reliability's third: against float64 on the same
rounded inputs, at most 3 times the readable kernel's error in that precision, and 4 units in the last place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo.environment import kernels_that_run
from gptzoo.loading import shipped_folder

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

from gptzoo_plugins.alibi import Alibi  # noqa: E402
from gptzoo_plugins.flash import Flash  # noqa: E402
from gptzoo_plugins.flex import Flex  # noqa: E402
from gptzoo_plugins.grouped_query import GroupedQuery  # noqa: E402
from gptzoo_plugins.rope import Rope  # noqa: E402
from gptzoo_plugins.sliding_window import SlidingWindow  # noqa: E402

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),  # torch says why a backend refuses, and its compilers warn of themselves
]

DEVICE = "cuda"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ROWS, LENGTH, HEADS, WIDTH = 3, 160, 4, 64
SEEDS = 20
DIMS = gptzoo.Dims(1, HEADS, HEADS * WIDTH, WIDTH, 256, vocab_size=11)


class LearnedBias(gptzoo.Position):
    """Each head learns a price for every distance."""

    bias_has_weights = True

    def __init__(self) -> None:
        super().__init__(DIMS, WIDTH)
        self.weight = nn.Parameter(torch.randn(40, HEADS, generator=torch.Generator().manual_seed(0)))

    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self.weight[(q_pos - k_pos).clamp(0, 39), head]


@dataclass(frozen=True)
class Scenario:
    """What is asked of a kernel in one call."""

    kv_heads: int = HEADS
    window: int | None = None
    packed: bool = False
    position: Callable[[], gptzoo.Position] | None = None
    softcap: float | None = None
    lse: bool = False
    v_width: int = WIDTH
    width: int = WIDTH

    def where(self) -> gptzoo.Where:
        pos = torch.arange(LENGTH, device=DEVICE)[None]
        doc = torch.zeros_like(pos)
        if self.packed:
            starts = torch.tensor([[0, 50, 51, 130], [7, 60, 60, 150], [159, 159, 159, 159]], device=DEVICE)
            doc = (pos[..., None] >= starts[:, None]).sum(-1) - 1  # padded on the left of the first start
            first = torch.cat((torch.zeros(ROWS, 1, dtype=torch.int64, device=DEVICE), starts), 1).gather(1, doc + 1)
            pos = pos - first
            doc = torch.where((doc == 3) & (pos > 5), -1, doc)  # and on the right of row 0 and 1
        return gptzoo.Where(pos, pos, doc, doc, plain=not self.packed, padded=self.packed)

    def mask(self) -> gptzoo.Mask:
        if self.window is None:
            return gptzoo.Mask(gptzoo.causal, "causal")
        return SlidingWindow(DIMS, self.window).visible


SCENARIOS = {
    "plain": Scenario(),
    "grouped": Scenario(kv_heads=2),
    "windowed": Scenario(window=37),
    "packed": Scenario(kv_heads=2, window=37, packed=True),
    "alibi": Scenario(packed=True, position=lambda: Alibi(DIMS, WIDTH)),
    "learned": Scenario(kv_heads=2, position=LearnedBias, packed=True),
    "everything": Scenario(2, 37, True, lambda: Alibi(DIMS, WIDTH), softcap=3.0, lse=True),
    "narrow": Scenario(width=8, v_width=24, window=37),
}
KERNELS: dict[str, Callable[[], gptzoo.Kernel]] = {
    "naive": gptzoo.Naive,
    "sdpa": gptzoo.Sdpa,
    "sdpa-flash": lambda: gptzoo.Sdpa("flash"),
    "sdpa-efficient": lambda: gptzoo.Sdpa("efficient"),
    "sdpa-cudnn": lambda: gptzoo.Sdpa("cudnn"),
    "sdpa-math": lambda: gptzoo.Sdpa("math"),
    "flash": Flash,
    "flex": Flex,
}
FLEX = [  # each is compiled forward and backward, some seconds apiece
    ("plain", "bf16"),
    ("everything", "fp32"),
    ("everything", "bf16"),
    ("everything", "fp16"),
    ("learned", "fp32"),
    ("narrow", "bf16"),
]
OTHERS = [
    (name, scenario, dtype)
    for name in KERNELS
    for scenario in SCENARIOS
    for dtype in DTYPES
    if name not in ("naive", "flex") and scenario != "everything"  # sdpa has neither softcap nor log-sum-exp
]
CASES = OTHERS + [("flex", *case) for case in FLEX]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def inputs(scenario: Scenario, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """q, k and v, and a direction in which the output is measured."""
    make = torch.Generator(DEVICE).manual_seed(seed)
    sizes = [(HEADS, scenario.width), (scenario.kv_heads, scenario.width), (scenario.kv_heads, scenario.v_width)]
    sizes.append((HEADS, scenario.v_width))
    return [torch.randn(ROWS, h, LENGTH, w, generator=make, device=DEVICE).to(dtype) for h, w in sizes]


def results(kernel: gptzoo.Kernel, scenario: Scenario, where: gptzoo.Where, tensors: list[Tensor]) -> list[Tensor]:
    """Output, log-sum-exp, and the gradients of q, k, v and the bias's weights; all float64."""
    q, k, v = (t.detach().requires_grad_() for t in tensors[:3])
    position = scenario.position().to(DEVICE) if scenario.position else gptzoo.Position(DIMS, scenario.width)
    where = replace(where, _made={})  # a bias's graph lives once
    out = kernel(
        q,
        k,
        v,
        where=where,
        mask=scenario.mask(),
        bias=position.bias,
        scale=0.2,
        softcap=scenario.softcap,
        return_lse=scenario.lse,
    )
    out, lse = out if isinstance(out, tuple) else (out, None)
    found = [out]
    objective = (out.double() * tensors[3].double()).sum()
    if lse is not None:
        seen = lse.isfinite()
        assert torch.equal(seen, where.dense_mask(scenario.mask()).any(-1).expand_as(seen))
        found.append(torch.where(seen, lse, 0.0))
        objective = objective + found[-1].double().square().mean()
    found += torch.autograd.grad(objective, [q, k, v, *position.parameters()])
    return [t.double() for t in found]


@functools.cache
def errors(name: str, scenario_name: str, dtype: torch.dtype) -> list[float]:
    """The greatest relative error over the seeds, of each result."""
    kernel, scenario = KERNELS[name](), SCENARIOS[scenario_name]
    where, worst = scenario.where(), []
    for seed in range(SEEDS):
        tensors = inputs(scenario, dtype, seed)
        exact = results(gptzoo.Naive(), scenario, where, [t.double() for t in tensors])
        got = results(kernel, scenario, where, tensors)
        assert all(t.isfinite().all() for t in got)
        worst.append([((a - b).norm() / b.norm()).item() for a, b in zip(got, exact, strict=True)])
    return [max(column) for column in zip(*worst, strict=True)]


def must_run(name: str, scenario: str, dtype: str) -> bool:
    """What may not be refused."""
    half = dtype != "fp32"
    return name in ("sdpa", "sdpa-math", "flex") or (half and scenario == "plain")


@pytest.mark.parametrize(("name", "scenario", "dtype"), CASES)
def test_it_is_as_exact_as_the_readable_kernel_or_refused(name: str, scenario: str, dtype: str) -> None:
    precision = DTYPES[dtype]
    try:
        ours = errors(name, scenario, precision)
    except gptzoo.GPTZooError:
        if must_run(name, scenario, dtype):
            raise
        print(f"\n{name:15} {scenario:11} {dtype}: refused")
        return
    naive = errors("naive", scenario, precision)
    ratios = [a / (3 * b + 4 * torch.finfo(precision).eps) for a, b in zip(ours, naive, strict=True)]
    print(
        f"\n{name:15} {scenario:11} {dtype}: {max(ours):.1e} v naive {max(naive):.1e}, {max(ratios):.2f} of the limit"
    )
    assert max(ratios) <= 1, f"ours {ours}, naive {naive}"


def decode(mixer: gptzoo.MultiHeadAttention, x: Tensor, kernel: gptzoo.Kernel, chunks: list[int]) -> Tensor:
    """In chunks, the second row padded on the left."""
    pos = torch.arange(x.shape[1], device=DEVICE).repeat(2, 1)
    pos[1] = (pos[1] - 9).clamp(min=0)
    doc = torch.zeros_like(pos)
    doc[1, :9] = -1
    position, cache = Rope(DIMS, WIDTH), mixer.new_cache(2, x.shape[1], x.dtype, DEVICE)
    out = []
    for new in torch.arange(x.shape[1], device=DEVICE).split(chunks):
        at, of = pos[:, new], doc[:, new]
        where = gptzoo.Where(at, at, of, of, plain=False, padded=True)
        out.append(mixer(x[:, new], gptzoo.Context(at, of, where, position, kernel, cache)))
    return torch.cat(out, 1)[:, 9:]


@pytest.mark.parametrize("name", ["sdpa", "sdpa-math", "flex"])
@torch.no_grad()
def test_cached_decoding_is_the_whole(name: str) -> None:
    chunks = [40, 1, 1, 1, 17, 1, 1, 2]
    mixer = GroupedQuery(DIMS, 2).to(DEVICE)
    x = torch.randn(2, sum(chunks), HEADS * WIDTH, generator=torch.Generator(DEVICE).manual_seed(1), device=DEVICE)
    mixer.bfloat16()  # rounds the weights, for the reference too
    exact = decode(mixer.double(), x.bfloat16().double(), gptzoo.Naive(), [sum(chunks)])

    def error(kernel: gptzoo.Kernel) -> float:
        out = decode(mixer.bfloat16(), x.bfloat16(), kernel, chunks).double()
        return ((out - exact).norm() / exact.norm()).item()

    ours, naive = error(KERNELS[name]()), error(gptzoo.Naive())
    print(f"\n{name:15} decoding    bf16: {ours:.1e} v naive {naive:.1e}")
    assert ours <= 3 * naive + 4 * torch.finfo(torch.bfloat16).eps


TINY = {
    "model.n_layer": 1,
    "model.n_embd": 64,
    "model.n_head": 1,
    "model.context_length": 128,
    "model.position": "rope",
    "train.device": "cuda",
}


def test_a_compiled_model_trains_through_flex_as_through_naive() -> None:
    tokens = torch.randint(0, 11, (2, 128), generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def gradients(kernel: str) -> tuple[Tensor, list[Tensor]]:
        model = gptzoo.build("gpt2-tiny", overrides=TINY | {"model.kernel": kernel}).to(DEVICE)
        objective = torch.compile(model.loss) if kernel == "flex" else model.loss
        loss = objective(tokens, tokens)
        return loss.total, list(torch.autograd.grad(loss.total, [*model.parameters()]))

    (loss, grads), (expected, theirs) = gradients("flex"), gradients("naive")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for ours, other in zip(grads, theirs, strict=True):
        assert (ours - other).norm() <= 1e-4 * other.norm() + 1e-7


@pytest.mark.parametrize(
    ("kernel", "precision", "ran"),
    [
        ("naive", "fp32", "naive: plain"),
        ("flash", "bf16", "flash: flash"),
        ({"name": "sdpa", "backend": "efficient"}, "fp32", "sdpa: efficient"),
        ({"name": "sdpa", "backend": "flash"}, "bf16", "sdpa: flash"),
        ({"name": "sdpa", "backend": "cudnn"}, "bf16", "sdpa: cudnn"),
        ("flex", "bf16", "flex: fused"),
        ({"name": "flex", "compile": False}, "fp32", "flex: plain"),
    ],
)
def test_what_is_recorded_is_what_ran(kernel: object, precision: str, ran: str) -> None:
    options = TINY | {"model.kernel": kernel, "train.precision": precision}
    model = gptzoo.build("gpt2-tiny", overrides=options).to(DEVICE)
    assert kernels_that_run(model, precision) == [ran]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        kernels_that_run(model, precision)
        torch.cuda.synchronize()
    names = " ".join(event.key for event in profile.key_averages()).lower()
    assert ("triton_tem" in names) is (ran == "flex: fused")
