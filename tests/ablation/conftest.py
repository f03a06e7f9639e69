"""The tiny study that tests compare with."""

from __future__ import annotations

import pytest

from tests.ablation.studies import SLOW, TWO_ARMS, Place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place of the file's own: studies that lie together copy each other's cells."""
    return new_place(tmp_path_factory)


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The study of two arms, run by one worker and never stopped, in `runs`."""
    place = new_place(tmp_path_factory)
    done = place.run(place.plan(TWO_ARMS, seconds=0.03))
    assert (done.ran, done.kept, done.copied, dict(done.failed)) == (6, 0, 0, {})
    return place


def new_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "slow.py").write_text(SLOW)
    (folder / "text.txt").write_text("".join(f"{a} plus {b} is {a + b}.\n" for a in range(20) for b in range(20)))
    return Place(folder)
