"""From a recipe to a trained run and back: `train` and `load`."""

from __future__ import annotations

import contextlib
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from gptzoo import NUMERICS_VERSION
from gptzoo.assembly import construct
from gptzoo.building import (
    Overrides,
    Plan,
    RecipeLike,
    build_data,
    build_model,
    build_optimizer,
    build_tokenizer,
    plan,
    with_vocab_size,
)
from gptzoo.contracts import Tokenizer
from gptzoo.diffing import flat
from gptzoo.environment import changes, environment, kernels_that_run, owners
from gptzoo.errors import CheckpointError, GPTZooError, Problems
from gptzoo.model import Model
from gptzoo.recipe.compose import compose
from gptzoo.recipe.typed import as_mapping, as_yaml
from gptzoo.runs import Records, RunDirectory, identity
from gptzoo.trainer import Trainer, Watcher
from gptzoo.transfer import Transfer, load_weights

CHANGEABLE = (
    "train.steps",
    "train.device",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "train.log_every",
    "train.sample_every",
    "train.sample_tokens",
    "train.sample_prompts",
    "train.loggers",
)
"""What may be changed in a run that exists; anything else would be another run."""


@dataclass(frozen=True)
class Run:
    """A training and its folder."""

    path: Path

    @property
    def metrics(self) -> list[dict[str, object]]:
        """The records of metrics.jsonl: training records have `loss`, evaluations `val_loss`."""
        return Records.read(self.path / "metrics.jsonl")

    @property
    def timings(self) -> list[dict[str, object]]:
        """The records of timings.jsonl: `step`, `seconds`, `tokens_per_second`."""
        return Records.read(self.path / "timings.jsonl")

    @property
    def val_loss(self) -> float | None:
        """The last validation loss, nats per token."""
        losses = [record["val_loss"] for record in self.metrics if "val_loss" in record]
        return losses[-1] if losses else None  # type: ignore[return-value]

    def model(self, **overrides: object) -> Model:
        """The trained model; see `load`."""
        return load(self.path, overrides=overrides)


def is_run(path: RecipeLike) -> bool:
    """Whether this names the folder of a run, rather than a recipe."""
    return isinstance(path, str | os.PathLike) and Path(path).is_dir()


def train(
    recipe: RecipeLike,
    /,
    *,
    runs: str | os.PathLike[str] = "runs",
    directory: str | os.PathLike[str] | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    strict: bool = False,
    require_exact: bool = False,
    watcher: Watcher | None = None,
    overrides: Overrides = (),
    **more: object,
) -> Run:
    """Train a recipe, or go on with a run. What was begun is resumed, bit for bit; what is done is left alone.

    Args:
        recipe: A path, a shipped name, a mapping, or the folder of a run.
        runs: Where run folders stand.
        directory: This run's own folder, in place of one under `runs`. Whoever names it answers for what lies there.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        strict: A broken plugin is an error even if nothing needs it.
        require_exact: Refuse to resume where the environment has changed.
        watcher: Told what happens.
        overrides: Recipe keys, dotted; as pairs of raw YAML, or a mapping.
        more: The same, as keywords.

    Raises:
        GPTZooError: See the exit codes of the command line.
    """
    assert not (more and isinstance(overrides, Sequence) and overrides), "overrides come one way or the other"
    given = more or overrides
    source: RecipeLike = Path(recipe) / "recipe.yaml" if is_run(recipe) else recipe  # type: ignore[arg-type]
    there = RunDirectory.at(Path(recipe), lock=False) if is_run(recipe) else None  # type: ignore[arg-type]
    if there is not None:
        _check_changes(there, given)
    with _naming_missing_plugins(there):
        made = plan(source, given, plugins=plugins, folders=folders, strict=strict)
    with _Session(made, recipe, Path(runs), directory, require_exact, watcher) as session:
        session.run()
    return Run(session.directory.path)


