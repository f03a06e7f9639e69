"""Gated DeltaNet: a memory per head that decays, and in which a new value for a key replaces the old one."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `gated_delta`."""
    zoo.attention("gated_delta", GatedDelta, aliases=["gated_deltanet"])


class GatedDelta(gptzoo.Attention):
    """Causal mixing by the gated delta rule: S = alpha S (I - beta k k^T) + beta v k^T, and o = S q.

    Source: Gated Delta Networks, arXiv:2412.06464, equation 10; in chunks as in its section 3, after DeltaNet,
    arXiv:2406.06484, section 3. alpha = exp(-exp(a) softplus(decay(x) + b)) as in Mamba-2, arXiv:2405.21060. Left out
    are the paper's short convolutions. a and b start evenly spread over the heads where the paper's code draws them:
    from a memory of about 1000 tokens in head 0 to one of less than a token in the last.

    A document's tokens must stand side by side and in order. The state is float32 at least.

    Args:
        chunk: Tokens that are computed at once; memory grows with it, and the number of steps falls.
        output_gate: Whether a head's normalised output is multiplied by silu(gate(x)).
        negative_eigenvalues: beta reaches up to 2, so that the memory of a key can change its sign, and parity be
            counted: arXiv:2411.12537.
    """

    kernels: ClassVar[tuple[str, ...] | None] = ()
    abilities: ClassVar[gptzoo.Abilities] = gptzoo.Abilities(
        rotate=False, temperature=False, bias=frozenset(), any_order=False
    )
    examples = ({"chunk": 4}, {"chunk": 64}, {"output_gate": False}, {"negative_eigenvalues": True})
    unit_scores = False
    order_free = False

    def __init__(
        self, dims: gptzoo.Dims, chunk: int = 64, output_gate: bool = True, negative_eigenvalues: bool = False
    ) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        self.n_head, self.head_dim, self.rotate_dim = dims.n_head, dims.head_dim, dims.head_dim
        self.chunk, self.strongest = chunk, 2.0 if negative_eigenvalues else 1.0
        width = dims.n_head * dims.head_dim
        self.q = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.k = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.v = nn.Linear(dims.n_embd, width, bias=dims.bias)
        self.beta = nn.Linear(dims.n_embd, dims.n_head, bias=False)
        self.decay = nn.Linear(dims.n_embd, dims.n_head, bias=False)
        self.a = nn.Parameter(torch.linspace(1.0, 16.0, dims.n_head).log())
        self.b = nn.Parameter(_inverse_softplus(torch.linspace(math.log(1e-3), math.log(1e-1), dims.n_head).exp()))
        self.gate = nn.Linear(dims.n_embd, width, bias=dims.bias) if output_gate else None
        self.head_norm = nn.Parameter(torch.ones(dims.head_dim))
        self.o = nn.Linear(width, dims.n_embd, bias=dims.bias)
        self.residual_dropout = nn.Dropout(dims.dropout)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = (F.silu(rearrange(f(x), "b t (h d) -> b h t d", h=self.n_head)) for f in (self.q, self.k, self.v))
        beta, decay = (rearrange(f(x), "b t h -> b h t") for f in (self.beta, self.decay))
        with torch.autocast(x.device.type, enabled=False):
            strength = self.strongest * _at_least_float32(beta).sigmoid()
            y = self.mix(_unit(q), _unit(k), _at_least_float32(v), strength, self.log_alpha(decay), ctx)
            y = F.rms_norm(y, (self.head_dim,), self.head_norm.to(y.dtype), eps=1e-5).to(v.dtype)
        y = rearrange(y, "b h t d -> b t (h d)")
        y = y if self.gate is None else y * F.silu(self.gate(x))
        return self.residual_dropout(self.o(y))

    def log_alpha(self, decay: Tensor) -> Tensor:
        """(B, H, T) -> (B, H, T), below 0."""
        a, b = _at_least_float32(self.a)[:, None], _at_least_float32(self.b)[:, None]
        return -a.exp() * F.softplus(_at_least_float32(decay) + b)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_alpha: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, H, T, D) three times, (B, H, T) twice -> (B, H, T, D)."""
        cache = ctx.cache
        assert cache is None or isinstance(cache, gptzoo.StateCache)
        document = gptzoo.documents_read(ctx.doc, ctx.doc.new_full((1, 1), -1) if cache is None else cache.document)
        kept = {} if cache is None else cache.tensors
        state = kept.get("state", v.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]))  # (B, H, D, Dv), S transposed
        q, out = q * self.head_dim**-0.5, []
        for chunk in gptzoo.in_chunks(ctx.doc, document, self.chunk):
            now = [t[:, :, chunk.tokens] for t in (q, k, v, beta, log_alpha)]
            read, state = delta_rule(now[0], now[1], now[2], now[3], now[4], state, chunk)
            out.append(read)
        if cache is not None:
            cache.keep(document[:, -1:], state=state)
        return torch.cat(out, dim=2)

    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> gptzoo.StateCache:
        """A state per head, whatever the number of tokens."""
        return gptzoo.StateCache(batch, size, dtype, device)


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_alpha: Tensor, state: Tensor, chunk: gptzoo.Chunk
) -> tuple[Tensor, Tensor]:
    """A chunk of the recurrence at once: what its queries read, and the state after it.

    What token i writes is beta_i (v_i - what the memory holds for k_i), and the memory holds what earlier tokens of the
    chunk wrote. So the writes solve a unit lower triangular system: the UT transform.

    Args:
        q: (B, H, C, D), likewise k; k of length 1.
        v: (B, H, C, Dv).
        beta: (B, H, C), likewise log_alpha.
        state: (B, H, D, Dv).
        chunk: Who may read whom.
    """
    beta, log_alpha = beta[..., None] * chunk.there, log_alpha[..., None] * chunk.there
    age = log_alpha.cumsum(dim=2)  # (B, H, C, 1): log of the decay since before the chunk
    decay = (age - age.mT).masked_fill(~chunk.pairs, -torch.inf).exp()  # (B, H, C, C): from the second to the first
    since = age.exp() * chunk.continues  # (B, H, C, 1): from the state to a token that may read it
    held = (k * since) @ state
    system = (beta * (k @ k.mT) * decay).tril(-1)
    written = torch.linalg.solve_triangular(system, beta * (v - held), upper=False, unitriangular=True)
    read = (q * since) @ state + ((q @ k.mT) * decay) @ written
    last = age[:, :, -1:]
    until = (last - age).masked_fill(~chunk.remains, -torch.inf).exp()  # from a token to the end of the chunk
    return read, last.exp() * chunk.survives * state + (k * until).mT @ written


def _unit(x: Tensor) -> Tensor:
    """Each head's vector at length 1, at least float32."""
    x = _at_least_float32(x)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))
