"""The report of an ablation: report.html for people, results.csv and summary.json for programs, report.md for a README.

Made from a `StudyOutcome` alone, without torch. The same outcome gives the same bytes: no clock, no absolute path.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from gptzoo.ablation import (
    fairness,
    figures,
    figures_factors,
    figures_positions,
    figures_tuning,
    page_training,
    wording,
    wording_factors,
)
from gptzoo.ablation.bowls import bowls_of, narrow_winners
from gptzoo.ablation.factorial import Factorial
from gptzoo.ablation.findings import ArmFindings, Findings, find
from gptzoo.ablation.positions import ends, spans
from gptzoo.ablation.study import CellOutcome, StudyOutcome
from gptzoo.ablation.verdicts import to_json
from gptzoo.ablation.wording import NONE, Numbers
from gptzoo.files import write_atomically

COLUMNS = ("arm", "seed", "metric", "status", "id", "path", "reason")
FACTS = (
    *("parameters", "non_embedding", "flops_per_token", "tokens", "seconds", "peak_memory"),
    *("init_hash", "data_hash", "data_key", "exact_resumes"),
)
_ALARMING = ("A/A check failed", "The baseline ", "One seed for ")  # notes of an analysis that come first


@dataclass(frozen=True)
class Alert:
    """What must be read before anything else.

    Args:
        title: A few words.
        text: A sentence.
        points: One line each.
        grave: It takes the verdicts away, or should.
    """

    title: str
    text: str
    points: Sequence[str]
    grave: bool


def write_report(study: StudyOutcome | Findings, folder: Path, *, up: str = "") -> list[Path]:
    """Write the report of a study into a folder: `report.html`, `results.csv`, `summary.json`, `report.md`.

    Args:
        study: What came of it, or what was found in that.
        folder: Where the files go.
        up: The way from there to the study's folder, `../`; nothing where they are the same.

    Returns:
        The files, in that order.

    Raises:
        GPTZooError: A file cannot be written.
        NoSpace: The disk is full.
    """
    findings = find(study) if isinstance(study, StudyOutcome) else study
    contents = {
        "report.html": to_html(findings, up=up),
        "results.csv": results_csv(findings.study),
        "summary.json": summary_json(findings),
        "report.md": to_markdown(findings),
    }
    for name, text in contents.items():
        write_atomically(Path(folder) / name, text.encode())
    return [Path(folder) / name for name in contents]


def results_csv(study: StudyOutcome) -> str:
    """One row per cell, which `gptzoo ablate analyse` reads: a run that diverged is `nan`, a hole is empty."""
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    last = len(order)
    cells = sorted(
        study.cells, key=lambda cell: (cell.arm != study.baseline, order.get(cell.arm, last), cell.arm, cell.seed)
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *FACTS])
    for cell in cells:
        own = (cell.arm, cell.seed, _metric(cell), cell.status, cell.id, cell.path, cell.reason)
        writer.writerow([*own, *(str(getattr(cell, fact)) for fact in FACTS)])
    return text.getvalue()


def summary_json(findings: Findings) -> str:
    """The verdicts as `gptzoo ablate analyse --json` gives them, and beside them the plan's hash, cells and ledger."""
    study = findings.study
    keys = ("name", "metric", "match", "seeds", "plan_hash", "exploratory", "mismatches")
    bare = {"baseline": study.baseline, "alpha": study.alpha, "delta": study.delta, "arms": []}
    value = {
        **(to_json(findings.analysis) if findings.analysis else bare),
        **{key: getattr(study, key) for key in keys},
        "trouble": findings.trouble,
        "study_notes": study.notes,
        "changes": {arm.name: dict(arm.changes) for arm in study.arms},
        "refused": {arm.name: arm.refused for arm in findings.refused},
        "effects": _effects_json(findings),
        "compute_gains": {arm.name: asdict(arm.gain) for arm in findings.arms if arm.gain is not None},
        "compute_curve": _curve_json(findings),
        "positions": {arm.name: [asdict(each) for each in spans(arm.cells)] for arm in findings.everyone},
        "sensitivity": {bowl.arm: bowl.sensitivity for bowl in bowls_of(study)},
        "tuning": [asdict(each) for each in study.tuning],
        "rungs": study.rungs,
        "ledger": [asdict(entry) for entry in findings.ledger],
        "cells": [_cell_json(cell) for cell in study.cells],
    }
    return json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(findings: Findings) -> str:
    """The verdicts and the table, for a README or a pull request."""
    numbers, study = Numbers.of(findings), findings.study
    lines = [f"# {inline(study.name)}", "", inline(wording.lede(findings, numbers)), ""]
    lines += [line for alert in alerts(findings) for line in (f"> **{inline(alert.title)}** {_alert_text(alert)}", "")]
    lines += [f"- {inline(wording.sentence(findings, arm, numbers))}" for arm in findings.arms[1:]]
    lines += [f"- {inline(f'{arm.name} was refused: {arm.refused}')}" for arm in findings.refused]
    gained = any(arm.gain is not None for arm in findings.arms)
    head = ("arm", "verdict", numbers.title, "difference", "interval", "p (Holm)", "parameters", "seconds")
    head = (*head[:5], "compute", *head[5:]) if gained else head
    rows = [_markdown_row(findings, arm, numbers) for arm in findings.everyone]
    rows = rows if gained else [[*row[:5], *row[6:]] for row in rows]
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    lines += ["", markdown_line(head), markdown_line(rule), *map(markdown_line, rows), ""]
    lines += [inline(note), ""] if (note := wording.gain_note(findings)) else []
    lines += [f"- {inline(note)}" for note in notes(findings)] + ([""] if notes(findings) else [])
    return "\n".join([*lines, f"Plan sha256 {study.plan_hash}.", ""])