def load(
    run: str | os.PathLike[str],
    /,
    *,
    step: int | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    overrides: Overrides = (),
    **more: object,
) -> Model:
    """The model of a run, with its tokenizer, from the newest sound checkpoint or from that of a step.

    Args:
        run: The folder.
        step: Which checkpoint.
        plugins: Modules or files of plugins.
        folders: Folders of plugin files.
        overrides: Recipe keys, dotted, such as `model.kernel`.
        more: The same, as keywords.

    Raises:
        CheckpointError: There is no sound checkpoint.
        GPTZooError: The folder is no run, a plugin is missing, or the weights do not fit.
    """
    return load_with_plan(run, step=step, plugins=plugins, folders=folders, overrides=more or overrides)[0]


def load_with_plan(
    run: str | os.PathLike[str],
    *,
    step: int | None = None,
    plugins: Sequence[str] = (),
    folders: Sequence[str] = (),
    overrides: Overrides = (),
) -> tuple[Model, Plan]:
    """`load`, and the recipe that the model was built from."""
    directory = RunDirectory.at(Path(run), lock=False)
    with _naming_missing_plugins(directory):
        made = plan(directory.recipe_path, overrides, plugins=plugins, folders=folders, training=False)
    made, tokenizer = _with_saved_tokenizer(made, directory)
    checkpoint = directory.latest() if step is None else directory.load(step)
    if checkpoint is None:
        raise CheckpointError("no checkpoint was saved yet. Train it first.", str(directory.path))
    model = build_model(made)
    load_weights(model, checkpoint.model, source=str(directory.checkpoint_path(checkpoint.step)))
    model.tokenizer = tokenizer
    return model.to(made.device).eval(), made


def _with_saved_tokenizer(made: Plan, directory: RunDirectory) -> tuple[Plan, Tokenizer]:
    tokenizer = build_tokenizer(made)
    if tokenizer.learned:
        tokenizer.load(directory.tokenizer_path)
    return with_vocab_size(made, tokenizer), tokenizer


@contextlib.contextmanager
def _naming_missing_plugins(directory: RunDirectory | None) -> Iterator[None]:
    """Where all that is wrong with a run is that parts of it are no longer found, say how to get them, in one line."""
    try:
        yield
    except GPTZooError as error:
        missing = [] if directory is None else _missing_parts(directory, error)
        remedies = _remedies(directory) if directory is not None and missing else []
        if directory is None or not remedies:
            raise
        what = f"it was made with parts that are not here: {', '.join(missing)}. {'; '.join(remedies)}."
        raise GPTZooError(what, str(directory.path)) from None


def _missing_parts(directory: RunDirectory, error: GPTZooError) -> list[str]:
    """Parts of the run's own recipe that are not found; none where anything else is wrong."""
    found: list[str] = []
    for problem in error.problems if isinstance(error, Problems) else [error]:
        named = re.match(r"no (\w+) is called ('[^']*')(?!.* failed to load)", problem.what)
        if named is None or not problem.where.startswith(str(directory.recipe_path)):
            return []
        found.append(" ".join(named.groups()))
    return list(dict.fromkeys(found))


def _remedies(directory: RunDirectory) -> list[str]:
    """How to get the plugins with which a run was made and that are not installed in that version."""
    recorded: list[dict[str, str]] = directory.read_environment().get("plugins", [])  # type: ignore[assignment]
    foreign = [each for each in recorded if each["origin"] not in ("core", "gptzoo_plugins")]
    packages = {each["origin"]: each["version"] for each in foreign if each["version"]}
    wanted = [f"{name}=={version}" for name, version in packages.items() if _installed(name) != version]
    install = [f"Install them: pip install {' '.join(wanted)}"] if wanted else []
    return install + [f"Give their file: -p {each['origin']}" for each in foreign if not each["version"]]


def _installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check_changes(directory: RunDirectory, overrides: Overrides) -> None:
    keys = overrides if isinstance(overrides, Mapping) else [key for key, _ in overrides]
    for key in keys:
        if not any(key == each or key.startswith(f"{each}.") for each in CHANGEABLE):
            raise GPTZooError(
                f"a run that exists cannot change this. Train another run: gptzoo train {directory.recipe_path} "
                f"--{key} ... ; or change one of {', '.join(CHANGEABLE)}.",
                key,
            )


