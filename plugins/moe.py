"""Mixture of experts: a router sends each token through a few of many MLPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import gptzoo

MlpFactory = Annotated[Callable[[gptzoo.Dims], nn.Module], gptzoo.InSlot("mlp")]

ROWS = 16
"""An expert's tokens are filled up to a multiple of this. Products of very few rows take other paths, with other
roundings, and what a token gets should not depend on how many others its expert was given. (Matrices thousands wide may
still differ in the last bit, in bf16 and float64.)"""


@gptzoo.hookimpl
def gptzoo_register(zoo: gptzoo.Registrar) -> None:
    """Register `moe`."""
    zoo.mlp("moe", MixtureOfExperts, aliases=["mixture_of_experts"])


class MixtureOfExperts(nn.Module):
    """Each token goes through the `top_k` MLPs that a router thinks best, weighted by its probabilities.

    Source: Outrageously Large Neural Networks, arXiv:1701.06538, section 2.1, without noise and without capacity: no
    token is dropped, as in MegaBlocks, arXiv:2211.15841. The softmax runs over all experts, then the best are taken and
    renormalised, as in Mixtral, arXiv:2401.04088, section 2.1. Balance loss: Switch Transformers, arXiv:2101.03961,
    equations 4 to 6; with several experts per token, f is the share of all choices, so that even routing costs 1 times
    `balance` in each layer, whatever top_k is. Router z-loss: ST-MoE, arXiv:2202.08906, equation 5. Shared expert:
    DeepSeekMoE, arXiv:2401.06066, section 3.2; its gate is Qwen1.5-MoE's.

    Both losses are means over the tokens of a micro-batch, padding apart, added up over layers as `load_balance` and
    `router_z`. Routing looks at one token at a time, with the router in float32.

    Args:
        n_expert: MLPs to choose from.
        top_k: MLPs per token.
        expert: The MLP, any that looks at one token at a time; GELU unless given. Each has the inner width that it
            would have alone.
        renormalise: Whether the weights of the chosen add up to 1. With top_k 1 they must not: such a weight is always
            1, and the router would learn nothing from the loss.
        balance: Factor of the balance loss; 0 leaves it out.
        z_loss: Factor of the router z-loss; 0 leaves it out.
        shared_expert: One more MLP, which every token goes through.
        shared_gate: Whether the shared expert is weighted by a sigmoid of the token.
    """

    examples = (
        {"n_expert": 4},
        {"n_expert": 4, "top_k": 1, "renormalise": False, "expert": {"name": "swiglu", "hidden": 16}, "z_loss": 0.001},
        {"n_expert": 4, "shared_expert": "relu", "shared_gate": True},
    )

    def __init__(
        self,
        dims: gptzoo.Dims,
        n_expert: int = 8,
        top_k: int = 2,
        expert: MlpFactory | None = None,
        renormalise: bool = True,
        balance: float = 0.01,
        z_loss: float = 0.0,
        shared_expert: MlpFactory | None = None,
        shared_gate: bool = False,
    ) -> None:
        super().__init__()
        if n_expert < 2:
            raise ValueError(f"n_expert must be at least 2, not {n_expert}")
        if not 1 <= top_k <= n_expert:
            raise ValueError(f"top_k must lie between 1 and n_expert = {n_expert}, {top_k} does not")
        if top_k == 1 and renormalise:
            raise ValueError(
                "with top_k 1 a renormalised weight is always 1, and the router learns nothing. Write "
                "renormalise: false"
            )
        if balance < 0 or z_loss < 0:
            raise ValueError(f"balance and z_loss must not be negative, {min(balance, z_loss)} is")
        if shared_gate and shared_expert is None:
            raise ValueError("shared_gate weighs the shared expert, and there is none. Set shared_expert")
        self.n_expert, self.top_k, self.renormalise = n_expert, top_k, renormalise
        self.balance, self.z_loss = balance, z_loss
        self.router = nn.Linear(dims.n_embd, n_expert, bias=False)
        self.experts = nn.ModuleList(_expert(expert or gptzoo.Gelu, dims) for _ in range(n_expert))
        self.shared = _expert(shared_expert, dims) if shared_expert else None
        self.shared_gate = nn.Linear(dims.n_embd, 1, bias=False) if shared_gate else None

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        tokens = x.flatten(0, 1)  # (N, C)
        logits = _in_float32(self.router, tokens)  # (N, E)
        weights, chosen = self.choose(logits)  # (N, K) twice
        real = (ctx.doc >= 0).expand(x.shape[:2]).flatten().to(logits.dtype)
        self.add_losses(logits, chosen, real, ctx)
        y = self.mix(tokens, weights, chosen, ctx).view_as(x)
        return y if self.shared is None else y + self.through_shared(x, ctx)

    def choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(N, E) -> weights and numbers of the chosen experts, (N, K) both."""
        weights, chosen = logits.softmax(-1).topk(self.top_k)
        return (weights / weights.sum(-1, keepdim=True) if self.renormalise else weights), chosen

    def mix(self, tokens: Tensor, weights: Tensor, chosen: Tensor, ctx: gptzoo.Context) -> Tensor:
        """Sum of the chosen experts' outputs: (N, C), (N, K) twice -> (N, C)."""
        by_expert = chosen.flatten().argsort(stable=True)  # places in (N K,), all of expert 0 first
        shares = tokens[by_expert // self.top_k].split(_counts(chosen, self.n_expert))
        needed = [len(share) > 0 or torch.is_grad_enabled() for share in shares]  # idle ones get a gradient of zero
        outputs = [_through(e, s, ctx) for e, s, now in zip(self.experts, shares, needed, strict=True) if now]
        y = torch.cat(outputs)[by_expert.argsort()].unflatten(0, chosen.shape)  # (N, K, C)
        return (y * weights[..., None]).sum(1).to(y.dtype)

    def through_shared(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        assert self.shared is not None
        y = self.shared(x, ctx)
        return y if self.shared_gate is None else y * _in_float32(self.shared_gate, x).sigmoid().to(y.dtype)

    def add_losses(self, logits: Tensor, chosen: Tensor, real: Tensor, ctx: gptzoo.Context) -> None:
        """Add this layer's to what earlier layers added: (N, E), (N, K), and (N,) with 0 for padding."""
        if self.balance:
            _add(ctx, "load_balance", self.balance * balance_loss(logits.softmax(-1), chosen, real))
        if self.z_loss:
            _add(ctx, "router_z", self.z_loss * _mean(logits.logsumexp(-1).square(), real))


def balance_loss(probabilities: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """E times the sum over experts of (share of the choices) x (mean probability): 1 for even routing.

    Args:
        probabilities: (N, E).
        chosen: Numbers of experts (N, K).
        real: (N,), 1 for a token and 0 for padding.
    """
    votes = torch.zeros_like(probabilities).scatter(1, chosen, 1.0 / chosen.shape[1])
    return probabilities.shape[1] * (_mean(votes, real[:, None]) * _mean(probabilities, real[:, None])).sum()


def _mean(values: Tensor, real: Tensor) -> Tensor:
    return (values * real).sum(0) / real.sum().clamp(min=1)


def _add(ctx: gptzoo.Context, name: str, loss: Tensor) -> None:
    ctx.losses[name] = ctx.losses[name] + loss if name in ctx.losses else loss


def _expert(make: MlpFactory, dims: gptzoo.Dims) -> nn.Module:
    expert = make(dims)
    if isinstance(expert, MixtureOfExperts):
        raise ValueError("an expert cannot be a mixture itself. Use a plain or a gated MLP")
    return expert


def _in_float32(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer without bias in float32 at least, under autocast too."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(dtype), linear.weight.to(dtype))


def _through(expert: nn.Module, tokens: Tensor, ctx: gptzoo.Context) -> Tensor:
    """(n, C) -> (n, C), in products of a multiple of `ROWS` rows."""
    n = len(tokens)
    filled = F.pad(tokens, (0, 0, 0, -n % ROWS if n else ROWS))
    return expert(filled[None], ctx)[0, :n]


def _counts(chosen: Tensor, n_expert: int) -> list[int]:
    """How many choices fell on each expert, on the host; even shares where tensors have no values, to count costs."""
    if isinstance(chosen, FakeTensor) or chosen.is_meta:
        return [len(share) for share in torch.arange(chosen.numel()).tensor_split(n_expert)]
    return torch.bincount(chosen.flatten(), minlength=n_expert).tolist()
