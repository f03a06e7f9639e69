"""The stranger's own tests: every law of GPTZoo, on an installed package."""

from __future__ import annotations

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import Law, laws_of, obey


@pytest.mark.parametrize("law", laws_of("attention"), ids=str)
def test_log_sparse_obeys(law: Law) -> None:
    obey("log_sparse", law, examples=6)


@pytest.mark.parametrize("law", laws_of("norm"), ids=str)
def test_partial_rmsnorm_obeys(law: Law) -> None:
    obey("partial_rmsnorm", law, examples=6)


def test_a_token_sees_powers_of_two() -> None:
    attention = load_plugins().zoo.get("attention", "log_sparse").factory
    dims = gptzoo.Dims(n_layer=1, n_head=2, n_embd=8, head_dim=4, context_length=32, vocab_size=11)
    seen = attention(dims).mask(torch.tensor(20), torch.arange(32))  # type: ignore[attr-defined]
    assert seen.nonzero().flatten().tolist() == [4, 12, 16, 18, 19, 20]
