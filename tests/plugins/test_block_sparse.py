"""Block-sparse attention against a pattern written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gptzoo
from gptzoo_plugins.block_sparse import BlockSparse
from tests.plugins.attention_cases import (
    DIMS,
    Everything,
    Places,
    check_decoding,
    check_formula,
    inputs,
    projected,
    query_by_query,
    shaken,
    softmax,
)

MakeContext = Callable[..., gptzoo.Context]
OPTIONS = [
    {"block": 3, "summary": 1},
    {"block": 2, "summary": 2},
    {"block": 4, "summary": 2, "n_kv_head": 2, "qk_norm": gptzoo.LayerNorm, "scale": 0.6},
]
KERNELS = [gptzoo.Naive(), gptzoo.Sdpa()]


def sees(block: int, summary: int, query: int) -> list[int]:
    """Keys that a position sees: each earlier block's end, and the start of its own."""
    own = query - query % block
    ends = [end + n for end in range(0, own, block) for n in range(block - summary, block)]
    return [*ends, *range(own, query + 1)]


def by_hand(attention: BlockSparse, x: Tensor, position: gptzoo.Position, places: Places) -> Tensor:
    def mask(q_pos: int, k_pos: int) -> bool:
        return k_pos in sees(attention.block, attention.summary, q_pos)

    return query_by_query(attention, projected(attention, x, position, places), position, places, softmax, mask=mask)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_formula_with_its_gradients(context: MakeContext, options: dict) -> None:
    attention = shaken(BlockSparse(DIMS, **options))
    check_formula(attention, lambda x, *at: by_hand(attention, x, *at), context, Everything(8), KERNELS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_decoding_in_any_chunks_gives_what_the_whole_gives(context: MakeContext, options: dict) -> None:
    check_decoding(shaken(BlockSparse(DIMS, **options)), context, Everything(8), KERNELS)


def test_the_pattern_is_the_papers_picture() -> None:
    pos = torch.arange(8)
    seen = BlockSparse(DIMS, block=4, summary=1).mask(pos[:, None], pos[None])
    picture = ["".join("x" if each else "." for each in row) for row in seen.tolist()]
    assert picture == [
        "x.......",
        "xx......",
        "xxx.....",
        "xxxx....",
        "...xx...",
        "...xxx..",
        "...xxxx.",
        "...xxxxx",
    ]


@pytest.mark.parametrize("options", [{"block": 8, "summary": 1}, {"block": 3, "summary": 3}, {"block": 99}], ids=str)
def test_one_block_or_a_summary_of_everything_is_multi_head_attention(context: MakeContext, options: dict) -> None:
    attention, plain = BlockSparse(DIMS, **options), gptzoo.MultiHeadAttention(DIMS)
    plain.load_state_dict(attention.state_dict())
    x = inputs(torch.float32)
    assert torch.equal(attention(x, context(8)), plain(x, context(8)))


def test_what_it_asks_of_its_kernel() -> None:
    assert BlockSparse(DIMS).needs() == gptzoo.Needs(window=True, head_dim=8)


@pytest.mark.parametrize(("block", "summary"), [(4, 0), (4, 5), (0, 1)])
def test_a_summary_outside_of_its_block_is_refused(block: int, summary: int) -> None:
    with pytest.raises(ValueError, match=rf"^summary must lie in \[1, block = {block}\], {summary} does not$"):
        BlockSparse(DIMS, block, summary)
