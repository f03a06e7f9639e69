"""Heads against their formulas; the loss in pieces against the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import gptzoo
from gptzoo.building import build_model, plan
from gptzoo.costs import costs
from gptzoo.model import named_parameters
from gptzoo_plugins.padded import Padded
from gptzoo_plugins.softcap import Softcap
from gptzoo_plugins.untied import Untied

MakeDims = Callable[..., gptzoo.Dims]

HEADS: dict[str, tuple[type[gptzoo.Head], Mapping[str, object]]] = {
    "tied": (gptzoo.Tied, {}),
    "untied": (Untied, {}),
    "softcap": (Softcap, {"cap": 0.7}),
    "softcap-untied": (Softcap, {"cap": 0.7, "tied": False}),
    "padded": (Padded, {"multiple": 8}),
    "padded-untied": (Padded, {"multiple": 8, "tied": False}),
}
every_head = pytest.mark.parametrize("name", HEADS)


def make(name: str, dims: gptzoo.Dims, **more: object) -> gptzoo.Head:
    kind, options = HEADS[name]
    wte = nn.Embedding(dims.vocab_size, dims.n_embd).double()
    return kind(dims, wte, **{**options, **more}).double()  # type: ignore[arg-type]


def formula(name: str, x: Tensor, weight: Tensor) -> Tensor:
    logits = torch.einsum("btc,vc->btv", x, weight)
    if not name.startswith("softcap"):
        return logits
    up, down = torch.exp(logits / 0.7), torch.exp(-logits / 0.7)
    return 0.7 * (up - down) / (up + down)


def inputs() -> tuple[Tensor, Tensor]:
    x = torch.randn(3, 7, 32, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (3, 7))
    targets[0, :3] = targets[2, 6] = -100
    return x, targets


@every_head
def test_scores_and_gradients_are_the_formulas(dims: MakeDims, name: str) -> None:
    head, (x, _) = make(name, dims()), inputs()
    ours, theirs = head(x), formula(name, x, head.weight)
    assert ours.shape == (3, 7, 11)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(ours)
    grads = [torch.autograd.grad((y * direction).sum(), [x, head.weight]) for y in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


@every_head
def test_the_loss_is_the_sum_over_tokens_that_have_one(dims: MakeDims, name: str) -> None:
    head, (x, targets) = make(name, dims()), inputs()
    total = sum(
        -formula(name, x, head.weight)[row, t].log_softmax(-1)[targets[row, t]]
        for row in range(3)
        for t in range(7)
        if targets[row, t] >= 0
    )
    torch.testing.assert_close(head.loss(x, targets), total, rtol=1e-10, atol=0)


@every_head
@pytest.mark.parametrize("chunk", [1, 4, 21, 100])
def test_the_loss_in_pieces_is_the_loss(dims: MakeDims, name: str, chunk: int) -> None:
    whole, (x, targets) = make(name, dims()), inputs()
    pieces = make(name, dims(), chunk=chunk)
    pieces.load_state_dict(whole.state_dict())
    pieces._wte = whole._wte
    ours, theirs = pieces.loss(x, targets), whole.loss(x, targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(y, [x, h.weight]) for y, h in ((ours, pieces), (theirs, whole))]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(pieces.loss(x, targets), theirs.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_in_pieces_is_float32_in_half_precision(dims: MakeDims, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wte, (x, targets) = nn.Embedding(11, 32), inputs()
    heads = gptzoo.Tied(dims(), wte), gptzoo.Tied(dims(), wte, chunk=5)
    with torch.autocast("cpu", dtype):
        whole, pieces = (head.loss(x.float(), targets) for head in heads)
    assert whole.dtype == pieces.dtype == torch.float32
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(pieces, x), torch.autograd.grad(whole, x), rtol=1e-3, atol=1e-3)


def test_in_pieces_no_more_than_a_piece_of_the_scores_is_kept(dims: MakeDims) -> None:
    def largest(chunk: int | None) -> int:
        kept: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        head = gptzoo.Tied(dims(vocab_size=1000), nn.Embedding(1000, 32), chunk)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            head.loss(torch.randn(2, 64, 32, requires_grad=True), torch.randint(0, 1000, (2, 64)))
        return max(kept)

    assert largest(None) == 128 * 1000
    assert largest(16) == 16 * 32  # a piece of the input, and no scores


def test_costs_know_of_the_memory_saved() -> None:
    def activations(head: object) -> int:
        small = {"model.n_layer": 1, "model.n_embd": 32, "model.n_head": 1, "model.vocab_size": 20000}
        made = plan("gpt2-tiny", {**small, "model.head": head})
        return costs(build_model(made, meta=True), micro_batch_size=1, precision="fp32").activation_bytes

    scores = 128 * 20000 * 4
    assert activations("tied") - activations({"name": "tied", "chunk": 16}) == pytest.approx(scores, rel=0.01)


# -- weights ---------------------------------------------------------------------------------------------------------

TINY = {"model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.context_length": 8}


def build(head: object) -> gptzoo.Model:
    return gptzoo.build("gpt2-tiny", overrides={**TINY, "model.head": head})


@every_head
def test_a_tied_head_adds_no_weights_and_an_untied_one_a_matrix(name: str) -> None:
    kind, options = HEADS[name]
    model = build({"name": name.split("-")[0], **options})
    roles = {p.name: p.role for p in named_parameters(model) if p.role in ("embedding", "head")}
    expected = {"wte.weight": "embedding", "positions.0.wpe.weight": "embedding"}
    assert roles == expected | ({"head.lm_head.weight": "head"} if "untied" in name else {})
    assert isinstance(model.head, kind)


@pytest.mark.parametrize("head", ["tied", {"name": "softcap"}, {"name": "padded"}], ids=str)
def test_the_embedding_learns_through_a_tied_head(head: object) -> None:
    model = build(head)
    model(torch.zeros(1, 1, dtype=torch.int64)).square().sum().backward()
    assert model.wte.weight.grad is not None
    assert (model.wte.weight.grad != 0).any(-1).all()


def test_padding_changes_neither_weights_nor_probabilities() -> None:
    padded, plain = build({"name": "padded", "multiple": 64}), build("tied")
    tokens = torch.arange(8)[None]
    assert padded.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(padded.head, Padded)
    assert padded.head.rows == 320
    assert padded(tokens).shape == plain(tokens).shape == (1, 8, 257)
    torch.testing.assert_close(padded(tokens), plain(tokens), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(padded(tokens).softmax(-1).sum(-1), torch.ones(1, 8))


def test_a_vocabulary_that_fits_is_not_padded(dims: MakeDims) -> None:
    assert Padded(dims(vocab_size=128), nn.Embedding(128, 32), 64).rows == 128


@pytest.mark.parametrize(("multiple", "rows"), [(1, 50257), (64, 50304), (128, 50304)])
def test_the_product_has_the_next_multiple_of_rows(dims: MakeDims, multiple: int, rows: int) -> None:
    head = Padded(dims(vocab_size=50257, n_embd=1), nn.Embedding(50257, 1), multiple)
    assert head.rows == rows
    assert F.linear(torch.ones(1, 1), head.weight).shape == head(torch.ones(1, 1)).shape


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"name": "tied", "chunk": 0}, "head 'tied': chunk must be at least 1, not 0."),
        ({"name": "softcap", "cap": 0.0}, "head 'softcap': cap must be above 0, not 0.0."),
        ({"name": "padded", "multiple": 0}, "head 'padded': multiple must be at least 1, not 0."),
    ],
)
def test_options_that_make_no_sense_are_refused(head: object, said: str) -> None:
    with pytest.raises(gptzoo.GPTZooError) as refused:
        build(head)
    assert refused.value.what == said
