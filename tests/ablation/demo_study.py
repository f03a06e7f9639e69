"""A study as it might come out: positions on Python source, at the size that two cores train in two minutes.

The means and the noise are measured ones, the curves are drawn. `python -m tests.ablation.demo_study FOLDER` writes its
report, to be looked at.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from gptzoo.ablation.designs import Design, two_level
from gptzoo.ablation.study import Arm, CellOutcome, Point, Positions, StudyOutcome, Tuned, TuningRun

STEPS, TOKENS_PER_STEP, EVERY = 200, 1024, 10
MEANS = {"learned": 2.455, "rope": 2.289, "alibi": 2.315, "none": 2.444}
SECONDS = {"learned": 5.1, "rope": 5.9, "alibi": 5.4, "none": 4.9}
NOISE = 0.016
ENVIRONMENT = {"torch": "2.13.0", "threads": 1, "device": "cpu"}

PLAN = """\
base: gpt2-tiny
baseline: learned
arms:
  learned: {}
  rope: {model.position: rope}
  alibi: {model.position: alibi}
  none: {model.position: none}
seeds: 3
match: tokens
metric: val_loss
delta: 0.02
alpha: 0.05
"""
BASE = """\
name: gpt2-tiny
model: {n_layer: 2, n_head: 4, n_embd: 64, context_length: 64, attention: multi_head, position: learned}
data: {name: python_source, tokenizer: byte, max_bytes: 2000000}
train: {steps: 200, batch_size: 16, learning_rate: 0.002, optimizer: {name: adamw, weight_decay: 0.1}}
"""


def study(seeds: int = 3) -> StudyOutcome:
    """The whole study: four arms and the A/A arm."""
    cells = [cell(arm, seed) for arm in MEANS for seed in range(seeds)]
    cells += [cell("a/a", 10_000 + seed) for seed in range(seeds)]
    return StudyOutcome(
        name="positions",
        plan=PLAN,
        plan_hash=_hash("plan", 64),
        exploratory="",
        baseline="learned",
        arms=tuple(arm(name) for name in MEANS),
        seeds=seeds,
        aa=True,
        match="tokens",
        metric="val_loss",
        higher_is_better=False,
        delta=0.02,
        alpha=0.05,
        base_recipe=BASE,
        cells=tuple(cells),
    )


def arm(name: str) -> Arm:
    """An arm that changes the position."""
    if name == "learned":
        return Arm(name, {}, {})
    return Arm(name, {"model.position": name}, {"model.position": ("learned", name)})


def cell(arm: str, seed: int, mean: float | None = None) -> CellOutcome:
    """One run, with a curve that ends in its value."""
    kind = "learned" if arm not in MEANS else arm
    random = np.random.default_rng([seed, len(arm), *arm.encode()])
    value = round((MEANS[kind] if mean is None else mean) + NOISE * float(random.standard_normal()), 6)
    parameters = 119_872 if kind == "learned" else 115_776
    seconds = SECONDS.get(kind, 5.0) * float(random.uniform(0.97, 1.05))
    return CellOutcome(
        arm=arm,
        seed=seed,
        id=_hash(f"{arm}{seed}", 12),
        path=f"cells/{arm.replace('/', '')}-{seed}",
        status="done",
        value=value,
        curve=_curve(value, seconds, random),
        gradients=_gradients(arm, seed),
        logits=_logits(arm, seed),
        parameters=parameters,
        non_embedding=99_328,
        flops_per_token=795_000.0,
        flops=795_000.0 * STEPS * TOKENS_PER_STEP,
        body_flops=696_000.0 * STEPS * TOKENS_PER_STEP,
        tokens=STEPS * TOKENS_PER_STEP,
        seconds=round(seconds, 3),
        peak_memory=151_000_000 + 1_000_000 * (seed % 5),
        init_hash=_hash(f"init{arm}{seed}", 12),
        data_hash=_hash(f"data{seed}", 12),
        data_key=_hash("key", 12),
        environment=ENVIRONMENT,
    )


def failed(outcome: CellOutcome, reason: str = "out of memory after 80 steps") -> CellOutcome:
    """The same run, had it failed."""
    return replace(outcome, status="failed", value=None, curve=(), gradients=(), logits=(), reason=reason)


def diverged(outcome: CellOutcome) -> CellOutcome:
    """The same run, had it diverged half-way."""
    curve = outcome.curve[: len(outcome.curve) // 2]
    climbing = tuple(replace(point, value=point.value + 0.02 * i**2) for i, point in enumerate(curve))
    half = outcome.gradients[: len(outcome.gradients) // 2]
    growing = tuple((step, round(norm * 1.03**step, 6)) for step, norm in half)
    reason = "loss not finite at step 100"
    return replace(outcome, status="diverged", value=None, curve=climbing, gradients=growing, logits=(), reason=reason)


def killed(outcome: CellOutcome, share: float = 0.25) -> CellOutcome:
    """The same run, had it been killed at a rung."""
    curve = tuple(point for point in outcome.curve if point.step <= share * STEPS)
    reason = f"killed at {share:.0%} of training, far behind"
    return replace(
        outcome,
        status="killed",
        value=None,
        curve=curve,
        tokens=curve[-1].tokens,
        flops=share * outcome.flops,
        gradients=tuple(each for each in outcome.gradients if each[0] <= share * STEPS),
        logits=(),
        reason=reason,
    )


RATES = (0.0005, 0.001, 0.002, 0.004, 0.008)
BEST = {"learned": 0.0021, "rope": 0.0034, "alibi": 0.0017, "none": 0.0026}


def tuned(seeds: int = 3) -> StudyOutcome:
    """The study with a tuning before it: five rates for each arm, at a quarter of the tokens."""
    whole = study(seeds)
    return replace(whole, name="positions, tuned", tuning=tuple(map(tuning_of, MEANS)), rungs=(0.25, 0.5, 0.75))


def tuning_of(arm: str, best: float | None = None) -> Tuned:
    """A bowl with its lowest point at the arm's best rate; the highest rate of rope diverges."""
    lowest = BEST[arm] if best is None else best
    return Tuned(arm, tuple(tuning_run(arm, rate, lowest) for rate in RATES), lowest)