def to_html(findings: Findings, *, up: str = "") -> str:
    """The whole report as one page that needs nothing else; `up` is the way to the study's folder."""
    numbers = Numbers.of(findings)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            findings=findings,
            study=findings.study,
            analysis=findings.analysis,
            numbers=numbers,
            words=wording,
            up=up or "./",
            places=places,
            alerts=alerts(findings),
            figures=_figures(findings, numbers),
            factors=_factors(findings, numbers),
            tuning=_tuning(findings, numbers),
            training=page_training.of_training(findings, numbers),
            cost_figures=page_training.of_costs(findings),
            beyond=any(
                c.positions is not None and c.positions.asked > c.positions.trained for c in study_cells(findings)
            ),
            ends={arm.name: end for arm in findings.arms if (end := ends(arm.cells))},
            legend=figures.legend(findings),
            few_seeds=figures.FEW_SEEDS,
            colour=figures.colour_of,
            palette=figures.COLOURS,
            notes=notes(findings),
            lost=[cell for cell in study_cells(findings) if cell.status != "done"],
        )
    )


@functools.cache
def templates() -> jinja2.Environment:
    """The templates, compiled once; how numbers of the metric are written is the page's."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gptzoo.ablation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        plain=_plain,
        signed=_signed,
        p=wording.p_text,
        short=wording.short,
        duration=wording.duration,
        memory=wording.memory,
        value=wording.value_text,
        share=wording.share,
        gain=wording.gain_short,
        gain_range=wording.gain_range,
        ratio=lambda ratio: NONE if ratio is None else f"{ratio:.2f}",
    )
    return environment


@jinja2.pass_context
def _plain(context: jinja2.runtime.Context, value: float | None) -> str:
    return context["numbers"].plain(value)


@jinja2.pass_context
def _signed(context: jinja2.runtime.Context, value: float | None) -> str:
    return context["numbers"].signed(value)


def alerts(findings: Findings) -> list[Alert]:
    """What must be read before anything else."""
    study, found = findings.study, []
    if study.mismatches:
        text = "The arms were not compared on equal terms, so there are numbers below but no verdicts:"
        found.append(Alert("Verdicts are blocked.", text, study.mismatches, grave=True))
    if findings.trouble:
        found.append(Alert("No verdicts.", findings.trouble, (), grave=True))
    for note in findings.analysis.notes if findings.analysis else ():
        if note.startswith(_ALARMING):
            title, _, text = note.partition(": ")
            found.append(Alert(f"{title}:" if text else title, text, (), grave=not note.startswith("One seed")))
    if study.exploratory:
        reason = f"{study.exploratory[0].upper()}{study.exploratory[1:].rstrip('.')}"
        text = f"{reason}. Take the verdicts as hints for a new plan, not as confirmed."
        found.append(Alert("Exploratory.", text, (), grave=False))
    return found


def notes(findings: Findings) -> list[str]:
    """What else must be known, one line each."""
    told = findings.analysis.notes if findings.analysis else ()
    better = [arm.name for arm in findings.arms if arm.verdict and arm.verdict.verdict == "better"]
    narrow = narrow_winners(bowls_of(findings.study), findings.study.baseline, better)
    return [*(note for note in told if not note.startswith(_ALARMING)), *narrow, *findings.study.notes]


def study_cells(findings: Findings) -> list[CellOutcome]:
    """All cells, arm by arm."""
    return [cell for arm in findings.everyone for cell in arm.cells]


def places(findings: Findings) -> Mapping[str, int]:
    """Where each arm stands among all, by name: its cells and numbers are known by that on the page."""
    return {arm.name: place for place, arm in enumerate(findings.everyone)}


def _alert_text(alert: Alert) -> str:
    return inline(" ".join([alert.text, "; ".join(alert.points)]))


def _figures(findings: Findings, numbers: Numbers) -> Mapping[str, Markup]:
    drawn = {
        "forest": figures.forest(findings, numbers),
        "seeds": figures.seed_lines(findings, numbers),
        "positions": figures_positions.by_position(findings),
        "tokens": figures.learning_curves(findings, numbers, "tokens"),
        "seconds": figures.learning_curves(findings, numbers, "seconds"),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _tuning(findings: Findings, numbers: Numbers) -> Mapping[str, object] | None:
    """What the page says of the tuning."""
    study = findings.study
    if not study.tuning:
        return None
    known = {bowl.arm: bowl for bowl in bowls_of(study)}
    rows = [
        {"tuned": tuned, "bowl": known.get(name), "spent": fairness.spent(tuned), "row": row}
        for row, (name, tuned) in enumerate(fairness.of_arms(study).items())
    ]
    figure = figures_tuning.bowls(findings, list(known.values()), numbers)
    return {"rows": rows, "figure": Markup(figure), "paragraph": wording.tuning(study)}


def _factors(findings: Findings, numbers: Numbers) -> Mapping[str, object] | None:
    """What the page says of the factors of a design."""
    made, alpha = findings.effects, findings.study.alpha
    if made is None:
        return None
    return {
        "lede": wording_factors.lede(made),
        "warnings": wording_factors.warnings(made, alpha),
        "tables": wording_factors.tables(made, alpha, numbers),
        "figures": _factor_figures(made, numbers) if isinstance(made, Factorial) else [],
    }


def _factor_figures(made: Factorial, numbers: Numbers) -> list[Mapping[str, object]]:
    found: list[Mapping[str, object]] = []
    if svg := figures_factors.half_normal_plot(made, numbers):
        about = "Noise lies along the dashed line, what is real lies above it. An interaction counts half, so that all "
        title = "Effects beside noise"
        found.append(
            {"name": "half-normal", "title": title, "about": f"{about}have one standard error.", "svg": Markup(svg)}
        )
    for place, pair in enumerate(figures_factors.shown_pairs(made)):
        svg = figures_factors.interaction_plot(made, pair, place, numbers)
        about = "Mean over all runs at these levels. Parallel lines: the two add up."
        title = f"{pair[0]} and {pair[1]}"
        found.append({"name": f"interaction-{place}", "title": title, "about": about, "svg": Markup(svg)})
    return found


def _curve_json(findings: Findings) -> object:
    curve = findings.curve
    return None if curve is None else {k: v for k, v in vars(curve).items() if k != "draws"}


def _effects_json(findings: Findings) -> object:
    made = findings.effects
    if made is None:
        return None
    if not isinstance(made, Factorial):
        return [asdict(each) for each in made]
    means = [{"factors": pair, "means": table} for pair, table in made.means.items()]
    return {**asdict(made), "design": made.design.kind, "means": means}


def _metric(cell: CellOutcome) -> str:
    if cell.status == "diverged":
        return "nan"
    return repr(cell.value) if cell.status == "done" and cell.value is not None else ""


def _cell_json(cell: CellOutcome) -> dict[str, object]:
    """Without the curves, which the cell's own files hold."""
    return {key: value for key, value in asdict(cell).items() if key not in ("curve", "gradients", "positions")}


