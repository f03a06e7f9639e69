"""Where tokens stand: whole rows, padded ones, packed documents; and the ways to feed them in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from gptzoo.seeds import stable_seed
from gptzoo.testing.subject import Around, Sizes, Subject

LAYOUTS = ("plain", "left-padded", "packed", "packed and padded")


@dataclass(frozen=True)
class Places:
    """Positions and documents (B, T) of the tokens in a batch; both None where every row is one whole document."""

    pos: Tensor | None
    doc: Tensor | None

    def rows(self, length: int, batch: int, device: str) -> tuple[Tensor, Tensor]:
        """Both, written out: int64 (B, T)."""
        if self.pos is None or self.doc is None:
            pos = torch.arange(length).expand(batch, length)
            return pos.to(device), torch.zeros(batch, length, dtype=torch.int64, device=device)
        return self.pos.to(device), self.doc.to(device)


def places(layout: str, batch: int, length: int, seed: int) -> Places:
    """Places of one layout. Each row has another padding or other documents."""
    if layout == "plain":
        return Places(None, None)
    g = torch.Generator().manual_seed(stable_seed(seed, "places", layout))
    pos, doc = torch.zeros(batch, length, dtype=torch.int64), torch.full((batch, length), -1)
    for row in range(batch):
        empty = int(torch.randint(length, (1,), generator=g)) if "padded" in layout else 0
        cuts: list[int] = torch.randint(1, length + 1, (2,), generator=g).tolist() if "packed" in layout else []
        ends: list[int] = sorted({length, *cuts})
        start = empty if row or layout != "left-padded" else 0  # one row without padding, beside those that have some
        for number, end in enumerate(end for end in ends if end > start):
            pos[row, start:end] = torch.arange(end - start)
            doc[row, start:end] = number
            start = end
        if "packed" in layout and "padded" in layout and row % 2:
            pos[row, -1:], doc[row, -1:] = 0, -1  # a row that ends in padding
    return Places(pos, doc)


@dataclass(frozen=True)
class Case:
    """Tokens in a small model.

    Args:
        sizes: The model's.
        around: The parts around the subject.
        batch: Rows.
        length: Tokens in a row.
        layout: How they stand.
        chunks: How they are fed to a cache.
        cut: A place in the row.
        seed: Of weights and tokens.
    """

    sizes: Sizes
    around: Around
    batch: int
    length: int
    layout: str
    chunks: tuple[int, ...]
    cut: int
    seed: int

    def __str__(self) -> str:
        parts = [str(self.sizes), f"position {self.around.position}", f"kernel {self.around.kernel}"]
        return ", ".join([*parts, f"{self.batch} rows of {self.length} tokens ({self.layout})", f"seed {self.seed}"])

    @property
    def places(self) -> Places:
        return places(self.layout, self.batch, self.length, self.seed)


class Untrainable(Exception):
    """It runs on the device and cannot be trained there, as it states: no case for a law that needs gradients."""


def cases(
    subject: Subject, layouts: Sequence[str] = LAYOUTS, longest: int = 33, *, training: bool = True
) -> st.SearchStrategy[Case]:
    """Cases of a component that stands in a model.

    Raises:
        Untrainable: Cases are wanted that need gradients, and nothing around the subject can be trained.
    """
    every = [(sizes, around) for sizes in subject.sizes() for around in subject.surroundings(sizes, training=training)]
    if training and not every:
        raise Untrainable(subject.part.name)
    allowed = [layout for layout in layouts if suits(subject, layout)]

    @st.composite
    def draw(pick: st.DrawFn) -> Case:
        sizes, around = pick(st.sampled_from(every))
        length = pick(st.integers(1, longest))
        return Case(
            sizes=sizes,
            around=around,
            batch=pick(st.integers(1, 3)),
            length=length,
            layout=pick(st.sampled_from(allowed)),
            chunks=_chunks(pick, length),
            cut=pick(st.integers(0, length - 1)),
            seed=pick(st.integers(0, 1)),
        )

    return draw()


def suits(subject: Subject, layout: str) -> bool:
    """Whether the subject claims that it can take rows of a layout."""
    return ("padded" not in layout or subject.can("padding")) and ("packed" not in layout or subject.can("documents"))


def _chunks(pick: st.DrawFn, length: int) -> tuple[int, ...]:
    """One token at a time, two, a prompt and then one at a time, or anything."""
    kind = pick(st.sampled_from(["ones", "prompt", "twos", "any"]))
    if kind == "ones":
        return (1,) * length
    if kind == "twos":
        return (2,) * (length // 2) + (1,) * (length % 2)
    first = pick(st.integers(1, length))
    if kind == "prompt":
        return (first,) + (1,) * (length - first)
    chunks = [first]
    while sum(chunks) < length:
        chunks.append(pick(st.integers(1, length - sum(chunks))))
    return tuple(chunks)