class _Session:
    """One call of `train`: the run directory, held, and a trainer in it."""

    def __init__(
        self,
        made: Plan,
        recipe: RecipeLike,
        runs: Path,
        directory: str | os.PathLike[str] | None,
        require_exact: bool,
        watcher: Watcher | None,
    ) -> None:
        self.existing = is_run(recipe)
        self.require_exact = require_exact
        self.watcher = watcher
        keep = made.recipe.train.keep
        tokenizer = build_tokenizer(made)
        if self.existing:
            self.directory = RunDirectory.at(Path(recipe), lock=True, keep=keep)  # type: ignore[arg-type]
            if tokenizer.learned:
                tokenizer.load(self.directory.tokenizer_path)
        self.data = build_data(made, tokenizer)
        self.made, self.tokenizer = with_vocab_size(made, tokenizer), tokenizer
        if not self.existing and directory is not None:
            self.directory = RunDirectory.create(Path(directory), keep=keep)
        elif not self.existing:
            name, id_ = self.made.recipe.name, run_identity(self.made, self.data.key)
            self.directory = RunDirectory.open(runs, name, id_, keep=keep)

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.directory.close()

    def run(self) -> None:
        made, options = self.made, self.made.recipe.train
        checkpoint = self.directory.latest()
        if checkpoint is not None and "imported" in checkpoint.state:
            raise GPTZooError(
                f"it was imported, not trained here. Start a run from it: gptzoo train {self.directory.recipe_path} "
                f"--train.init_from {self.directory.path}",
                str(self.directory.path),
            )
        if checkpoint is not None and checkpoint.state["settled"] and checkpoint.step >= options.steps:
            if checkpoint.step > options.steps:
                what = f"the run has {checkpoint.step} steps already, {options.steps} are fewer."
                raise GPTZooError(f"{what} Give a larger number.", made.where("train.steps"))
            return
        model = build_model(made)
        model.tokenizer = self.tokenizer
        transfer = self._take_weights(model) if checkpoint is None else None
        if transfer is not None and self.watcher is not None:
            self.watcher.took(transfer)
        model.to(made.device)
        self._record(model, resumed=checkpoint is not None, transfer=transfer)
        trainer = self._trainer(model)
        if checkpoint is not None:
            trainer.restore(checkpoint)
        trainer.run()

    def _trainer(self, model: Model) -> Trainer:
        made, options = self.made, self.made.recipe.train
        schedule = construct(options.schedule, made.zoo, where=made.where("train.schedule"))
        loggers = [construct(part, made.zoo, where=made.where("train.loggers")) for part in options.loggers]
        return Trainer(
            model=model,
            data=self.data,
            optimizer=build_optimizer(made, model),
            schedule=schedule,  # type: ignore[arg-type]
            options=options,
            seed=made.recipe.seed,
            directory=self.directory,
            loggers=loggers,  # type: ignore[arg-type]
            watcher=self.watcher,
        )

    def _take_weights(self, model: Model) -> Transfer | None:
        wanted = self.made.recipe.train.init_from
        if wanted is None:
            return None
        shape, tensors = trained(wanted.path)
        if not wanted.partial and (differ := _differences(shape, _model(as_mapping(self.made.recipe)))):
            raise GPTZooError(
                f"the weights of {wanted.path} belong to another model: {', '.join(differ)}. "
                "Write the same model, or take what fits with {path: ..., partial: true}.",
                self.made.where("train.init_from"),
            )
        return load_weights(model, tensors, partial=wanted.partial, source=wanted.path)

    def _record(self, model: Model, *, resumed: bool, transfer: Transfer | None) -> None:
        """Write recipe and environment; on a resume, say once what has changed."""
        now = environment(self.made.recipe, self.made.zoo, self.made.device, self.data.key)
        with self._blaming_plugins():
            now["kernels"] = kernels_that_run(model, self.made.recipe.train.precision)
        if transfer is not None:
            now["init_from"] = asdict(transfer)
        before = self.directory.read_environment()
        history = list(before.get("changes", []))  # type: ignore[call-overload]
        if resumed:
            history += self._changed(before, now)
        text = as_yaml(self.made.recipe)
        if self.directory.recipe_path.exists() and (old := self.directory.recipe_path.read_text()) != text:
            history.append({"recipe": _changed_lines(old, text)})
        self.directory.write_environment({**before, **now, "changes": history})
        if self.tokenizer.learned and not self.directory.tokenizer_path.exists():
            self.directory.tokenizer_path.mkdir()
            self.tokenizer.save(self.directory.tokenizer_path)
        self.directory.write_recipe(text)  # last: from here on the folder is a run

    @contextlib.contextmanager
    def _blaming_plugins(self) -> Iterator[None]:
        """A stranger's part that fails in the first forward is named in one line; a bug of ours keeps its traceback."""
        try:
            yield
        except Exception as error:
            files = {owner.origin: owner for owner in owners(self.made.recipe, self.made.zoo)}
            for frame in reversed(traceback.extract_tb(error.__traceback__)):
                if owner := files.get(frame.filename):
                    what = f"plugin {owner.plugin} fails in its first forward: {type(error).__name__}: {error}"
                    raise GPTZooError(" ".join(what.split()), f"{frame.filename}:{frame.lineno}") from error
            raise

    def _changed(self, before: Mapping[str, object], now: dict[str, object]) -> list[dict[str, object]]:
        if before.get("data_key") != now["data_key"]:
            raise GPTZooError(
                "the data or the tokenizer is not the one that this run was trained on. Restore it, or train anew.",
                self.made.where("data"),
            )
        changed = changes(dict(before), now)
        if not changed:
            return []
        what = f"resume is not bit-exact: {', '.join(changed)}"
        if self.require_exact:
            raise GPTZooError(
                f"{what}. Restore the environment, or leave out --require-exact.", str(self.directory.path)
            )
        warnings.warn(what, stacklevel=2)
        return [{"environment": changed}]