def strict(value: object) -> object:
    """Plain JSON: text for what JSON has no word for, null for what is not a number."""
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _markdown_row(findings: Findings, arm: ArmFindings, numbers: Numbers) -> list[str]:
    costs, verdict = arm.costs, arm.verdict
    aa = findings.analysis.aa if findings.analysis and arm is findings.aa else None
    if verdict is not None:
        interval, p = numbers.interval(verdict.low, verdict.high), wording.p_text(verdict.p_holm)
        worth = NONE if arm.gain is None else wording.gain_text(arm.gain)
        told = [wording.badge(arm), numbers.plain(arm.mean), numbers.signed(verdict.difference), interval, worth, p]
    elif aa is not None:
        interval = numbers.interval(aa.low, aa.high)
        told = ["A/A", numbers.plain(arm.mean), numbers.signed(aa.difference), interval, NONE, wording.p_text(aa.p)]
    else:
        word = "baseline" if arm is findings.baseline else wording.badge(arm)
        told = [word, numbers.plain(arm.mean), NONE, NONE, NONE, NONE]
    return [arm.name, *told, wording.short(costs.parameters), wording.duration(costs.seconds)]


def markdown_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table, or the rule under its head."""
    return f"| {' | '.join(cell if set(cell) <= set('-:') else inline(cell) for cell in cells)} |"


def inline(text: object) -> str:
    """Text that Markdown takes for text, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
