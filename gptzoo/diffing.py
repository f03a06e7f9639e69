"""What differs between two runs: recipe, plugins, environment, results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gptzoo.recipe.compose import compose
from gptzoo.runs import Records, RunDirectory

Difference = dict[str, list[object]]
"""Key -> [in the first run, in the second]; a missing one is None."""


def diff(first: Path, second: Path) -> dict[str, Difference]:
    """Differences by section: `recipe`, `plugins`, `environment`, `results`.

    Raises:
        GPTZooError: One of the folders is no run.
    """
    runs = [RunDirectory.at(path, lock=False) for path in (first, second)]
    environments = [run.read_environment() for run in runs]
    plugins = [_plugins(environment) for environment in environments]
    rest = [{k: v for k, v in e.items() if k not in ("plugins", "changes")} for e in environments]
    return {
        "recipe": _between(*(flat(compose(run.recipe_path).tree) for run in runs)),
        "plugins": _between(*plugins),
        "environment": _between(*map(flat, rest)),
        "results": _between(*(results(run) for run in runs)),
    }


def results(run: RunDirectory) -> dict[str, object]:
    """The last training and validation figures of a run."""
    last: dict[str, object] = {}
    for record in Records.read(run.metrics_path):
        last.update({name: value for name, value in record.items() if name != "learning_rate"})
    speeds = [record["tokens_per_second"] for record in Records.read(run.timings_path)]
    if speeds:
        last["tokens_per_second (median)"] = sorted(speeds)[len(speeds) // 2]  # type: ignore[type-var]
    return last


def flat(tree: object, prefix: str = "") -> dict[str, object]:
    """Nested mappings and lists as dotted keys."""
    if isinstance(tree, Mapping) and tree:
        items = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    return {k: v for key, value in items for k, v in flat(value, f"{prefix}.{key}" if prefix else str(key)).items()}


def _plugins(environment: Mapping[str, object]) -> dict[str, object]:
    listed = environment.get("plugins", [])
    return {p["plugin"]: f"{p['origin']} {p['version']} {p['sha256'][:12]}" for p in listed}  # type: ignore[union-attr,index]


def _between(first: Mapping[str, object], second: Mapping[str, object]) -> Difference:
    keys = sorted({*first, *second})
    return {key: [first.get(key), second.get(key)] for key in keys if first.get(key) != second.get(key)}


def as_text(found: Mapping[str, Difference], first: str, second: str) -> str:
    """A section each, a line per key."""
    lines = [f"- {first}", f"+ {second}"]
    for section, difference in found.items():
        lines.append(f"\n{section}: {'no difference' if not difference else ''}".rstrip())
        width = max((len(key) for key in difference), default=0)
        lines += [f"  {key:{width}}  {_value(a)} -> {_value(b)}" for key, (a, b) in difference.items()]
    return "\n".join(lines)


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
