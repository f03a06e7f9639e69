"""Evaluation against a slow reference: one row at a time, log-softmax by hand, float64."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from gptzoo.contracts import Batch, Context, Data, Dims, Tokenizer
from gptzoo.errors import GPTZooError, NotFinite, Problems
from gptzoo.evaluation import Scores, evaluate
from gptzoo.model import Model, initialise
from gptzoo.parts.attention import MultiHeadAttention
from gptzoo.parts.blocks import Pre
from gptzoo.parts.heads import Tied
from gptzoo.parts.inits import Gpt2Init
from gptzoo.parts.kernels import Naive
from gptzoo.parts.mlps import Gelu
from gptzoo.parts.norms import LayerNorm
from gptzoo.parts.positions import Learned
from gptzoo.precision import autocast

VOCAB, LENGTH, ROWS = 11, 6, 7


class Balanced(Gelu):
    """An MLP that adds a loss: the mean of its inputs' squares."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        ctx.losses[f"balance.{ctx.layer}"] = x.square().mean()
        return super().forward(x, ctx)


def gpt(mlp: type[Gelu] = Gelu, context_length: int = LENGTH, vocab_size: int = VOCAB) -> Model:
    dims = Dims(2, n_head=2, n_embd=8, head_dim=4, context_length=context_length, vocab_size=vocab_size, dropout=0.5)
    model = Model(
        dims,
        layers=[Pre(dims, MultiHeadAttention(dims.at(i)), mlp(dims.at(i)), LayerNorm) for i in range(2)],
        positions=[Learned(dims, dims.head_dim)],
        layer_positions=[0, 0],
        embedding_position=0,
        kernels=[Naive(), Naive()],
        norm_f=LayerNorm(dims.n_embd),
        head=Tied,
    )
    initialise(model, Gpt2Init(std=0.4), seed=0)
    return model.double()


class Letters(Tokenizer):
    """Token t is t bytes long."""

    vocab_size = VOCAB

    def byte_lengths(self) -> np.ndarray:
        return np.arange(self.vocab_size, dtype=np.int64)


class Unmeasured(Tokenizer):
    """Does not say how long its tokens are."""

    vocab_size = VOCAB


class Rows(Data):
    """Fixed rows: `val` plain or of two documents, some targets without a loss; `train` others."""

    context_length = LENGTH

    def __init__(self, tokenizer: Tokenizer | None = None, documents: bool = False, rows: int = ROWS) -> None:
        self.tokenizer = tokenizer or Letters()
        generator = torch.Generator().manual_seed(0)
        self.splits = {split: self._rows(generator, documents, rows) for split in ("val", "train")}

    def _rows(self, generator: torch.Generator, documents: bool, rows: int) -> Batch:
        tokens, targets = torch.randint(VOCAB, (2, rows, LENGTH), generator=generator)
        targets[:, ::3] = -100 if documents else targets[:, ::3]
        pos = torch.arange(LENGTH).repeat(rows, 1)
        doc = torch.zeros_like(pos)
        if documents:
            pos[1::2, 2:], doc[1::2, 2:] = torch.arange(LENGTH - 2), 1
        return Batch(tokens, targets, pos, doc)

    def sequences(self, split: str) -> int:
        return len(self.splits[split].tokens)

    def batch(self, split: str, seed: int, step: int, size: int) -> Batch:
        assert seed == 0, "evaluation has no seed"
        return self.splits[split].rows(step * size, (step + 1) * size)


def reference(model: Model, batch: Batch) -> tuple[float, int, list[int]]:
    """Sum of the token losses, number of targets, the targets."""
    model.eval()
    total, targets = 0.0, []
    for row in range(len(batch.tokens)):
        one = batch.rows(row, row + 1)
        log_p = model(one.tokens, one.pos, one.doc)[0].log_softmax(-1)
        for place, target in enumerate(one.targets[0].tolist()):
            if target != -100:
                total -= log_p[place, target].item()
                targets.append(target)
    return total, len(targets), targets


@pytest.mark.parametrize("split", ["val", "train"])
@pytest.mark.parametrize("documents", [False, True])
def test_the_scores_are_those_of_the_formulas(documents: bool, split: str) -> None:
    model, data = gpt(), Rows(documents=documents)
    total, tokens, targets = reference(model, data.splits[split])
    scores = evaluate(model, data, split=split)
    assert scores.loss == pytest.approx(total / tokens, rel=1e-12)
    assert scores.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-12)
    assert scores.bits_per_byte == pytest.approx(total / math.log(2) / sum(targets), rel=1e-12)
    assert (scores.tokens, scores.sequences, scores.added) == (tokens, ROWS, {})


@given(batch_size=st.integers(1, 2 * ROWS), documents=st.booleans(), sequences=st.none() | st.integers(1, ROWS))
@settings(deadline=None, max_examples=25)
def test_the_batch_size_changes_nothing(batch_size: int, documents: bool, sequences: int | None) -> None:
    model, data = gpt(Balanced), Rows(documents=documents)
    one = evaluate(model, data, batch_size=1, sequences=sequences)
    many = evaluate(model, data, batch_size=batch_size, sequences=sequences)
    assert (many.tokens, many.sequences) == (one.tokens, one.sequences)
    assert many.loss == pytest.approx(one.loss, rel=1e-12)
    assert many.bits_per_byte == pytest.approx(one.bits_per_byte, rel=1e-12)
    assert many.added == pytest.approx(one.added, rel=1e-12)


