"""A study that was matched in several ways, on one page: each arm's verdict under each, and where they disagree.

`report.html`, `report.md` and `summary.json` in the study's folder; the whole report of each way of matching lies in a
folder of its own beside them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from gptzoo.ablation import figures, wording
from gptzoo.ablation.findings import ArmFindings, Findings
from gptzoo.ablation.report import alerts, inline, markdown_line, strict, templates
from gptzoo.ablation.wording import NONE, Numbers
from gptzoo.files import write_atomically
from gptzoo.runs.directory import slug


@dataclass(frozen=True)
class Side:
    """One way of matching.

    Args:
        match: `tokens`, `tokens+params`, ...
        folder: Where its report lies, beside the overview.
        findings: What was found.
    """

    match: str
    folder: str
    findings: Findings

    @classmethod
    def of(cls, findings: Findings) -> Side:
        match = findings.study.match
        return cls(match, slug(match), findings)

    @property
    def numbers(self) -> Numbers:
        return Numbers.of(self.findings)

    def arm(self, name: str) -> ArmFindings | None:
        """What was found of an arm; None if it was refused here."""
        return next((arm for arm in self.findings.arms if arm.name == name), None)

    @property
    def title(self) -> str:
        """`matched on tokens`."""
        return f"matched on {wording.matched(self.findings.study)}"

    @property
    def heading(self) -> str:
        """`Matched on tokens`."""
        return f"M{self.title[1:]}"


def write_overview(sides: list[Side], folder: Path) -> list[Path]:
    """Write `report.html`, `report.md` and `summary.json`; the files, in that order.

    Raises:
        GPTZooError: A file cannot be written.
        NoSpace: The disk is full.
    """
    contents = {"report.html": to_html(sides), "report.md": to_markdown(sides), "summary.json": to_json(sides)}
    for name, text in contents.items():
        write_atomically(folder / name, text.encode())
    return [folder / name for name in contents]


def arms_of(sides: list[Side]) -> list[str]:
    """All arms but the baseline, in the plan's order, those that some way of matching refused too."""
    study = sides[0].findings.study
    return [arm.name for arm in study.arms if arm.name != study.baseline]


def verdict_of(side: Side, name: str) -> str:
    """`better`, ..., `refused`."""
    arm = side.arm(name)
    if arm is None:
        return "refused"
    return arm.verdict.verdict if arm.verdict else "no verdict"


def disagreements(sides: list[Side]) -> list[str]:
    """One sentence for each arm whose verdict depends on how the arms were matched."""
    base, found = sides[0].findings.study.baseline, []
    for name in arms_of(sides):
        by_verdict: dict[str, list[str]] = {}
        for side in sides:
            by_verdict.setdefault(verdict_of(side, name), []).append(wording.matched(side.findings.study))
        if len(by_verdict) > 1:
            told = [f"matched on {' or on '.join(ways)}, it {_says(each, base)}" for each, ways in by_verdict.items()]
            found.append(f"{name}: {'; '.join(told)}.")
    return found


def _says(verdict: str, base: str) -> str:
    return {
        "better": f"is better than {base}",
        "worse": f"is worse than {base}",
        "equivalent": f"is equivalent to {base}",
        "undecided": f"cannot be told from {base}",
        "diverged": "diverged",
        "refused": "could not be run",
    }.get(verdict, "has no verdict")


def verdict_line(sides: list[Side]) -> str:
    """Whether the verdicts agree, one sentence, where none disagrees."""
    how_many = "both" if len(sides) == 2 else f"all {len(sides)}"
    return f"Every arm has the same verdict under {how_many} ways of matching."


def to_html(sides: list[Side]) -> str:
    """The page."""
    return (
        templates()
        .get_template("report_overview.html.j2")
        .render(
            study=sides[0].findings.study,
            sides=sides,
            arms=arms_of(sides),
            verdict_of=verdict_of,
            disagreements=disagreements(sides),
            agree=verdict_line(sides),
            alerts={side.match: alerts(side.findings) for side in sides},
            figures={side.match: _forest(side) for side in sides},
            words=wording,
        )
    )


def _forest(side: Side) -> Markup:
    """The forest plot, its links leading into the whole report."""
    drawn = figures.forest(side.findings, side.numbers, f"forest-{side.folder}")
    return Markup(re.sub(r'href="#(cells?-)', rf'href="./{side.folder}/report.html#\1', drawn))


def to_markdown(sides: list[Side]) -> str:
    """The verdicts of all ways of matching beside each other."""
    study = sides[0].findings.study
    lines = [f"# {inline(study.name)}", ""]
    for side in sides:
        lines.append(f"- [{inline(side.match)}]({side.folder}/report.md): {_lede(side)}")
        lines += [f"  - **{inline(alert.title)}** {inline(alert.text)}" for alert in alerts(side.findings)]
    lines += ["", *(f"- {inline(line)}" for line in disagreements(sides) or [verdict_line(sides)]), ""]
    head = ["arm", *(f"{side.match}: {what}" for side in sides for what in ("verdict", "difference", "compute"))]
    lines += [markdown_line(head), markdown_line(["---", *["---", "---:", "---:"] * len(sides)])]
    lines += [
        markdown_line([name, *(cell for side in sides for cell in _cells(side, name))]) for name in arms_of(sides)
    ]
    return "\n".join([*lines, "", f"Plan sha256 {study.plan_hash}.", ""])


def _lede(side: Side) -> str:
    return inline(wording.lede(side.findings, side.numbers))


def _cells(side: Side, name: str) -> list[str]:
    arm = side.arm(name)
    if arm is None:
        return ["refused", NONE, NONE]
    verdict = arm.verdict
    if verdict is None:
        return [wording.badge(arm), NONE, NONE]
    interval = side.numbers.interval(verdict.low, verdict.high)
    difference = " ".join([side.numbers.signed(verdict.difference), *([] if interval == NONE else [interval])])
    return [wording.badge(arm), difference, wording.gain_text(arm.gain)]


def to_json(sides: list[Side]) -> str:
    """The verdicts of all ways of matching, and where the whole of each lies."""
    study = sides[0].findings.study
    value = {
        "name": study.name,
        "baseline": study.baseline,
        "metric": study.metric,
        "plan_hash": study.plan_hash,
        "disagreements": disagreements(sides),
        "matches": {side.match: _side_json(side) for side in sides},
    }
    return json.dumps(strict(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _side_json(side: Side) -> Mapping[str, object]:
    arms = []
    for name in arms_of(sides=[side]):
        arm = side.arm(name)
        verdict = arm.verdict if arm else None
        known = {key: getattr(verdict, key) for key in ("difference", "low", "high", "p_holm")} if verdict else {}
        gain = arm.gain.estimate.value if arm and arm.gain else None
        arms.append({"arm": name, "verdict": verdict_of(side, name), **known, "compute_gain": gain})
    return {"folder": side.folder, "mismatches": side.findings.study.mismatches, "arms": arms}
