"""`gptzoo ablate`: plan, run, report, analyse, calibrate, power. Each imports what it needs when it runs."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from gptzoo.errors import GPTZooError

if TYPE_CHECKING:
    from gptzoo.ablation.execution import StudyRun
    from gptzoo.ablation.findings import Findings
    from gptzoo.ablation.plan import AblationPlan

NewParser = Callable[..., ArgumentParser]
"""Called with `description` and `recipe=False`: a parser that takes plugins, unless `plugins=False`."""


DESCRIPTION = "Compare variants fairly: a plan of arms and seeds, its runs, and what they say."


def members(new: NewParser) -> dict[str, Callable[[], ArgumentParser]]:
    """The parser of each action, to be built when asked for."""
    builders = {
        "plan": _plan_parser,
        "run": _run_parser,
        "report": _report_parser,
        "replay": _replay_parser,
        "analyse": _analyse_parser,
        "calibrate": _calibrate_parser,
        "power": _power_parser,
    }
    return {name: functools.partial(build, new) for name, build in builders.items()}


def ablate(options: Namespace) -> int:
    """Run an action; returns the exit code.

    Raises:
        GPTZooError: See the exit codes of the command line.
    """
    return ACTIONS[options.subcommand](options[options.subcommand])


def _plan_parser(new: NewParser) -> ArgumentParser:
    parser = new(
        "What a plan will run, what it will cost and what it will be able to see. Nothing is written.", recipe=False
    )
    _plan_arguments(parser)
    parser.add_argument("--no-probe", action="store_true", help="do not time any steps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _run_parser(new: NewParser) -> ArgumentParser:
    parser = new("Run a plan and report. What is finished is never run again.", recipe=False)
    _plan_arguments(parser)
    parser.add_argument("--timeout", type=float | None, default=None, help="seconds without a step; then a cell failed")
    parser.add_argument("--launcher", type=str, default="pool", help="where cells run: pool (here), submitit or ray")
    parser.add_argument("--cluster", type=str | None, default=None, help="submitit's: slurm, local or debug")
    parser.add_argument(
        "--job-options",
        type=dict[str, Any] | None,
        default=None,
        help="what a job asks for: {timeout_min: 60, slurm_partition: gpu}, or for ray {num_gpus: 1}",
    )
    return parser


def _plan_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("plan", type=str, help="a plan file, a shipped plan or the folder of a study")
    parser.add_argument("--workers", type=int | None, default=None, help="processes of one thread each; one per core")
    parser.add_argument("--runs", type=str, default="runs", help="where the folders of studies stand")


def _report_parser(new: NewParser) -> ArgumentParser:
    parser = new("Write the report of a study anew, from its files.", recipe=False, plugins=False)
    parser.add_argument("folder", type=str, help="the folder of a study")
    parser.add_argument("--json", action="store_true", help="print the analysis as JSON")
    return parser


def _replay_parser(new: NewParser) -> ArgumentParser:
    parser = new("Train a cell again and compare: bit for bit in the same environment.", recipe=False)
    parser.add_argument("cell", type=str, help="the id of a cell, ARM-SEED, STUDY/ARM-SEED or its folder")
    parser.add_argument("--runs", type=str, default="runs", help="where the folders of studies stand")
    parser.add_argument("--tolerance", type=float, default=0.01, help="share that metrics may differ by elsewhere")
    return parser


def _analyse_parser(new: NewParser) -> ArgumentParser:
    what = "Verdicts on anybody's numbers: a CSV file with the columns arm, seed and metric."
    parser = new(what, recipe=False, plugins=False)
    parser.add_argument("results", type=str, help="the CSV file")
    parser.add_argument("--baseline", type=str | None, default=None, help="the arm to compare with; the first one")
    parser.add_argument("--delta", type=float | None, default=None, help="the smallest difference that matters")
    parser.add_argument("--alpha", type=float, default=0.05, help="probability of any false winner or loser")
    parser.add_argument("--higher-is-better", action="store_true", help="the metric is one to raise")
    _looks_argument(parser, "numbers of seeds at which the results were looked at as they came")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _calibrate_parser(new: NewParser) -> ArgumentParser:
    parser = new(
        "Does the analysis keep its promises? Simulated studies without an effect, and what it says.",
        recipe=False,
        plugins=False,
    )
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies per row")
    parser.add_argument("--alpha", type=float, default=0.05, help="probability of any false winner or loser")
    parser.add_argument("--study", type=str | None, default=None, help="folder of a study: resample its A/A runs, too")
    _looks_argument(parser, "numbers of seeds at which the simulated studies are looked at")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _power_parser(new: NewParser) -> ArgumentParser:
    parser = new(
        "Is the power that a plan prints the power that simulated studies of its shape have? Within five points.",
        recipe=False,
        plugins=False,
    )
    parser.add_argument("plan", type=str, help="a plan file, a shipped plan or the folder of a study")
    parser.add_argument("--runs", type=str, default="runs", help="where the folders of studies stand")
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies per line")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _looks_argument(parser: ArgumentParser, about: str) -> None:
    parser.add_argument("--looks", type=list[int] | None, default=None, help=f"{about}, such as [3,5,8,12]")


# -- actions ---------------------------------------------------------------------------------------------------------


def _plan(options: Namespace) -> int:
    from dataclasses import asdict

    from gptzoo.ablation.execution import default_workers, in_hindsight
    from gptzoo.ablation.forecast import as_text, forecast
    from gptzoo.ablation.past import Past
    from gptzoo.ablation.planning import plan_cells

    plan, runs = _read(options)
    past = Past(runs / plan.name, plan.metric)
    study = plan_cells(plan, past=past, **_plugins(options), strict=options.strict_plugins)
    workers = options.workers or default_workers(study)
    made = forecast(study, runs=runs, workers=workers, probe=not options.no_probe, **_plugins(options))
    print(
        json.dumps([_finite(asdict(each)) for each in made], indent=2)
        if options.json
        else "\n\n".join(map(as_text, made))
    )
    for line in () if options.json else in_hindsight(runs / plan.name, study):
        print(f"\nrunning it makes the study exploratory: {line}")
    return 0


def _finite(made: Mapping[str, Any]) -> dict[str, Any]:
    """Strict JSON: what is infinite is unknown."""
    return {key: None if value == float("inf") else value for key, value in made.items()}


def _run(options: Namespace) -> int:
    from gptzoo.ablation.execution import run_study
    from gptzoo.ablation.launching import launcher

    if options.timeout is not None and not options.timeout > 0:
        raise GPTZooError(f"{options.timeout:g} s is no time to wait. Give more, or leave it out.", "--timeout")
    chosen = launcher(options.launcher, cluster=options.cluster, options=options.job_options)
    plan, runs = _read(options)
    done = run_study(
        plan,
        runs=runs,
        workers=options.workers,
        **_plugins(options),
        strict=options.strict_plugins,
        silence=options.timeout,
        launcher=chosen,
    )
    copied = f", {done.copied} copied" if done.copied else ""
    killed = f", {done.killed} killed" if plan.rungs else ""
    ended = (
        f"{done.ran} cells run, {done.kept} kept{copied}, {done.diverged} diverged{killed}, {len(done.failed)} failed"
    )
    print(f"{plan.name}: {ended}")
    if not done.failed and done.saved:
        print(f"  {_savings(done)}")
    for name, reason in done.refused.items():
        print(f"  arm {name} was refused and not run: {reason}")
    for folder, reason in done.failed.items():
        print(f"  cells/{folder} failed: {reason}")
    if done.failed and plan.looks:
        print("  no look is taken before all of its cells have ended: run again to try these again")
    _write_reports(done.folder, as_json=False)
    return 1 if done.failed else 0


def _savings(done: StudyRun) -> str:
    """What looks and rungs were good for."""
    killed = (
        [f"{done.killed} {'cell was' if done.killed == 1 else 'cells were'} killed far behind"] if done.killed else []
    )
    spared = [f"{done.spared} {'was' if done.spared == 1 else 'were'} not needed by any look"] if done.spared else []
    return f"{done.saved:.0%} of the FLOPs of all seeds to their end were saved: {', '.join([*killed, *spared])}"


def _report(options: Namespace) -> int:
    _write_reports(Path(options.folder), as_json=options.json)
    return 0


def _write_reports(folder: Path, *, as_json: bool) -> None:
    """A report for each way of matching: beside the plan, or in a folder of its own with an overview where several."""
    from gptzoo.ablation.collecting import collect, matches
    from gptzoo.ablation.findings import find
    from gptzoo.ablation.overview import Side, disagreements, write_overview
    from gptzoo.ablation.report import write_report

    sides = [Side.of(find(collect(folder, match))) for match in matches(folder)]
    alone, files = len(sides) == 1, []
    for side in sides:
        target = folder if alone else folder / side.folder
        target.mkdir(exist_ok=True)
        files += write_report(side.findings, target, up="" if alone else "../")
    files += [] if alone else write_overview(sides, folder)
    if as_json:
        made = {side.match: _analysis_json(side.findings) for side in sides}
        print(json.dumps(made[sides[0].match] if alone else made, indent=2))
        return
    for side in sides:
        if not alone:
            print(f"\nmatched by {side.match}")
        _tell(side.findings)
    for line in [] if alone else disagreements(sides):
        print(f"disagreement: {line}")
    print("\n".join(f"wrote {file}" for file in files))


def _analysis_json(found: Findings) -> dict[str, object] | None:
    from gptzoo.ablation.analysis import to_json

    return None if found.analysis is None else to_json(found.analysis)


def _tell(found: Findings) -> None:
    """What was found, for the terminal."""
    from gptzoo.ablation.analysis import to_text
    from gptzoo.ablation.wording import Numbers, gain_lines
    from gptzoo.ablation.wording_factors import as_text

    print(found.trouble if found.analysis is None else to_text(found.analysis))
    for line in gain_lines(found):
        print(line)
    if found.effects is not None:
        print("\n".join(as_text(found.effects, found.study.alpha, Numbers.of(found))))
    for line in found.study.mismatches:
        print(f"no verdict stands: {line}")
    if found.study.exploratory:
        print(f"exploratory: {found.study.exploratory}")


def _replay(options: Namespace) -> int:
    from gptzoo.ablation.replay import replay
    from gptzoo.loading import load_plugins

    if not options.tolerance >= 0:
        raise GPTZooError(f"{options.tolerance:g} is no share. Give 0 or more, such as 0.01.", "--tolerance")
    if options.strict_plugins:
        load_plugins(**_plugins(options), strict=True)
    made = replay(options.cell, runs=options.runs, tolerance=options.tolerance, **_plugins(options))
    print(f"{made.cell}: {'reproduced' if made.reproduced else 'does not reproduce'}")
    print("\n".join(f"  {line}" for line in made.lines))
    return 0 if made.reproduced else 1


def _analyse(options: Namespace) -> int:
    from gptzoo.ablation.analysis import analyse, to_json, to_text
    from gptzoo.ablation.results import read_results

    analysis = analyse(
        read_results(options.results),
        baseline=options.baseline,
        alpha=options.alpha,
        delta=options.delta,
        higher_is_better=options.higher_is_better,
        looks=_looks(options),
    )
    print(json.dumps(to_json(analysis), indent=2) if options.json else to_text(analysis))
    return 0


def _looks(options: Namespace) -> list[int]:
    from gptzoo.ablation.calibration import check_looks

    looks = options.looks or []
    check_looks(looks, "--looks")
    return looks


def _calibrate(options: Namespace) -> int:
    from dataclasses import asdict

    from gptzoo.ablation.calibration import calibrate
    from gptzoo.ablation.collecting import runs_of_baseline

    runs = runs_of_baseline(Path(options.study)) if options.study else ()
    made = calibrate(studies=options.studies, alpha=options.alpha, looks=_looks(options), runs=runs)
    rows = [{**asdict(row), "guarded": None if row.guarded != row.guarded else row.guarded} for row in made.rows]
    print(json.dumps({**asdict(made), "rows": rows}, indent=2) if options.json else made.text)
    return 0


def _power(options: Namespace) -> int:
    from dataclasses import asdict

    from gptzoo.ablation.trials import trials_of

    plan, runs = _read(options)
    made = trials_of(plan, runs, options.studies)
    print(json.dumps({**asdict(made), "passed": made.passed}, indent=2) if options.json else made.text)
    return 0 if made.passed else 1


def _plugins(options: Namespace) -> dict[str, Any]:
    return {"plugins": options.plugin, "folders": options.plugins}


def _read(options: Namespace) -> tuple[AblationPlan, Path]:
    """The plan that was typed, and where its study stands; the folder of a study stands for its own plan."""
    from gptzoo.ablation.ledger import PLAN, study_at
    from gptzoo.ablation.plan import read_plan

    folder = Path(options.plan)
    if not folder.is_dir():
        return read_plan(options.plan), Path(options.runs)
    study_at(folder)
    folder = Path(os.path.abspath(folder))
    return read_plan(Path(os.path.relpath(folder / PLAN)), name=folder.name), folder.parent


ACTIONS: Mapping[str, Callable[[Namespace], int]] = {
    "plan": _plan,
    "run": _run,
    "report": _report,
    "replay": _replay,
    "analyse": _analyse,
    "calibrate": _calibrate,
    "power": _power,
}
