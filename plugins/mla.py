"""Multi-head latent attention: keys and values are made from one small latent per token, and only that is cached."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `mla`."""
    zoo.attention("mla", MultiHeadLatent, aliases=["multi_head_latent"])


class MultiHeadLatent(gptzoo.Attention):
    """Causal attention whose keys and values come from a shared latent, positions from one shared rotated key.

    Source: DeepSeek-V2, arXiv:2405.04434, section 2.1, equations 9-19, with the RMS norms of both latents that its
    section 3.1.2 adds. Linear layers have a bias if the model's have. A position that encodes by a bias or by the
    embedding leaves the shared key unrotated.

    Args:
        kv_rank: Width of the latent of keys and values, the paper's d_c; 4 head_dim unless given, as there.
        q_rank: Width of the latent of the queries, the paper's d_c'; unless given, queries have none.
        rope_dim: Width of the rotated part of q and k, the paper's d_h^R; head_dim / 2 unless given, as there.
        nope_dim: Width of the other part; head_dim unless given.
        v_dim: Width of a head's values; head_dim unless given.
    """

    unit_scores = False  # only a part of each key is what `k` gives; the rotated part is added to it

    examples = ({}, {"kv_rank": 6, "q_rank": 10, "rope_dim": 4, "nope_dim": 6, "v_dim": 10})

    def __init__(
        self,
        dims: gptzoo.Dims,
        kv_rank: int | None = None,
        q_rank: int | None = None,
        rope_dim: int | None = None,
        nope_dim: int | None = None,
        v_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.n_head = dims.n_head
        self.kv_rank = _width("kv_rank", kv_rank, 4 * dims.head_dim)
        self.q_rank = None if q_rank is None else _width("q_rank", q_rank, q_rank)
        self.rope_dim = self.rotate_dim = _width("rope_dim", rope_dim, dims.head_dim // 2)
        self.nope_dim = _width("nope_dim", nope_dim, dims.head_dim)
        self.v_dim = _width("v_dim", v_dim, dims.head_dim)
        self.scale = (self.nope_dim + self.rope_dim) ** -0.5
        self.dropout = dims.dropout

        def linear(width: int, out: int) -> nn.Linear:
            return nn.Linear(width, out, bias=dims.bias)

        if self.q_rank is not None:
            self.q_latent, self.q_norm = linear(dims.n_embd, self.q_rank), LatentNorm(self.q_rank)  # W^DQ
        self.q = linear(self.q_rank or dims.n_embd, self.n_head * (self.nope_dim + self.rope_dim))  # W^UQ and W^QR
        self.kv_latent, self.kv_norm = linear(dims.n_embd, self.kv_rank), LatentNorm(self.kv_rank)  # W^DKV
        self.k_rope = linear(dims.n_embd, self.rope_dim)  # W^KR
        self.k = linear(self.kv_rank, self.n_head * self.nope_dim)  # W^UK
        self.v = linear(self.kv_rank, self.n_head * self.v_dim)  # W^UV
        self.o = linear(self.n_head * self.v_dim, dims.n_embd)
        self.residual_dropout = nn.Dropout(dims.dropout)

    def needs(self) -> gptzoo.Needs:
        head_dim = self.nope_dim + self.rope_dim
        return gptzoo.Needs(v_width=self.v_dim != head_dim, head_dim=head_dim)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q_nope, q_rope = self.queries(x).split((self.nope_dim, self.rope_dim), dim=-1)
        latent = self.kv_norm(self.kv_latent(x))[:, None]  # (B, 1, T, kv_rank)
        q_rope, k_rope = ctx.position.rotate(q_rope, self.k_rope(x)[:, None], ctx.pos)
        visible, where = ctx.remember(latent=latent, k_rope=k_rope)
        k, v = self.keys_and_values(visible["latent"], visible["k_rope"])
        y = self.mix(torch.cat((q_nope, q_rope), dim=-1), k, v, ctx, where)  # (B, H, T, v_dim)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def queries(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, H, T, nope_dim + rope_dim), not yet rotated."""
        if self.q_rank is not None:
            x = self.q_norm(self.q_latent(x))
        return rearrange(self.q(x), "b t (h d) -> b h t d", h=self.n_head)

    def keys_and_values(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, T, kv_rank), (B, 1, T, rope_dim) -> k (B, H, T, nope_dim + rope_dim), v (B, H, T, v_dim)."""
        k = rearrange(self.k(latent), "b 1 t (h d) -> b h t d", h=self.n_head)
        v = rearrange(self.v(latent), "b 1 t (h d) -> b h t d", h=self.n_head)
        return torch.cat((k, k_rope.expand(-1, self.n_head, -1, -1)), dim=-1), v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        """Run the kernel: q (B, H, Tq, D), k (B, H, Tk, D), v (B, H, Tk, v_dim) -> (B, H, Tq, v_dim)."""
        assert ctx.kernel is not None, "resolve gives every attention with kernels one"
        out = ctx.kernel(
            q,
            k,
            v,
            where=where,
            mask=self.visible,
            bias=ctx.position.bias,
            scale=self.scale / ctx.position.temperature,
            dropout=self.dropout if self.training else 0.0,
        )
        assert isinstance(out, Tensor)
        return out


class LatentNorm(nn.Module):
    """RMSNorm of a latent, with DeepSeek-V2's eps of 1e-6; statistics in float32 at least."""

    is_norm = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), of x's dtype."""
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), eps=1e-6)


def _width(name: str, given: int | None, otherwise: int) -> int:
    width = otherwise if given is None else given
    if width < 1:
        raise ValueError(f"{name} must be at least 1, not {width}")
    return width
