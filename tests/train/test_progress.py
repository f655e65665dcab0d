"""What is shown of a run on a terminal and elsewhere, told by hand and by a real run."""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from tests.train.test_live import MANY, train_record, valid_record
from train.loop import train
from train.progress import Lines, Screen, console_progress, describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig


def terminal(width: int = 80, height: int = 24) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=True, width=width, height=height, color_system=None, legacy_windows=False,
        _environ={"TERM": "xterm"},
    )  # fmt: skip
    return console, stream


class Emulator:
    """The few controls that rich writes, obeyed: carriage return, up, erase line, show and hide the cursor."""

    def __init__(self, text: str) -> None:
        self.rows, self.y, self.x, self.tallest = [""], 0, 0, 0
        rest = text
        while rest:
            if rest[0] == "\x1b":
                end = next(at for at, character in enumerate(rest) if character.isalpha())
                self._obey(rest[1 : end + 1])
                rest = rest[end + 1 :]
                continue
            if rest[0] == "\n":
                self.y, self.x = self.y + 1, 0
                self.rows += [""] * (self.y + 1 - len(self.rows))
            elif rest[0] == "\r":
                self.x = 0
            else:
                line = self.rows[self.y].ljust(self.x)
                self.rows[self.y] = line[: self.x] + rest[0] + line[self.x + 1 :]
                self.x += 1
            rest = rest[1:]

    def _obey(self, control: str) -> None:
        if control.endswith("A"):
            count = int(control[1:-1] or 1)
            self.tallest = max(self.tallest, count + 1)
            self.y -= count
            assert self.y >= 0
        elif control == "[2K":
            self.rows[self.y] = ""
        else:
            assert control in ("[?25l", "[?25h"), control


def show(console: Console, *records: dict[str, Any], note: str = "") -> None:
    screen = Screen(console)
    screen.start(1_000, 0)
    for record in records:
        screen.record(record)
        screen.step(record["step"])
        screen._live.refresh()
    if note:
        screen.note(note)
    screen.close()


@pytest.mark.parametrize("height", [10, 24, 50])
def test_notes_stay_above_one_last_frame(height: int):
    console, stream = terminal(80, height)
    records = [valid_record(MANY, 0), train_record(12), valid_record(MANY, 100)]
    show(console, *records, note="step 7: the router has [bold]collapsed[/bold]\x1b[2J")
    seen = Emulator(stream.getvalue())
    lines = [line.rstrip() for line in seen.rows]
    assert lines[0] == "step 7: the router has [bold]collapsed[/bold]‹ESC›[2J"
    assert [line.startswith("step 100/1,000") for line in lines].count(True) == 1
    assert lines[1].startswith("step 100/1,000")
    assert " in 0:00:0" in lines[1]
    assert len(lines[1:-1]) == height - 1, "the frame, and a line for the cursor"
    assert seen.tallest <= height


def test_what_is_told_outside_of_a_frame_is_shown_too():
    console, stream = terminal()
    screen = Screen(console)
    screen.note("before")
    screen.close()
    assert "before" in stream.getvalue()


def test_a_resumed_run_says_so():
    console, stream = terminal()
    screen = Screen(console)
    screen.start(1_000, 400)
    screen.close()
    assert "resumed at step 400 of 1,000" in stream.getvalue()
    assert "step 400/1,000" in stream.getvalue()


def test_a_real_run_on_a_terminal(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    console, stream = terminal(100, 30)
    train(tiny(), tree, tmp_path / "run", progress=Screen(console))
    lines = [line.rstrip() for line in Emulator(stream.getvalue()).rows if line.strip()]
    # On a busy machine a note on the loader may stand above.
    lines = lines[next(at for at, line in enumerate(lines) if line.startswith("step 10/10")) :]
    assert "640/640 tokens" in lines[0]
    words = [line.split()[0] for line in lines]
    assert words.count("mean") == words.count("aa") == words.count("bb") == words.count("1") == 1
    assert any(line.startswith("held out, step 10 ") for line in lines)


@pytest.mark.parametrize(
    ("isatty", "term", "kind"), [(True, "xterm", Screen), (True, "dumb", Lines), (False, "xterm", Lines)]
)
def test_a_screen_only_where_it_can_be_drawn(isatty: bool, term: str, kind: type, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: isatty)
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(console_progress()) is kind


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert type(console_progress()) is Lines


def test_lines_of_records():
    record = train_record()
    assert describe(record) == (
        "loss 4.250  lr 1.0e-03  grad norm 0.75  12,346 tokens/s  MFU 41.3%  dropped 12.5%  dead experts 1"
    )
    calm = train_record(mfu=None, dropped=0.0, dead={"1": 0}, loss=None, grad_norm=math.nan)
    assert describe(calm) == "loss -  lr 1.0e-03  grad norm -  12,346 tokens/s"
    losses = {"de": 4.0, "yo": 6.0, "xx": None}
    assert describe(valid_record(losses)) == (
        "held-out loss 5.000 (unigram 5.000)  2.500 bits/byte  1 of 3 languages better than unigram"
    )
    assert describe(valid_record({}, unigram_mean=None)) == "no held-out tokens"


def test_lines_are_few_and_harmless(capsys: pytest.CaptureFixture[str]):
    lines = Lines()
    lines.start(1_000, 0)
    for step in range(1, 1_001):
        lines.step(step)
        lines.record(train_record(step=step))
    lines.note("languages left out: a\x1b[2J, b")
    lines.close()
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 21
    assert [line.split()[1] for line in shown[:2]] == ["50/1,000", "100/1,000"]
    assert shown[-1] == "languages left out: a‹ESC›[2J, b"
