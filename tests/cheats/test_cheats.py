"""No cheat goes through, and an honest study is accused of nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gptzoo.ablation import report
from gptzoo.ablation.collecting import collect
from tests.cheats.desk import Desk, standing
from tests.cheats.judging import caught
from tests.cheats.planted import CHEATS, KINDS, Cheat


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.laid(tmp_path_factory.mktemp("honest") / "desk")


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and numbers are judged; drawing the page takes half of the time. `python -m tests.cheats` draws it."""
    monkeypatch.setattr(report, "to_html", lambda *_, **__: "")


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.commit.__name__)
def test_a_cheat_does_not_go_through(honest: Desk, tmp_path: Path, cheat: Cheat) -> None:
    verdict = caught(cheat, honest, tmp_path / "desk")
    assert verdict.passed, f"{cheat.what}: {verdict.text}"


def sound(folder: Path) -> dict[str, str]:
    """The verdicts of a study that is accused of nothing."""
    study = collect(folder)
    assert (study.exploratory, study.mismatches) == ("", ())
    report.write_report(study, folder)
    return standing(folder)


def test_the_honest_study_is_not_accused(honest: Desk) -> None:
    with honest.working():
        answer = honest.reported()
        assert (answer.code, answer.stands) == (0, True)
        assert sound(honest.study) == {"rope": "equivalent"}


def test_an_arm_more_is_no_cheat(honest: Desk, tmp_path: Path) -> None:
    desk = honest.copied(tmp_path / "desk")
    with desk.working():
        desk.plan(arms={**desk.arms(), "touchy": {"train.optimizer": "touchy"}, "alibi": {"model.position": "alibi"}})
        desk.run()
        assert set(sound(desk.study)) == {"rope", "alibi"}


def test_a_cell_that_is_deleted_and_comes_out_again_is_no_cheat(honest: Desk, tmp_path: Path) -> None:
    desk = honest.copied(tmp_path / "desk")
    with desk.working():
        shutil.rmtree(desk.cell("rope-1"))
        desk.run()
        assert sound(desk.study) == {"rope": "equivalent"}


def test_seeds_that_are_added_before_the_verdicts_are_there_are_no_cheat(honest: Desk, tmp_path: Path) -> None:
    desk = honest.copied(tmp_path / "desk")
    with desk.working():
        desk.plan("growing", arms=desk.arms(), aa=False, seeds=2)
        desk.run("growing", runs="fresh", most=3)
        desk.plan("growing", arms=desk.arms(), aa=False, seeds=3)
        desk.run("growing", runs="fresh")
        assert sound(Path("fresh/growing")) == {"rope": "equivalent"}


def test_who_plans_more_seeds_after_the_verdicts_is_told_beforehand(honest: Desk, tmp_path: Path) -> None:
    desk = honest.copied(tmp_path / "desk")
    with desk.working():
        desk.plan(seeds=5)
        answer = desk.command("ablate", "plan", "tiny.yaml", "--no-probe", "-p", "touchy.py")
        study = collect(desk.study)
    assert answer.text.splitlines()[-1] == (
        "running it makes the study exploratory: seeds: 3 -> 5, added when the verdicts on 3 were there to be read: "
        "testing again and again finds what is not there (looks: [3, 5] in a plan keeps its error rate)"
    )
    assert study.exploratory == ""


def test_there_are_twelve_kinds_of_cheats() -> None:
    assert len(KINDS) == 12
    assert {cheat.kind for cheat in CHEATS} == set(KINDS)
