"""The law of formulas: a part with a published closed form computes it, checked against float64 written out here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gptzoo.testing.law import law
from gptzoo.testing.subject import Sizes, Subject, speak_up
from gptzoo.testing.tolerance import close


@dataclass(frozen=True)
class Input:
    """Numbers to compute with."""

    width: int
    seed: int

    def draw(self, *shape: int, salt: int = 0) -> Tensor:
        """Unit normal, float64."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(97 * self.seed + salt), dtype=torch.float64)


def _layernorm(x: Tensor, norm: nn.Module, eps: float) -> Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / (variance + eps) ** 0.5 * norm.weight + norm.bias  # type: ignore[operator]


def _rmsnorm(x: Tensor, norm: nn.Module, eps: float) -> Tensor:
    return x / ((x**2).sum(-1, keepdim=True) / x.shape[-1] + eps) ** 0.5 * norm.weight  # type: ignore[operator]


NORMS: Mapping[str, Callable[[Tensor, nn.Module, float], Tensor]] = MappingProxyType(
    {"layernorm": _layernorm, "rmsnorm": _rmsnorm}
)


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _gelu_erf(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    out = torch.einsum("ti,oi->to", x, layer.weight)
    return out if layer.bias is None else out + layer.bias


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "gelu": _gelu_tanh,
        "relu": lambda x: x * (x > 0),
        "relu_squared": lambda x: x**2 * (x > 0),
        "swiglu": lambda x: x / (1 + torch.exp(-x)),
        "geglu": _gelu_tanh,
    }
)
"""Of the hidden layer, or of the gate where there is one."""


def _inputs(subject: Subject) -> st.SearchStrategy[Input]:
    return st.builds(Input, st.sampled_from([8, 3, 32]), st.integers(0, 20))


@law(
    "norm",
    cases=_inputs,
    applies=lambda s: s.part.name in NORMS and all(s.part.options.get(k, True) for k in ("weight", "bias")),
)
def a_norm_is_its_published_formula(subject: Subject, case: Input) -> None:
    norm = subject.construct(case.width)
    assert isinstance(norm, nn.Module)
    speak_up(norm, case.seed)
    x = 0.05 * case.draw(5, case.width)  # small, so that eps counts
    expected = NORMS[subject.part.name](x, norm.double(), float(subject.part.options["eps"]))  # type: ignore[arg-type]
    close(norm(x), expected, "the norm, written out")


@law("mlp", cases=_inputs, applies=lambda s: s.part.name in ACTIVATIONS)
def an_mlp_is_its_published_formula(subject: Subject, case: Input) -> None:
    mlp = subject.construct(subject.dims(Sizes(2, 8, case.width)))
    assert isinstance(mlp, nn.Module)
    speak_up(mlp, case.seed)
    mlp.double()
    x, activate = case.draw(6, case.width), ACTIVATIONS[subject.part.name]
    if subject.part.options.get("approximate") == "none":
        activate = _gelu_erf
    hidden = _linear(x, mlp.up)  # type: ignore[arg-type]
    gated = activate(_linear(x, mlp.gate)) * hidden if hasattr(mlp, "gate") else activate(hidden)  # type: ignore[arg-type]
    close(mlp(x[None], None)[0], _linear(gated, mlp.down), "the MLP, written out")  # type: ignore[arg-type]


@law("position", cases=_inputs, applies=lambda s: s.part.name in ("rope", "alibi", "sinusoidal"))
def a_position_is_its_published_formula(subject: Subject, case: Input) -> None:
    heads, width = 1 + case.seed % 12, 8
    position = subject.construct(subject.dims(Sizes(heads, width, 8 * heads)), width)
    {"rope": _is_rope, "alibi": _is_alibi, "sinusoidal": _is_sinusoidal}[subject.part.name](
        position, subject, case, heads
    )


def _is_rope(position, subject: Subject, case: Input, heads: int) -> None:  # type: ignore[no-untyped-def]
    """Pair i is a complex number, multiplied by exp(i pos theta^(-2i / width))."""
    options, length = subject.part.options, 6
    width = round(float(options["fraction"]) * 8)  # type: ignore[arg-type]
    q, pos = case.draw(1, heads, length, 8), torch.arange(length)[None] * (1 + 37 * case.seed)
    expected = q.clone()
    for i in range(width // 2):
        a, b = (i, i + width // 2) if options["pairing"] == "half" else (2 * i, 2 * i + 1)
        turn = torch.exp(1j * pos.double() * float(options["theta"]) ** (-2 * i / width))[:, None]  # type: ignore[arg-type]
        z = torch.complex(q[..., a], q[..., b]) * turn
        expected[..., a], expected[..., b] = z.real, z.imag
    close(position.rotate(q, q, pos)[0], expected, "rotation as multiplication of complex numbers")


def _is_alibi(position, subject: Subject, case: Input, heads: int) -> None:  # type: ignore[no-untyped-def]
    """Slopes of the released code, for any number of heads."""

    def slopes(n: int) -> list[float]:
        power = 2 ** math.floor(math.log2(n))
        own = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        return own if power == n else own + slopes(2 * power)[0::2][: n - power]

    pos = torch.arange(9)
    for head, slope in enumerate(slopes(heads)):
        expected = -slope * (pos[:, None] - pos[None]).double()
        seen = pos[None] <= pos[:, None]
        bias = position.bias(torch.tensor(head), pos[:, None], pos[None]).double()
        close(
            torch.where(seen, bias, 0.0), torch.where(seen, expected, 0.0), f"the bias of head {head} of {heads}", 1e-6
        )


def _is_sinusoidal(position, subject: Subject, case: Input, heads: int) -> None:  # type: ignore[no-untyped-def]
    width, theta = 8 * heads, float(subject.part.options["theta"])  # type: ignore[arg-type]
    pos = torch.arange(case.seed, case.seed + 5)
    table = torch.zeros(5, width, dtype=torch.float64)
    for i in range(width):
        angle = pos.double() * theta ** (-2 * (i // 2) / width)
        table[:, i] = angle.cos() if i % 2 else angle.sin()
    close(position.embed(torch.zeros(1, 5, width, dtype=torch.float64), pos[None])[0], table, "sines and cosines")
