"""From files to an outcome: values, curves, and every way in which a comparison can be unfair."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gptzoo.ablation.collecting import collect, curve, last_value, shared_paths
from gptzoo.ablation.study import StudyOutcome
from gptzoo.errors import GPTZooError
from gptzoo.runs import Records
from tests.ablation.studies import Place, as_if_run, change

Study = Callable[[], StudyOutcome]


@pytest.fixture
def folder(serial: Place, tmp_path: Path) -> Path:
    """A study of one's own to spoil."""
    return Path(shutil.copytree(serial.study(), tmp_path / "tiny"))


def came_out(path: Path, **values: object) -> None:
    """Change a file of a cell as if the run itself had written it so."""
    change(path, **values)
    as_if_run(path.parents[2])


def test_the_metric_is_the_mean_of_the_last_three_evaluations(folder: Path) -> None:
    cell = folder / "cells" / "none-1"
    losses = [record["val_loss"] for record in Records.read(cell / "metrics.jsonl") if "val_loss" in record]
    assert len(losses) == 4  # before the first step, and after 2, 4 and 6
    assert last_value(cell, "val_loss") == statistics.fmean(losses[-3:])  # type: ignore[type-var]
    assert next(c.value for c in collect(folder).cells if (c.arm, c.seed) == ("none", 1)) == last_value(
        cell, "val_loss"
    )


def test_a_curve_has_steps_tokens_and_the_time_of_training(folder: Path) -> None:
    cell = folder / "cells" / "none-1"
    points = curve(cell, "val_loss")
    assert [(point.step, point.tokens) for point in points] == [(0, 0), (2, 128), (4, 256), (6, 384)]
    seconds = [float(record["seconds"]) for record in Records.read(cell / "timings.jsonl")]  # type: ignore[arg-type]
    assert [point.seconds for point in points] == pytest.approx([0, *(sum(seconds[:n]) for n in (2, 4, 6))])


def test_an_untouched_study_has_no_mismatch(folder: Path) -> None:
    study = collect(folder)
    assert study.mismatches == ()
    assert study.notes == ()
    assert study.exploratory == ""
    assert (study.name, study.baseline, study.seeds, study.match, study.metric) == (
        "tiny",
        "learned",
        2,
        "tokens",
        "val_loss",
    )
    assert study.plan == (folder / "plan.yaml").read_text()
    assert [(c.arm, c.seed, c.status) for c in study.cells] == [
        *((arm, seed, "done") for seed in (0, 1) for arm in ("learned", "none")),
        *(("a/a", seed, "done") for seed in (10000, 10001)),
    ]
    assert study.arms[1].differs == {"model.position": ("learned", "none")}
    by_cell = {(c.arm, c.seed): c for c in study.cells}
    learned, none = by_cell["learned", 0], by_cell["none", 0]
    assert learned.parameters - none.parameters == 16 * 16  # the table of positions
    assert (learned.tokens, learned.seconds > 0, learned.peak_memory > 0) == (384, True, True)
    assert learned.data_hash == none.data_hash != by_cell["none", 1].data_hash
    assert learned.flops_per_token == by_cell["a/a", 10000].flops_per_token > 0


def test_other_data_block_the_verdicts(folder: Path) -> None:
    came_out(folder / "cells" / "none-0" / "environment.json", data_key="x")
    assert collect(folder).mismatches == ("none: its data are not the baseline's.",)


def test_other_batches_block_the_verdicts(folder: Path) -> None:
    came_out(folder / "cells" / "none-0" / "cell.json", data_hash="x")
    assert collect(folder).mismatches == ("none: its batches are not the baseline's, or come in another order",)


def test_other_initial_weights_block_the_verdicts(folder: Path) -> None:
    path = folder / "cells" / "none-1" / "cell.json"
    init = json.loads(path.read_text())["init"]
    came_out(path, init={**init, "layers.1.mlp.up.weight": [init["layers.1.mlp.up.weight"][0], "x"]})
    said = "none: the initial weights that it shares with the baseline are not equal"
    assert collect(folder).mismatches == (said,)


def test_an_arm_may_start_elsewhere_in_what_it_changes() -> None:
    base = {"wte.weight": [[4], "a"], "layers.0.mlp.up.weight": [[4], "b"], "layers.0.norm_1.weight": [[4], "c"]}
    assert shared_paths(base, base, []) == list(base)
    assert shared_paths(base, base, ["model.mlp"]) == ["wte.weight", "layers.0.norm_1.weight"]
    assert shared_paths(base, base, ["model.norm.eps"]) == ["wte.weight", "layers.0.mlp.up.weight"]
    assert shared_paths(base, base, ["model.block"]) == ["wte.weight"]
    assert shared_paths(base, base, ["model.init.std"]) == []
    assert shared_paths(base, {**base, "wte.weight": [[5], "z"]}, [])[0] == "layers.0.mlp.up.weight"