def tuning_run(arm: str, rate: float, best: float, seed: int = 20_000) -> TuningRun:
    """One short run."""
    value = round(MEANS[arm] + 0.35 + 0.03 * float(np.log2(rate / best)) ** 2, 6)
    made = TuningRun(arm, rate, seed, _hash(f"{arm}{rate}", 12), f"tuning/{arm}-{rate}", "done", value, 51_200)
    return replace(made, status="diverged", value=None, tokens=9_216) if (arm, rate) == ("rope", 0.008) else made


def with_kills() -> StudyOutcome:
    """A tuned study in which an arm was killed, and another's best rate lies at the edge."""
    whole = tuned()
    cells = [killed(c) if c.arm == "none" and c.seed > 0 else c for c in whole.cells]
    trouble = "its best rate, 0.008, is the highest that was tried"
    tuning = [
        replace(tuning_of("alibi", 0.012), rate=0.008, trouble=trouble) if each.arm == "alibi" else each
        for each in whole.tuning
    ]
    return replace(whole, name="positions, with kills", cells=tuple(cells), tuning=tuple(tuning))


def read_far(times: int = 4) -> StudyOutcome:
    """The study with losses by position, read beyond the context length; learned positions end there."""
    whole = study()
    return replace(whole, cells=tuple(replace(c, positions=positions_of(c, times)) for c in whole.cells))


def positions_of(cell: CellOutcome, times: int = 4) -> Positions:
    """Falls with the position, and rises beyond the context for rope alone."""
    ends = cell.arm in ("learned", "a/a") and times > 1
    at = np.arange(64 if ends else 64 * times)
    losses = (cell.value or 0) - 0.15 + 0.9 * np.exp(-at / 4) + (cell.arm == "rope") * 0.002 * np.maximum(0, at - 64)
    trouble = "its positions end at 64" if ends else ""
    return Positions(tuple(map(float, losses)), (16,) * len(at), 64, 64 * times, trouble)


def many_arms(arms: int = 12, seeds: int = 3) -> StudyOutcome:
    """As many arms, some with names that are long, and in several scripts."""
    names = [f"arm-{i:02}" for i in range(1, arms - 3)]
    names += [
        "grouped-query-attention-2-heads-rope-base-500000",
        "窓付き注意 (窓 128)",
        "rôle “naïve” <b>&amp;</b> $x^2$",
    ]
    names = names[: arms - 1]
    cells = [cell("learned", seed) for seed in range(seeds)]
    cells += [cell(name, seed, 2.455 - 0.02 * i) for i, name in enumerate(names) for seed in range(seeds)]
    cells += [cell("a/a", 10_000 + seed) for seed in range(seeds)]
    return replace(study(seeds), name="many arms", arms=tuple(map(arm, ["learned", *names])), cells=tuple(cells))


def with_trouble() -> StudyOutcome:
    """A study in which much went wrong: a failure, a divergence, a refusal, a changed plan."""
    whole = study()
    cells = [c for c in whole.cells if (c.arm, c.seed) != ("none", 2)]
    cells = [failed(c) if (c.arm, c.seed) == ("rope", 1) else c for c in cells]
    cells = [diverged(c) if (c.arm, c.seed) == ("alibi", 2) else c for c in cells]
    cells += [replace(failed(cell("none", 2), ""), status="missing")]
    refusal = "plan.yaml:9: model.position: 'fire' adds a dense bias, which kernel 'flash' cannot take. Use sdpa."
    return replace(
        whole,
        name="positions, with trouble",
        arms=(*whole.arms, Arm("fire", {"model.position": "fire", "model.kernel": "flash"}, {}, refusal)),
        cells=tuple(cells),
        exploratory="the plan's learning rate was changed after the first run",
        delta=None,
        notes=("Dropout is 0.1: its draws are common to arms only where their graphs are equal.",),
    )