def test_a_subset_is_the_first_rows_and_no_more_than_there_are() -> None:
    model, data = gpt(), Rows()
    total, tokens, _ = reference(model, data.splits["val"].rows(0, 5))
    some = evaluate(model, data, sequences=5, batch_size=3)
    assert (some.sequences, some.loss) == (5, pytest.approx(total / tokens, rel=1e-12))
    assert evaluate(model, data, sequences=100) == evaluate(model, data)


def test_what_parts_add_is_reported_apart_from_the_loss() -> None:
    plain, added = evaluate(gpt(), Rows()), evaluate(gpt(Balanced), Rows())
    assert added.loss == plain.loss
    assert added.added == pytest.approx({"balance.0": 1.0, "balance.1": 1.0}, rel=1e-3)  # what a LayerNorm puts out


def test_a_tokenizer_without_byte_lengths_has_no_bits_per_byte() -> None:
    assert evaluate(gpt(), Rows(Unmeasured())).bits_per_byte is None


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    model = gpt()
    with torch.no_grad():
        model.wte.weight.mul_(1e5)
    scores = evaluate(model, Rows())
    assert math.isfinite(scores.loss)
    assert scores.perplexity == math.inf


def test_the_model_and_torchs_generator_are_left_as_they_were() -> None:
    model = gpt().train()
    model.layers[0].eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    first = evaluate(model, Rows())
    assert evaluate(model, Rows()) == first  # dropout is off
    assert [module.training for module in model.modules()] == modes
    assert torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in model.parameters())
    batch = Rows().batch("val", 0, 0, 2)
    model.loss(batch.tokens, batch.targets).total.backward()


def test_half_precision_is_near_and_not_equal() -> None:
    model = gpt().float()
    whole, half = evaluate(model, Rows()), evaluate(model, Rows(), precision="bf16")
    assert half.loss != whole.loss
    assert half.loss == pytest.approx(whole.loss, rel=0.02)


def test_fp32_lowers_nothing_and_half_precision_never_lowers_float64() -> None:
    x = torch.ones(2, 2)
    with autocast("cpu", "fp32"):
        assert (x @ x).dtype == torch.float32
    with autocast("cpu", "fp16"):
        assert (x @ x).dtype == torch.float16
        assert (x.double() @ x.double()).dtype == torch.float64


def test_a_stop_gives_the_scores_of_what_was_seen() -> None:
    model, data, asked = gpt(), Rows(), iter([False, False, True])
    stopped = evaluate(model, data, batch_size=2, should_stop=lambda: next(asked))
    assert stopped == evaluate(model, data, batch_size=2, sequences=4)


def test_a_stop_before_the_first_row_gives_no_loss() -> None:
    scores = evaluate(gpt(), Rows(), should_stop=lambda: True)
    assert math.isnan(scores.loss)
    assert math.isnan(scores.perplexity)
    assert scores == Scores(scores.loss, scores.perplexity, None, 0, 0, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "vla"}, "--split: no split is called 'vla'. Did you mean val?"),
        ({"split": "test"}, "--split: no split is called 'test'. Use val or train."),
        ({"sequences": 0}, "--sequences: 0 is below 1. Leave it out to take all of the split."),
        ({"batch_size": 0}, "--batch-size: 0 is below 1."),
        ({"precision": "fp8"}, "precision: no precision is called 'fp8'. Known: fp32, bf16, fp16."),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GPTZooError) as refusal:
        evaluate(gpt(), Rows(), **options)
    assert str(refusal.value) == message


def test_all_options_that_are_out_of_range_are_named_at_once() -> None:
    with pytest.raises(Problems) as refusal:
        evaluate(gpt(), Rows(), split="", sequences=-1, batch_size=-1)
    assert refusal.value.lines == [
        "--split: no split is called ''. Use val or train.",
        "--sequences: -1 is below 1. Leave it out to take all of the split.",
        "--batch-size: -1 is below 1.",
    ]


@pytest.mark.parametrize("documents", [False, True])
def test_rows_longer_than_the_models_positions_are_refused(documents: bool) -> None:
    with pytest.raises(GPTZooError) as refusal:
        evaluate(gpt(context_length=4), Rows(documents=documents))
    assert str(refusal.value) == (
        "rows of 6 tokens do not fit the model, whose positions end at 4 (context_length). "
        "Use data with a context_length of at most 4."
    )


def test_data_of_a_larger_vocabulary_is_refused() -> None:
    with pytest.raises(GPTZooError) as refusal:
        evaluate(gpt(vocab_size=10), Rows())
    assert str(refusal.value) == (
        "the tokenizer has 11 tokens and the model 10 (vocab_size). Use the tokenizer that the model was trained with."
    )


def test_a_loss_that_is_not_finite_is_refused_naming_the_rows() -> None:
    model, data = gpt().train(), Rows()
    data.splits["val"].tokens.clamp_(max=9)
    data.splits["val"].tokens[4, 2] = 10
    with torch.no_grad():
        model.wte.weight[10, 0] = math.nan
    model.head = gpt().head  # the damaged row is only ever read as an input
    with pytest.raises(NotFinite) as refusal:
        evaluate(model, data, batch_size=2)
    assert str(refusal.value) == "the loss is not finite (nan) in sequences 5 to 6 of val."
    assert model.training
