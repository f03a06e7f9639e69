"""The cheats. Each takes an honest study, cheats in its files or its plan, and asks what a reader would be told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from gptzoo.ablation.collecting import collect
from tests.ablation.studies import as_if_run, change
from tests.cheats.desk import TUNED, Answer, Desk

KINDS = (
    *("more parameters", "more tokens", "other seeds", "tuned arm, untuned base", "dropped NaN run", "peeking"),
    *("edited plan", "other data", "another environment", "swapped metric", "best of seeds", "leaked tuning seeds"),
)


@dataclass(frozen=True)
class Cheat:
    """One way to cheat.

    Args:
        kind: One of `KINDS`.
        what: It does.
        catches: What sees it.
        says: Words of the message that name it.
        commit: Cheats, and asks.
    """

    kind: str
    what: str
    catches: str
    says: str
    commit: Callable[[Desk], Answer]


CHEATS: list[Cheat] = []


def plant(kind: str, what: str, *, catches: str, says: str) -> Callable[[Callable[[Desk], Answer]], None]:
    """Add a cheat to the list."""
    assert kind in KINDS, kind

    def add(commit: Callable[[Desk], Answer]) -> None:
        CHEATS.append(Cheat(kind, what, catches, says, commit))

    return add


PLAN, SEAL, JOURNAL, LEDGER, FREEZE, REPLAY, END = (
    "the plan is refused",
    "the seals of the cell",
    "the journal of the study",
    "the fairness ledger",
    "the frozen plan",
    "ablate replay",
    "a report before the end has no verdict",
)

# -- more parameters -------------------------------------------------------------------------------------------------


@plant(
    "more parameters",
    "an arm sets the width that is to be matched",
    catches=PLAN,
    says="the arm sets model.mlp.hidden, which match: params is to solve",
)
def widened_by_the_plan(desk: Desk) -> Answer:
    desk.plan("wide", arms=desk.arms(**{"model.mlp.hidden": 96, "model.norm": "rmsnorm"}))
    return desk.asked_to_run("wide")


@plant(
    "more parameters",
    "wider runs lie in the arm's folders, and their records say that they are the planned ones",
    catches=LEDGER,
    says="parameters, the baseline has",
)
def widened_in_the_files(desk: Desk) -> Answer:
    for cell in cells_of(desk, "rope"):
        wide = desk.train(cell.path.split("/")[1], f"wide-{cell.seed}", **{"model.mlp.hidden": 96})
        desk.put(wide, cell.path.split("/")[1], id=cell.id)
    return desk.reported()


# -- more tokens -----------------------------------------------------------------------------------------------------


@plant("more tokens", "an arm trains for twice the steps", catches=LEDGER, says="rope: trained on 768 tokens")
def longer_by_the_plan(desk: Desk) -> Answer:
    desk.plan("long", arms=desk.arms(**{"train.steps": 12}), seeds=2, aa=False)
    desk.run("long")
    return desk.reported(Path("runs/long"))


@plant(
    "more tokens",
    "gptzoo train goes on with a finished cell",
    catches=SEAL,
    says="cells/rope-1/metrics.jsonl was changed after the run",
)
def trained_on(desk: Desk) -> Answer:
    trained = desk.command("train", str(desk.cell("rope-1")), "--train.steps", "12", "-p", "touchy.py")
    assert trained.code == 0, trained.text
    return desk.reported()


# -- other seeds -----------------------------------------------------------------------------------------------------


@plant("other seeds", "the plan lists seeds that came out well", catches=PLAN, says="seeds: it is a count, not a list")
def listed_seeds(desk: Desk) -> Answer:
    desk.plan("lucky", seeds=[3, 5, 7])
    return desk.asked_to_run("lucky")


@plant("other seeds", "an arm sets a seed of its own", catches=PLAN, says="seeds are the plan's")
def seed_of_an_arm(desk: Desk) -> Answer:
    desk.plan("lucky", arms=desk.arms(seed=7))
    return desk.asked_to_run("lucky")


@plant(
    "other seeds",
    "an arm's cells are exchanged for runs at seeds 7, 8 and 9",
    catches=JOURNAL,
    says="cells/rope-0 holds another run than the planned one: of seed 7",
)
def exchanged_seeds(desk: Desk) -> Answer:
    for seed in range(3):
        desk.put(desk.train(f"rope-{seed}", f"at-{seed}", seed=7 + seed), f"rope-{seed}")
    return desk.reported()


@plant(
    "other seeds",
    "the same, with id, seed and all seals forged",
    catches=LEDGER,
    says="rope: its batches are not the baseline's",
)
def forged_seeds(desk: Desk) -> Answer:
    for cell in cells_of(desk, "rope"):
        run = desk.train(f"rope-{cell.seed}", f"at-{cell.seed}", seed=7 + cell.seed)
        desk.put(run, f"rope-{cell.seed}", id=cell.id, seed=cell.seed)
    as_if_run(desk.study)
    return desk.reported()


# -- tuned arm, untuned base -----------------------------------------------------------------------------------------


@plant(
    "tuned arm, untuned base",
    "an arm brings the learning rate that suits it",
    catches=FREEZE,
    says="rope brings a train.learning_rate of its own (0.01 -> 0.03) beside model.position",
)
def own_learning_rate(desk: Desk) -> Answer:
    desk.plan("rated", arms=desk.arms(**{"train.learning_rate": 3e-2}), seeds=2, aa=False)
    desk.run("rated")
    return desk.reported(Path("runs/rated"))


@plant(
    "tuned arm, untuned base",
    "in a plan that tunes, an arm brings a learning rate all the same",
    catches=PLAN,
    says="tune finds the rate of every arm",
)
def own_rate_beside_tune(desk: Desk) -> Answer:
    desk.plan("both", arms=desk.arms(**{"train.learning_rate": 3e-2}), tune=True)
    return desk.asked_to_run("both")


@plant(
    "tuned arm, untuned base",
    "tuning runs of the baseline are struck from the ledger",
    catches=LEDGER,
    says="rope: 6 tuning runs, the baseline had 4 tuning runs",
)
def struck_tuning_runs(desk: Desk) -> Answer:
    desk = desk.on(TUNED)
    strike(desk, "tune-none-0.0001-20001", "tune-none-1-20001")
    return desk.reported()


@plant(
    "tuned arm, untuned base",
    "the arm's cells are run at another rate than the one that its tuning found",
    catches=JOURNAL,
    says="cells/rope-0 holds another run than the planned one",
)
def another_rate(desk: Desk) -> Answer:
    desk = desk.on(TUNED)
    for seed in range(2):
        desk.put(desk.train(f"rope-{seed}", f"better-{seed}", **{"train.learning_rate": 0.05}), f"rope-{seed}")
    return desk.reported()


def strike(desk: Desk, *folders: str) -> None:
    """Take cells out of a study's ledger."""
    kept = json.loads((desk.study / "study.json").read_text())
    before = [cell for cell in kept["sets"][0]["before"] if cell["folder"] not in folders]
    assert len(kept["sets"][0]["before"]) - len(before) == len(folders)
    kept["sets"][0]["before"] = before
    (desk.study / "study.json").write_text(json.dumps(kept))


