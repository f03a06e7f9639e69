"""muP as a whole: at the base width it is the standard parametrisation, and its parts cannot be torn apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import gptzoo
from gptzoo.building import build_model, build_optimizer, build_tokenizer, plan, with_vocab_size
from gptzoo.parts.optimizers import AdamW
from gptzoo_plugins.mup import AdamWMup, MupHead

MakeDims = Callable[..., gptzoo.Dims]

SMALL = {"model.n_layer": 2, "model.context_length": 16, "train.learning_rate": 0.01}
STANDARD = {"model.attention": "multi_head", "model.init": "gpt2", "model.head": "tied", "train.optimizer": "adamw"}


def trained(overrides: dict[str, object], steps: int = 3) -> gptzoo.Model:
    made = plan("mup-tiny", {**SMALL, **overrides})
    made = with_vocab_size(made, build_tokenizer(made))
    model = build_model(made)
    optimizer, tokens = build_optimizer(made, model), torch.arange(32).reshape(2, 16)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(tokens, tokens + 1).total.backward()
        optimizer.step()
    return model


def test_at_the_base_width_it_is_gpt2_with_adamw() -> None:
    """But for the scale of scores, which must be told to be the standard's."""
    width: dict[str, object] = {"model.n_embd": 64, "model.n_head": 4}
    ours = trained(width).state_dict()
    theirs = trained({**width, **STANDARD, "model.attention": {"name": "multi_head", "scale": 1 / 16}}).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_at_another_width_it_is_not() -> None:
    width: dict[str, object] = {"model.n_embd": 128, "model.n_head": 4}
    ours = trained(width, 0).state_dict()
    theirs = trained({**width, **STANDARD}, 0).state_dict()
    same = {name for name, tensor in ours.items() if torch.equal(tensor, theirs[name])}
    assert same == {name for name in ours if "layers" not in name or "norm" in name or "bias" in name}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("width", "factor"), [(32, 1.0), (64, 0.5), (16, 2.0)])
def test_the_head_scales_logits_with_the_width(dims: MakeDims, tied: bool, width: int, factor: float) -> None:
    head = MupHead(dims(n_embd=width), nn.Embedding(11, width).double(), 32, tied).double()
    x = torch.randn(2, 3, width, dtype=torch.float64)
    torch.testing.assert_close(head(x), factor * torch.einsum("btc,vc->btv", x, head.weight), rtol=1e-12, atol=1e-12)


ROLES: dict[str, tuple[gptzoo.Role, tuple[int, ...]]] = {
    "wte.weight": ("embedding", (7, 64)),
    "layers.0.mlp.up.weight": ("matrix", (80, 64)),
    "layers.0.mlp.up.bias": ("bias", (80,)),
    "norm_f.weight": ("norm", (64,)),
    "head.lm_head.weight": ("head", (7, 64)),
}


def parameters() -> dict[str, gptzoo.NamedParameter]:
    g = torch.Generator().manual_seed(0)
    return {
        name: gptzoo.NamedParameter(name, role, nn.Parameter(torch.randn(shape, generator=g)))
        for name, (role, shape) in ROLES.items()
    }


@pytest.mark.parametrize(("base_width", "ratio"), [(16, 0.25), (64, 1.0), (128, 2.0)])
def test_matrices_learn_at_a_rate_of_their_own_and_all_else_as_with_adamw(base_width: int, ratio: float) -> None:
    ours, theirs, alone = parameters(), parameters(), parameters()
    mup, plain = AdamWMup(ours.values(), 0.01, base_width), AdamW(theirs.values(), 0.01)
    hidden = AdamW([alone["layers.0.mlp.up.weight"]], 0.01 * ratio, weight_decay=0.1 / ratio)
    for step in range(5):
        for named in (ours, theirs, alone):
            g = torch.Generator().manual_seed(step)
            for each in named.values():
                each.tensor.grad = torch.randn(each.tensor.shape, generator=g)
        for optimizer in (mup, plain, hidden):
            optimizer.step()
    for name, each in ours.items():
        expected = (alone if "up.weight" in name else theirs)[name]
        assert torch.equal(each.tensor, expected.tensor), name
    assert mup.param_groups[0]["lr"] == 0.01  # what a log shows is the recipe's


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            {"model.head": "tied"},
            [
                "model.head: init 'mup' goes with model.head mup, not tied.",
                "model.head: optimizer 'adamw_mup' goes with model.head mup, not tied.",
            ],
        ),
        (
            {"model.attention.scale": None},
            [
                f"model.attention.scale: {part} goes with model.attention.scale 1/head_dim, not null."
                for part in ("head 'mup'", "init 'mup'", "optimizer 'adamw_mup'")
            ],
        ),
        (
            {"train.optimizer.base_width": 128},
            [
                f"train.optimizer: {part} has base_width 64 and optimizer 'adamw_mup' 128: they go together. "
                "Give both the same."
                for part in ("head 'mup'", "init 'mup'")
            ],
        ),
        (
            {"model.attention": "mla"},
            [
                f"model.attention.scale: {part} goes with model.attention.scale 1/head_dim, attention 'mla' has no "
                "such option."
                for part in ("head 'mup'", "init 'mup'", "optimizer 'adamw_mup'")
            ],
        ),
    ],
    ids=["head", "scale", "widths", "attention"],
)
def test_half_of_mup_is_refused(overrides: dict[str, object], said: list[str]) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        plan("mup-tiny", overrides)
    lines = str(refused.value).splitlines()
    assert [line[line.index(said[0].split(":")[0]) :] for line in lines] == said


def test_a_part_of_mup_alone_is_refused() -> None:
    for part in ({"model.init": "mup"}, {"model.head": "mup"}, {"train.optimizer": "adamw_mup"}):
        with pytest.raises(gptzoo.GPTZooError, match="goes with"):
            plan("gpt2-tiny", part)


def test_every_layers_attention_must_have_the_scale() -> None:
    plain, scaled = {"attention": "multi_head"}, {"attention": {"name": "multi_head", "scale": "1/head_dim"}}
    recipe = {"base": "mup-tiny", "model": {"layers": [scaled, scaled]}}
    plan({**recipe, "name": "all"})
    with pytest.raises(gptzoo.GPTZooError, match=r"goes with model.attention.scale 1/head_dim, not null"):
        plan({**recipe, "name": "one", "model": {"layers": [scaled, plain]}})
