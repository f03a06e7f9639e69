"""MLPs, heads and optimizers against references that nobody here wrote: torch, transformers, the authors' library.

Each pair gets the same weights; outputs, gradients and steps must agree. transformers' routers compute in float32,
which bounds the agreement.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, LlamaConfig, MixtralConfig, Qwen2MoeConfig
from transformers.models.gemma.modeling_gemma import GemmaConfig, GemmaMLP
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.optimization import Adafactor as TheirAdafactor

import gptzoo
from gptzoo.loading import shipped_folder

shipped_folder()  # makes `gptzoo_plugins` importable in a bare checkout

from gptzoo_plugins.adafactor import Adafactor  # noqa: E402
from gptzoo_plugins.geglu import GEGLU  # noqa: E402
from gptzoo_plugins.lion import Lion  # noqa: E402
from gptzoo_plugins.moe import MixtureOfExperts  # noqa: E402
from gptzoo_plugins.schedule_free import ScheduleFree  # noqa: E402
from gptzoo_plugins.softcap import Softcap  # noqa: E402
from gptzoo_plugins.swiglu import SwiGLU  # noqa: E402

TWINS = {
    "mlp.gelu": "transformers: GPT-2",
    "mlp.swiglu": "transformers: Llama",
    "mlp.geglu": "transformers: Gemma",
    "mlp.moe": "transformers: Mixtral; Qwen2-MoE (not renormalised, shared expert)",
    "head.softcap": "transformers: Gemma 2",
    "head.untied": "torch.nn.Linear",
    "optimizer.adafactor": "torch.optim.Adafactor; transformers: Adafactor, with and without relative steps",
    "optimizer.lion": "arXiv:2302.06675, program 1, transcribed",
    "optimizer.schedule_free": "schedulefree: AdamWScheduleFree",
}
"""What each part is compared with, for the table of all twins."""

DIMS = gptzoo.Dims(n_layer=2, n_head=4, n_embd=32, head_dim=8, context_length=64, vocab_size=11, bias=False)
HIDDEN, EXPERTS = 24, 5


def context(length: int = 13) -> gptzoo.Context:
    pos = torch.arange(length)[None]
    doc = torch.zeros_like(pos)
    where = gptzoo.Where(pos, pos, doc, doc, plain=True, padded=False)
    return gptzoo.Context(pos, doc, where, gptzoo.Position(DIMS, 8))


def shake(module: nn.Module) -> nn.Module:
    """In float64 and eval mode, with weights none of which is what a constructor gives."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.double().eval().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return module


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], rtol: float) -> None:
    """Outputs and the gradient of the input."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 13, 32, generator=g, dtype=torch.float64, requires_grad=True)
    outputs = ours(x), theirs(x)
    torch.testing.assert_close(*outputs, rtol=rtol, atol=rtol)
    direction = torch.randn(outputs[0].shape, generator=g, dtype=torch.float64)
    grads = [torch.autograd.grad((y * direction).sum(), x)[0] for y in outputs]
    assert grads[0].any()
    torch.testing.assert_close(*grads, rtol=rtol, atol=rtol)


def copy_(target: Tensor, source: Tensor) -> None:
    with torch.no_grad():
        target.copy_(source)


# -- MLPs ------------------------------------------------------------------------------------------------------------


def test_gelu_is_gpt2s() -> None:
    theirs = shake(GPT2MLP(HIDDEN, GPT2Config(n_embd=32, resid_pdrop=0.0)))
    ours = gptzoo.Gelu(gptzoo.Dims(**{**vars(DIMS), "bias": True}), HIDDEN).double()
    for layer, conv in ((ours.up, theirs.c_fc), (ours.down, theirs.c_proj)):
        copy_(layer.weight, conv.weight.T)  # type: ignore[union-attr,arg-type]  # Conv1D stores (in, out)
        copy_(layer.bias, conv.bias)  # type: ignore[union-attr,arg-type]
    agree(lambda x: ours(x, context()), theirs, 1e-10)


@pytest.mark.parametrize(
    ("make", "theirs"),
    [
        (SwiGLU, LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=HIDDEN, hidden_act="silu"))),
        (GEGLU, GemmaMLP(GemmaConfig(hidden_size=32, intermediate_size=HIDDEN, hidden_act="gelu_pytorch_tanh"))),
    ],
    ids=["swiglu", "geglu"],
)
def test_gated_mlps_are_llamas_and_gemmas(make: type[gptzoo.GatedMLP], theirs: nn.Module) -> None:
    ours = make(DIMS, HIDDEN).double()
    weights = shake(theirs).state_dict()
    ours.load_state_dict({name.replace("_proj", ""): tensor for name, tensor in weights.items()})
    agree(lambda x: ours(x, context()), theirs, 1e-10)


def swiglu(dims: gptzoo.Dims) -> nn.Module:
    return SwiGLU(dims, HIDDEN)


def take_experts(ours: MixtureOfExperts, theirs: nn.Module) -> None:
    """Router and experts of a mixture whose experts are stored as three-dimensional tensors."""
    weights = theirs.state_dict()
    copy_(ours.router.weight, weights["gate.weight"])
    for index, expert in enumerate(ours.experts):
        assert isinstance(expert, SwiGLU)
        gate, up = weights["experts.gate_up_proj"][index].chunk(2)
        copy_(expert.gate.weight, gate)
        copy_(expert.up.weight, up)
        copy_(expert.down.weight, weights["experts.down_proj"][index])


@pytest.mark.parametrize("top_k", [2, 3])
def test_a_mixture_is_mixtrals(top_k: int) -> None:
    config = MixtralConfig(
        hidden_size=32, intermediate_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=top_k
    )
    config._experts_implementation = "eager"
    theirs = shake(MixtralSparseMoeBlock(config))
    ours = MixtureOfExperts(DIMS, EXPERTS, top_k, swiglu).double()
    take_experts(ours, theirs)
    agree(lambda x: ours(x, context()), theirs, 1e-5)


@pytest.mark.parametrize(("top_k", "renormalise"), [(1, False), (2, False), (2, True)])
def test_a_mixture_with_a_shared_expert_is_qwen2_moes(top_k: int, renormalise: bool) -> None:
    config = Qwen2MoeConfig(
        hidden_size=32,
        moe_intermediate_size=HIDDEN,
        shared_expert_intermediate_size=HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_tok=top_k,
        norm_topk_prob=renormalise,
    )
    config._experts_implementation = "eager"
    theirs = shake(Qwen2MoeSparseMoeBlock(config))
    ours = MixtureOfExperts(
        DIMS, EXPERTS, top_k, swiglu, renormalise=renormalise, shared_expert=swiglu, shared_gate=True
    ).double()
    take_experts(ours, theirs)
    weights = theirs.state_dict()
    assert ours.shared is not None
    assert ours.shared_gate is not None
    ours.shared.load_state_dict(
        {n: weights[f"shared_expert.{n.replace('.', '_proj.')}"] for n in ours.shared.state_dict()}
    )
    copy_(ours.shared_gate.weight, weights["shared_expert_gate.weight"])
    agree(lambda x: ours(x, context()), theirs, 1e-5)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_balance_loss_is_mixtrals_per_expert_of_a_token(top_k: int) -> None:
    """Theirs sums over the experts that a token is sent to, ours is their mean."""
    ours = MixtureOfExperts(DIMS, EXPERTS, top_k, renormalise=False, balance=1.0).double()
    shake(ours)
    x, ctx = torch.randn(2, 13, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), context()
    ours(x, ctx)
    logits = (ours.router(x.flatten(0, 1)),)
    theirs = load_balancing_loss_func(logits, EXPERTS, top_k)
    assert isinstance(theirs, Tensor)
    assert ctx.losses["load_balance"].item() == pytest.approx(theirs.item() / top_k, rel=1e-5)


# -- heads -----------------------------------------------------------------------------------------------------------


def test_softcap_is_gemma2s() -> None:
    config = Gemma2Config(
        vocab_size=11, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, head_dim=8,
        intermediate_size=HIDDEN, final_logit_softcapping=3.0, pad_token_id=0,
    )  # fmt: skip
    theirs = Gemma2ForCausalLM(config)
    shake(theirs)
    wte = nn.Embedding(11, 32).double()
    copy_(wte.weight, theirs.lm_head.weight)
    head = Softcap(DIMS, wte, cap=3.0)
    tokens = torch.arange(11)[None]
    with torch.no_grad():
        x = theirs.model(tokens).last_hidden_state  # type: ignore[operator]
        expected = theirs(tokens).logits
        assert (x @ wte.weight.T).abs().max() > 3
        torch.testing.assert_close(head(x), expected, rtol=1e-10, atol=1e-12)


def test_untied_is_a_linear_layer() -> None:
    from gptzoo_plugins.untied import Untied

    theirs = shake(nn.Linear(32, 11, bias=False))
    head = Untied(DIMS, nn.Embedding(11, 32)).double()
    head.load_state_dict({f"lm_head.{name}": tensor for name, tensor in theirs.state_dict().items()})
    agree(head, theirs, 1e-12)


# -- optimizers ------------------------------------------------------------------------------------------------------

SHAPES: tuple[tuple[gptzoo.Role, tuple[int, ...]], ...] = (("matrix", (8, 6)), ("norm", (6,)), ("embedding", (7, 6)))


def weights() -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=g, dtype=torch.float64)) for _, shape in SHAPES]


def named(parameters: list[nn.Parameter]) -> list[gptzoo.NamedParameter]:
    return [gptzoo.NamedParameter(str(i), SHAPES[i][0], p) for i, p in enumerate(parameters)]


def walk(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Twenty steps under a changing rate."""
    for step in range(20):
        g = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 40)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def program_1(weight: Tensor, gradient: Tensor, momentum: Tensor, lr: float, decay: float) -> tuple[Tensor, Tensor]:
    """The paper's, with interp(x, y, a) = (1 - a) x + a y."""
    update = torch.sign((1 - 0.9) * gradient + 0.9 * momentum)
    momentum = (1 - 0.99) * gradient + 0.99 * momentum
    return (update + weight * decay) * lr, momentum