# -- leaked tuning seeds ---------------------------------------------------------------------------------------------


@plant(
    "leaked tuning seeds", "the plan asks to tune on seed 0", catches=PLAN, says="tune.seed: there is no such option"
)
def tuned_on_seed_0(desk: Desk) -> Answer:
    desk.plan("leaked", arms=desk.arms(), tune={"seed": 0})
    return desk.asked_to_run("leaked")


@plant(
    "leaked tuning seeds",
    "an arm's tuning runs are exchanged for runs at a confirm seed",
    catches=JOURNAL,
    says="cells/tune-rope-0.01-20000 holds another run than the planned one: of seed 0",
)
def exchanged_tuning_run(desk: Desk) -> Answer:
    desk = desk.on(TUNED)
    desk.put(desk.train("tune-rope-0.01-20000", "leaked", seed=0), "tune-rope-0.01-20000")
    return desk.reported()


@plant(
    "leaked tuning seeds",
    "the same, with id, seal, journal and ledger forged",
    catches=LEDGER,
    says="rope: tuned on seed 0, which its results use",
)
def forged_tuning_run(desk: Desk) -> Answer:
    desk, name = desk.on(TUNED), "tune-rope-0.01-20000"
    kept = json.loads((desk.study / "study.json").read_text())
    planned = next(cell for cell in kept["sets"][0]["before"] if cell["folder"] == name)
    planned["seed"] = 0
    (desk.study / "study.json").write_text(json.dumps(kept))
    desk.put(desk.train(name, "leaked", seed=0), name, id=planned["id"])
    as_if_run(desk.study)
    return desk.reported()