def test_another_environment_blocks_the_verdicts(folder: Path) -> None:
    came_out(folder / "cells" / "none-0" / "environment.json", threads=2)
    said = "environment: threads is 1 in cells/learned-0 and 2 in cells/none-0"
    assert collect(folder).mismatches == (said,)


def test_a_resume_that_was_not_exact_blocks_the_verdicts(folder: Path) -> None:
    came_out(folder / "cells" / "a-a-10000" / "environment.json", changes=[{"environment": ["torch 1 -> 2"]}])
    assert collect(folder).mismatches == ("cells/a-a-10000 was resumed where that is not bit-exact",)


def test_more_tokens_block_the_verdicts(folder: Path) -> None:
    cell = folder / "cells" / "none-0"
    lines = (cell / "metrics.jsonl").read_text().replace('"tokens":384', '"tokens":512')
    (cell / "metrics.jsonl").write_text(lines)
    as_if_run(folder)
    assert collect(folder).mismatches == ("none: trained on 512 tokens, the baseline on 384",)


def test_results_that_were_changed_by_hand_block_the_verdicts(folder: Path) -> None:
    metrics = folder / "cells" / "none-0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"val_loss":5', '"val_loss":4'))
    recipe = folder / "cells" / "none-1" / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "\n")
    assert collect(folder).mismatches == (
        "cells/none-0/metrics.jsonl was changed after the run",
        "cells/none-1/recipe.yaml was changed after the run",
    )


def test_parameters_must_agree_where_they_are_matched(folder: Path) -> None:
    kept = json.loads((folder / "study.json").read_text())
    kept["sets"][0]["match"] = "tokens+params"
    (folder / "study.json").write_text(json.dumps(kept))
    learned, none = (next(c.parameters for c in collect(folder).cells if c.arm == arm) for arm in ("learned", "none"))
    assert collect(folder).mismatches == (f"none: {none:,} parameters, the baseline has {learned:,}",)


def test_flops_must_agree_where_they_are_matched(folder: Path) -> None:
    """Nothing of the arm is as the ledger says that it was: its steps cost more."""
    kept = json.loads((folder / "study.json").read_text())
    kept["sets"][0]["match"] = "flops"
    costs = kept["sets"][0]["arms"][1]["costs"]
    per_token = costs["flops_per_token"]
    for share, mismatches in ((1.004, 0), (1.006, 1)):
        costs["flops_per_token"] = share * per_token
        (folder / "study.json").write_text(json.dumps(kept))
        assert len(collect(folder).mismatches) == mismatches
    spent, whole = 1.006 * per_token * 6 * 4 * 16, per_token * 6 * 4 * 16
    said = f"none: trained with {spent:.4g} FLOPs, the baseline with {whole:.4g}"
    assert collect(folder).mismatches == (said,)


def test_an_edited_plan_is_exploratory_and_not_obeyed(folder: Path) -> None:
    plan = folder / "plan.yaml"
    plan.write_text(plan.read_text().replace("alpha: 0.05", "alpha: 0.5"))
    study = collect(folder)
    assert study.exploratory == "plan.yaml is not what was frozen"
    assert study.alpha == 0.05


def test_cells_that_have_not_run_or_not_ended_are_missing(folder: Path) -> None:
    shutil.rmtree(folder / "cells" / "none-0")
    change(folder / "cells" / "none-1" / "cell.json", status="running")
    (folder / "journal.jsonl").unlink()
    change(folder / "study.json", journal=False)
    study = collect(folder)
    assert [(c.status, c.reason) for c in study.cells if c.arm == "none"] == [
        ("missing", "it has not run"),
        ("missing", "it has not ended"),
    ]
    assert study.notes == ("2 of 6 cells have not ended.",)
    assert study.mismatches == ()


def test_a_folder_that_is_no_study_is_refused(folder: Path) -> None:
    with pytest.raises(GPTZooError) as caught:
        collect(folder.with_name("tine"))
    assert str(caught.value) == f"{folder.with_name('tine')}: there is no such study. Did you mean tiny?"
    with pytest.raises(GPTZooError) as caught:
        collect(folder, "flops")
    assert str(caught.value) == f"{folder}: the study has no runs matched by 'flops'. It has tokens."


def test_two_ways_of_matching_stand_in_one_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gptzoo.cli import run

    kept = json.loads((folder / "study.json").read_text())
    kept["sets"].append({**kept["sets"][0], "match": "tokens+params"})
    (folder / "study.json").write_text(json.dumps(kept))
    assert run(["ablate", "report", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "matched by tokens\n" in said
    assert "matched by tokens+params\n" in said
    assert (folder / "tokens" / "report.html").exists()
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["matches"]) == ["tokens", "tokens+params"]
    assert run(["ablate", "report", str(folder), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["tokens", "tokens+params"]


def test_a_report_needs_no_torch(folder: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from gptzoo.ablation.collecting import collect\nfrom gptzoo.ablation.report import write_report\n"
        f"write_report(collect(Path({str(folder)!r})), Path({str(folder)!r}))\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert (folder / "report.html").stat().st_size > 10_000
