"""What a person sees while training: a bar where standard error is a terminal, plain lines where it is not."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import click


class Progress(Protocol):
    """Told by the trainer what happens."""

    def start(self, steps: int, done: int) -> None:
        """Training goes from step ``done`` to ``steps``."""

    def step(self, step: int) -> None:
        """Step number ``step`` (from 1) is done."""

    def record(self, record: dict[str, Any]) -> None:
        """A record was written to metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """Training has ended, in whatever way."""


class Silent:
    """Shows nothing."""

    def start(self, steps: int, done: int) -> None: ...

    def step(self, step: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Lines:
    """A line on standard error for each evaluation and about twenty for the training in between."""

    def start(self, steps: int, done: int) -> None:
        self._steps, self._shown = steps, done
        if done:
            self.note(f"resumed at step {done:,} of {steps:,}")

    def step(self, step: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None:
        if record["kind"] == "valid" or record["step"] - self._shown >= self._steps / 20:
            self._shown = record["step"]
            self.note(f"step {record['step']:,}/{self._steps:,}  {describe(record)}")

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def close(self) -> None: ...


class Bar:
    """A rich progress bar on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[train]}  {task.fields[valid]}"), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=None, train="", valid="")

    def start(self, steps: int, done: int) -> None:
        self._bar.update(self._task, total=steps, completed=done)
        self._bar.start()

    def step(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def record(self, record: dict[str, Any]) -> None:
        if record["kind"] == "valid":
            self._bar.update(self._task, valid=describe(record))
        else:
            self._bar.update(self._task, train=describe(record))

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self._bar.stop()


def console_progress() -> Progress:
    """A :class:`Bar` where standard error is a terminal and rich is installed, else :class:`Lines`."""
    if sys.stderr.isatty():
        try:
            return Bar()
        except ImportError:
            pass
    return Lines()


def describe(record: dict[str, Any]) -> str:
    """A record in a few words."""
    if record["kind"] == "valid":
        mean, unigram = record["mean"], record["unigram_mean"]
        if mean is None:
            return "no held-out tokens"
        text = f"held-out loss {mean:.3f}"
        return f"{text} (unigram {unigram:.3f})" if unigram is not None else text
    return f"loss {record['loss']:.3f}  lr {record['lr']:.1e}  {record['tokens_per_second']:,.0f} tokens/s"