@plant(
    "leaked tuning seeds",
    "the rate comes from a study of rates on the confirm seeds",
    catches=JOURNAL,
    says="results of rope were known before this plan was: they are copied from sweep",
)
def rate_of_a_sweep(desk: Desk) -> Answer:
    rates = {f"rope at {rate}": {"model.position": "rope", "train.learning_rate": rate} for rate in (1e-2, 3e-2)}
    desk.plan("sweep", baseline="rope at 0.01", arms=rates, seeds=2, aa=False)
    desk.run("sweep")
    desk.plan("swept", arms=desk.arms(**{"train.learning_rate": 3e-2}), seeds=2, aa=False)
    desk.run("swept")
    return desk.reported(Path("runs/swept"))


# -- dropped NaN run -------------------------------------------------------------------------------------------------


@plant("dropped NaN run", "the diverged cell is deleted", catches=JOURNAL, says="ended as diverged and is gone")
def deleted(desk: Desk) -> Answer:
    shutil.rmtree(desk.cell(desk.diverged))
    return desk.reported()


@plant(
    "dropped NaN run",
    "the diverged cell is called a crash",
    catches=JOURNAL,
    says="ended as diverged, and now says that it is failed",
)
def called_a_crash(desk: Desk) -> Answer:
    change(desk.cell(desk.diverged) / "cell.json", status="failed", reason="out of memory")
    return desk.reported()


@plant(
    "dropped NaN run",
    "another optimizer's run lies where the diverged one was, its record forged",
    catches=JOURNAL,
    says="ended as diverged, and now says that it is done",
)
def replaced_by_a_sound_run(desk: Desk) -> Answer:
    name = desk.diverged
    id_ = next(cell.id for cell in cells_of(desk, "touchy") if cell.path.endswith(name))
    desk.put(desk.train(name, "sound", **{"train.optimizer": "adamw"}), name, id=id_)
    return desk.reported()


@plant(
    "dropped NaN run",
    "the arm that diverged is taken out of the plan",
    catches=FREEZE,
    says="arms.touchy was taken out",
)
def taken_out(desk: Desk) -> Answer:
    desk.plan(arms=desk.arms())
    desk.run()
    return desk.reported()


@plant("dropped NaN run", "the plan ends before the seed that diverged", catches=FREEZE, says="seeds: 3 -> 1")
def fewer_seeds(desk: Desk) -> Answer:
    desk.plan(seeds=1)
    desk.run()
    return desk.reported()


# -- peeking ---------------------------------------------------------------------------------------------------------


@plant(
    "peeking",
    "a seed is added when the verdicts are there",
    catches=FREEZE,
    says="seeds: 3 -> 4, added when the verdicts on 3 were there to be read",
)
def one_more_seed(desk: Desk) -> Answer:
    desk.plan(seeds=4)
    desk.run()
    return desk.reported()


@plant(
    "peeking",
    "the study is stopped half way, and reported",
    catches=END,
    says="the study has not ended (1 of 6 cells are missing), and the plan has no looks",
)
def half_way(desk: Desk) -> Answer:
    desk.plan("half", arms=desk.arms(), aa=False)
    desk.run("half", runs="fresh", most=5)
    return desk.reported(Path("fresh/half"))


