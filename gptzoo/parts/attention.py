"""Multi-head attention: the core's attention and the base of most others."""

from __future__ import annotations

from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from gptzoo.contracts import Attention, Context, Dims, Needs, NormFactory, Scale, Where


class MultiHeadAttention(Attention):
    """Causal self-attention with several heads, as in GPT-2.

    Source: Attention Is All You Need, arXiv:1706.03762, section 3.2.2. Key/value heads as in GQA, arXiv:2305.13245.

    Args:
        n_kv_head: Key/value heads; `n_head` unless given. Query head h reads key/value head h // (n_head // n_kv_head).
        qk_norm: A norm for each head's q and k, before they are rotated.
        scale: Factor of the scores, a number or `1/head_dim`; 1 / sqrt(head_dim) unless given.
        softcap: Scores are capped to this by tanh, before the bias.
        bias: Whether q, k, v and o have a bias; `qkv` = all but o, as in Qwen2. The model's unless given.
    """

    def __init__(
        self,
        dims: Dims,
        n_kv_head: int | None = None,
        qk_norm: NormFactory | None = None,
        scale: Scale = None,
        softcap: float | None = None,
        bias: bool | Literal["qkv"] | None = None,
    ) -> None:
        super().__init__()
        bias = dims.bias if bias is None else bias
        self.n_head, self.head_dim = dims.n_head, dims.head_dim
        self.n_kv_head = dims.n_head if n_kv_head is None else n_kv_head
        if self.n_kv_head < 1 or self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head must divide n_head = {self.n_head}, {self.n_kv_head} does not")
        if softcap is not None and softcap <= 0:
            raise ValueError(f"softcap must be above 0, not {softcap}")
        self.rotate_dim = dims.head_dim
        self.scale = _factor(scale, dims.head_dim)
        self.softcap = softcap
        self.dropout = dims.dropout
        self.q = nn.Linear(dims.n_embd, self.n_head * self.head_dim, bias=bool(bias))
        self.k = nn.Linear(dims.n_embd, self.n_kv_head * self.head_dim, bias=bool(bias))
        self.v = nn.Linear(dims.n_embd, self.n_kv_head * self.head_dim, bias=bool(bias))
        self.o = nn.Linear(self.n_head * self.head_dim, dims.n_embd, bias=bias is True)
        self.q_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = qk_norm(self.head_dim) if qk_norm else nn.Identity()
        self.residual_dropout = nn.Dropout(dims.dropout)

    def needs(self) -> Needs:
        return Needs(
            gqa=self.n_kv_head != self.n_head,
            window=not self.visible.causal,
            softcap=self.softcap is not None,
            head_dim=self.head_dim,
        )

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)  # (B, H, T, D), (B, G, T, D) twice
        q, k = ctx.position.rotate(self.q_norm(q), self.k_norm(k), ctx.pos)
        visible, where = ctx.remember(k=k, v=v)
        y = self.mix(q, visible["k"], visible["v"], ctx, where)  # (B, H, T, D)
        return self.residual_dropout(self.o(rearrange(y, "b h t d -> b t (h d)")))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> q (B, H, T, D), k and v (B, G, T, D)."""
        q = rearrange(self.q(x), "b t (h d) -> b h t d", h=self.n_head)
        k = rearrange(self.k(x), "b t (g d) -> b g t d", g=self.n_kv_head)
        v = rearrange(self.v(x), "b t (g d) -> b g t d", g=self.n_kv_head)
        return q, k, v

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: Context, where: Where) -> Tensor:
        """Run the kernel: (B, H, Tq, D), (B, G, Tk, D) twice -> (B, H, Tq, D)."""
        assert ctx.kernel is not None, "resolve gives every attention with kernels one"
        out = ctx.kernel(
            q,
            k,
            v,
            where=where,
            mask=self.visible,
            bias=ctx.position.bias,
            scale=self.scale / ctx.position.temperature,
            softcap=self.softcap,
            dropout=self.dropout if self.training else 0.0,
        )
        assert isinstance(out, Tensor)
        return out


def _factor(scale: Scale, head_dim: int) -> float:
    if isinstance(scale, str):
        return 1.0 / head_dim
    return head_dim**-0.5 if scale is None else scale
