"""The base of rotary positions: RoPE and its scalings say only how fast each pair turns."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gptzoo.contracts import Dims, Position

Pairing = Literal["half", "interleaved"]


class Rotary(Position):
    """Pairs of each head's dimensions are turned by pos times a frequency; a subclass says which in `frequencies`.

    Source: RoFormer, arXiv:2104.09864, equations 14-15 and 34. A rotated part of the head as in GPT-NeoX,
    arXiv:2204.06745, section 2.1.1. Angles are float64 and the rotation is at least float32, whatever the precision of
    q and k.

    Args:
        theta: The longest wavelength is about 2 pi theta tokens.
        pairing: Which dimensions form pair i of a width w: `half` = i and i + w / 2 (GPT-NeoX, Llama in transformers),
            `interleaved` = 2i and 2i + 1 (GPT-J, the RoFormer paper).
        fraction: The share of each head, from its front, that is turned; the rest stays as it is.
    """

    def __init__(
        self,
        dims: Dims,
        rotate_dim: int,
        theta: float = 10000.0,
        pairing: Pairing = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(dims, rotate_dim)
        if theta <= 0:
            raise ValueError(f"theta must be above 0, {theta} is not")
        if pairing not in ("half", "interleaved"):
            raise ValueError(f"pairing must be half or interleaved, not {pairing!r}")
        self.theta, self.pairing = theta, pairing
        self.width = _width(fraction, rotate_dim)

    def frequencies(self, device: torch.device) -> Tensor:
        """float64 (width / 2,): radians per token of each pair. Made anew, because a buffer would be cast."""
        return self.theta ** (-self.channels(device) / self.width)

    def channels(self, device: torch.device) -> Tensor:
        """float64 (width / 2,): 0, 2, 4, ..., twice the index of each pair."""
        return torch.arange(0, self.width, 2, dtype=torch.float64, device=device)

    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, T, D), (B, G, T, D), (B|1, T) -> the same shapes and dtypes, turned."""
        with torch.autocast(q.device.type, enabled=False):
            angle = self.angles(q_pos)
            cos, sin = angle.cos(), angle.sin()
            return self.turn(q, cos, sin), self.turn(k, cos, sin)

    def angles(self, pos: Tensor) -> Tensor:
        """(B|1, T) -> float64 (B|1, 1, T, width / 2), by broadcasting: a matmul would run in TF32."""
        return (pos[..., None] * self.frequencies(pos.device))[:, None]

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, H, T, D), float64 (B|1, 1, T, width / 2) twice -> x with its front turned, of the same dtype."""
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        cos, sin = cos.to(dtype), sin.to(dtype)
        turned, rest = x[..., : self.width].to(dtype), x[..., self.width :]
        if self.pairing == "half":
            a, b = turned.chunk(2, dim=-1)
            turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
        else:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
        turned = turned.to(x.dtype)
        return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def _width(fraction: float, rotate_dim: int) -> int:
    """How many dimensions are turned."""
    width = round(fraction * rotate_dim)
    if not 0 < width <= rotate_dim or width % 2 or abs(width - fraction * rotate_dim) > 1e-6:
        raise ValueError(
            f"fraction times the head's width must be an even number from 2 to {rotate_dim}, "
            f"{fraction} * {rotate_dim} = {fraction * rotate_dim:g} is not"
        )
    return width
