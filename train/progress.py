"""What a person sees while training: a live display where standard error is a terminal, plain lines where it is not.

The trainer tells a :class:`Progress` what happens; what it tells are the records of ``metrics.jsonl``. What comes from
data, as names of languages do, is shown so that it cannot steer a terminal.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import click

from lola_data.shown_text import plain

if TYPE_CHECKING:
    from rich.console import Console


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
        click.echo(_harmless(text), err=True)

    def close(self) -> None: ...


class Screen:
    """A :class:`train.live.Frame` on standard error that is drawn anew twice a second; notes stay above it.

    Args:
        console: of rich; default: standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        from train.live import Frame

        self._console = console or Console(stderr=True)
        self._frame = Frame()
        # Warnings of libraries go above the frame as well; what is piped away from standard output stays there.
        self._live = Live(
            self._frame, console=self._console, refresh_per_second=2, vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip

    def start(self, steps: int, done: int) -> None:
        if done:
            self.note(f"resumed at step {done:,} of {steps:,}")
        self._frame.start(steps, done)
        self._live.start()

    def step(self, step: int) -> None:
        self._frame.step(step)

    def record(self, record: dict[str, Any]) -> None:
        self._frame.record(record)

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(_harmless(text)))

    def close(self) -> None:
        self._frame.end()
        self._live.stop()


def console_progress() -> Progress:
    """A :class:`Screen` where standard error is a terminal and rich is installed, else :class:`Lines`."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return Lines()
        console = Console(stderr=True)
        # A terminal that cannot move its cursor, such as an editor's, would show the last frame alone.
        if console.is_terminal and not console.is_dumb_terminal:
            return Screen(console)
    return Lines()


def describe(record: dict[str, Any]) -> str:
    """A record in a line; a number that does not exist is ``-``."""
    if record["kind"] == "valid":
        return _held_out(record)
    parts = [f"loss {_shown(record['loss'], '.3f')}", f"lr {_shown(record['lr'], '.1e')}"]
    if "grad_norm" in record:
        parts.append(f"grad norm {_shown(record['grad_norm'], '.3g')}")
    parts.append(f"{_shown(record['tokens_per_second'], ',.0f')} tokens/s")
    if record.get("mfu") is not None:
        parts.append(f"MFU {record['mfu']:.1%}")
    if record.get("dropped"):
        parts.append(f"dropped {record['dropped']:.1%}")
    dead = sum((record.get("dead") or {}).values())
    if dead:
        parts.append(f"dead experts {dead:,}")
    return "  ".join(parts)


def _held_out(record: dict[str, Any]) -> str:
    mean, unigram = record["mean"], record["unigram_mean"]
    if not _known(mean):
        return "no held-out tokens"
    text = f"held-out loss {mean:.3f}"
    if _known(unigram):
        text += f" (unigram {unigram:.3f})"
    bits = [value for value in (record.get("bits_per_byte") or {}).values() if _known(value)]
    if bits:
        text += f"  {math.fsum(bits) / len(bits):.3f} bits/byte"
    bars = record.get("unigram") or {}
    pairs = [(loss, bars[lang]) for lang, loss in (record.get("loss") or {}).items() if _known(bars.get(lang))]
    if pairs:
        better = sum(_known(loss) and loss < bar for loss, bar in pairs)
        text += f"  {better:,} of {len(pairs):,} languages better than unigram"
    return text


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _shown(value: float | None, form: str) -> str:
    return format(value, form) if _known(value) else "-"


def _harmless(text: str) -> str:
    return text if text.isprintable() else plain(text)
