"""Forgetting attention against loops that add up the gates between key and query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.forgetting import Forgetting, decay
from tests.plugins.attention_cases import (
    DIMS,
    PLACES,
    Everything,
    Places,
    Query,
    check_autocast,
    check_decoding,
    check_formula,
    inputs,
    normalised,
    projected,
    query_by_query,
    shaken,
    spread,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [{}, {"n_kv_head": 2}, {"qk_norm": gptzoo.LayerNorm, "scale": 0.6}]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


def by_hand(attention: Forgetting, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    pos, doc = (each.tolist() for each in spread(places))
    forget = 1 / (1 + (-(x @ attention.gate.weight.T + attention.gate.bias)).exp())  # (B, T, H)

    def read(query: Query) -> Tensor:
        b, i, decays = query.row, query.place, []
        for j in query.seen:
            between = [m for m in range(x.shape[1]) if doc[b][m] == doc[b][i] and pos[b][j] < pos[b][m] <= pos[b][i]]
            decays.append(forget[b, between].log().sum(0))
        return query.reads(normalised((query.scores + torch.stack(decays, 1) + query.bias).exp()))

    return query_by_query(attention, projected(attention, x, position, places), position, places, read)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("position", [gptzoo.Position(DIMS, 8), Everything(8)], ids=["none", "everything"])
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict, position: gptzoo.Position) -> None:
    attention = shaken(Forgetting(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, position, KERNELS)


def test_scores_are_capped_before_they_decay(context: MakeContext) -> None:
    attention = shaken(Forgetting(DIMS, softcap=1.5))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, Everything(8))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(Forgetting(DIMS, **options)), context, Everything(8), KERNELS)


def test_gates_that_forget_nothing_leave_multi_head_attention(context: MakeContext) -> None:
    attention, plain = Forgetting(DIMS).double(), gptzoo.MultiHeadAttention(DIMS).double()
    plain.load_state_dict({n: t for n, t in attention.state_dict().items() if not n.startswith("gate")})
    with torch.no_grad():
        attention.gate.bias.fill_(1000.0)
        torch.testing.assert_close(attention(inputs(), context(8)), plain(inputs(), context(8)), rtol=1e-12, atol=0)


def test_a_gate_that_shuts_hides_all_that_came_before(context: MakeContext) -> None:
    attention, x = Forgetting(DIMS).double(), inputs()
    with torch.no_grad():
        attention.gate.weight.zero_()
        attention.gate.weight[:, 0] = -1e5
        x[..., 0] = -1.0
        x[:, 5, 0] = 1.0
        whole = attention(x, context(8))
        torch.testing.assert_close(whole[:, 5:], attention(x[:, 5:], context(3)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("places", PLACES)
def test_no_gradient_crosses_documents_or_comes_from_the_future(context: MakeContext, places: str) -> None:
    attention, x = shaken(Forgetting(DIMS)), inputs()
    pos, doc = spread(PLACES[places])
    out = attention(x, context(8, **PLACES[places]))
    for i in range(8):
        (reached,) = torch.autograd.grad(out[:, i].sin().sum(), x, retain_graph=True)
        allowed = (doc == doc[:, i : i + 1]) & (doc >= 0) & (pos <= pos[:, i : i + 1])
        assert torch.equal(reached.abs().sum(-1) > 0, allowed)


def test_a_document_does_not_change_a_bit_of_another(context: MakeContext) -> None:
    attention, places = Forgetting(DIMS), PLACES["packed"]
    x = inputs(torch.float32).detach()
    changed = x.clone()
    changed[0, :3] += 100.0
    one, two = (attention(each, context(8, **places)) for each in (x, changed))
    assert torch.equal(one[0, 3:], two[0, 3:])
    assert not torch.isclose(one[0, :3], two[0, :3]).all()


def test_decay_counts_from_the_query_itself_wherever_its_key_lies() -> None:
    pos, doc = torch.tensor([[4, 0, 2, 0, 3, 1, 0]]), torch.tensor([[0, 0, 0, 1, 0, 0, -1]])
    where = gptzoo.Where(pos[:, 2:5], pos, doc[:, 2:5], doc, plain=False, padded=True)
    gate = torch.randn(1, 2, 7, dtype=torch.float64)
    lost, log = decay(gate, where), torch.sigmoid(gate).log()
    place = {4: 0, 0: 1, 2: 2, 3: 4, 1: 5}  # of each position of the first document
    for i, query in ((0, 2), (2, 3)):
        for key in range(query + 1):
            expected = log[:, :, [place[between] for between in range(key + 1, query + 1)]].sum(-1)
            torch.testing.assert_close(lost[:, :, i, place[key]], expected, rtol=1e-12, atol=1e-14)
    assert lost[0, 0, 1, 3] == 0  # the second document's only token


def test_decay_is_exact_after_a_hundred_thousand_tokens() -> None:
    pos, doc = torch.arange(8)[None], torch.zeros(1, 8, dtype=torch.int64)
    where = gptzoo.Where(pos, pos, doc, doc, plain=False, padded=False)
    gate = torch.tensor([[[-1e6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]]])  # the first one forgets as much as many would
    expected = torch.sigmoid(gate[..., 3:8].double()).log().sum()
    torch.testing.assert_close(decay(gate, where)[0, 0, 7, 2].double(), expected, rtol=1e-7, atol=0)
    assert decay(gate, where).dtype == torch.float32
    assert decay(gate.double(), where).dtype == torch.float64


def test_it_stays_exact_in_half_precision(context: MakeContext) -> None:
    check_autocast(Forgetting(DIMS), context)


def test_the_gate_has_a_bias_even_if_the_model_has_none() -> None:
    assert Forgetting(replace(DIMS, bias=False)).gate.bias is not None


def test_a_kernel_without_a_gradient_for_its_bias_is_refused_in_training_alone() -> None:
    needs = Forgetting(DIMS).needs()
    assert needs == gptzoo.Needs(ready_bias=True, bias_grad=True, head_dim=8)
    overrides = {"model.attention": "forgetting", "model.kernel": "flash"}
    assert gptzoo.build("gpt2-tiny", overrides=overrides, training=False)
    with pytest.raises(gptzoo.GPTZooError, match="'forgetting' learns a bias of its own, which kernel 'flash' on cpu"):
        gptzoo.build("gpt2-tiny", overrides=overrides)
