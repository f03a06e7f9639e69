"""What is seen of a study while it runs: a table that lives on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

MOST_ROWS = 40
REFRESH = 0.5  # seconds between two pictures


@dataclass
class Row:
    """A cell as it is seen.

    Args:
        arm: The arm's name.
        seed: Its seed.
        state: `waiting`, `running`, `done`, `diverged`, `killed`, `failed`, `copied` or `kept`.
        steps: How many it has in all.
        step: How many it has done.
        loss: The last training loss.
        began: When it started here, monotonic seconds.
        first: The step that it was at when first heard of: it may be resumed.
        said: What is known at its end.
    """

    arm: str
    seed: int
    state: str
    steps: int
    step: int = 0
    loss: float | None = None
    began: float = 0.0
    first: int | None = None
    said: str = ""

    @property
    def name(self) -> str:
        return f"{self.arm} seed {self.seed}"


class Display:
    """Shows the cells of a study; a `gptzoo.ablation.pool.Audience`.

    Args:
        title: The study's name.
        rows: All cells.
        jobs: For each job, which row it is.
        workers: How many run at a time.
        result: The final words on a row: `val_loss 2.2891`.
        console: Where to; standard output unless given.
    """

    def __init__(
        self,
        title: str,
        rows: Sequence[Row],
        jobs: Sequence[int],
        workers: int,
        result: Callable[[int], str],
        console: Console | None = None,
    ) -> None:
        self.title, self.rows, self.jobs, self.workers, self.result = title, list(rows), list(jobs), workers, result
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.drawn = 0.0
        self.began = time.monotonic()

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.live.start()
        else:
            kept = sum(row.state != "waiting" for row in self.rows)
            more = f", {kept} of them finished before" if kept else ""
            many = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
            self.console.print(escape(f"{self.title}: {len(self.rows)} cells{more}, {many}"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def started(self, job: int) -> None:
        row = self.rows[self.jobs[job]]
        row.state, row.began, row.first = "running", time.monotonic(), None

    def stepped(self, job: int, step: int, steps: int, loss: float) -> None:
        row = self.rows[self.jobs[job]]
        if row.first is None:
            row.first, row.began = step, time.monotonic()
        row.step, row.steps, row.loss = step, steps, loss

    def again(self, job: int, why: str) -> None:
        row = self.rows[self.jobs[job]]
        row.state = "waiting"
        self.console.print(escape(f"{row.name}: {why}; it goes on in another one"))

    def ended(self, job: int, status: str, reason: str) -> None:
        row = self.rows[self.jobs[job]]
        row.state = status
        row.said = self.result(self.jobs[job]) if status == "done" else reason
        if not self.console.is_terminal or status != "done":
            ended = sum(row.state not in ("waiting", "running") for row in self.rows)
            what = row.said if status == "done" or row.said.startswith(status) else f"{status}: {row.said}"
            self.console.print(escape(f"[{ended}/{len(self.rows)}] {row.name}: {what}"))

    def tick(self) -> None:
        if self.console.is_terminal and time.monotonic() - self.drawn > REFRESH:
            self.drawn = time.monotonic()
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """The cells, and how long the rest will take."""
        left = self.left()
        table = Table(title=f"{self.title}{'' if left is None else f', about {_clock(left)} left'}", title_style="bold")
        for name in ("arm", "seed", "state", "step", "loss", "left"):
            table.add_column(name, justify="left" if name in ("arm", "state") else "right")
        shown = self.rows if len(self.rows) <= MOST_ROWS else [row for row in self.rows if row.state == "running"]
        for row in shown:
            table.add_row(*(escape(each) for each in self.columns(row)))
        if len(shown) < len(self.rows):
            ended = sum(row.state not in ("waiting", "running") for row in self.rows)
            table.caption = f"{ended} of {len(self.rows)} cells ended"
        return table

    def columns(self, row: Row) -> tuple[str, ...]:
        ended = row.state not in ("waiting", "running")
        loss = row.said.split()[-1] if row.state in ("done", "kept", "copied") and row.said else _loss(row.loss)
        left = "" if ended or row.state == "waiting" else _clock(self.seconds_left(row))
        return (
            row.arm,
            str(row.seed),
            row.state,
            f"{row.steps if ended and row.state != 'killed' else row.step}/{row.steps}",
            loss,
            left,
        )

    def seconds_left(self, row: Row) -> float | None:
        done = row.step - (row.first or 0)
        return (
            (time.monotonic() - row.began) / done * (row.steps - row.step) if row.first is not None and done else None
        )

    def left(self) -> float | None:
        """Seconds until the last cell ends, from the steps made so far; None before there are any."""
        running = [row for row in self.rows if row.state == "running" and row.first is not None]
        speeds = [(row.step - (row.first or 0)) / max(1e-9, time.monotonic() - row.began) for row in running]
        if not any(speeds):
            return None
        speed = sum(speeds) / len(speeds) * max(1, min(self.workers, len(running)))
        return sum(row.steps - row.step for row in self.rows if row.state in ("waiting", "running")) / speed


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
