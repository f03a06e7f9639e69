"""The skeleton: init by name, tied weights, positions, the cache, the losses."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

import gptzoo
from gptzoo.model import Model, named_parameters
from gptzoo.registry import SLOTS

TINY = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 24, "vocab_size": 300},
    "name": "tiny",
}


def tiny(**overrides: object) -> Model:
    return gptzoo.build(TINY, overrides=overrides)


def tokens(rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(0, 257, (rows, length), generator=torch.Generator().manual_seed(0))


def test_the_loss_at_the_start_is_that_of_guessing() -> None:
    model, x = tiny(**{"model.n_embd": 64}), tokens(8, 24)
    loss = model.loss(x[:, :-1], x[:, 1:])
    assert loss.total.item() / int(loss.tokens) == pytest.approx(math.log(300), rel=0.03)


def test_targets_of_minus_100_count_neither_above_nor_below_the_line() -> None:
    model, x = tiny().double(), tokens()
    targets = x.clone()
    targets[:, ::2] = -100
    loss = model.loss(x, targets)
    logits = model(x).log_softmax(-1)
    expected = -torch.stack([logits[b, t, x[b, t]] for b in range(2) for t in range(1, 12, 2)]).sum()
    assert int(loss.tokens) == 12
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=0)


def test_future_tokens_do_not_change_the_past() -> None:
    model, x = tiny().eval(), tokens()
    changed = x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 257
    assert torch.equal(model(x)[:, :7], model(changed)[:, :7])
    assert not torch.equal(model(x)[:, 7:], model(changed)[:, 7:])


def test_equal_seeds_give_equal_weights_and_unequal_seeds_do_not() -> None:
    assert all(torch.equal(a, b) for a, b in zip(tiny().parameters(), tiny().parameters(), strict=True))
    assert not torch.equal(tiny().wte.weight, tiny(seed=1).wte.weight)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    tiny()
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.position": "rope"},
        {"model.norm": "rmsnorm"},
        {"model.mlp": "swiglu"},
        {"model.attention": {"name": "grouped_query", "n_kv_head": 1}},
        {"model.n_layer": 3},
        {"model.block": "parallel"},
    ],
)
def test_what_two_compositions_share_starts_from_the_same_bits(overrides: dict[str, object]) -> None:
    base, other = dict(tiny().named_parameters()), dict(tiny(**overrides).named_parameters())
    shared = [name for name in base if name in other and base[name].shape == other[name].shape]
    assert "layers.0.attention.q.weight" in shared
    scaled = ("o.weight", "down.weight") if "model.n_layer" in overrides else ()
    assert [n for n in shared if not n.endswith(scaled or "\0") and not torch.equal(base[n], other[n])] == []


def test_gpt2s_init_has_the_published_deviations() -> None:
    model = tiny(**{"model.n_embd": 256, "model.n_layer": 3})
    for parameter in named_parameters(model):
        path, tensor = parameter.name, parameter.tensor
        if parameter.role in ("matrix", "embedding"):
            std = 0.02 / math.sqrt(6) if path.split(".")[-2] in ("o", "down") else 0.02
            room = 5 * std / math.sqrt(2 * tensor.numel())
            assert tensor.std().item() == pytest.approx(std, abs=room), path
            assert abs(tensor.mean().item()) < 5 * std / math.sqrt(tensor.numel()), path
        elif path.endswith("bias"):
            assert torch.equal(tensor, torch.zeros_like(tensor)), path


def test_a_tied_head_is_one_tensor_after_copying_casting_and_loading() -> None:
    model = tiny()
    for each in (copy.deepcopy(model), tiny().double(), tiny().to("cpu")):
        before = each(tokens())
        with torch.no_grad():
            each.wte.weight.mul_(2)
        assert not torch.equal(each(tokens()), before)
        assert [name for name in each.state_dict() if name.startswith("head")] == []


def test_every_parameter_has_one_role() -> None:
    model = tiny(**{"model.norm": "rmsnorm"})
    found = named_parameters(model)
    assert sorted(p.name for p in found) == sorted(dict(model.named_parameters()))
    roles = {p.name: p.role for p in found}
    assert roles["wte.weight"] == roles["positions.0.wpe.weight"] == "embedding"
    assert roles["layers.1.attention.o.weight"] == roles["layers.0.mlp.up.weight"] == "matrix"
    assert roles["layers.0.attention.o.bias"] == "bias"
    assert roles["layers.0.norm_1.weight"] == roles["norm_f.weight"] == "norm"


COMPOSITIONS: list[dict[str, object]] = [
    {},
    {"model.position": "rope"},
    {"model.position": "alibi", "model.norm": "rmsnorm"},
    {"model.position": "none", "model.attention": {"name": "sliding_window", "window": 3}},
    {"model.position": "sinusoidal", "model.block": "post"},
    {"model.kernel": "naive", "model.attention": {"name": "grouped_query", "n_kv_head": 1}, "model.block": "parallel"},
    {"model.kernel": "flash", "model.position": {"name": "rope", "pairing": "interleaved", "fraction": 0.5}},
    {
        "model.layers": [
            {"attention": {"name": "sliding_window", "window": 2}, "position": "rope"},
            {"position": "none"},
        ]
    },
]


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=str)
def test_cached_logits_are_full_logits_for_every_split(overrides: dict[str, object]) -> None:
    model, x = tiny(**overrides).double().eval(), tokens(2, 9)
    full = model(x)
    for split in range(10):
        cache = model.new_cache(2, 9)
        pieces = [model(part, cache=cache) for part in (x[:, :split], *x[:, split:].split(1, dim=1)) if part.shape[1]]
        torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=1e-9, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from(range(len(COMPOSITIONS))))
def test_cached_logits_are_full_logits_for_any_chunks(chunks: list[int], index: int) -> None:
    model, x = tiny(**COMPOSITIONS[index]).double().eval(), tokens(2, sum(chunks))
    cache = model.new_cache(2, sum(chunks))
    pieces = [model(part, cache=cache) for part in x.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=str)
def test_packed_documents_are_computed_as_if_alone(overrides: dict[str, object]) -> None:
    model, a, b = tiny(**overrides).double().eval(), tokens(1, 5), tokens(1, 4) + 1
    pos = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]])
    doc = torch.tensor([[0] * 5 + [1] * 4])
    packed = model(torch.cat([a, b], dim=1), pos, doc)
    torch.testing.assert_close(packed, torch.cat([model(a), model(b)], dim=1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("overrides", COMPOSITIONS, ids=str)
def test_left_padding_changes_nothing(overrides: dict[str, object]) -> None:
    model, x = tiny(**overrides).double().eval(), tokens(1, 5)
    pos = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4]])
    doc = torch.tensor([[-1] * 3 + [0] * 5])
    padded = model(torch.cat([tokens(1, 3), x], dim=1), pos, doc)
    torch.testing.assert_close(padded[:, 3:], model(x), rtol=1e-9, atol=1e-11)


def test_learned_positions_end_at_the_context_length_and_say_so() -> None:
    with pytest.raises(gptzoo.GPTZooError) as refusal:
        tiny()(tokens(1, 25))
    assert str(refusal.value) == "25 tokens do not fit: position Learned ends at 24 (context_length)."


def test_equal_positions_are_one_module_unless_each_layer_shall_have_its_own() -> None:
    assert len(tiny(**{"model.position": "rope"}).positions) == 1
    own = tiny(**{"model.position": {"name": "rope", "shared": False}})
    assert (len(own.positions), own.layer_positions) == (2, [0, 1])
    assert torch.equal(own(tokens()), tiny(**{"model.position": "rope"})(tokens()))
    mixed = tiny(**{"model.layers": [{"position": "rope"}, {"position": "none"}]})
    assert (len(mixed.positions), mixed.embedding_position) == (2, None)


def test_compiled_is_eager() -> None:
    for overrides in COMPOSITIONS[:3]:
        model, x = tiny(**overrides).eval(), tokens()
        compiled = torch.compile(model.loss, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, x).total, model.loss(x, x).total)


def test_a_component_can_be_registered_in_every_slot() -> None:
    assert {name for name in dir(gptzoo.Registrar) if not name.startswith("_")} == {*SLOTS, "commit"}
