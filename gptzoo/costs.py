"""What a model costs before it is trained: parameters by slot, FLOPs per token, memory. No tensor is computed."""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from gptzoo.contracts import Attention, BiasFunction, Kernel, Mask, NamedParameter, Where
from gptzoo.errors import GPTZooError
from gptzoo.model import Model, named_parameters
from gptzoo.parts.kernels import Naive
from gptzoo.precision import autocast

SLOTS: tuple[str, ...] = ("attention", "mlp", "norm", "position", "embedding", "head", "block")

OPTIMIZER_BYTES = 8
"""Per parameter: Adam's two float32 means. An optimizer that keeps less is overestimated."""


@dataclass(frozen=True)
class Costs:
    """What a model costs. FLOPs count a multiplication and an addition as two.

    Args:
        parameters: Weights, tied ones once.
        non_embedding: Those outside of embedding tables, of tokens or positions.
        by_slot: Parameters by slot; a norm within an attention is the attention's, `block` is what blocks add.
        forward_flops_per_token: Of the matrix products at the full context, masked ones too: the part of a score matrix
            that is never looked at is counted, as in the formula.
        flops_per_token: Training, forward and backward: three times the forward.
        head_flops_per_token: Of these, the output matrix's. Kaplan et al. leave it out (arXiv:2001.08361, table 1). In
            small models that matters: the two conventions must not be mixed.
        formula_flops_per_token: 6 N + 12 L H Q T with N the weights in matrix products, the output's included; PaLM,
            arXiv:2204.02311, appendix B. It is the counted figure if all layers attend to all tokens.
        activation_bytes: What the backward pass of a micro-batch needs beside the weights, in half precision their
            lowered copies too.
        memory_bytes: Weights, gradients, the optimizer's state (8 bytes a parameter) and activations. Left out: what
            is needed for a moment only (the gradient of the logits above all), the framework's own memory,
            fragmentation, score biases and masks that a fused kernel is handed dense, and what `compile` saves.
    """

    parameters: int
    non_embedding: int
    by_slot: dict[str, int]
    forward_flops_per_token: float
    flops_per_token: float
    head_flops_per_token: float
    formula_flops_per_token: float
    activation_bytes: int
    memory_bytes: int


def costs(model: Model, *, micro_batch_size: int, precision: str) -> Costs:
    """Count what a model costs to train.

    Args:
        model: On the meta device; it is left as it is.
        micro_batch_size: Sequences per backward.
        precision: `fp32`, `bf16` or `fp16`.

    Raises:
        GPTZooError: A part's forward depends on values, so that nothing can be known beforehand; or it fails.
    """
    named = named_parameters(model)
    parameters = sum(each.tensor.numel() for each in named)
    try:
        mode = FakeTensorMode()
        to_count, to_train = _imagined(model, mode), _imagined(model, mode)
        with mode:
            forward = _forward_flops(to_count)
            activations = _activation_bytes(to_train, micro_batch_size, precision)
    except GPTZooError:
        raise
    except Exception as error:
        raise _uncountable(error) from error
    weights = sum(each.tensor.numel() * each.tensor.element_size() for each in named)
    return Costs(
        parameters=parameters,
        non_embedding=sum(each.tensor.numel() for each in named if each.role != "embedding"),
        by_slot=_by_slot(model, named),
        forward_flops_per_token=forward,
        flops_per_token=3 * forward,
        head_flops_per_token=6.0 * _head(model, named),
        formula_flops_per_token=_formula(model, named),
        activation_bytes=activations,
        memory_bytes=2 * weights + OPTIMIZER_BYTES * parameters + activations,
    )


# -- parameters ------------------------------------------------------------------------------------------------------


def _by_slot(model: Model, named: Iterable[NamedParameter]) -> dict[str, int]:
    counts = dict.fromkeys(SLOTS, 0)
    for each in named:
        counts[_slot_of(model, each)] += each.tensor.numel()
    return counts


