"""Bugs, planted one by one into working parts, each with the law that has to find it.

Each of them trains without complaint. Several are of the seed that GPTZoo grew from, or of published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

import gptzoo
from gptzoo.loading import load_plugins, shipped_folder
from gptzoo.registry import Entry, Owner, Zoo

shipped_folder()

from gptzoo_plugins.alibi import Alibi  # noqa: E402
from gptzoo_plugins.python_source import PythonSource  # noqa: E402
from gptzoo_plugins.rmsnorm import RMSNorm  # noqa: E402
from gptzoo_plugins.rope import Rope  # noqa: E402
from gptzoo_plugins.sinusoidal import Sinusoidal  # noqa: E402
from gptzoo_plugins.sliding_window import SlidingWindow  # noqa: E402
from gptzoo_plugins.swiglu import SwiGLU  # noqa: E402


@dataclass(frozen=True)
class Bug:
    """A broken component.

    Args:
        what: The bug, in a sentence.
        slot: Where the component stands.
        factory: The component.
        law: The law that finds it.
        options: Options to try it under.
        name: The name it takes the place of; one of its own unless given.
    """

    what: str
    slot: str
    factory: Callable[..., object]
    law: str
    options: dict[str, object] = field(default_factory=dict)
    name: str = "planted"

    def zoo(self) -> Zoo:
        """All parts, and this one."""
        zoo = load_plugins().zoo
        zoo._entries[self.slot].pop(self.name, None)
        zoo.add(Entry(self.slot, self.name, self.factory, Owner("planted", "planted")))
        return zoo


BUGS: list[Bug] = []


def plant(what: str, slot: str, law: str, name: str = "planted", **options: object) -> Callable[[type], type]:
    """Add a class to the bugs."""

    def add(factory: type) -> type:
        BUGS.append(Bug(what, slot, factory, law, options, name))
        return factory

    return add


# Attention


@plant("no 1 / sqrt(head_dim)", "attention", "scores_of_unit_normal_queries_and_keys_have_unit_variance")
class Unscaled(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)
        self.scale = 1.0


@plant("a window one token too wide", "attention", "a_window_is_so_many_tokens_the_token_itself_included", window=4)
class WideWindow(SlidingWindow):
    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return gptzoo.causal(q_pos, k_pos) & (q_pos - k_pos <= self.window)


@plant("the next token is seen", "attention", "future_tokens_change_no_bit_of_the_past")
class Peeks(gptzoo.MultiHeadAttention):
    def mask(self, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return k_pos <= q_pos + 1


class SharesHeads(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims, n_kv_head: int | None = None) -> None:
        super().__init__(dims, n_kv_head)


@plant(
    "groups of heads in the order of repeat",
    "attention",
    "a_group_of_query_heads_reads_its_key_value_head",
    n_kv_head=2,
)
class WrongGroups(SharesHeads):
    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        times = self.n_head // self.n_kv_head
        return super().mix(q, k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1), ctx, where)


@plant("positions counted anew in each chunk", "attention", "decoding_with_a_cache_gives_what_the_whole_gives")
class CountsAnew(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        q, k, v = self.project(x)
        pos = torch.arange(x.shape[1], device=x.device)[None] if ctx.cache is not None else ctx.pos
        q, k = ctx.position.rotate(q, k, pos)
        visible, where = ctx.remember(k=k, v=v)
        return self.o(rearrange(self.mix(q, visible["k"], visible["v"], ctx, where), "b h t d -> b t (h d)"))


@plant("keys go into the cache unrotated", "attention", "decoding_with_a_cache_gives_what_the_whole_gives")
class UnrotatedCache(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        q, k, v = self.project(x)
        q, turned = ctx.position.rotate(q, k, ctx.pos)
        visible, where = ctx.remember(k=k, v=v)
        keys = torch.cat((visible["k"][:, :, : -x.shape[1]], turned), 2)
        return self.o(rearrange(self.mix(q, keys, visible["v"], ctx, where), "b h t d -> b t (h d)"))


class ForgetfulCache(gptzoo.LayerCache):
    def extend(self, pos: Tensor, doc: Tensor, **tensors: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        visible, k_pos, k_doc = super().extend(pos, doc, **tensors)
        return {n: t[:, :, -4:] for n, t in visible.items()}, k_pos[:, -4:], k_doc[:, -4:]


@plant("a ring that evicts before attending", "attention", "decoding_with_a_cache_gives_what_the_whole_gives", window=4)
class EvictsFirst(SlidingWindow):
    def new_cache(self, batch: int, size: int, dtype: torch.dtype, device: torch.device | str) -> gptzoo.LayerCache:
        return ForgetfulCache(batch, size, dtype, device)


@plant("documents see each other", "attention", "documents_in_a_row_do_not_see_each_other")
class IgnoresDocuments(gptzoo.MultiHeadAttention):
    kernels = ()
    abilities = gptzoo.Abilities(bias=frozenset(), temperature=False, padding=False, cached=False)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        q, k, v = self.project(x)
        q, k = ctx.position.rotate(q, k, ctx.pos)
        return self.o(rearrange(F.scaled_dot_product_attention(q, k, v, is_causal=True), "b h t d -> b t (h d)"))


@plant("dropout in eval", "attention", "a_forward_leaves_everything_as_it_was")
class AlwaysDrops(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return F.dropout(super().forward(x, ctx), 0.1)


@plant("its output projection bears another name", "attention", "without_its_output_projection_it_is_silent")
class Misnamed(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)
        self.projection = nn.Linear(dims.n_embd, dims.n_embd)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return self.projection(super().forward(x, ctx)) + x


@plant("an option that is parsed and ignored", "attention", "every_option_has_an_effect", strength=2.0)
class IgnoresItsOption(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims, strength: float = 1.0) -> None:
        super().__init__(dims)
        self.strength = strength


@plant("a parameter that nothing uses", "attention", "every_parameter_takes_part")
class HasASpare(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)
        self.gate = nn.Linear(dims.n_embd, dims.n_embd)


@plant("a layer that is dead", "attention", "a_token_depends_on_what_it_may_see")
class Dead(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return super().forward(x, ctx) * 0.0


@plant("a parameter drawn from the global generator", "attention", "equal_seeds_build_equal_bits")
class DrawsAtWill(gptzoo.MultiHeadAttention):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)
        self.gain = nn.Parameter(torch.randn(dims.n_embd))

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return self.gain * super().forward(x, ctx)


@plant("softmax in float32 under float64", "attention", "float64_is_kept")
class Lowers(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return super().forward(x, ctx).float().to(x.dtype)


@plant("it counts the order of keys in the row", "attention", "where_a_token_stands_in_the_row_does_not_matter")
class CountsKeys(gptzoo.MultiHeadAttention):
    order_free = False

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ctx: gptzoo.Context, where: gptzoo.Where) -> Tensor:
        index = torch.arange(v.shape[2], device=v.device, dtype=v.dtype)[:, None]
        return super().mix(q, k, v * torch.cos(0.1 * index), ctx, where)


@plant("positions sneak into values", "attention", "without_positions_the_past_has_no_order")
class SneaksPositions(gptzoo.MultiHeadAttention):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return super().forward(x * torch.cos(0.1 * ctx.pos[..., None]).to(x.dtype), ctx)


# Kernels


@plant("is_causal as the mask of cached decoding", "kernel", "new_tokens_see_all_cached_ones")
class TopLeft(gptzoo.Sdpa):
    def __init__(self) -> None:
        super().__init__()

    def __call__(self, q, k, v, *, where, mask, bias=None, scale, **more):  # type: ignore[no-untyped-def]
        if mask.causal and bias is None and not where.padded:
            gqa = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)
        return super().__call__(q, k, v, where=where, mask=mask, bias=bias, scale=scale, **more)


class InSteps(gptzoo.Naive):
    """The naive kernel in steps, of which a bug changes one."""

    def __call__(self, q, k, v, *, where, mask, bias=None, scale, softcap=None, return_lse=False, **more):  # type: ignore[no-untyped-def]
        bias = None if bias is None else where.dense_bias(bias, q.shape[1])
        s, allowed = self.scored(q, k, scale, softcap, bias), where.dense_mask(mask)
        out = self.mixed(s, allowed, v)
        return (out, gptzoo.log_sum_exp(s, allowed)) if return_lse else out

    def scored(self, q: Tensor, k: Tensor, scale: float, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = gptzoo.scores(q, k, scale, softcap)
        return s if bias is None else s + bias

    def mixed(self, s: Tensor, allowed: Tensor, v: Tensor) -> Tensor:
        return gptzoo.combine(gptzoo.weights(s, allowed), v)


@plant("the cap is put on after the bias", "kernel", "a_kernel_is_softmax_attention")
class CapsLate(InSteps):
    def scored(self, q: Tensor, k: Tensor, scale: float, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = super().scored(q, k, scale, None, bias)
        return s if softcap is None else softcap * torch.tanh(s / softcap)


@plant("a query that sees nothing gives NaN", "kernel", "a_kernel_is_softmax_attention")
class BlindNaN(InSteps):
    def mixed(self, s: Tensor, allowed: Tensor, v: Tensor) -> Tensor:
        return gptzoo.combine(s.masked_fill(~allowed, -torch.inf).softmax(-1), v)


@plant("the log-sum-exp is of base 2", "kernel", "its_log_sum_exp_is_that_of_the_scores")
class BaseTwo(gptzoo.Naive):
    def __call__(self, *inputs, return_lse=False, **more):  # type: ignore[no-untyped-def]
        out = super().__call__(*inputs, return_lse=return_lse, **more)
        return (out[0], out[1] / math.log(2)) if return_lse else out


@plant("softmax in half precision", "kernel", "low_precision_is_as_exact_as_the_readable_kernel")
class HalfSoftmax(InSteps):
    def scored(self, q: Tensor, k: Tensor, scale: float, softcap: float | None, bias: Tensor | None) -> Tensor:
        s = super().scored(q, k, scale, softcap, bias)
        return s if q.dtype == torch.float64 else (s * 8).to(torch.float8_e4m3fn).to(s.dtype) / 8


# Positions


@plant("tables of one pairing, rotation of the other", "position", "rotation_keeps_norms")
class MixedPairing(Rope):
    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self._mixed(x, q_pos) for x in (q, k))  # type: ignore[return-value]

    def _mixed(self, x: Tensor, pos: Tensor) -> Tensor:
        channel = torch.arange(0, x.shape[-1], 2, dtype=torch.float64, device=x.device)
        angle = (pos[..., None] * self.theta ** (-channel / x.shape[-1]))[:, None].repeat_interleave(2, -1)
        a, b = x.chunk(2, -1)
        return x * angle.cos().to(x.dtype) + torch.cat((-b, a), -1) * angle.sin().to(x.dtype)


@plant("angles in float32", "position", "scores_after_rotation_depend_on_the_distance_alone")
class Float32Angles(Rope):
    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        channel = torch.arange(0, q.shape[-1], 2, dtype=torch.float32, device=q.device)
        angle = (q_pos[..., None].float() * 10000.0 ** (-channel / q.shape[-1]))[:, None]

        def turn(x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
            return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

        return turn(q), turn(k)


@plant("the rotation writes into its inputs", "position", "rotation_takes_the_shapes_it_is_given")
class InPlace(Rope):
    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        turned = super().rotate(q, k, q_pos)
        with torch.no_grad():
            q.copy_(turned[0])
        return q, turned[1]


@plant("positions from the index in the row", "position", "rotation_of_a_slice_is_the_slice_of_the_rotation")
class FromTheIndex(Rope):
    def rotate(self, q: Tensor, k: Tensor, q_pos: Tensor) -> tuple[Tensor, Tensor]:
        return super().rotate(q, k, torch.arange(q.shape[2], device=q.device)[None])


@plant("tables as a buffer", "position", "nothing_but_parameters_is_kept")
class Buffered(Rope):
    def __init__(self, dims: gptzoo.Dims, rotate_dim: int) -> None:
        super().__init__(dims, rotate_dim)
        self.register_buffer("table", torch.arange(64.0))


@plant("log of a distance without a clamp", "position", "its_bias_is_pointwise_and_finite")
class NoClamp(gptzoo.Position):
    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return -torch.log((q_pos - k_pos).float() + 1) * (head + 1)


@plant("a reduction inside the bias", "position", "its_bias_is_pointwise_and_finite")
class Reduces(Alibi):
    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return super().bias(head, q_pos, k_pos) / (1 + k_pos.max())


@plant("slopes in the order of heads turned round", "position", "a_position_is_its_published_formula", name="alibi")
class SlopesTurned(Alibi):
    def _slope(self, head: Tensor) -> Tensor:
        return super()._slope(self.n_head - 1 - head)


@plant("a distance that is off by one", "position", "a_position_is_its_published_formula", name="alibi")
class OffByOne(Alibi):
    def bias(self, head: Tensor, q_pos: Tensor, k_pos: Tensor) -> Tensor:
        return self._slope(head) * (k_pos - q_pos - 1).float()


class Endless(gptzoo.Position):
    """Learned positions that claim to have no end."""

    shift_invariant = False

    def __init__(self, dims: gptzoo.Dims, rotate_dim: int) -> None:
        super().__init__(dims, rotate_dim)
        self.wpe = nn.Embedding(dims.context_length, dims.n_embd)


@plant("learned positions that wrap round", "position", "beyond_its_end_it_refuses")
class Wraps(Endless):
    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + self.wpe(pos % self.dims.context_length)


@plant("learned positions that stop at their end", "position", "beyond_its_end_it_refuses")
class Stops(Endless):
    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return x + self.wpe(pos.clamp_max(self.dims.context_length - 1))


@plant(
    "an embedding that counts from the first token given",
    "position",
    "an_embedding_counts_from_the_positions_it_is_given",
)
class CountsFromTheFirst(Sinusoidal):
    def embed(self, x: Tensor, pos: Tensor) -> Tensor:
        return super().embed(x, torch.arange(x.shape[1], device=x.device)[None])


# Norms, MLPs, blocks, heads


@plant("eps outside of the root", "norm", "eps_stands_inside_the_root")
class EpsOutside(nn.Module):
    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        high = x if x.dtype == torch.float64 else x.float()
        return (high / (high.square().mean(-1, keepdim=True).sqrt() + self.eps) * self.weight).to(x.dtype)


@plant("statistics in half precision", "norm", "a_norm_survives_zeros_and_large_half_numbers")
class HalfStatistics(RMSNorm):
    def __init__(self, size: int, eps: float = 1e-5) -> None:
        super().__init__(size, eps)

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight.to(x.dtype)  # type: ignore[union-attr]


@plant("statistics over the row instead of the token", "norm", "no_gradient_comes_from_the_future")
class OverTheRow(gptzoo.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:
            return super().forward(x)
        return super().forward(x - x.mean(1, keepdim=True))


@plant("GELU with erf where tanh is meant", "mlp", "an_mlp_is_its_published_formula", name="gelu")
class Erf(gptzoo.Gelu):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims, approximate="none")


@plant("the gate is on the wrong branch", "mlp", "an_mlp_is_its_published_formula", name="swiglu")
class WrongBranch(SwiGLU):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return self.dropout(self.down(self.activate(self.up(x)) * self.gate(x)))


@plant("experts choose tokens, later ones too", "mlp", "future_tokens_change_no_bit_of_the_past")
class ExpertsChoose(gptzoo.Gelu):
    """Each of two experts takes the half of a row that scores highest: whether a token is taken depends on all."""

    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)
        self.router = nn.Linear(dims.n_embd, 1)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        scores = self.router(x)
        chosen = scores >= scores.median(1, keepdim=True).values
        return super().forward(x, ctx) * scores.sigmoid() * chosen


@plant("rows of a batch share a mean", "mlp", "rows_of_a_batch_do_not_see_each_other")
class SharesRows(gptzoo.Gelu):
    def __init__(self, dims: gptzoo.Dims) -> None:
        super().__init__(dims)

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True), ctx)


@plant("a block that adds its stream twice", "block", "a_block_whose_parts_are_silent_is_the_identity")
class AddsTwice(gptzoo.Pre):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return super().forward(x, ctx) + 0.1 * self.norm_1(x)


@plant("a block that skips its MLP", "block", "a_block_uses_its_attention_and_its_mlp")
class SkipsMLP(gptzoo.Pre):
    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return x + self.attention(self.norm_1(x), ctx)


@plant("a head with a copy of the embedding", "head", "what_is_tied_stays_tied")
class Copies(gptzoo.Tied):
    def __init__(self, dims: gptzoo.Dims, wte: nn.Embedding) -> None:
        super().__init__(dims, wte)
        weight = wte.weight
        self.look = lambda: weight  # a copied head goes on looking at the old model's

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.look().to(x.dtype))


@plant("a loss that is a mean", "head", "the_loss_is_that_of_the_logits")
class MeanLoss(gptzoo.Tied):
    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(x).flatten(0, 1), targets.flatten(), ignore_index=-100)


@plant("a loss that counts masked targets", "head", "the_loss_is_that_of_the_logits")
class CountsMasked(gptzoo.Tied):
    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self(x).flatten(0, 1), targets.clamp_min(0).flatten(), reduction="sum")


# Inits, optimizers, schedules


@plant("an init that draws from the global generator", "init", "an_init_fills_every_weight")
class GlobalInit(gptzoo.Gpt2Init):
    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        tensor.normal_(0.0, self.std)


@plant("an init that leaves out what it does not know", "init", "an_init_fills_every_weight")
class Forgets(gptzoo.Gpt2Init):
    def __call__(self, path: str, tensor: Tensor, dims: gptzoo.Dims, generator: torch.Generator) -> None:
        if "attention" in path:
            super().__call__(path, tensor, dims, generator)


@plant("an init far too large", "init", "a_fresh_model_guesses")
class Loud(gptzoo.Gpt2Init):
    def __init__(self) -> None:
        super().__init__(std=1.0)


@plant("decay on norms and biases", "optimizer", "norms_and_biases_do_not_decay")
class DecaysAll(torch.optim.AdamW):
    def __init__(self, parameters, learning_rate: float) -> None:  # type: ignore[no-untyped-def]
        super().__init__([p.tensor for p in parameters], lr=learning_rate, weight_decay=0.1)


@plant("parameters that no group has", "optimizer", "every_parameter_is_in_one_group")
class LeavesOut(torch.optim.AdamW):
    def __init__(self, parameters, learning_rate: float) -> None:  # type: ignore[no-untyped-def]
        super().__init__([p.tensor for p in parameters if p.role == "matrix"], lr=learning_rate, weight_decay=0.0)


@plant("state that is not in the state", "optimizer", "its_state_goes_round")
class KeepsASecret(torch.optim.SGD):
    def __init__(self, parameters, learning_rate: float) -> None:  # type: ignore[no-untyped-def]
        super().__init__([p.tensor for p in parameters], lr=learning_rate)
        self.steps = 0

    def step(self, closure=None):  # type: ignore[no-untyped-def]
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(1.0 / self.steps)
        return super().step(closure)


@plant("steps without a gradient", "optimizer", "parameters_without_a_gradient_are_left_alone")
class MovesAnyway(torch.optim.AdamW):
    def __init__(self, parameters, learning_rate: float) -> None:  # type: ignore[no-untyped-def]
        super().__init__([p.tensor for p in parameters], lr=learning_rate, weight_decay=0.0)

    def step(self, closure=None):  # type: ignore[no-untyped-def]
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1 - 0.01 * group["lr"])
        return super().step(closure)


@plant("a schedule that remembers how often it was asked", "schedule", "a_schedule_is_a_function_of_the_step")
class Remembers:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int, steps: int) -> float:
        self.calls += 1
        return max(0.0, 1 - self.calls / (steps + 1))


@plant("a schedule that ends below zero", "schedule", "a_schedule_is_a_function_of_the_step")
class BelowZero:
    def __call__(self, step: int, steps: int) -> float:
        return 1 - 1.1 * step / max(1, steps - 1)


# Loggers


@plant("a logger that writes elsewhere than it is told", "logger", "every_option_has_an_effect")
class WritesElsewhere:
    def __init__(self, folder: str = "logs") -> None:
        self.handle = open  # what it keeps says nothing of the folder

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        Path("metrics.txt").write_text(f"{step} {dict(metrics)}")


# Data and tokenizers


@plant("targets that are not shifted", "data", "a_target_is_the_next_token", max_bytes=100_000)
class Unshifted(PythonSource):
    def batch(self, split: str, seed: int, step: int, size: int) -> gptzoo.Batch:
        batch = super().batch(split, seed, step, size)
        return gptzoo.Batch(batch.tokens, batch.tokens, batch.pos, batch.doc)


@plant("batches from the global generator", "data", "a_batch_is_a_function_of_its_arguments", max_bytes=100_000)
class GlobalBatches(PythonSource):
    def batch(self, split: str, seed: int, step: int, size: int) -> gptzoo.Batch:
        return super().batch(split, int(torch.randint(1000, (1,))), step, size)


@plant("validation that depends on the seed", "data", "validation_does_not_depend_on_the_seed", max_bytes=100_000)
class SeededValidation(PythonSource):
    def batch(self, split: str, seed: int, step: int, size: int) -> gptzoo.Batch:
        return super().batch(split, seed, step + seed if split == "val" else step, size)


@plant("line ends are made alike", "tokenizer", "decoding_gives_back_what_was_encoded")
class Normalises(gptzoo.Byte):
    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("\r\n", "\n"))


@plant("special tokens in text are special", "tokenizer", "special_tokens_in_text_are_text")
class Special(gptzoo.Byte):
    def encode(self, text: str) -> list[int]:
        parts = text.split("<|endoftext|>")
        tokens = super().encode(parts[0])
        for part in parts[1:]:
            tokens += [256, *super().encode(part)]
        return tokens