def test_lion_is_the_published_program() -> None:
    ours, theirs = weights(), [each.detach() for each in weights()]
    walk(ours, Lion(named(ours), 0.02, weight_decay=0.3))
    momenta = [torch.zeros_like(each) for each in theirs]
    for step in range(20):
        g = torch.Generator().manual_seed(step)
        for i, weight in enumerate(theirs):
            gradient = torch.randn(weight.shape, generator=g, dtype=torch.float64)
            decay = 0.0 if SHAPES[i][0] == "norm" else 0.3
            update, momenta[i] = program_1(weight, gradient, momenta[i], 0.02 * (1 - step / 40), decay)
            theirs[i] = weight - update
    torch.testing.assert_close([each.detach() for each in ours], theirs, rtol=1e-10, atol=1e-12)


def test_relative_adafactor_is_torchs() -> None:
    ours, theirs = weights(), weights()
    groups = [{"params": [theirs[0], theirs[2]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}]
    one = walk(ours, Adafactor(named(ours), 0.02, relative=1e-3))
    torch.testing.assert_close(one, walk(theirs, torch.optim.Adafactor(groups)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("relative", [1e-3, None])
def test_adafactor_is_transformers(relative: float | None) -> None:
    ours, theirs = weights(), weights()
    other = TheirAdafactor(theirs, lr=0.02, relative_step=False, scale_parameter=relative is not None)
    one = walk(ours, Adafactor(named(ours), 0.02, relative=relative, weight_decay=0.0))
    torch.testing.assert_close(one, walk(theirs, other), rtol=1e-9, atol=1e-12)


def test_schedule_free_is_the_library() -> None:
    ours, theirs = weights(), weights()
    groups = [{"params": [theirs[0], theirs[2]], "weight_decay": 0.1}, {"params": [theirs[1]], "weight_decay": 0.0}]
    one, other = ScheduleFree(named(ours), 0.02), AdamWScheduleFree(groups, lr=0.02, betas=(0.9, 0.95))
    other.train()
    at_y = walk(ours, one), walk(theirs, other)
    assert all(torch.equal(a, b) for a, b in zip(*at_y, strict=True))
    trained = [a.clone() for a in at_y[0]]
    one.eval()
    other.eval()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], trained[0])