def _slot_of(model: Model, parameter: NamedParameter) -> str:
    outside = {"wte": "embedding", "positions": "position", "norm_f": "norm", "head": "head"}
    path = parameter.name.split(".")
    if path[0] in outside:
        return outside[path[0]]
    owners: list[nn.Module] = [model.get_submodule(".".join(path[:end])) for end in range(2, len(path))]
    if any(isinstance(owner, Attention) for owner in owners):
        return "attention"
    if path[2] == "mlp":
        return "mlp"
    return "norm" if parameter.role == "norm" else "block"


def _formula(model: Model, named: Iterable[NamedParameter]) -> float:
    dims = model.dims
    matrices = sum(each.tensor.numel() for each in named if each.role == "matrix")
    return (
        6.0 * (matrices + _head(model, named)) + 12.0 * dims.n_layer * dims.n_head * dims.head_dim * dims.context_length
    )


def _head(model: Model, named: Iterable[NamedParameter]) -> int:
    """Weights of the output matrix: the head's own, or the token embedding's."""
    return sum(each.tensor.numel() for each in named if each.role == "head") or model.wte.weight.numel()


# -- a forward without values ----------------------------------------------------------------------------------------


def _imagined(model: Model, mode: FakeTensorMode) -> Model:
    """A copy whose tensors have shapes and precisions, on an imagined CPU: autocast knows no meta device."""
    assert all(parameter.is_meta for parameter in model.parameters()), "build_model(made, meta=True)"
    imagined = copy.deepcopy(model)
    state = model.state_dict()
    with mode:
        state = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
    imagined.load_state_dict(state, assign=True)
    return imagined


def _tokens(batch: int, length: int) -> Tensor:
    return torch.zeros(batch, length, dtype=torch.int64)


def _in_place_of(kernel: Kernel | None, other: Kernel) -> Kernel | None:
    """The other kernel, except for the readable one, and for none: an attention that mixes by itself."""
    return kernel if kernel is None or isinstance(kernel, Naive) else other


def _forward_flops(model: Model) -> float:
    """Of one token, counted with the readable kernel: the counter does not see into fused ones everywhere."""
    length = model.dims.context_length
    model.kernels = [_in_place_of(kernel, Naive()) for kernel in model.kernels]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(_tokens(1, length))
    return counter.get_total_flops() / length


def _activation_bytes(model: Model, batch: int, precision: str) -> int:
    """Of the distinct storages that autograd keeps for the backward pass, weights apart."""
    kept: dict[int, torch.UntypedStorage] = {}  # it holds them, so that no two have the same address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    model.kernels = [_in_place_of(kernel, Fused()) for kernel in model.kernels]
    tokens = _tokens(batch, model.dims.context_length)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast("cpu", precision):
        model.train().loss(tokens, tokens)
    for weight in model.parameters():
        kept.pop(weight.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in kept.values())


def _uncountable(error: Exception) -> GPTZooError:
    frame = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}torch{os.sep}" not in f.filename][-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return GPTZooError(
        f"costs cannot be counted: the forward pass fails without values, {said} ({frame.filename}:{frame.lineno})."
    )


class Fused(Kernel):
    """Any fused kernel, as far as memory goes: it keeps q, k, v, its output and the log-sum-exp."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        where: Where,
        mask: Mask,
        bias: BiasFunction | Tensor | None = None,
        scale: float,
        softcap: float | None = None,
        dropout: float = 0.0,
        return_lse: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if torch.is_autocast_enabled("cpu"):
            q, k, v = (each.to(torch.get_autocast_dtype("cpu")) for each in (q, k, v))
        out, lse = _FusedFunction.apply(q, k, v)  # type: ignore[misc]
        return (out, lse) if return_lse else out


class _FusedFunction(torch.autograd.Function):
    """Shapes and what is kept; its values mean nothing, and nobody asks for its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, length, _ = q.shape
        out = v.new_empty(batch, length, heads, v.shape[-1]).transpose(
            1, 2
        )  # heads inside, as fused kernels do: no copy joins them
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, lse)
        return out, lse
