"""Each position, norm and block in a whole model: it decodes as it reads, keeps documents apart, learns, is counted."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo.showing import costs_of, plan, with_size

TINY = {
    "name": "tiny",
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 24, "vocab_size": 300},
    "data": {"name": "python_source", "tokenizer": "byte"},
}
PARTS: dict[str, dict[str, object]] = {
    "rope_linear": {"model.position": {"name": "rope_linear", "factor": 2.0}},
    "rope_ntk": {"model.position": {"name": "rope_ntk", "factor": 2.0}},
    "rope_yarn": {"model.position": {"name": "rope_yarn", "factor": 2.0}},
    "rope_llama3": {"model.position": {"name": "rope_llama3", "original_length": 12, "theta": 100.0}},
    "xpos": {"model.position": {"name": "xpos", "scale_base": 16.0}},
    "t5": {"model.position": {"name": "t5", "buckets": 8, "max_distance": 16}},
    "kerple-log": {"model.position": "kerple"},
    "kerple-power": {"model.position": {"name": "kerple", "kind": "power"}},
    "fire": {"model.position": {"name": "fire", "hidden": 4, "threshold": 6.0}},
    "fire-of-each-layer": {"model.position": {"name": "fire", "hidden": 4, "threshold": 6.0, "shared": False}},
    "learned_relative": {"model.position": {"name": "learned_relative", "max_distance": 5}},
    "every-other-layer-none": {"model.layers": [{"position": "rope"}, {"position": "none"}]},
    "local-and-global-theta": {"model.layers": [{"position": "rope"}, {"position": {"name": "rope", "theta": 1e6}}]},
    "scalenorm": {"model.norm": "scalenorm"},
    "l2norm": {"model.attention": {"name": "multi_head", "qk_norm": "l2norm", "scale": 4.0}},
    "dyt": {"model.norm": "dyt"},
    "no-norm": {"model.norm": "none"},
    "sandwich": {"model.block": "sandwich"},
    "deepnorm": {"model.block": "deepnorm", "model.init": "deepnorm"},
    "layerscale": {"model.block": "layerscale"},
    "rezero": {"model.block": "rezero", "model.norm": "none"},
    "hyper_connections": {"model.block": "hyper_connections"},
    "hyper_connections-static": {"model.block": {"name": "hyper_connections", "streams": 2, "dynamic": False}},
}


@functools.cache
def stirred(part: str) -> gptzoo.Model:
    """In float64, with every weight moved from where it starts, so that nothing is hidden by a zero."""
    model = gptzoo.build(TINY, overrides=PARTS[part]).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return model


def tokens(rows: int = 2, length: int = 12) -> Tensor:
    return torch.randint(0, 257, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("part", PARTS)
def test_it_decodes_as_it_reads_and_keeps_documents_apart(part: str) -> None:
    model, x = stirred(part), tokens()
    whole = model(x)
    for chunks in ((1,) * 12, (5, 1, 6), (11, 1)):
        cache = model.new_cache(2, 12)
        decoded = torch.cat([model(piece, cache=cache) for piece in x.split(chunks, 1)], 1)
        torch.testing.assert_close(decoded, whole, rtol=1e-9, atol=1e-11)
    # The first row again, behind padding and behind another document.
    behind = torch.cat((x[1:, :3], x[:1, :7]), 1)
    pos = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 5, 6]])
    for first in (-1, 5):
        doc = torch.tensor([[first] * 3 + [6] * 7])
        torch.testing.assert_close(model(behind, pos, doc)[:, 3:], whole[:1, :7], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("part", PARTS)
def test_the_future_changes_no_bit_and_the_past_does(part: str) -> None:
    model, x = stirred(part), tokens()
    changed, earlier = x.clone(), x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 257
    earlier[:, 0] = (earlier[:, 0] + 1) % 257
    assert torch.equal(model(x)[:, :7], model(changed)[:, :7])
    assert not torch.isclose(model(x)[:, 7:], model(earlier)[:, 7:]).all(-1).any()


@pytest.mark.parametrize("part", PARTS)
def test_it_learns_and_every_weight_of_it_does(part: str) -> None:
    model, x = gptzoo.build(TINY, overrides=PARTS[part]), tokens(4, 24)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(x[:, :-1], x[:, 1:])
        loss.total.backward()
        losses.append(loss.total.item() / 92)
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.05
    stuck = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert stuck == []


@pytest.mark.parametrize("part", PARTS)
def test_its_state_says_everything(part: str) -> None:
    model, x = stirred(part), tokens()
    other = gptzoo.build(TINY, overrides={**PARTS[part], "seed": 1}).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert [name for name, _ in model.named_buffers()] == []


@pytest.mark.parametrize("part", ["fire-of-each-layer", "dyt", "hyper_connections"])
def test_its_costs_are_counted_without_values(part: str) -> None:
    counted = costs_of(with_size(plan(TINY, PARTS[part])))
    assert counted.parameters == sum(
        weight.numel() for weight in gptzoo.build(TINY, overrides=PARTS[part]).parameters()
    )
    assert sum(counted.by_slot.values()) == counted.parameters
