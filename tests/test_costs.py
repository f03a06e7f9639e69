"""What a model costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo.building import build_model, plan
from gptzoo.costs import SLOTS, Costs, costs
from gptzoo.errors import GPTZooError
from gptzoo.model import Model
from gptzoo.precision import autocast

SMALL = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": 101, "context_length": 32}

PUBLISHED = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
}


def model_of(model: dict | None = None, meta: bool = True) -> Model:
    return build_model(plan({"name": "small", "model": {**SMALL, "kernel": "sdpa", **(model or {})}}), meta=meta)


def costs_of(batch: int = 3, precision: str = "fp32", **model: object) -> Costs:
    return costs(model_of(model), micro_batch_size=batch, precision=precision)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_have_as_many_parameters_as_the_published_weights(name: str) -> None:
    model = build_model(plan(name, {"model.vocab_size": 50257}), meta=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_use_gpt2s_tokenizer(name: str) -> None:
    tokenizer = plan(name).recipe.data.options["tokenizer"]
    assert getattr(tokenizer, "name", None) == "gpt2"


def test_gpt2_124m_costs_what_is_known() -> None:
    model = build_model(plan("gpt2-124m", {"model.vocab_size": 50257}), meta=True)
    counted = costs(model, micro_batch_size=1, precision="bf16")
    assert counted.parameters == 124_439_808
    assert counted.non_embedding == 85_056_000
    assert counted.by_slot == {
        "attention": 12 * 4 * (768 * 768 + 768),
        "mlp": 12 * (8 * 768 * 768 + 5 * 768),
        "norm": 25 * 2 * 768,
        "position": 1024 * 768,
        "embedding": 50257 * 768,
        "head": 0,
        "block": 0,
    }
    assert counted.flops_per_token == counted.formula_flops_per_token == 854_438_400
    assert counted.head_flops_per_token == 6 * 50257 * 768


@pytest.mark.parametrize("kernel", ["naive", "sdpa"])
@pytest.mark.parametrize("model", [{}, {"n_layer": 3, "bias": False}, {"head_dim": 8}, {"mlp": "swiglu"}])
def test_the_counted_flops_are_the_formulas(kernel: str, model: dict) -> None:
    counted = costs_of(**{"kernel": kernel, **model})
    assert counted.forward_flops_per_token * 3 == counted.flops_per_token == counted.formula_flops_per_token


def test_fewer_key_heads_save_flops_in_the_projections_only() -> None:
    one = costs_of(attention={"name": "grouped_query", "n_kv_head": 1})
    saved = 2 * SMALL["n_layer"] * 64 * (64 - 16)
    assert costs_of().flops_per_token - one.flops_per_token == 6 * saved


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"position": "rope"}, {"position": 0}),
        ({"norm": "rmsnorm"}, {"norm": 5 * 64}),
        ({"block": {"name": "parallel", "norms": 1}}, {"norm": 3 * 2 * 64}),
        ({"attention": {"name": "multi_head", "qk_norm": "rmsnorm"}}, {"attention": 2 * (4 * 64 * 65 + 2 * 16)}),
    ],
)
def test_parameters_are_counted_where_they_belong(model: dict, expected: dict[str, int]) -> None:
    usual, counted = costs_of(), costs_of(**model)
    assert counted.by_slot == {**usual.by_slot, **expected}
    assert tuple(counted.by_slot) == SLOTS
    assert sum(counted.by_slot.values()) == counted.parameters


def test_what_a_block_adds_is_the_blocks() -> None:
    model = model_of()
    model.layers[0].gain = nn.Parameter(torch.ones(5, device="meta"))
    assert costs(model, micro_batch_size=1, precision="fp32").by_slot["block"] == 5


class Untied(nn.Linear):
    """A head with a matrix of its own."""

    def __init__(self, dims: gptzoo.Dims, wte: nn.Embedding) -> None:
        super().__init__(dims.n_embd, dims.vocab_size, bias=False)


def test_a_head_of_its_own_is_counted_once() -> None:
    model, usual = model_of(), costs_of()
    with torch.device("meta"):
        model.head = Untied(model.dims, model.wte)
    counted = costs(model, micro_batch_size=1, precision="fp32")
    assert counted.by_slot["head"] == 101 * 64
    assert counted.flops_per_token == counted.formula_flops_per_token == usual.flops_per_token
    assert counted.head_flops_per_token == usual.head_flops_per_token == 6 * 101 * 64


def test_the_output_matrixs_flops_are_what_a_larger_vocabulary_adds() -> None:
    small, large = (costs_of(vocab_size=size) for size in (101, 1001))
    assert small.flops_per_token - small.head_flops_per_token == large.flops_per_token - large.head_flops_per_token


def really_kept(model: Model, batch: int, precision: str) -> int:
    """Bytes that autograd keeps in a real forward pass, weights apart."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    tokens = torch.zeros(batch, model.dims.context_length, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast("cpu", precision):
        loss = model.train().loss(tokens, tokens)
    for weight in model.parameters():
        kept.pop(weight.untyped_storage().data_ptr(), None)
    assert loss.total.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "model",
    [
        {"kernel": "naive"},
        {"kernel": "sdpa"},
        {"kernel": "naive", "dropout": 0.1},
        {"kernel": "naive", "position": "alibi", "norm": "rmsnorm", "mlp": "swiglu"},
    ],
    ids=str,
)
def test_activations_are_what_a_real_forward_keeps(model: dict, precision: str) -> None:
    real = really_kept(model_of(model, meta=False), 3, precision)
    assert costs_of(3, precision, **model).activation_bytes == real


def test_activations_without_a_fused_kernel_grow_with_the_square_of_the_context() -> None:
    short, long = (costs_of(kernel="naive", context_length=length).activation_bytes for length in (256, 512))
    lean, leaner = (costs_of(kernel="sdpa", context_length=length).activation_bytes for length in (512, 256))
    assert long > 3 * short
    assert lean < 2.1 * leaner


def test_memory_is_weights_gradients_optimizer_and_activations() -> None:
    counted = costs_of()
    assert counted.memory_bytes == (4 + 4 + 8) * counted.parameters + counted.activation_bytes


def test_counting_leaves_the_model_and_the_random_state_alone() -> None:
    model = model_of({"dropout": 0.1}).eval()
    kernels, state = list(model.kernels), torch.get_rng_state()
    costs(model, micro_batch_size=1, precision="bf16")
    assert model.kernels == kernels
    assert not model.training
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Curious(nn.Module):
    """An MLP that looks at values."""

    def forward(self, x: Tensor, ctx: gptzoo.Context) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_part_that_depends_on_values_is_refused() -> None:
    model = model_of()
    model.layers[1].mlp = Curious()
    with pytest.raises(GPTZooError) as refused:
        costs(model, micro_batch_size=1, precision="fp32")
    line = Curious.forward.__code__.co_firstlineno + 1
    assert str(refused.value).startswith("costs cannot be counted: the forward pass fails without values, ")
    assert str(refused.value).endswith(f"({__file__}:{line}).")


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(GPTZooError) as refused:
        costs_of(precision="bf61")
    assert str(refused.value) == "precision: no precision is called 'bf61'. Did you mean bf16?"
