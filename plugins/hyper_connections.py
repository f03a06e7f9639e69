"""Hyper-connections: several residual streams side by side, with learned weights for reading, mixing and writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `hyper_connections`."""
    zoo.block("hyper_connections", HyperConnections)


class HyperConnections(nn.Module):
    """Pre-norm on n parallel streams; attention and MLP read a weighted sum of them and write into each.

    Source: Hyper-Connections, arXiv:2409.19606, section 2: equations 1-6, 10-13 (dynamic) and 14 (start). At the start
    it is the `pre` block, its streams n equal copies; after the last layer they are summed. The norm within the dynamic
    weights is the block's. The paper also rescales the first weights of what writes into the streams with sqrt(n);
    here they are the init's. All layers of a model must have this block.

    Args:
        streams: How many there are, n; the paper recommends 4.
        dynamic: Whether the weights depend on the streams, by the tanh of a projection.
    """

    identity_when_silent: ClassVar[bool] = False  # the streams are mixed all the same
    examples = ({"streams": 3}, {"streams": 2, "dynamic": False})

    def __init__(
        self,
        dims: gptzoo.Dims,
        attention: gptzoo.Attention,
        mlp: nn.Module,
        norm: Callable[[int], nn.Module],
        streams: int = 4,
        dynamic: bool = True,
    ) -> None:
        super().__init__()
        if streams < 1:
            raise ValueError(f"streams must be at least 1, not {streams}")
        self.streams = streams
        self.norm_1 = norm(dims.n_embd)
        self.connection_1 = _Connection(dims.n_embd, streams, 2 * dims.layer, norm if dynamic else None)
        self.attention = attention
        self.norm_2 = norm(dims.n_embd)
        self.connection_2 = _Connection(dims.n_embd, streams, 2 * dims.layer + 1, norm if dynamic else None)
        self.mlp = mlp

    def widen(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, n, C)."""
        return x[:, :, None].expand(-1, -1, self.streams, -1)

    def narrow(self, x: Tensor) -> Tensor:
        """(B, T, n, C) -> (B, T, C)."""
        return x.sum(2)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, n, C) -> (B, T, n, C)."""
        x = self.connection_1(x, lambda read: self.attention(self.norm_1(read), ctx))
        return self.connection_2(x, lambda read: self.mlp(self.norm_2(read), ctx))


class _Connection(nn.Module):
    """How one attention or MLP reads from the streams, mixes them and writes into them.

    A_m, A_r and B of the paper are `read`, `mix` and `write`; W_m, W_r, W_beta have `_projection` in their names.
    """

    def __init__(self, size: int, streams: int, index: int, norm: Callable[[int], nn.Module] | None) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.eye(streams)[index % streams])
        self.mix = nn.Parameter(torch.eye(streams))
        self.write = nn.Parameter(torch.ones(streams))
        self.norm = norm(size) if norm else None
        if norm:
            self.read_projection = nn.Parameter(torch.zeros(size, 1))
            self.mix_projection = nn.Parameter(torch.zeros(size, streams))
            self.write_projection = nn.Parameter(torch.zeros(size, 1))
            self.read_scale = nn.Parameter(torch.full((1,), 0.01))
            self.write_scale = nn.Parameter(torch.full((1,), 0.01))

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, n, C) -> (B, T, n, C)."""
        with torch.autocast(x.device.type, enabled=False):  # the streams keep the precision of the residual stream
            read, mix, write = self.weights(x)
            seen = (read[..., None, :] @ x).squeeze(-2)  # (B, T, C)
            mixed = mix.mT @ x  # (B, T, n, C)
        return mixed + write[..., None] * sublayer(seen)[..., None, :]

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, n, C) -> read (.., n), mix (.., n, n): from, to; write (.., n); dynamic ones for each token."""
        read, mix, write = (each.to(x.dtype) for each in (self.read, self.mix, self.write))
        if self.norm is None:
            return read, mix, write
        x = self.norm(x)

        def dynamic(projection: Tensor, scale: Tensor) -> Tensor:
            return scale.to(x.dtype) * torch.tanh(x @ projection.to(x.dtype))

        read = read + dynamic(self.read_projection, self.read_scale).squeeze(-1)
        mix = mix + dynamic(self.mix_projection, self.read_scale)
        return read, mix, write + dynamic(self.write_projection, self.write_scale).squeeze(-1)
