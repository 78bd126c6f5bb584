"""Show how far a stage has come: a live bar on a terminal, plain lines anywhere else."""

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_EVERY_S = 5.0


def say(text: str) -> None:
    """Print one line about what is going on, to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


@dataclass
class Progress:
    """Counts parts, rows and drops of one stage and shows them; a context manager.

    Args:
        stage: name shown first.
        total: parts there are; `done` of them were finished by an earlier run.
        unit: what is counted.
    """

    stage: str
    total: int
    done: int = 0
    unit: str = "parts"
    rows: int = 0
    drops: int = 0
    figures: dict[str, object] = field(default_factory=dict)

    def __enter__(self) -> "Progress":
        self._begun = self._shown = time.monotonic()
        self._done_before = self.done
        self._bar: RichProgress | None = None
        if sys.stderr.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[counts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._row = self._bar.add_task(
                self.stage, total=self.total, completed=self.done, counts=self.unit
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            say(self.line())

    def advance(self, amount: int = 1, *, rows: int = 0, drops: int = 0, **figures: object) -> None:
        """Count `amount` more units, with the rows they read and dropped and other figures to show."""
        self.done += amount
        self.rows += rows
        self.drops += drops
        self.figures.update(figures)
        if self._bar is not None:
            self._bar.update(self._row, completed=self.done, counts=self._counts())
        elif time.monotonic() - self._shown >= LINE_EVERY_S and self.done < self.total:
            self._shown = time.monotonic()
            say(f"{self.line()}, {self._time_left()} left")

    def line(self) -> str:
        """Return the present counts as one line of text."""
        return f"{self.stage:<10} {self.done:,}/{self.total:,} {self._counts()}"

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        counts = [self.unit]
        if self.rows:
            counts.append(
                f"{self.rows:,} rows, {self.rows / seconds:,.0f} rows/s, {self.drops:,} drops"
            )
        counts += [f"{name.replace('_', ' ')} {value}" for name, value in self.figures.items()]
        return ", ".join(counts)

    def _time_left(self) -> str:
        ended = self.done - self._done_before
        if not ended:
            return "unknown time"
        seconds = (time.monotonic() - self._begun) / ended * (self.total - self.done)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
