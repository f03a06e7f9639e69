"""The mixture of experts against a loop over tokens, and what its routing promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gptzoo
from gptzoo.building import build_model, plan
from gptzoo.costs import costs
from gptzoo.model import named_parameters
from gptzoo_plugins.moe import MixtureOfExperts, balance_loss
from gptzoo_plugins.relu import Relu
from gptzoo_plugins.swiglu import SwiGLU

MakeDims = Callable[..., gptzoo.Dims]
MakeContext = Callable[..., gptzoo.Context]

KINDS: dict[str, dict] = {
    "top-2": {},
    "top-1": {"top_k": 1, "renormalise": False},
    "top-3-of-3": {"n_expert": 3, "top_k": 3, "expert": SwiGLU},
    "not-renormalised": {"renormalise": False, "expert": Relu},
    "shared": {"shared_expert": SwiGLU},
    "shared-gated": {"shared_expert": Relu, "shared_gate": True},
}


def mixture(dims: gptzoo.Dims, **options: object) -> MixtureOfExperts:
    return MixtureOfExperts(dims, **{"n_expert": 5, **options})  # type: ignore[arg-type]


def token_by_token(moe: MixtureOfExperts, x: Tensor, ctx: gptzoo.Context) -> Tensor:
    """The definition, one token at a time."""
    rows = []
    for row in x:
        outputs = []
        for token in row:
            scores = [math.e ** (token @ expert) for expert in moe.router.weight]
            probabilities = [score / sum(scores) for score in scores]
            best = sorted(range(moe.n_expert), key=lambda e: -probabilities[e].item())[: moe.top_k]
            total = sum(probabilities[e] for e in best) if moe.renormalise else 1.0
            y = sum(probabilities[e] / total * moe.experts[e](token[None, None], ctx)[0, 0] for e in best)
            if moe.shared is not None:
                gate = 1.0 if moe.shared_gate is None else 1 / (1 + math.e ** -(token @ moe.shared_gate.weight[0]))
                y = y + gate * moe.shared(token[None, None], ctx)[0, 0]
            outputs.append(y)
        rows.append(torch.stack(outputs))  # type: ignore[arg-type]
    return torch.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_it_is_its_definition_token_by_token(dims: MakeDims, context: MakeContext, options: dict, bias: bool) -> None:
    moe, x = mixture(dims(bias=bias), **options).double(), torch.randn(2, 6, 32, dtype=torch.float64)
    direction, leaves = torch.randn_like(x), [x.requires_grad_(), *moe.parameters()]
    ours, theirs = moe(x, context(6)), token_by_token(moe, x, context(6))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    grads = [torch.autograd.grad((y * direction).sum(), leaves, materialize_grads=True) for y in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


# -- the losses ------------------------------------------------------------------------------------------------------


def losses(moe: MixtureOfExperts, x: Tensor, ctx: gptzoo.Context) -> dict[str, Tensor]:
    ctx.losses.clear()
    moe(x, ctx)
    return dict(ctx.losses)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_even_routing_costs_1(top_k: int) -> None:
    n, experts = 12, 4
    chosen = (torch.arange(n)[:, None] + torch.arange(top_k)) % experts
    even = balance_loss(torch.full((n, experts), 1 / experts), chosen, torch.ones(n))
    torch.testing.assert_close(even, torch.tensor(1.0))


def test_routing_all_to_one_expert_costs_as_much_as_there_are_experts() -> None:
    probabilities = torch.tensor([[1.0, 0, 0, 0]]).expand(9, 4)
    assert balance_loss(probabilities, torch.zeros(9, 1, dtype=torch.int64), torch.ones(9)) == 4


def test_a_router_without_preferences_costs_1(dims: MakeDims, context: MakeContext) -> None:
    moe = mixture(dims(), balance=0.5)
    nn.init.zeros_(moe.router.weight)
    torch.testing.assert_close(losses(moe, torch.randn(2, 6, 32), context(6))["load_balance"], torch.tensor(0.5))


@pytest.mark.parametrize("top_k", [1, 3])
def test_both_losses_are_their_formulas(dims: MakeDims, context: MakeContext, top_k: int) -> None:
    moe = mixture(dims(), top_k=top_k, renormalise=False, balance=0.3, z_loss=0.7).double()
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    logits = (x.flatten(0, 1) @ moe.router.weight.T).tolist()
    share, mean, z = [0.0] * 5, [0.0] * 5, 0.0
    for row in logits:
        total = sum(math.exp(each) for each in row)
        z += math.log(total) ** 2 / 14
        for expert in range(5):
            mean[expert] += math.exp(row[expert]) / total / 14
            share[expert] += (expert in sorted(range(5), key=lambda e: -row[e])[:top_k]) / top_k / 14
    found = losses(moe, x, context(7))
    expected = {"load_balance": 0.3 * 5 * sum(f * p for f, p in zip(share, mean, strict=True)), "router_z": 0.7 * z}
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-12)


def test_layers_add_up_under_one_name(dims: MakeDims, context: MakeContext) -> None:
    one, two, x, ctx = mixture(dims()), mixture(dims()), torch.randn(1, 6, 32), context(6)
    alone = losses(one, x, ctx)["load_balance"] + losses(two, x, ctx)["load_balance"]
    ctx.losses.clear()
    two(x, ctx)
    one(x, ctx)
    torch.testing.assert_close(ctx.losses["load_balance"], alone)


def test_factors_of_0_leave_the_losses_out(dims: MakeDims, context: MakeContext) -> None:
    assert losses(mixture(dims(), balance=0.0), torch.randn(1, 4, 32), context(4)) == {}


@pytest.mark.parametrize("rows", [1, 2])
def test_padding_takes_no_part_in_the_losses(dims: MakeDims, context: MakeContext, rows: int) -> None:
    moe, x = mixture(dims(), z_loss=1.0).double(), torch.randn(2, 5, 32, dtype=torch.float64)
    doc = torch.tensor([[-1, -1, 0, 0, 0], [0, 0, 0, 1, -1]][:rows])
    real = torch.cat([row[where >= 0] for row, where in zip(x, doc.expand(2, 5), strict=True)])[None]
    padded = losses(moe, x, context(5, pos=torch.arange(5).expand(rows, 5), doc=doc))
    torch.testing.assert_close(padded, losses(moe, real, context(real.shape[1])), rtol=1e-12, atol=0)


def test_a_row_of_padding_alone_gives_finite_losses(dims: MakeDims, context: MakeContext) -> None:
    ctx = context(3, doc=torch.full((1, 3), -1))
    assert losses(mixture(dims(), z_loss=1.0), torch.randn(1, 3, 32), ctx) == {"load_balance": 0, "router_z": 0}


# -- routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_neighbours_never_change_a_tokens_output(dims: MakeDims, context: MakeContext, options: dict) -> None:
    moe, x = mixture(dims(), **options).eval(), torch.randn(3, 9, 32)
    with torch.no_grad():
        y = moe(x, context(9))
        for _ in range(20):
            changed = x + torch.randn_like(x) * torch.rand(()).round()
            changed[1, :4] = x[1, :4]
            assert torch.equal(moe(changed, context(9))[1, :4], y[1, :4])


def test_the_router_learns_from_the_loss_alone(dims: MakeDims, context: MakeContext) -> None:
    for options in KINDS.values():
        moe = mixture(dims(), balance=0.0, **options)
        moe(torch.randn(2, 6, 32), context(6)).square().sum().backward()
        assert moe.router.weight.grad is not None
        assert moe.router.weight.grad.abs().sum() > 0


def test_an_idle_expert_gets_a_gradient_of_zero(dims: MakeDims, context: MakeContext) -> None:
    moe = mixture(dims(), n_expert=8)
    moe(torch.randn(1, 1, 32), context(1)).sum().backward()
    idle = [e for e in moe.experts if all(p.grad is not None and not p.grad.any() for p in e.parameters())]
    assert len(idle) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_router_is_in_float32_under_autocast(dims: MakeDims, context: MakeContext, dtype: torch.dtype) -> None:
    moe, x = mixture(dims(), shared_expert=Relu, shared_gate=True), torch.randn(2, 40, 32)
    exact = losses(moe, x, context(40))
    with torch.autocast("cpu", dtype):
        lowered = losses(moe, x, context(40))
        assert moe(x, context(40)).dtype == gptzoo.Gelu(dims())(x, context(40)).dtype == dtype
    assert torch.equal(exact["load_balance"], lowered["load_balance"])


# -- in a model ------------------------------------------------------------------------------------------------------

TINY = {"model.n_layer": 2, "model.n_head": 2, "model.n_embd": 16, "model.context_length": 32}


def test_a_recipe_names_any_mlp_as_the_expert() -> None:
    mlp = {"name": "moe", "n_expert": 3, "expert": {"name": "swiglu", "hidden": 24}, "shared_expert": "relu2"}
    model = gptzoo.build("gpt2-tiny", overrides={**TINY, "model.mlp": mlp})
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    assert kinds["layers.1.mlp"] == "MixtureOfExperts"
    assert {kinds[f"layers.1.mlp.experts.{expert}"] for expert in range(3)} == {"SwiGLU"}
    assert kinds["layers.1.mlp.shared"] == "ReluSquared"
    named = {p.name: p for p in named_parameters(model)}
    last = "layers.1.mlp.experts.2"
    assert {named[name].role for name in (f"{last}.down.weight", "layers.1.mlp.router.weight")} == {"matrix"}
    assert named[f"{last}.down.weight"].tensor.std().item() == pytest.approx(0.01, rel=0.2)
    assert named[f"{last}.up.weight"].tensor.std().item() == pytest.approx(0.02, rel=0.2)


def test_evaluation_and_training_see_its_losses() -> None:
    mlp = {"name": "moe", "n_expert": 3, "z_loss": 0.001}
    model = gptzoo.build("gpt2-tiny", overrides={**TINY, "model.mlp": mlp})
    tokens = torch.randint(0, 256, (2, 32))
    added = model.loss(tokens, tokens).added
    assert set(added) == {"load_balance", "router_z"}
    assert float(added["load_balance"].detach()) == pytest.approx(2 * 0.01, rel=0.2)


def test_costs_count_the_chosen_experts_alone() -> None:
    def forward(**mlp: object) -> float:
        made = plan("gpt2-tiny", {**TINY, "model.vocab_size": 256, "model.mlp": mlp})
        return costs(build_model(made, meta=True), micro_batch_size=2, precision="fp32").forward_flops_per_token

    expert = {"name": "gelu", "hidden": 32}
    few = forward(name="moe", n_expert=2, expert=expert)
    many = forward(name="moe", n_expert=4, expert=expert)
    assert many - few == 2 * 2 * 16 * 2  # two more rows of the router in two layers
    assert few - forward(name="gelu", hidden=64) == 2 * 2 * 16 * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_expert": 1}, "n_expert must be at least 2, not 1"),
        ({"top_k": 6}, "top_k must lie between 1 and n_expert = 5, 6 does not"),
        ({"top_k": 0}, "top_k must lie between 1 and n_expert = 5, 0 does not"),
        (
            {"top_k": 1},
            "with top_k 1 a renormalised weight is always 1, and the router learns nothing. Write renormalise: false",
        ),
        ({"balance": -1.0}, "balance and z_loss must not be negative, -1.0 is"),
        ({"shared_gate": True}, "shared_gate weighs the shared expert, and there is none. Set shared_expert"),
        ({"expert": mixture}, "an expert cannot be a mixture itself. Use a plain or a gated MLP"),
    ],
)
def test_options_that_make_no_sense_are_refused(dims: MakeDims, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        mixture(dims(), **options)
    assert str(refused.value) == said
