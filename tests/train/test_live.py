"""Frames of hand-made records: what they say, and that they fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from train.live import Frame, readable_time, short_count

if TYPE_CHECKING:
    from collections.abc import Mapping


def train_record(blocks: int = 2, step: int = 100, **changes: Any) -> dict[str, Any]:
    """Block 2 k + 1 has an entropy of 0.9 - k / 100; one expert of block 3 is dead."""
    numbers = [2 * at + 1 for at in range(blocks)]
    record = {
        "kind": "train", "step": step, "tokens": step * 1_000, "loss": 4.25, "balance": 1.0, "z": 0.1, "lr": 1e-3,
        "grad_norm": 0.75, "dropped": 0.125, "load": {str(block): [0.5, 0.25, 0.25, 0.0] for block in numbers},
        "entropy": [0.9 - at / 100 for at in range(blocks)], "max_load": [2.0] * blocks, "min_load": [0.0] * blocks,
        "dead": {str(block): int(block == 3) for block in numbers}, "epochs": {"de": 0.5, "yo": 3.25},
        "tokens_per_second": 12_345.6, "mfu": 0.4126, "memory_bytes": 3_210_000_000, "loader_share": 0.015,
    }  # fmt: skip
    return record | changes


def valid_record(losses: Mapping[str, float | None], step: int = 50, **changes: Any) -> dict[str, Any]:
    """The bar of each language is 5."""
    known = [loss for loss in losses.values() if loss is not None and math.isfinite(loss)]
    record = {
        "kind": "valid", "step": step, "tokens": step * 1_000, "mean": sum(known) / len(known) if known else None,
        "unigram_mean": 5.0, "loss": losses, "unigram": dict.fromkeys(losses, 5.0),
        "bits_per_byte": {lang: loss / 2 if loss is not None else None for lang, loss in losses.items()},
    }  # fmt: skip
    return record | changes


def frame(*records: dict[str, Any], steps: int = 1_000, done: int = 0) -> Frame:
    shown = Frame(lambda: 0.0)
    shown.start(steps, done)
    for record in records:
        shown.record(record)
        if record["step"]:
            shown.step(record["step"])
    return shown


def text(shown: Frame, width: int = 80, height: int = 23, **options: Any) -> list[str]:
    return [line.plain.rstrip() for line in shown.lines(width, height, **options)]


def row(lines: list[str], first: str) -> list[str]:
    """The cells of the line whose first word is ``first``."""
    (found,) = [line.split() for line in lines if line.split()[:1] == [first]]
    return found


MANY = {f"l{at:03}": 4.0 + at / 100 for at in range(200)}
"""200 languages: l101 to l199 are above their bar of 5, l199 the farthest."""


def test_all_that_is_known_is_shown():
    lines = text(
        frame(valid_record({"de": 4.5, "yo": 6.0}, 25), train_record(), valid_record({"de": 4.0, "yo": 6.125}))
    )
    assert lines[0].startswith("step 50/1,000  ━")
    assert "5%  50.0k/1.00M tokens" in lines[0]
    assert lines[1].split() == ["loss", "lr", "grad", "norm", "tokens/s", "MFU", "memory", "dropped", "loader"]
    assert lines[2].split() == ["4.2500", "1.00e-03", "0.75", "12,346", "41.3%", "3.21", "GB", "12.5%", "1.50%"]
    assert row(lines, "MoE") == [
        "MoE",
        "block",
        "entropy",
        "max",
        "load",
        "min",
        "load",
        "dead",
        "load",
        "by",
        "expert",
    ]
    assert row(lines, "1") == ["1", "0.900", "2.00", "0.00", "0", "█▄▄·"]
    assert row(lines, "3") == ["3", "0.890", "2.00", "0.00", "1", "█▄▄·"]
    assert row(lines, "held") == ["held", "out,", "step", "50", "loss", "change", "unigram", "bits/byte", "epochs"]
    assert row(lines, "mean") == ["mean", "5.062", "-0.188", "5.000", "2.531"]
    assert row(lines, "de") == ["de", "4.000", "-0.500", "5.000", "2.000", "0.50"]
    assert row(lines, "yo") == ["yo", "6.125", "+0.125", "5.000", "3.062", "3.25"]
    assert lines.index(next(line for line in lines if line.startswith("yo"))) < len(lines) - 1, "the worst comes first"


@pytest.mark.parametrize("languages", [{}, {"de": 4.0, "yo": 6.0}, MANY])
@pytest.mark.parametrize("blocks", [0, 2, 30])
@pytest.mark.parametrize("width", [1, 20, 40, 80, 133, 200])
def test_no_frame_is_larger_than_the_screen(width: int, blocks: int, languages: Mapping[str, float | None]):
    shown = frame(valid_record(languages, 0), train_record(blocks), valid_record(languages))
    for height in range(50):
        lines = shown.lines(width, height)
        assert 1 <= len(lines) <= max(1, height)
        assert all(cell_len(line.plain) <= width and "\n" not in line.plain for line in lines)


@pytest.mark.parametrize(("width", "height", "rows"), [(80, 23, 9), (200, 23, 16), (200, 60, 53)])
def test_of_many_languages_the_worst_are_shown_and_the_others_counted(width: int, height: int, rows: int):
    """At 80 columns 3 lines of figures, an empty one and 5 of blocks, another empty one, header, mean and the count;
    at 200 the blocks stand beside the languages."""
    lines = text(frame(train_record(30), valid_record(MANY)), width, height)
    assert len(lines) == height
    shown = [word for line in lines for word in line.split() if word in MANY]
    assert shown == [f"l{199 - at}" for at in range(rows)]
    assert f"... {200 - rows} more, better against their unigram bar" in lines[-1]


def test_of_many_blocks_the_most_uneven_are_shown_and_the_others_counted():
    lines = text(frame(train_record(30)), 80, 40)
    at = next(at for at, line in enumerate(lines) if line.startswith("MoE block"))
    assert [line.split()[0] for line in lines[at + 1 : at + 9]] == ["59", "57", "55", "53", "51", "49", "47", "45"]
    assert lines[at + 9 :] == ["... 22 more, of higher entropy"]


def test_eight_blocks_are_shown_in_their_order():
    lines = text(frame(train_record(8)))
    assert [line.split()[0] for line in lines[-8:]] == ["1", "3", "5", "7", "9", "11", "13", "15"]


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_numbers_that_do_not_exist(nothing: float | None):
    losses = {"de": 4.0, "xx": nothing}
    bar = {"de": nothing, "xx": nothing}
    numbers: dict[str, Any] = dict.fromkeys(
        ["loss", "grad_norm", "lr", "tokens_per_second", "memory_bytes", "dropped"], nothing
    )
    lines = text(
        frame(
            train_record(**numbers, mfu=None, loader_share=nothing, entropy=[nothing, 0.5]),
            valid_record(losses, mean=nothing, unigram_mean=nothing, unigram=bar, bits_per_byte={"de": nothing}),
        )
    )
    assert "MFU" not in lines[1], "on a device whose peak is not known"
    assert lines[2].split() == ["-"] * 7
    assert row(lines, "1")[1] == "-"
    assert row(lines, "mean") == ["mean", "-", "-", "-", "-"]
    assert row(lines, "de") == ["de", "4.000", "-", "-", "-", "0.50"]
    assert row(lines, "xx") == ["xx", "-", "-", "-", "-", "-"]


def test_without_experts_or_held_out_tokens_their_tables_are_left_out():
    bare = train_record(0, entropy=[], max_load=[], min_load=[])
    assert len(text(frame(bare, valid_record({})))) == 3
    assert "held out" in "".join(text(frame(bare, valid_record({"de": 4.0}))))


def test_before_the_first_record():
    lines = text(frame(done=0))
    assert lines[0].startswith("step 0/1,000")
    assert "no figures yet" in lines[1]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]x[/red]", "[red]x[/red]"),
        ("\x1b[2Jde", "‹ESC›[2Jde"),
        ("a\nb", "a␊b"),
        ("a\u202eb", "a‹RLO›b"),
        ("\u05d0\u05d1", "\u2068\u05d0\u05d1\u2069"),
        ("n" * 300, "n" * 17 + "..."),
    ],
)
def test_a_name_of_a_stranger_is_text_of_one_cell(name: str, shown: str):
    lines = frame(train_record(), valid_record({name: 4.0})).lines(80, 23)
    (found,) = [line.plain for line in lines if line.plain.startswith(shown)]
    assert found.split()[-5:] == ["4.000", "-", "5.000", "2.000", "-"]
    assert not any(character in line.plain for line in lines for character in "\x1b\n\u202e")


def test_a_name_of_marks_alone_keeps_its_column():
    (found,) = [
        line.plain for line in frame(valid_record({"\u202e" * 200: 4.0})).lines(80, 23) if "4.000  " in line.plain
        and "mean" not in line.plain
    ]  # fmt: skip
    assert found.startswith("‹RLO›")
    assert cell_len(found) <= 80


def test_the_time_that_is_left():
    """One step in 2 s from step 1 on, whatever the first took: 90 steps more are 180 s; 0.5 s have gone since."""
    now = [0.0]
    shown = Frame(lambda: now[0])
    shown.start(100, 0)
    now[0] = 60.0
    assert text(shown)[0].endswith("0:01:00 so far")
    for step in range(1, 11):
        now[0] = 100.0 + 2 * step
        shown.step(step)
    now[0] += 0.5
    assert text(shown)[0].endswith("0:03:00 left") or text(shown)[0].endswith("0:02:59 left")
    now[0] += 1_000
    assert text(shown)[0].endswith("0:00:00 left"), "never less than none"
    shown.end()
    now[0] += 1_000
    assert text(shown)[0].endswith("in 0:18:40"), "1,120.5 s from the start to the end"


def test_steps_that_take_no_time():
    shown = Frame(lambda: 5.0)
    shown.start(10, 0)
    for step in (1, 2, 3):
        shown.step(step)
    assert text(shown)[0].endswith("so far")


def test_a_resumed_run_measures_its_own_steps():
    now = [0.0]
    shown = Frame(lambda: now[0])
    shown.start(1_000, 900)
    for step in range(901, 951):
        now[0] += 1.0
        shown.step(step)
    assert text(shown)[0].endswith("0:00:50 left")


def test_a_terminal_of_ascii():
    lines = text(frame(train_record()), ascii_only=True)
    assert all(line.isascii() for line in lines)
    assert "##---" in lines[0]


def test_what_needs_a_look_is_coloured():
    uneven = train_record(entropy=[0.9, 0.3], loader_share=0.4)
    lines = frame(valid_record({"de": 4.0, "yo": 6.0}, 0), uneven, valid_record({"de": 4.5, "yo": 5.5})).lines(80, 23)

    def styles(first: str) -> dict[str, str]:
        (line,) = [line for line in lines if line.plain.split()[:1] == [first]]
        return {line.plain[span.start : span.end].strip(): str(span.style) for span in line.spans if span.style}

    assert styles("4.2500")["40.0%"] == "yellow"
    assert "0.900" not in styles("1")
    assert (styles("3")["0.300"], styles("3")["1"]) == ("yellow", "red")
    assert styles("de") == {"+0.500": "red"}
    assert styles("yo") == {"5.500": "yellow", "-0.500": "green"}


def test_lines_are_rich_text_without_markup():
    assert all(isinstance(line, Text) for line in frame(train_record()).lines(80, 23))


def test_short_numbers_and_times():
    numbers = (0, 9_999, 12_345, 999_960, 1_200_000, 3e11, 1.2e13)
    assert [short_count(value) for value in numbers] == ["0", "9,999", "12.3k", "1.00M", "1.20M", "300B", "12.0T"]
    assert [readable_time(seconds) for seconds in (0, 75, 3_725, 200_000)] == [
        "0:00:00",
        "0:01:15",
        "1:02:05",
        "2 d 7 h",
    ]
