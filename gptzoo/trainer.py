"""The one training loop. What it does at a step is a pure function of (recipe, seed, step), so that a run can stop
anywhere and go on bit for bit."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from gptzoo.contracts import Batch, Data, Logger, Schedule, TwoPoints
from gptzoo.errors import Interrupted, NotFinite
from gptzoo.evaluation import Scores, evaluate
from gptzoo.exact_match import exact_match, problems_of
from gptzoo.generation import Generated, check_room, generate
from gptzoo.model import Model
from gptzoo.precision import autocast
from gptzoo.recipe.schema import TrainRecipe
from gptzoo.runs import Records, RunDirectory
from gptzoo.runs.checkpoint import Checkpoint
from gptzoo.seeds import stable_seed
from gptzoo.transfer import Transfer

MOST_SKIPS = 20
"""fp16 steps skipped running, after which the loss scale is not going to be found any more."""


class Watcher(Protocol):
    """Who looks on: a progress bar, or a test."""

    def took(self, transfer: Transfer) -> None: ...
    def stepped(self, step: int, steps: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None: ...
    def evaluated(self, step: int, scores: Scores) -> None: ...
    def sampled(self, step: int, samples: Sequence[Generated]) -> None: ...
    def saved(self, step: int, path: str) -> None: ...


@dataclass
class Progress:
    """What a training knows beside its tensors.

    Args:
        step: Batches seen.
        applied: Updates made; fewer than `step` only where fp16 skipped some. The schedule counts these.
        skips: fp16 steps skipped running.
        tokens: Targets trained on.
        val_loss: Of the model as it is now, if it was evaluated.
        settled: Whether this step's evaluation and samples are done.
    """

    step: int = 0
    applied: int = 0
    skips: int = 0
    tokens: int = 0
    val_loss: float | None = None
    settled: bool = False


@dataclass
class Trainer:
    """Trains a model on data into a run directory.

    Args:
        model: On its device.
        data: Where batches come from.
        optimizer: Over the model's parameters.
        schedule: The learning rate's factor.
        options: The recipe's `train`.
        seed: The recipe's seed.
        directory: Held by this process.
        loggers: Told what is measured, beside metrics.jsonl.
        watcher: Told what happens.
    """

    model: Model
    data: Data
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    options: TrainRecipe
    seed: int
    directory: RunDirectory
    loggers: Sequence[Logger] = ()
    watcher: Watcher | None = None
    progress: Progress = field(default_factory=Progress)
    _lengths: dict[str, int] = field(default_factory=dict, init=False)
    _rng: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.device = self.model.wte.weight.device
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.precision == "fp16")
        self.objective = torch.compile(self.model.loss) if self.options.compile else self.model.loss
        self.stop = StopFlag()
        wanted = self.options.eval_problems
        self.problems = problems_of(self.data, count=wanted) if wanted else []

    def run(self) -> None:
        """Train to the last step, from where `progress` stands.

        Raises:
            Interrupted: A signal came; the run was saved.
            NotFinite: The loss or the gradient is not finite; the update was not made.
            NoSpace: The disk is full.
        """
        if self.options.sample_every:
            check_room(self.model, self._prompts, self.options.sample_tokens)
        with self._records(), self.stop.listening(), _own_randomness(self.device):
            self._restore_randomness()
            while True:
                self._settle()
                if self.progress.step >= self.options.steps:
                    return
                self._step()
                self._poll()

    @contextlib.contextmanager
    def _records(self) -> Iterator[None]:
        with (
            Records(self.directory.metrics_path) as self.metrics,
            Records(self.directory.timings_path) as self.timings,
            Records(self.directory.samples_path) as self.samples,
        ):
            self.metrics.truncate(self._lengths.get("metrics", 0))  # without a checkpoint a run begins anew
            self.samples.truncate(self._lengths.get("samples", 0))
            yield

    # One step

    def _step(self) -> None:
        start, step = time.perf_counter(), self.progress.step
        self.model.train()
        self._move_to("train")
        self._set_learning_rate()
        batch = self.data.batch("train", self.seed, step, self.options.batch_size)
        loss, added = self._backward(batch, step)
        norm = self._gradient_norm(batch, loss, step)
        self._update(norm)
        tokens = int((batch.targets != -100).sum())
        self.progress.step, self.progress.tokens = step + 1, self.progress.tokens + tokens
        self.progress.val_loss, self.progress.settled = None, False
        self._log({"loss": loss, "grad_norm": norm, **added}, tokens, time.perf_counter() - start)

    def _move_to(self, point: Literal["train", "eval"]) -> None:
        """Have the optimizer put the weights that it trains, or those that are used, into the model; most have one."""
        if isinstance(self.optimizer, TwoPoints):
            getattr(self.optimizer, point)()

    def _set_learning_rate(self) -> None:
        factor = self.schedule(self.progress.applied, self.options.steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor

    def _backward(self, batch: Batch, step: int) -> tuple[float, dict[str, float]]:
        """Gradients of (sum of token losses) / (tokens of the whole step), micro-batch by micro-batch."""
        tokens = max(1, int((batch.targets != -100).sum()))  # all targets may be masked, in tiny documents
        size = self.options.micro_batch_size or self.options.batch_size
        starts = range(0, len(batch.tokens), size)
        total: Tensor | None = None
        added: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for micro, start in enumerate(starts):
            torch.manual_seed(stable_seed(self.seed, "dropout", step, micro, 0))
            rows = batch.rows(start, start + size)
            with autocast(self.device.type, self.options.precision):
                loss = self.objective(*self._inputs(rows))
            share = len(rows.tokens) / len(batch.tokens)
            mean = loss.total / tokens + sum(value * share for value in loss.added.values())
            self.scaler.scale(mean).backward()
            total = loss.total.detach() if total is None else total + loss.total.detach()
            for name, value in loss.added.items():
                added[name] = added.get(name, 0.0) + value.detach() * share  # type: ignore[assignment]
            self._poll_within_step()
        assert total is not None
        return float(total) / tokens, {name: float(value) for name, value in added.items()}

    def _inputs(self, rows: Batch) -> tuple[Tensor, ...]:
        """What the model is called with; a plain batch needs no positions, which lets kernels use their fast path."""
        tensors = (rows.tokens, rows.targets) if rows.plain else (rows.tokens, rows.targets, rows.pos, rows.doc)
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)

    def _gradient_norm(self, batch: Batch, loss: float, step: int) -> float:
        """The gradient's norm, before clipping. Stops here, before the update, if something is not finite."""
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.options.clip is None else self.options.clip
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        if not math.isfinite(loss) or (not math.isfinite(norm) and not self.scaler.is_enabled()):
            raise self._not_finite("loss" if not math.isfinite(loss) else "gradient", batch, step)
        return norm

    def _update(self, norm: float) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if math.isfinite(norm):
            self.progress.applied, self.progress.skips = self.progress.applied + 1, 0
            return
        self.progress.skips += 1  # fp16: the scaler made no update and lowers the scale
        if self.progress.skips >= MOST_SKIPS:
            raise NotFinite(
                f"{MOST_SKIPS} fp16 steps running overflowed, up to step {self.progress.step}. "
                "Lower train.learning_rate, or use train.precision bf16 or fp32."
            )

    def _not_finite(self, what: str, batch: Batch, step: int) -> NotFinite:
        module = self._first_bad_module(batch, step)
        kept = self.directory.steps()
        saved = f"The last checkpoint is of step {kept[-1]}" if kept else "There is no checkpoint yet"
        return NotFinite(
            f"the {what} of step {step} is not finite, first in {module}; no update was made. {saved}. "
            "Lower train.learning_rate, or look at the batch with this seed and step."
        )

    def _first_bad_module(self, batch: Batch, step: int) -> str:
        """Name of the first module whose output is not finite, in another forward of the same batch."""
        found: list[str] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and not bool(output.isfinite().all()):
                    found.append(name)

            return hook

        handles = [module.register_forward_hook(watch(name)) for name, module in self.model.named_modules() if name]
        size = self.options.micro_batch_size or self.options.batch_size
        try:
            with torch.no_grad(), autocast(self.device.type, self.options.precision):
                for micro, start in enumerate(range(0, len(batch.tokens), size)):
                    torch.manual_seed(stable_seed(self.seed, "dropout", step, micro, 0))
                    self.model.loss(*self._inputs(batch.rows(start, start + size)))
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else "the backward pass"

    # Between steps

    def _settle(self) -> None:
        """What is due between two steps: evaluate, sample, save."""
        if not self.progress.settled:
            if self._due(self.options.eval_every) or self._at_end:
                self._evaluate()
            if self._due(self.options.sample_every):
                self._sample()
            self.progress.settled = True
            if self.progress.step > 0 and (self._due(self.options.save_every) or self._at_end):
                self.save()
        self._poll()

    @property
    def _at_end(self) -> bool:
        return self.progress.step >= self.options.steps

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.step % every == 0

    def _evaluate(self) -> None:
        step, size = self.progress.step, self.options.micro_batch_size or self.options.batch_size
        self._move_to("eval")
        scores = evaluate(
            self.model,
            self.data,
            sequences=self.options.eval_sequences,
            batch_size=size,
            precision=self.options.precision,
            should_stop=lambda: self.stop.signal is not None,
        )
        scores = replace(scores, exact_match=self._exact_match())
        self._poll()
        self.progress.val_loss = scores.loss if math.isfinite(scores.loss) else None
        measured = {
            "val_loss": scores.loss,
            "bits_per_byte": scores.bits_per_byte,
            "exact_match": scores.exact_match,
        }
        finite = {name: value for name, value in measured.items() if value is not None and math.isfinite(value)}
        self.metrics.append({"step": step, "tokens": self.progress.tokens, **finite})
        self._tell_loggers(step, finite)
        if self.watcher is not None:
            self.watcher.evaluated(step, scores)

    def _exact_match(self) -> float | None:
        if not self.problems:
            return None
        precision, stopped = self.options.precision, lambda: self.stop.signal is not None
        return exact_match(self.model, self.problems, precision=precision, should_stop=stopped)

    def _sample(self) -> None:
        step, options = self.progress.step, self.options
        self._move_to("eval")
        samples = generate(
            self.model,
            self._prompts,
            tokens=options.sample_tokens,
            seed=self.seed,
            precision=options.precision,
        )
        for sample in samples:
            self.samples.append({"step": step, "prompt": sample.prompt, "text": sample.text})
        if self.watcher is not None:
            self.watcher.sampled(step, samples)

    @property
    def _prompts(self) -> list[str]:
        return self.options.sample_prompts or [""]  # an empty prompt starts from the end token

    def _log(self, metrics: dict[str, float], tokens: int, seconds: float) -> None:
        step, rate = self.progress.step, self.optimizer.param_groups[0]["lr"]
        metrics = {"learning_rate": rate, **metrics}
        timings = {"seconds": seconds, "tokens_per_second": tokens / seconds}
        if step % self.options.log_every == 0 or self._at_end:
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            scale = {"loss_scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}
            self.metrics.append({"step": step, "tokens": self.progress.tokens, **finite, **scale})
            self.timings.append({"step": step, **timings})
            self._tell_loggers(step, {**finite, **timings})
        if self.watcher is not None:
            self.watcher.stepped(step, self.options.steps, metrics, timings)

    def _tell_loggers(self, step: int, mapping: Mapping[str, float]) -> None:
        for logger in self.loggers:
            logger.log(step, mapping)

    # Stopping and going on

    def _poll(self) -> None:
        """Save and leave, if a signal came."""
        if self.stop.signal is None:
            return
        if self.progress.step > 0:
            self.save()
        name = signal.Signals(self.stop.signal).name
        raise Interrupted(
            f"stopped by {name} after step {self.progress.step}. Go on with: gptzoo train {self.directory.path}",
            self.stop.signal,
        )

    def _poll_within_step(self) -> None:
        """Leave in the middle of a step with many micro-batches; its gradients are thrown away."""
        many = (self.options.micro_batch_size or self.options.batch_size) < self.options.batch_size
        if many and self.stop.signal is not None:
            self.optimizer.zero_grad(set_to_none=True)
            self._poll()

    def save(self) -> None:
        """Write a checkpoint of the present state."""
        path = self.directory.save(self.checkpoint())
        if self.watcher is not None:
            self.watcher.saved(self.progress.step, str(path))

    def checkpoint(self) -> Checkpoint:
        """All that is needed to go on bit for bit; the model is the one to be used."""
        self._move_to("eval")
        rng = {"torch_cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["torch_cuda"] = torch.cuda.get_rng_state(self.device)
        state: dict[str, object] = {
            **vars(self.progress),
            "scaler": self.scaler.state_dict(),
            "peak_rates": self.peak_rates,
            "lengths": {"metrics": self.metrics.length, "samples": self.samples.length},
            "data_key": self.data.key,
        }
        return Checkpoint(self.progress.step, self.model.state_dict(), {}, self.optimizer.state_dict(), rng, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint of this recipe; `run` goes on from there."""
        self.model.load_state_dict(checkpoint.model, strict=True)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        state = checkpoint.state
        names = Progress.__dataclass_fields__
        self.progress = Progress(**{name: state[name] for name in names})  # type: ignore[arg-type]
        self.scaler.load_state_dict(state["scaler"])  # type: ignore[arg-type]
        self.peak_rates = list(state["peak_rates"])  # type: ignore[arg-type]
        self._lengths = dict(state["lengths"])  # type: ignore[arg-type]
        self._rng = checkpoint.rng

    def _restore_randomness(self) -> None:
        """Last of all, when everything that might draw is set up."""
        if "torch_cpu" in self._rng:
            torch.set_rng_state(self._rng["torch_cpu"])
        if "torch_cuda" in self._rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(self._rng["torch_cuda"], self.device)


@contextlib.contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Only dropout draws from torch's default generator while training; afterwards the caller finds it as it was."""
    devices = [device] if device.type not in ("cpu", "meta") else []
    with torch.random.fork_rng(devices=devices, device_type=device.type if devices else "cuda"):
        yield


class StopFlag:
    """SIGINT, SIGTERM and SIGUSR1 raise a flag; the second SIGINT or SIGTERM ends the process at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within this scope, and in the main thread only: elsewhere signals cannot be received."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._raise) for number in self.SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _raise(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number