@plant(
    "peeking",
    "a study with looks is stopped and reported at a number of seeds that is none of them",
    catches=END,
    says="the first look is at 3 seeds, and not all of them have ended",
)
def unplanned_look(desk: Desk) -> Answer:
    desk.plan("looked", arms=desk.arms(), aa=False, looks=[3, 5], seeds=5)
    desk.run("looked", runs="fresh", most=4)
    return desk.reported(Path("fresh/looked"))


# -- edited plan -----------------------------------------------------------------------------------------------------


@plant("edited plan", "plan.yaml gets another delta", catches=FREEZE, says="plan.yaml is not what was frozen")
def edited_plan(desk: Desk) -> Answer:
    desk.edit(desk.study / "plan.yaml", "delta: 0.05", "delta: 0.00001")
    return desk.reported()


@plant("edited plan", "the study is run again at another alpha", catches=FREEZE, says="alpha: 0.05 -> 0.2")
def another_alpha(desk: Desk) -> Answer:
    desk.plan(alpha=0.2)
    desk.run()
    return desk.reported()


@plant("edited plan", "the study is run again with another delta", catches=FREEZE, says="delta: 0.05 -> 1e-05")
def another_delta(desk: Desk) -> Answer:
    desk.plan(delta=1e-5)
    desk.run()
    return desk.reported()


@plant(
    "edited plan",
    "plan.yaml and study.json are edited, history and all",
    catches=JOURNAL,
    says="study.json has another plan than the one that was frozen last",
)
def edited_ledger(desk: Desk) -> Answer:
    from gptzoo.ablation.ledger import hash_of

    desk.edit(desk.study / "plan.yaml", "delta: 0.05", "delta: 0.00001")
    text = (desk.study / "plan.yaml").read_text()
    change(desk.study / "study.json", plan=text, history=[hash_of(text)])
    return desk.reported()


@plant(
    "edited plan",
    "the frozen plan is deleted, and a new one frozen over the results",
    catches=FREEZE,
    says="had ended before the plan was frozen",
)
def frozen_anew(desk: Desk) -> Answer:
    for name in ("study.json", "plan.yaml", "journal.jsonl"):
        (desk.study / name).unlink()
    desk.plan(alpha=0.2)
    desk.run()
    return desk.reported()


@plant(
    "edited plan",
    "a second plan, of another name, is written for results that are known",
    catches=JOURNAL,
    says="results of rope were known before this plan was: they are copied from tiny",
)
def written_afterwards(desk: Desk) -> Answer:
    desk.plan("afterwards", arms=desk.arms(), delta=0.001)
    desk.run("afterwards")
    return desk.reported(Path("runs/afterwards"))


# -- other data ------------------------------------------------------------------------------------------------------


@plant("other data", "an arm reads an easier text", catches=LEDGER, says="rope: its data are not the baseline's")
def easier_text(desk: Desk) -> Answer:
    Path("easy.txt").write_text("one and one is two.\n" * 400)
    desk.plan("easy", arms=desk.arms(**{"data.path": "easy.txt"}), seeds=2, aa=False)
    desk.run("easy")
    return desk.reported(Path("runs/easy"))


@plant(
    "other data",
    "the text is changed when the results are known, and all is run again",
    catches=JOURNAL,
    says="had ended and were replaced: data, plugins or GPTZoo changed in between",
)
def changed_text(desk: Desk) -> Answer:
    desk.edit(Path("text.txt"), "plus", "and")
    desk.run()
    return desk.reported()


# -- another environment ---------------------------------------------------------------------------------------------


@plant(
    "another environment",
    "an arm's cells are run on two threads",
    catches=LEDGER,
    says="environment: threads is 1 in cells/none-0 and 2 in cells/rope-0",
)
def other_threads(desk: Desk) -> Answer:
    run_on_two_threads(desk)
    as_if_run(desk.study)
    return desk.reported()


