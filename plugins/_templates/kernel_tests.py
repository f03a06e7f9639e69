"""Tests of the kernel `my_kernel`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gptzoo
from gptzoo.loading import load_plugins
from gptzoo.testing import check, said

PLUGIN = str(Path(__file__).with_name("my_kernel.py"))
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16}
PARTS = [
    {"attention": "multi_head"},
    {"attention": {"name": "multi_head", "n_kv_head": 1}},
    {"attention": {"name": "multi_head", "softcap": 1.0}},
    {"attention": {"name": "sliding_window", "window": 3}},
    {"position": "alibi"},
]


def build(kernel: object, **model: object) -> gptzoo.Model:
    return gptzoo.build({"model": {**TINY, "kernel": kernel, **model}}, plugins=[PLUGIN])


def test_it_is_registered() -> None:
    assert load_plugins([PLUGIN]).zoo.get("kernel", "my_kernel").owner.plugin == "my_kernel"


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_it_agrees_with_the_naive_kernel_in_values_and_gradients(parts: dict[str, object]) -> None:
    tokens = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(0))
    model = build({"name": "my_kernel", "rows": 3}, **parts)
    reference = build("naive", **parts)
    torch.testing.assert_close(model(tokens), reference(tokens))
    model(tokens).square().sum().backward()
    reference(tokens).square().sum().backward()
    for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_padding_is_skipped_and_gives_finite_logits() -> None:
    tokens = torch.randint(256, (1, 8), generator=torch.Generator().manual_seed(0))
    doc = torch.tensor([[-1, -1, 0, 0, 0, 0, 0, 0]])
    pos = torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5]])
    model = build({"name": "my_kernel", "rows": 3})
    padded = model(tokens, pos=pos, doc=doc)
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[:, 2:], model(tokens[:, 2:]))


def test_decoding_with_a_cache_gives_the_same() -> None:
    tokens = torch.randint(256, (2, 16), generator=torch.Generator().manual_seed(0))
    model = build("my_kernel")
    cache = model.new_cache(2, 16)
    with torch.no_grad():
        chunks = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 16))]
        torch.testing.assert_close(torch.cat(chunks, 1), model(tokens))


def test_it_obeys_every_law_of_its_slot() -> None:
    report = check(PLUGIN, examples=5)
    assert not report.failures, "\n".join(said(outcome) for outcome in report.failures)
