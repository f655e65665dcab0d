"""What a terminal shows of a run: the records of ``metrics.jsonl`` in, a frame of any width and height out.

From top to bottom: a bar, the figures of the last step, how evenly each MoE block uses its experts, and the held-out
loss of each language. A frame is never taller or wider than it is asked to be. What does not fit is left out: columns
from the least important on, of many blocks those with the most even load, of many languages those that are best against
their unigram bar.
"""

from __future__ import annotations

import math
import time
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard

from rich.cells import cell_len
from rich.text import Text

from lola_data.shown_text import cut, plain
from lola_data.text_tables import Column, fitted, readable_bytes, readable_share
from train.metrics import SLOW_LOADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console, ConsoleOptions

Cell = tuple[str, str]
"""Text and style."""
MOST_BLOCKS = 8
"""Rows of the table of MoE blocks, at most."""
UNEVEN = 0.8
"""Entropy of a block's load from which it is shown in colour."""
_NAME_CELLS = 20
_SHADES = "·▁▂▃▄▅▆▇█"
_GAP = "  "
_APART, _NARROWEST = 4, 44
"""Cells between tables that stand side by side, and for the table of blocks there, without the load by expert."""


class Frame:
    """A renderable that shows what it was told last.

    Args:
        clock: seconds, for the time that is left.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps = self._step = 0
        self._train: dict[str, Any] = {}
        self._valid: dict[str, Any] = {}
        self._valid_before: dict[str, Any] = {}
        self._began = clock()
        self._ended: float | None = None
        # (seconds, step) at most once a second: the pace of the last minutes, pauses for evaluations among them.
        self._pace: deque[tuple[float, int]] = deque(maxlen=300)

    def start(self, steps: int, done: int) -> None:
        """Training goes from step ``done`` to ``steps``."""
        self._steps, self._step, self._began = steps, done, self._clock()

    def step(self, step: int) -> None:
        """Step number ``step`` is done."""
        self._step = step
        now = self._clock()
        # The first step, which compiles and allocates, is no measure of the others: the pace begins behind it.
        if not self._pace or now - self._pace[-1][0] >= 1:
            self._pace.append((now, step))

    def record(self, record: dict[str, Any]) -> None:
        """A record as in ``metrics.jsonl``; numbers that do not exist may be None or NaN."""
        if record["kind"] == "valid":
            self._valid, self._valid_before = record, self._valid
        else:
            self._train = record

    def end(self) -> None:
        """Nothing more comes; the time that was left is now the time it took."""
        self._ended = self._clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        # A line is left free for the cursor: the last frame stays whole when the prompt appears below it.
        yield from self.lines(options.max_width, console.height - 1, ascii_only=options.ascii_only)

    def lines(self, width: int, height: int, *, ascii_only: bool = False) -> list[Text]:
        """The frame.

        Args:
            width: cells of a line, at most.
            height: lines, at most; one there is always.
            ascii_only: whether the terminal knows no other characters.
        """
        found = [self._bar(width, ascii_only)]
        if not self._train and not self._valid:
            found.append(Text("no figures yet: the held-out loss before the first step takes a while", "dim"))
        found += self._figures(width)
        blocks, left = self._block_rows(ascii_only), height - len(found) - 1
        languages = self._languages(10**6, left)
        beside = width - max((line.cell_len for line in languages), default=0) - _APART
        if blocks and languages and beside >= _NARROWEST:
            found += _side_by_side(self._blocks(blocks, beside, left), languages)
        else:
            room = left
            if languages:
                # Where not all of both fits, a third for the blocks: they are few, or shown by their worst.
                room = max(left - 1 - len(self._valid["loss"]) - 2, (left - 1) // 3)
            lines = self._blocks(blocks, width, room)
            found += [Text(), *lines] if lines else []
            lines = self._languages(width, height - len(found) - 1)
            found += [Text(), *lines] if lines else []
        found = found[: max(1, height)]
        for line in found:
            line.no_wrap = True
            line.truncate(width, overflow="crop")
        return found

    def _bar(self, width: int, ascii_only: bool) -> Text:
        share = min(1.0, self._step / self._steps) if self._steps else 0.0
        parts = [f"step {self._step:,}/{self._steps:,}", f"{math.floor(100 * share)}%"]
        tokens = self._tokens_of_step()
        if tokens:
            parts.append(f"{short_count(self._step * tokens)}/{short_count(self._steps * tokens)} tokens")
        parts.append(self._time())
        while len(parts) > 2 and len(_GAP.join(parts)) > width:
            del parts[-2]
        text = Text(parts[0], "bold")
        room = min(60, width - len(_GAP.join(parts)) - len(_GAP))
        if room >= 8:
            done, rest = ("#", "-") if ascii_only else ("━", "─")
            full = round(room * share)
            text.append(_GAP).append(done * full, "green").append(rest * (room - full), "dim")
        for part in parts[1:]:
            text.append(_GAP + part)
        return text

    def _tokens_of_step(self) -> float:
        record = self._train or self._valid
        return record["tokens"] / record["step"] if record.get("step") else 0.0

    def _time(self) -> str:
        if self._ended is not None:
            return f"in {readable_time(self._ended - self._began)}"
        if len(self._pace) < 2 or self._pace[-1][1] == self._pace[0][1]:
            return f"{readable_time(self._clock() - self._began)} so far"
        (first, before), (last, now) = self._pace[0], self._pace[-1]
        # What has gone since the last step is taken off, or the number would stand still in long steps.
        seconds = (last - first) / (now - before) * (self._steps - now) - (self._clock() - last)
        return f"{readable_time(max(0.0, seconds))} left"

    def _figures(self, width: int) -> list[Text]:
        record = self._train
        if not record:
            return []
        shown = [
            ("loss", 9, _number(record.get("loss"), ".4f", missing="red")),
            ("lr", 7, _number(record.get("lr"), ".2e")),
            ("grad norm", 6, _number(record.get("grad_norm"), ".3g", missing="red")),
            ("tokens/s", 8, _number(record.get("tokens_per_second"), ",.0f")),
            ("MFU", 5, _share(record.get("mfu"))),
            ("memory", 4, _memory(record.get("memory_bytes"))),
            ("dropped", 3, _share(record.get("dropped"))),
            ("loader", 2, _share(record.get("loader_share"), above=SLOW_LOADER)),
        ]
        # Columns do not move while numbers change.
        columns = [(header.rjust(8), keep) for header, keep, _ in shown]
        cells = [(text.rjust(8), style) for _, _, (text, style) in shown]
        if record.get("mfu") is None:
            del columns[4], cells[4]
        return _table(columns, [cells], width, left=0)

    def _block_rows(self, ascii_only: bool) -> list[list[Cell]]:
        """A row for each MoE block, in order."""
        record = self._train
        blocks = list(record.get("load") or ())
        if not blocks or any(len(record.get(key) or ()) != len(blocks) for key in ("entropy", "max_load", "min_load")):
            return []
        found = []
        for at, block in enumerate(blocks):
            entropy, dead = record["entropy"][at], (record.get("dead") or {}).get(block)
            found.append(
                [
                    (str(block), ""),
                    _number(entropy, ".3f", style="yellow" if _known(entropy) and entropy < UNEVEN else ""),
                    _number(record["max_load"][at], ".2f"),
                    _number(record["min_load"][at], ".2f"),
                    _number(dead, ",.0f", style="red" if dead else ""),
                    ("" if ascii_only else _shades(record["load"][block]), "cyan"),
                ]
            )
        return found

    def _blocks(self, rows: list[list[Cell]], width: int, height: int) -> list[Text]:
        """The table of MoE blocks in at most ``height`` lines; nothing if there is no use in so few."""
        count = len(rows)
        shown = count if count <= min(MOST_BLOCKS, height - 1) else min(MOST_BLOCKS, height - 2)
        if not rows or shown < 1:
            return []
        columns = [
            ("MoE block", 9), ("entropy", 8), ("max load", 5), ("min load", 4), ("dead", 7), ("load by expert", 1),
        ]  # fmt: skip
        order = range(count)
        if shown < count:
            order = sorted(order, key=lambda at: _lowest_first(self._train["entropy"][at]))[:shown]
        found = _table(columns, [rows[at] for at in order], width, left=1, last_left=True)
        return [*found, Text(f"... {count - shown:,} more, of higher entropy", "dim")] if shown < count else found

    def _languages(self, width: int, height: int) -> list[Text]:
        """The table of held-out losses in at most ``height`` lines; nothing if there is no use in so few."""
        record, before = self._valid, self._valid_before
        losses, unigram = record.get("loss") or {}, record.get("unigram") or {}
        if not losses or height < 3:
            return []
        room = height - 2
        more = len(losses) - room + 1 if len(losses) > room else 0
        bits = record.get("bits_per_byte") or {}
        epochs = self._train.get("epochs") or {}
        known_bits = [value for value in bits.values() if _known(value)]
        mean = _held_out_cells(
            "mean", record.get("mean"), before.get("mean"), record.get("unigram_mean"),
            math.fsum(known_bits) / len(known_bits) if known_bits else None, None,
        )  # fmt: skip
        rows = [[(text, f"bold {style}".strip()) for text, style in mean]]
        ordered = sorted(losses, key=lambda lang: (*_worst_first(losses[lang], unigram.get(lang)), lang))
        for lang in ordered[: len(losses) - more]:
            previous = (before.get("loss") or {}).get(lang)
            shown = (_name(lang), losses[lang], previous, unigram.get(lang), bits.get(lang), epochs.get(lang))
            rows.append(_held_out_cells(*shown))
        rows[0][-1] = ("", "")
        columns = [
            (f"held out, step {record['step']:,}", 9), ("loss", 8), ("change", 4), ("unigram", 6), ("bits/byte", 5),
            ("epochs", 3),
        ]  # fmt: skip
        found = _table(columns, rows, width, left=1)
        if more:
            found.append(Text(f"... {more:,} more, better against their unigram bar", "dim"))
        return found


def _held_out_cells(
    name: str, loss: float | None, before: float | None, bar: float | None, bits: float | None, epochs: float | None
) -> list[Cell]:
    change = loss - before if _known(loss) and _known(before) else None
    moved = "" if change is None or abs(change) < 0.0005 else "green" if change < 0 else "red"
    return [
        (name, ""),
        _number(loss, ".3f", style="yellow" if _known(loss) and _known(bar) and loss >= bar else ""),
        _number(change, "+.3f", style=moved),
        _number(bar, ".3f"),
        _number(bits, ".3f"),
        _number(epochs, ".2f"),
    ]


def _table(
    columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[Cell]], width: int, *, left: int,
    last_left: bool = False,
) -> list[Text]:  # fmt: skip
    """Lines of a header and rows, without the columns of the smallest numbers where the width is not enough.

    Args:
        columns: header, and how long to keep it.
        rows: of as many cells.
        width: cells of a line.
        left: columns, from the first, that are left-aligned.
        last_left: whether the last is, too.
    """
    shown = [Column(header, "", str, keep) for header, keep in columns]
    headers, _, _ = fitted(shown, [[text for text, _ in row] for row in rows], width)
    kept = [at for at, (header, _) in enumerate(columns) if header in headers]
    widths = {at: max(cell_len(columns[at][0]), *(cell_len(row[at][0]) for row in rows)) for at in kept}
    lines = []
    for cells in [[(header, "dim") for header, _ in columns], *rows]:
        line = Text()
        for at in kept:
            text, style = cells[at]
            spare = " " * (widths[at] - cell_len(text))
            is_left = at < left or (last_left and at == len(columns) - 1)
            line.append(_GAP if at != kept[0] else "")
            line.append(text + spare if is_left else spare + text, style)
        lines.append(line)
    return lines


def _side_by_side(left: list[Text], right: list[Text]) -> list[Text]:
    """An empty line, then both."""
    width = max((line.cell_len for line in left), default=-_APART) + _APART
    found = [Text()]
    for at in range(max(len(left), len(right))):
        line = left[at].copy() if at < len(left) else Text()
        if at < len(right):
            line.append(" " * (width - line.cell_len)).append_text(right[at])
        found.append(line)
    return found


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _number(value: float | None, form: str, *, style: str = "", missing: str = "") -> Cell:
    return (format(value, form), style) if _known(value) else ("-", missing)


def _share(value: float | None, *, above: float = math.inf) -> Cell:
    if not _known(value):
        return "-", ""
    return readable_share(value), "yellow" if value > above else ""


def _memory(value: float | None) -> Cell:
    return (readable_bytes(value), "") if _known(value) else ("-", "")


def _lowest_first(value: float | None) -> float:
    return value if _known(value) else -math.inf


def _worst_first(loss: float | None, bar: float | None) -> tuple[int, float]:
    """Order of languages: those whose loss is no number, those farthest above their bar, those without a bar."""
    if not _known(loss):
        return 0, 0.0
    return (1, bar - loss) if _known(bar) else (2, -loss)


def _shades(load: Sequence[float]) -> str:
    """A character for each expert: the half-high one is even load, a dot no token at all."""
    even = len(load)
    return "".join(_SHADES[0] if not share > 0 else _SHADES[max(1, min(8, round(share * even * 4)))] for share in load)


@lru_cache(1024)
def _name(lang: str) -> str:
    """A language as it can be shown in a cell of at most 20 cells: names are those of strangers' folders."""
    for most in range(_NAME_CELLS, -1, -1):
        head, more = cut(lang, most)
        shown = plain(f"{head}..." if more else head)
        if cell_len(shown) <= _NAME_CELLS:
            return shown
    return "..."


def short_count(value: float) -> str:
    """A number in few characters, in powers of 1,000: 9,999, 12.3k, 1.20M, 300B.

    >>> [short_count(value) for value in (0, 9_999, 12_345, 999_960, 1_200_000, 3e11)]
    ['0', '9,999', '12.3k', '1.00M', '1.20M', '300B']
    """
    if value < 10_000:
        return f"{value:,.0f}"
    unit = 0
    while value >= 999.5 and unit < 4:
        value, unit = value / 1000, unit + 1
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{'kMBT'[unit - 1]}"


def readable_time(seconds: float) -> str:
    """Hours, minutes and seconds, from two days on days and hours.

    >>> [readable_time(seconds) for seconds in (0, 75, 3_725, 200_000)]
    ['0:00:00', '0:01:15', '1:02:05', '2 d 7 h']
    """
    whole = round(seconds)
    if whole >= 172_800:
        return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"
    return f"{whole // 3_600}:{whole // 60 % 60:02}:{whole % 60:02}"
