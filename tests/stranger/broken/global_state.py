"""Broken: each forward draws from torch's global generator, in evaluation too, and keeps what it saw: looking at a
model changes the dropout of all later steps, and a resumed training is not the one that was stopped."""

import torch
from torch import nn

import gptzoo


@gptzoo.hookimpl
def gptzoo_register(zoo):
    zoo.norm("global_state", GlobalState)


class GlobalState(nn.Module):
    """RMSNorm that measures a feature at random, for a statistic."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.measured: list[float] = []

    def forward(self, x):
        feature = torch.randint(x.shape[-1], ())
        self.measured = [*self.measured[-99:], float(x[..., feature].detach().abs().mean())]
        wide = x if x.dtype == torch.float64 else x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
        return (wide * scale).to(x.dtype) * self.weight.to(x.dtype)
