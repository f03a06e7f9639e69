"""What a report says in words: the verdict on each arm, numbers with their units, the methods."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import yaml

from gptzoo.ablation.collecting import TOLERANCE, WALL_APART
from gptzoo.ablation.compute_gain import FARTHEST, FROM, Bound, Gain
from gptzoo.ablation.findings import ArmFindings, Findings
from gptzoo.ablation.study import StudyOutcome
from gptzoo.ablation.timing import STEPS, WARM_UP, WINDOWS
from gptzoo.ablation.verdicts import MOST_SEEDS, Analysis, ArmVerdict, counted

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"
PLUS_MINUS, TIMES = "\N{PLUS-MINUS SIGN}", "\N{MULTIPLICATION SIGN}"

_METRICS = {
    "val_loss": ("validation loss", "nats"),
    "val_loss_ema": ("validation loss of the averaged weights", "nats"),
    "bits_per_byte": ("bits per byte", "bits per byte"),
    "exact_match": ("exact match", ""),
}
_MATCHES = {
    "tokens": "every run sees the same number of tokens",
    "params": "every arm has as many parameters as the baseline",
    "flops": "every run spends the same training FLOPs",
    "wall": "every run trains for the same time on this machine",
}


@dataclass(frozen=True)
class Numbers:
    """How numbers of the metric are written.

    Args:
        title: The metric's name in words.
        unit: Its unit, or an empty string.
        decimals: Enough to show two digits of the noise.
    """

    title: str
    unit: str
    decimals: int

    @classmethod
    def of(cls, findings: Findings) -> Numbers:
        title, unit = _METRICS.get(findings.study.metric, (findings.study.metric, ""))
        analysis = findings.analysis
        noise = (analysis.sigma or analysis.baseline_arm.std) if analysis else None
        decimals = min(8, max(0, 1 - math.floor(math.log10(noise)))) if noise else 4
        return cls(title, unit, decimals)

    def plain(self, value: float | None) -> str:
        """`2.289`."""
        return NONE if value is None else _minus(f"{value:.{self.decimals}f}")

    def signed(self, value: float | None) -> str:
        """`+0.011`."""
        return NONE if value is None else _minus(f"{value:+.{self.decimals}f}")

    def interval(self, low: float | None, high: float | None, sign: bool = True) -> str:
        """`[-0.180, -0.152]`."""
        if low is None or high is None:
            return NONE
        return f"[{self.signed(low)}, {self.signed(high)}]" if sign else f"[{self.plain(low)}, {self.plain(high)}]"

    def amount(self, value: float) -> str:
        """`0.166 nats`."""
        return f"{self.plain(value)} {self.unit}".rstrip()

    @property
    def heading(self) -> str:
        """`validation loss, nats`."""
        return f"{self.title}, {self.unit}" if self.unit and self.unit != self.title else self.title


def sentence(findings: Findings, arm: ArmFindings, numbers: Numbers) -> str:
    """The verdict on one arm, in one sentence."""
    if arm.verdict is None:
        return f"{arm.name}: no verdict. {_no_result(findings, arm)}"
    base, verdict = findings.study.baseline, arm.verdict
    match verdict.verdict:
        case "better" | "worse":
            worth = _worth(arm.gain)
            return f"{arm.name} is {verdict.verdict} than {base} by {_apart(verdict, numbers)}.{worth}"
        case "equivalent":
            delta = numbers.amount(findings.study.delta or 0.0)
            return (
                f"{arm.name} is equivalent to {base}: the difference, {_measured(verdict, numbers)}, "
                f"lies within {PLUS_MINUS}{delta}."
            )
        case "undecided":
            return (
                f"{arm.name} cannot be told from {base} yet: the difference is {_measured(verdict, numbers)}. "
                f"{_remedy(verdict)}"
            )
        case "diverged":
            rest = f" The other {verdict.n} average {numbers.plain(verdict.mean)}." if verdict.n else ""
            runs = verdict.diverged + verdict.killed + verdict.n
            return f"{arm.name} diverged: {verdict.diverged} of {runs} runs did not end in a number.{rest}"
    because = "it is " if verdict.reason.startswith("untuned") else ""
    return f"{arm.name}: no verdict, because {because}{verdict.reason}.{_shown_difference(verdict, base, numbers)}"


def badge(arm: ArmFindings) -> str:
    """`undecided, 7 more seeds`."""
    verdict = arm.verdict
    if verdict is None:
        return "no verdict"
    if verdict.verdict == "no verdict":
        return f"no verdict{_why_none(verdict)}"
    if verdict.verdict != "undecided":
        return verdict.verdict
    rest = "stopped" if verdict.stopped else verdict.reason or more_seeds(verdict)
    return f"undecided, {rest}"


def _why_none(verdict: ArmVerdict) -> str:
    """`, killed`: the reason in a word, where there is one."""
    if verdict.reason.startswith("untuned"):
        return ", untuned"
    return ", killed" if verdict.killed and "killed" in verdict.reason else ""


def more_seeds(verdict: ArmVerdict) -> str:
    """`7 more seeds`."""
    if verdict.more_seeds is None:
        return f"more than {MOST_SEEDS} seeds"
    return f"{verdict.more_seeds} more {_plural('seed', verdict.more_seeds)}"


def p_text(p: float | None, equals: str = "") -> str:
    """`0.012`, `< 0.0001`; with `equals`, `= 0.012`."""
    if p is None:
        return NONE
    if p < 1e-4:
        return "< 0.0001"
    digits = 1 - math.floor(math.log10(p))
    return f"{equals}{p:.{min(digits, 4)}f}"


def short(value: float | None) -> str:
    """`119 k`, `1.25 M`, `3.2e+15`: three digits."""
    if value is None:
        return NONE
    size, suffixes = float(value), ["", " k", " M", " G", " T", " P", " E"]
    while abs(size) >= 999.5 and len(suffixes) > 1:
        size, suffixes = size / 1000, suffixes[1:]
    return f"{size:.3g}{suffixes[0]}" if abs(size) < 999.5 else f"{value:.2e}"


def duration(seconds: float | None) -> str:
    """`7.4 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(size: float | None) -> str:
    """`151 MB`."""
    return NONE if size is None else f"{short(size)}{'' if size >= 1000 else ' '}B"


def share(part: float | None) -> str:
    """`42%`; what is rare is not called never."""
    if part is None:
        return NONE
    if 0 < part < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= part < 1 else f"{part:.0%}"


def listed(values: Iterable[object]) -> str:
    """`a, b and c`."""
    words = [str(value) for value in values]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def shell(word: str) -> str:
    """A word as a shell takes it for one."""
    return shlex.quote(word)


def value_text(value: object) -> str:
    """A recipe value, as YAML would say it, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {value_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def interval_words(study: StudyOutcome) -> str:
    """What an interval is, for a caption."""
    if study.looks:
        return "interval at the level that its look spent, each for one arm alone"
    return f"{100 * (1 - study.alpha):.4g}% interval, each for one arm alone"


def lede(findings: Findings, numbers: Numbers) -> str:
    """What was compared, in one sentence."""
    study, others = findings.study, len(findings.arms) - 1
    better = "higher" if study.higher_is_better else "lower"
    unit = f" in {numbers.unit}" if numbers.unit and numbers.unit != numbers.title else ""
    seeds = f"{'at most ' if study.looks else ''}{study.seeds} {_plural('seed', study.seeds)}"
    return (
        f"{others} {_plural('arm', others)} against {study.baseline}, {seeds} each, by {numbers.title}{unit} "
        f"({better} is better), matched on {matched(study)}."
    )


def methods(findings: Findings, numbers: Numbers) -> list[str]:
    """How the study was done, paragraph by paragraph, from its plan and its results."""
    study = findings.study
    paragraphs = [
        _design(findings, numbers),
        *filter(None, [_steps(study), tuning(study)]),
        _statistics(findings),
        _equivalence(study, numbers),
    ]
    if study.looks:
        paragraphs.append(_looks(findings))
    if study.aa:
        fresh = len(findings.aa.cells) if findings.aa else study.seeds
        paragraphs.append(
            f"The A/A arm is the baseline itself on {fresh} fresh {_plural('seed', fresh)}. Any difference "
            "from the baseline is noise, or a fault of the study. It is tested by Welch's test, and belongs neither to "
            "the blocked model nor to Holm's family."
        )
    return [*paragraphs, _honesty(study)]


def noise_lines(analysis: Analysis, numbers: Numbers) -> list[tuple[str, str, str]]:
    """The noise floor: name, number, what it means."""
    lines = []
    if analysis.sigma is not None:
        meaning = f"SD of one run over seeds, pooled over arms, {counted(analysis.df or 0, 'degree')} of freedom"
        lines.append(("Noise", numbers.amount(analysis.sigma), meaning))
    if analysis.mde is not None:
        meaning = "smallest true difference that this study finds 80% of the time, corrected for all arms"
        lines.append(("Detectable", numbers.amount(analysis.mde), meaning))
    if analysis.icc is not None:
        meaning = "share of the variance that the seed explains, hence what pairing by seed takes out"
        lines.append(("Seed effect", f"{max(0.0, analysis.icc):.0%}", meaning))
    if analysis.aa is not None:
        lines.append(_aa_line(analysis, numbers))
    return lines


def _aa_line(analysis: Analysis, numbers: Numbers) -> tuple[str, str, str]:
    aa = analysis.aa
    assert aa is not None
    outcome = {
        True: "within noise, as it must be",
        False: "NOT within noise: look for a fault in the study before trusting a verdict",
        None: "not tested, too few runs",
    }[aa.sound]
    interval = "" if aa.low is None else f", {numbers.interval(aa.low, aa.high)}, p {p_text(aa.p, '= ')}"
    difference = NONE if aa.difference is None else f"{numbers.signed(aa.difference)} {numbers.unit}".rstrip()
    meaning = f"the baseline on {aa.n} fresh {_plural('seed', aa.n)} against itself{interval}: {outcome}"
    return "A/A", difference, meaning


def _worth(gain: Gain | None) -> str:
    """` That is worth ×1.42 the compute [1.21, 1.68].`"""
    return "" if gain is None else f" That is worth {gain_text(gain, 'the compute ')}."


def gain_text(gain: Gain | None, of: str = "") -> str:
    """`×1.42 [1.21, 1.68]`, `more than ×2 [1.8, more than 2]`: times the compute; with `of`, of what."""
    if gain is None:
        return NONE
    words = f"{_beyond(gain.estimate)}{TIMES}{times(gain.estimate)} {of}"
    if gain.estimate.side and gain.low == gain.high == gain.estimate:
        return words.rstrip()  # the whole interval lies beyond what can be read off
    low, high = (f"{_beyond(end)}{times(end)}" for end in (gain.low, gain.high))
    return f"{words}[{low}, {high}]"


def gain_short(gain: Gain | None) -> str:
    """`×1.42`, `> ×2`."""
    if gain is None:
        return NONE
    sign = {1: "> ", -1: "< ", 0: ""}[gain.estimate.side]
    return f"{sign}{TIMES}{times(gain.estimate)}"


def gain_range(gain: Gain | None) -> str:
    """`[1.21, > 2]`."""
    if gain is None:
        return NONE
    signs = {1: "> ", -1: "< ", 0: ""}
    return f"[{', '.join(f'{signs[end.side]}{times(end)}' for end in (gain.low, gain.high))}]"


def times(bound: Bound) -> str:
    """`1.42`; a limit without zeros at its end: `2`."""
    return f"{bound.value:.2f}" if not bound.side else f"{bound.value:.3g}"


def _beyond(bound: Bound) -> str:
    return {1: "more than ", -1: "less than ", 0: ""}[bound.side]


def gain_note(findings: Findings) -> str:
    """What gains in compute rest on; an empty string where there are none."""
    curve = findings.curve
    if curve is None or all(arm.gain is None for arm in findings.arms):
        return ""
    base, runs = findings.study.baseline, f"{curve.runs} {_plural('run', curve.runs)}"
    return (
        f"Gain in compute: how many times an arm's training FLOPs {base} would need for the arm's loss. It rests on "
        f"{base}'s own learning curve ({runs}, {curve.points} evaluations from {FROM:.0%} of the training on), and is "
        "an approximation: under a learning rate that decays, a point before the end is no finished training. Beyond "
        f"{base}'s own compute it follows the last doubling, and not further than to {TIMES}{FARTHEST:g} of it."
    )


def gain_lines(findings: Findings) -> list[str]:
    """The gains for a terminal, one line per arm, and what they rest on."""
    known = [arm for arm in findings.arms if arm.gain is not None]
    return [*(f"compute: {arm.name} {gain_text(arm.gain)}" for arm in known), *filter(None, [gain_note(findings)])]


def _apart(verdict: ArmVerdict, numbers: Numbers) -> str:
    """`0.166 nats [0.152, 0.180], p < 0.0001, 3 seeds`: sizes, the direction being said."""
    assert verdict.difference is not None
    assert verdict.low is not None
    assert verdict.high is not None
    low, high = (verdict.low, verdict.high) if verdict.difference > 0 else (-verdict.high, -verdict.low)
    return f"{numbers.amount(abs(verdict.difference))} {numbers.interval(low, high, sign=False)}, {_support(verdict)}"


def _measured(verdict: ArmVerdict, numbers: Numbers) -> str:
    unit = f" {numbers.unit}".rstrip()
    interval = numbers.interval(verdict.low, verdict.high)
    return f"{numbers.signed(verdict.difference)}{unit} {interval}, {_support(verdict)}"


def _support(verdict: ArmVerdict) -> str:
    return f"p {p_text(verdict.p_holm, '= ')}, {verdict.n} {_plural('seed', verdict.n)}"


def _remedy(verdict: ArmVerdict) -> str:
    if verdict.reason:
        return f"{verdict.reason[0].upper()}{verdict.reason[1:]}."
    if verdict.more_seeds is None:
        return f"Even {MOST_SEEDS} seeds would not settle it, if the truth is what was observed."
    return f"{more_seeds(verdict).capitalize()} would probably settle it, if the truth is what was observed."


def _shown_difference(verdict: ArmVerdict, base: str, numbers: Numbers) -> str:
    if verdict.difference is None:
        return ""
    interval = "" if verdict.low is None else f" {numbers.interval(verdict.low, verdict.high)}"
    unit = f" {numbers.unit}".rstrip()
    return f" It measured {numbers.signed(verdict.difference)}{unit}{interval} beside {base}."


def _no_result(findings: Findings, arm: ArmFindings) -> str:
    if arm.count("done") and findings.trouble:
        return findings.trouble
    words = [f"{n} {status}" for status in ("failed", "missing", "diverged", "killed") if (n := arm.count(status))]
    return f"None of its runs gave a result: {listed(words)}." if words else "It has no runs."


def _design(findings: Findings, numbers: Numbers) -> str:
    study, others = findings.study, len(findings.arms) - 1
    most = 1 + max((cell.seed for arm in findings.arms for cell in arm.cells), default=study.seeds - 1)
    seeds = "seed 0" if most == 1 else f"seeds 0 to {most - 1}"
    if study.looks:
        seeds += ", an arm that a look stopped at fewer"
    better = "higher" if study.higher_is_better else "lower"
    model = _model(study.base_recipe, findings.baseline.costs.parameters)
    return (
        f"{others} {_plural('arm', others)} and the baseline {study.baseline} were trained at {seeds}{model}. A seed "
        "fixes the order of the data and the start of every weight, each drawn by its name, so that arms share the "
        f"start of the weights that they share. Match {study.match}: "
        f"{listed(_MATCHES.get(part, part) for part in study.match.split('+'))}. The metric is {numbers.title} "
        f"({study.metric}); {better} is better."
    )


def tuning(study: StudyOutcome) -> str:
    """How the learning rates were found; an empty string if they were not looked for."""
    if not study.tuning:
        return ""
    runs = [run for each in study.tuning for run in each.runs]
    seeds = sorted({run.seed for run in runs})
    return (
        f"The learning rate of every arm was tuned first, on an equal budget: {len(runs)} short runs at "
        f"{_plural('seed', len(seeds))} {listed(seeds)}, which no result uses. The rate taken is the lowest point of a "
        "parabola through the best rate and its neighbours, over the logarithm of the rate. An arm whose best rate "
        "lies at the edge of those tried counts as untuned, and has no verdict."
    )


def _steps(study: StudyOutcome) -> str:
    """How arms got their steps, where these are what is solved; an empty string where they are not."""
    matched = study.match.split("+")
    if "flops" in matched:
        return (
            "An arm that costs more per step takes fewer steps. FLOPs are those of the matrix products of a forward "
            "and a backward pass at the full context, the output's included and masked scores too: 6 N + 12 L H Q T "
            f"where every layer attends to everything. Arms may be {TOLERANCE:.1%} apart, by rounding. Evaluations lie "
            "at the same shares of each arm's training, as nearly as whole steps allow."
        )
    if "wall" in matched:
        return (
            f"A slower arm takes fewer steps. Before anything else each arm was timed in {WINDOWS} windows of "
            f"{STEPS} steps between runs of the baseline, one process alone, the first {WARM_UP} steps left out; its "
            "pace is the median over the windows. If its runs later trained for more than "
            f"{WALL_APART:.0%} longer or shorter than the baseline's, no verdict stands. Such verdicts are about "
            "speed on this machine, with these kernels at this size: elsewhere the same arms may get other steps."
        )
    return ""


def _statistics(findings: Findings) -> str:
    study, analysis = findings.study, findings.analysis
    df = f" ({counted(analysis.df, 'degree')} of freedom)" if analysis and analysis.df else ""
    arms = max(1, len(analysis.arms) if analysis else len(findings.arms) - 1)
    return (
        f"One blocked model explains every result: mean + arm + seed + noise, the noise pooled over the arms{df}. "
        f"Differences are arm minus {study.baseline}; intervals are t intervals ({interval_words(study)}). "
        f"p-values are two-sided and corrected by Holm's method for {arms} {_plural('arm', arms)}, so "
        f"that the probability of any false winner or loser is at most {study.alpha:.4g}. An arm whose spread over "
        "seeds is out of line (Levene's test around the median, an SD above twice the pooled one, or an F-test of its "
        "residuals) leaves the pooled noise and is compared by Welch's test. Missing results are allowed for by least "
        "squares. A run that diverged is an outcome, counted and never dropped."
        f"{_kills(study)}"
    )


def _kills(study: StudyOutcome) -> str:
    if not study.rungs:
        return ""
    return (
        f" At {listed(f'{rung:.0%}' for rung in study.rungs)} of the training, runs of an arm that was far behind, by "
        "a margin beyond the noise of the baseline and the A/A arm, were killed: such an arm has no verdict, as those "
        "of its runs that went on are the lucky ones. No arm was promoted early."
    )


def _looks(findings: Findings) -> str:
    study = findings.study
    return (
        f"{_looked(findings)} Each look spends a share of alpha that was fixed beforehand "
        f"(the O'Brien-Fleming kind of Lan and DeMets; the shares add up to {study.alpha:.4g}), and tests the arms "
        "that are left by Holm's method at that level. An arm stops when it is better, worse or equivalent, when a run "
        "of it diverged, or when the probability that the last look settles it is below 10%; such an arm still counts "
        "in Holm's family. Its interval is at the level of the look that it stopped at, so that all looks together "
        f"keep {100 * (1 - study.alpha):.4g}%."
    )


def _looked(findings: Findings) -> str:
    """Which looks were planned, and which of them were taken: a sentence."""
    planned, taken = findings.study.looks, [look.seeds for look in findings.analysis.looks] if findings.analysis else []
    if len(taken) == len(planned):
        return f"The study was looked at after {listed(planned)} seeds."
    until = f"taken after {listed(taken)}" if taken else "none was taken yet"
    return f"Looks were planned after {listed(planned)} seeds, and {until}."


def _equivalence(study: StudyOutcome, numbers: Numbers) -> str:
    if study.delta is None:
        return (
            "No arm can be called equivalent, because the plan gives no delta, the smallest difference that matters. "
            "Not being told apart is not the same as being equal: such arms stay undecided."
        )
    level = "the level that the look spent" if study.looks else f"{study.alpha:.4g}"
    return (
        f"Equivalent means shown to lie within {PLUS_MINUS}{numbers.amount(study.delta)} of the baseline (delta, the "
        f"smallest difference that matters): both one-sided tests reject at {level}, corrected by Holm's "
        "method. An arm that is neither shown to differ nor shown to be equivalent is undecided."
    )


def _honesty(study: StudyOutcome) -> str:
    frozen = f"The plan was frozen when the study began (sha256 {study.plan_hash[:12]})."
    if study.exploratory:
        return f"{frozen} These verdicts are exploratory, not confirmed: {study.exploratory.rstrip('.')}."
    return f"{frozen} Nothing but seeds or arms was added since."


def matched(study: StudyOutcome) -> str:
    """`tokens and parameters`: what is equal across arms."""
    words = {"params": "parameters", "flops": "FLOPs", "wall": "training time"}
    return listed(words.get(part, part) for part in study.match.split("+"))


def _model(base_recipe: str, parameters: float | None) -> str:
    """` (4 layers, ...)`, from what the base recipe says; an empty string if it says nothing."""
    recipe = _mapping(_yaml(base_recipe))
    model, train, data = (_mapping(recipe.get(key)) for key in ("model", "train", "data"))
    facts = [
        _fact(model.get("n_layer"), "{} layers"),
        _fact(model.get("n_head"), "{} heads"),
        _fact(model.get("n_embd"), "width {}"),
        _fact(model.get("context_length"), "context {}"),
        _fact(None if parameters is None else short(parameters), "{} parameters"),
        _fact(data.get("name") or (recipe.get("data") if isinstance(recipe.get("data"), str) else None), "data {}"),
        _fact(train.get("steps"), "{} steps"),
        _fact(train.get("batch_size"), "{} sequences each"),
        _fact(_name(train.get("optimizer")), "{}"),
        _fact(train.get("learning_rate"), "peak learning rate {}"),
    ]
    said = ", ".join(fact for fact in facts if fact)
    return f" ({said})" if said else ""


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _name(part: object) -> object:
    return part.get("name") if isinstance(part, Mapping) else part


def _fact(value: object, form: str) -> str:
    return "" if value is None else form.format(value)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _minus(text: str) -> str:
    """The typographic minus, and no minus before a zero."""
    bare = text.lstrip("+-")
    if not bare.strip("0."):
        return bare
    return text.replace("-", MINUS)