def _changed_lines(old: str, new: str) -> list[str]:
    before, after = set(old.splitlines()), set(new.splitlines())
    removed = [f"- {line.strip()}" for line in old.splitlines() if line not in after]
    return removed + [f"+ {line.strip()}" for line in new.splitlines() if line not in before]


def run_identity(made: Plan, data_key: str) -> str:
    """The first 12 hex digits over all that decides a run's numbers: recipe, foreign plugins, data, numerics."""
    recipe = as_mapping(replace(made.recipe, name="run", train=replace(made.recipe.train, device="auto", loggers=())))
    strangers = [owner for owner in owners(made.recipe, made.zoo) if owner.origin not in ("core", "gptzoo_plugins")]
    hashes = {owner.plugin: owner.sha256 for owner in strangers}
    parts = {"recipe": recipe, "plugins": hashes, "data": data_key, "numerics": NUMERICS_VERSION}
    init_from = made.recipe.train.init_from
    if init_from is not None:
        parts["init_from"] = _digest(trained(init_from.path)[1])
    return identity(parts)


NOT_THE_FUNCTION = ("dropout", "head.chunk", "init", "kernel", "vocab_size")
"""Keys of a model that do not change what trained weights compute, or that their shapes already tell."""


def _differences(theirs: Mapping[str, object], ours: Mapping[str, object]) -> list[str]:
    """`model.n_head 4 -> 2`, for every key in which two models compute something else from the same weights."""
    first, second = flat(theirs, "model"), flat(ours, "model")
    beside = tuple(f"model.{key}." for key in NOT_THE_FUNCTION)
    keys = [key for key in {**first, **second} if not f"{key}.".startswith(beside)]
    return [f"{key} {first.get(key)} -> {second.get(key)}" for key in keys if first.get(key) != second.get(key)]


def _model(recipe: Mapping[str, object]) -> Mapping[str, object]:
    model = recipe["model"]
    assert isinstance(model, Mapping), "a resolved recipe has one"
    return model


def trained(path: str) -> tuple[Mapping[str, object], dict[str, torch.Tensor]]:
    """The model, as in a recipe, and the canonical tensors of a run's newest checkpoint or of transformers' folder.

    Raises:
        GPTZooError: It is neither.
    """
    if (Path(path) / "config.json").exists():
        from gptzoo.interop.pretrained import read_pretrained

        mapping, tensors = read_pretrained(path)
        return _model(as_mapping(plan(mapping, training=False).recipe)), tensors
    directory = RunDirectory.at(Path(path), lock=False)
    checkpoint = directory.latest()
    if checkpoint is None:
        raise CheckpointError("no checkpoint was saved there yet.", path)
    return _model(compose(directory.recipe_path).tree), checkpoint.model


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    import hashlib

    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
