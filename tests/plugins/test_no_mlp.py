"""A model of attention alone: where the MLP would be, nothing is added."""

from __future__ import annotations

import pytest
import torch

import gptzoo

TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


def model(block: str, mlp: str) -> gptzoo.Model:
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8, "block": block, "mlp": mlp}
    return gptzoo.build({"model": sizes}).double()


def without_mlps(model: gptzoo.Model) -> gptzoo.Model:
    """The same model, its MLPs silenced by zero weights."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".mlp.down." in name:
                parameter.zero_()
    return model


@pytest.mark.parametrize("block", ["pre", "post", "parallel"])
def test_it_is_as_if_the_mlp_had_learned_to_say_nothing(block: str) -> None:
    ours, silenced = model(block, "none"), without_mlps(model(block, "gelu"))
    logits, expected = ours(TOKENS), silenced(TOKENS)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    logits.square().sum().backward()
    expected.square().sum().backward()
    theirs = dict(silenced.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-10, atol=1e-12)


def test_there_are_no_weights_in_it() -> None:
    assert not [name for name, _ in model("pre", "none").named_parameters() if "mlp" in name]
