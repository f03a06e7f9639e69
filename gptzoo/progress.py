"""What a terminal shows while something runs: a bar with loss, speed and time left; plain lines where there is none."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gptzoo.contracts import Tokenizer
from gptzoo.evaluation import Scores
from gptzoo.generation import Generated

if TYPE_CHECKING:
    from gptzoo.running import Run
    from gptzoo.transfer import Transfer

QUIET_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""


class TerminalWatcher:
    """Shows a training; a `gptzoo.trainer.Watcher`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} tokens/s  left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=1, loss=float("nan"), speed=0.0, start=False)
        self.began = time.perf_counter()
        self.first_step: tuple[int, float] | None = None
        self.said = 0.0
        self.tokens = 0.0

    def __enter__(self) -> TerminalWatcher:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        now = time.perf_counter()
        self.tokens += timings["seconds"] * timings["tokens_per_second"]
        if self.first_step is None:
            self.first_step = (step, now)
            self.bar.start_task(self.task)
        speed = timings["tokens_per_second"]
        self.bar.update(self.task, completed=step, total=steps, loss=metrics["loss"], speed=speed)
        if not self.console.is_terminal and (now - self.said > QUIET_SECONDS or step == steps):
            self.said = now
            left = _duration(self._left(step, steps, now))
            print(f"step {step}/{steps}  loss {metrics['loss']:.4f}  {speed:,.0f} tokens/s  {left} left", flush=True)

    def _left(self, step: int, steps: int, now: float) -> float:
        assert self.first_step is not None
        done = step - self.first_step[0]
        return (now - self.first_step[1]) / done * (steps - step) if done else 0.0

    def evaluated(self, step: int, scores: Scores) -> None:
        bits = "" if scores.bits_per_byte is None else f"  {scores.bits_per_byte:.4f} bits per byte"
        exact = "" if scores.exact_match is None else f"  {scores.exact_match:.1%} exact match"
        self._print(f"step {step}: val_loss {scores.loss:.4f}{bits}{exact}")

    def sampled(self, step: int, samples: Sequence[Generated]) -> None:
        for sample in samples:
            self._print(f"step {step} writes: {sample.prompt!r} -> {sample.text!r}")

    def saved(self, step: int, path: str) -> None:
        """Saving is silent: the bar would only flicker."""

    def _print(self, line: str) -> None:
        self.console.print(escape(line))

    def took(self, transfer: Transfer) -> None:
        """What became of the weights that a training starts from; environment.json keeps the whole list."""
        self._print(f"weights taken: {len(transfer.taken)}; initialised: {', '.join(transfer.initialised) or 'none'}")
        for name, reason in transfer.dropped:
            self._print(f"weight left out: {name}: {reason}")

    def summary(self, run: Run, *, went_on: bool) -> None:
        """The last lines: what was done, in what time, and what to do next."""
        if self.first_step is None:
            self._print(f"{run.path} is finished already. Go on with: gptzoo train {run.path} --train.steps N")
            return
        seconds = time.perf_counter() - self.began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform != "darwin" else 1 << 30)
        loss = "" if run.val_loss is None else f"val_loss {run.val_loss:.4f}, "
        verb = "went on" if went_on else "trained"
        self._print(
            f"{verb}: {loss}{self.tokens:,.0f} tokens in {_duration(seconds)}, at most {memory:.1f} GiB of memory"
        )
        self._print(f"run: {run.path}    go on: gptzoo generate {run.path} 'PROMPT'")


class Stream:
    """Prints continuations: one prompt as it comes, several when they are whole."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self.live = len(prompts) == 1
        self.waiting = prompts[0]  # printed with the first token, so that a refusal prints nothing

    def token(self, _row: int, piece: str) -> None:
        if self.live:
            print(f"{self.waiting}{piece}", end="", flush=True)
            self.waiting = ""

    def finish(self, done: Sequence[Generated]) -> None:
        if self.live:
            print(self.waiting)
            return
        for index, each in enumerate(done):
            print(f"--- {index + 1} of {len(done)}\n{each.prompt}{each.text}")


def logprob_lines(done: Generated, tokenizer: Tokenizer) -> Iterator[str]:
    """A line per token: its log-probability, and the likeliest tokens at its place with theirs."""
    assert done.logprobs is not None, "they were asked for"
    for place, (token, logprob) in enumerate(zip(done.tokens, done.logprobs, strict=True)):
        best = done.alternatives[place] if done.alternatives else ()
        others = "  ".join(f"{tokenizer.decode([other])!r} {value:.4f}" for other, value in best)
        yield f"{logprob:9.4f}  {tokenizer.decode([token])!r:14}  {others}".rstrip()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