def crossed(kind: str = "fractional", seeds: int = 2) -> StudyOutcome:
    """A study of factors: one that helps, one that does not, and two that help only together."""
    names = ("rope", "swiglu", "rmsnorm", "qk_norm", "bias", "tied")
    chosen = names if kind == "fractional" else names[:3]
    design = two_level(kind, chosen)
    cells = []
    for place, (arm, row) in enumerate(design.arms.items()):
        on = {name for name, level in zip(chosen, row, strict=True) if level}
        mean = 2.455 - 0.16 * ("rope" in on) - 0.07 * ({"swiglu", "rmsnorm"} <= on)
        for seed in range(seeds):
            noise = NOISE * float(np.random.default_rng([seed, place]).standard_normal())
            cells.append(replace(cell(arm, seed), value=round(mean + noise, 6)))
    arms = tuple(
        Arm(name, {f"model.{f}": "on" for f, level in zip(chosen, row, strict=True) if level}, {})
        for name, row in design.arms.items()
    )
    return replace(
        study(seeds), name=kind, baseline="base", arms=arms, aa=False, cells=tuple(cells), design=design, delta=None
    )


def many_levels(seeds: int = 2) -> StudyOutcome:
    """A grid of positions by norms."""
    positions, norms = tuple(MEANS), ("layernorm", "rmsnorm")
    rows = {f"{p}+{n}": (i, j) for i, p in enumerate(positions) for j, n in enumerate(norms)}
    design = Design("grid", ("model.position", "model.norm"), (positions, norms), rows)
    cells = []
    for arm, (i, _) in rows.items():
        for seed in range(seeds):
            noise = NOISE * float(np.random.default_rng([seed, len(cells)]).standard_normal())
            cells.append(replace(cell(arm, seed), value=round(MEANS[positions[i]] + noise, 6)))
    arms = tuple(Arm(name, {}, {}) for name in rows)
    whole = replace(study(seeds), name="grid", baseline="learned+layernorm", arms=arms, aa=False, design=design)
    return replace(whole, cells=tuple(cells))


def _curve(value: float, seconds: float, random: np.random.Generator) -> tuple[Point, ...]:
    steps = np.arange(0, STEPS + 1, EVERY)
    shape = 3.1 * (np.exp(-steps / 28) - np.exp(-STEPS / 28)) + 0.35 * (1 - steps / STEPS) ** 1.5
    wiggle = 0.02 * random.standard_normal(len(steps)) * (1 - steps / STEPS)
    values = [round(float(v), 6) for v in value + shape + wiggle]
    times = [round(float(seconds * step / STEPS), 3) for step in steps]
    return tuple(
        Point(int(step), int(step) * TOKENS_PER_STEP, time, v)
        for step, time, v in zip(steps, times, values, strict=True)
    )


def _gradients(arm: str, seed: int) -> tuple[tuple[int, float], ...]:
    """Norms that fall and settle, noisily."""
    random = np.random.default_rng([seed, 1, *arm.encode()])
    level = 0.5 + 0.1 * (len(arm) % 4)
    norms = (level + 3.0 * np.exp(-np.arange(1, STEPS + 1) / 15)) * np.exp(0.2 * random.standard_normal(STEPS))
    return tuple((step, round(float(norm), 6)) for step, norm in enumerate(norms, 1) if step % 2 == 0)


def _logits(arm: str, seed: int) -> tuple[float, ...]:
    """Of two layers."""
    random = np.random.default_rng([seed, 2, *arm.encode()])
    return tuple(round(float(n), 6) for n in (3 + len(arm) / 2, 5 + len(arm)) * np.exp(0.1 * random.standard_normal(2)))


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


if __name__ == "__main__":
    from gptzoo.ablation.findings import find
    from gptzoo.ablation.overview import Side, write_overview
    from gptzoo.ablation.report import write_report

    for name, outcome in {
        "demo": study(),
        "trouble": with_trouble(),
        "many": many_arms(),
        "one": study(seeds=1),
        "fractional": crossed(),
        "both": crossed("both", 3),
        "grid": many_levels(),
        "tuned": tuned(),
        "kills": with_kills(),
        "far": read_far(),
        "blocked": replace(study(), mismatches=("parameters: rope has 3.4% fewer than learned, beyond 0.5%",)),
    }.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in write_report(outcome, folder):
            print(path)
    folder = Path(sys.argv[1]) / "sides"
    sides = [Side.of(find(study())), Side.of(find(replace(study(5), match="flops+params")))]
    for side in sides:
        (folder / side.folder).mkdir(parents=True, exist_ok=True)
        write_report(side.findings, folder / side.folder, up="../")
    print(*write_overview(sides, folder), sep="\n")