@plant(
    "another environment",
    "the same, and environment.json is edited to hide it",
    catches=SEAL,
    says="cells/rope-0/environment.json was changed after the run",
)
def hidden_threads(desk: Desk) -> Answer:
    run_on_two_threads(desk)
    for seed in range(3):
        desk.edit(desk.cell(f"rope-{seed}") / "environment.json", '"threads": 2', '"threads": 1')
    return desk.reported()


def run_on_two_threads(desk: Desk) -> None:
    torch.set_num_threads(2)
    for seed in range(3):
        desk.put(desk.train(f"rope-{seed}", f"two-{seed}"), f"rope-{seed}")
    torch.set_num_threads(1)


# -- swapped metric --------------------------------------------------------------------------------------------------


@plant(
    "swapped metric",
    "a loss in metrics.jsonl is edited",
    catches=SEAL,
    says="cells/rope-1/metrics.jsonl was changed after the run",
)
def edited_loss(desk: Desk) -> Answer:
    lower_the_loss(desk, "rope-1")
    return desk.reported()


@plant(
    "swapped metric",
    "the same, and the cell is sealed anew",
    catches=JOURNAL,
    says="cells/rope-1 has another cell.json than the one it ended with",
)
def resealed_loss(desk: Desk) -> Answer:
    from gptzoo.ablation.ledger import seals

    lower_the_loss(desk, "rope-1")
    change(desk.cell("rope-1") / "cell.json", sealed=seals(desk.cell("rope-1")))
    return desk.reported()


@plant(
    "swapped metric",
    "the same, and the journal is forged too: only the numbers themselves can tell",
    catches=REPLAY,
    says="rope-1: does not reproduce",
)
def forged_loss(desk: Desk) -> Answer:
    lower_the_loss(desk, "rope-1")
    as_if_run(desk.study)
    return desk.replayed("rope-1")


@plant(
    "swapped metric",
    "the plan takes the metric that came out better",
    catches=FREEZE,
    says='metric: "val_loss" -> "bits_per_byte"',
)
def exchanged_metric(desk: Desk) -> Answer:
    desk.plan(metric="bits_per_byte")
    desk.run()
    return desk.reported()


def lower_the_loss(desk: Desk, cell: str) -> None:
    path = desk.cell(cell) / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    lowered = [{**r, "val_loss": r["val_loss"] - 0.5} if "val_loss" in r else r for r in records]
    path.write_text("".join(f"{json.dumps(r, separators=(',', ':'))}\n" for r in lowered))


# -- best of seeds ---------------------------------------------------------------------------------------------------


@plant(
    "best of seeds",
    "the best cell of an arm is copied over its others",
    catches=JOURNAL,
    says="holds another run than the planned one: of seed 0",
)
def best_cell_copied(desk: Desk) -> Answer:
    for cell in ("rope-1", "rope-2"):
        desk.put(desk.cell("rope-0"), cell)
    return desk.reported()


@plant(
    "best of seeds",
    "the same, with id and seed forged",
    catches=JOURNAL,
    says="cells/rope-1 has another cell.json than the one it ended with",
)
def best_cell_forged(desk: Desk) -> Answer:
    for cell in cells_of(desk, "rope"):
        if cell.seed:
            desk.put(desk.cell("rope-0"), f"rope-{cell.seed}", id=cell.id, seed=cell.seed)
    return desk.reported()


@plant(
    "best of seeds",
    "of six seeds the best three become an arm's cells, records and journal forged",
    catches=LEDGER,
    says="rope: its batches are not the baseline's",
)
def best_three_of_six(desk: Desk) -> Answer:
    tried = [desk.train("rope-0", f"tried-{seed}", seed=seed) for seed in range(3, 6)]
    for cell, run in zip(cells_of(desk, "rope"), tried, strict=True):
        desk.put(run, f"rope-{cell.seed}", id=cell.id, seed=cell.seed)
    as_if_run(desk.study)
    return desk.reported()


def cells_of(desk: Desk, arm: str):  # type: ignore[no-untyped-def]  # a list of CellOutcome
    """What there is of an arm, by seed."""
    return sorted((cell for cell in collect(desk.study).cells if cell.arm == arm), key=lambda cell: cell.seed)
