"""Text of strangers made fit to be looked at: bytes in, spans out that can neither steer a terminal nor mislead.

What is invisible or would act (control characters, escape sequences, bidirectional overrides, byte order marks) is
replaced by a visible mark, bytes that are not UTF-8 by escapes such as ``\\xff``. All else stays as it is: joiners
(U+200C, U+200D), which Persian and the scripts of India cannot do without, among it. Lines are wrapped by the cells
they take, never before a combining mark, and a line that has right-to-left letters is put into an isolate (Unicode
Standard Annex 9, section 2.4), so that it cannot reorder what stands beside it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FSI, LRI, RLI, PDI = "\u2068", "\u2066", "\u2067", "\u2069"
"""First strong, left-to-right and right-to-left isolate, and the end of an isolate."""
MARK = "mark"
"""Kind of a span that stands for something that cannot be shown as it is."""

_ACTING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufdd0-\ufdef\ufeff"
    "\ufff0-\uffff\U000e0000-\U000e00ff\U000e01f0-\U000e0fff\U000f0000-\U0010ffff]"
)
"""Controls, format characters that act unseen, private use, noncharacters, and the surrogates that stand for bytes."""
_SHORT = {
    "\u00ad": "SHY", "\u061c": "ALM", "\u180e": "MVS", "\u200e": "LRM", "\u200f": "RLM", "\u2028": "LS", "\u2029": "PS",
    "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO", "\u2060": "WJ",
    LRI: "LRI", RLI: "RLI", FSI: "FSI", PDI: "PDI", "\ufeff": "BOM", "\x7f": "DEL",
    **{chr(code): name for code, name in enumerate((
        "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI", "DLE",
        "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
    ))},
}  # fmt: skip
_ACTING_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text of one kind. ``kind`` is empty for text as it is, :data:`MARK`, or what the maker of the span
    says; ``note`` tells what a mark stands for."""

    text: str
    kind: str = ""
    note: str = ""


def decoded(data: bytes) -> str:
    """``data`` as text; each byte that is not valid UTF-8 is a lone surrogate (Python's ``surrogateescape``)."""
    return data.decode("utf-8", "surrogateescape")


def spans(text: str, kind: str = "") -> list[Span]:
    """``text`` (as from :func:`decoded`) as spans of ``kind``, with marks for what cannot be shown; line feeds stay.

    >>> [span.text for span in spans("a" + chr(27) + "[2Jb" + chr(0x202E))]
    ['a', '‹ESC›', '[2Jb', '‹RLO›']
    """
    found: list[Span] = []
    done = 0
    for match in _ACTING.finditer(text):
        if match.start() > done:
            found.append(Span(text[done : match.start()], kind))
        found.append(_mark(match[0]))
        done = match.end()
    if done < len(text):
        found.append(Span(text[done:], kind))
    return found


def _mark(character: str) -> Span:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return Span(f"\\x{code - 0xDC00:02x}", MARK, f"byte 0x{code - 0xDC00:02X}, not valid UTF-8")
    note = f"U+{code:04X} {unicodedata.name(character, '')}".rstrip()
    if character == "\t":
        return Span("⇥ ", MARK, note)
    if character in "\ufffc\ufffd":
        return Span(character, MARK, note)
    return Span(f"‹{_SHORT.get(character) or f'U+{code:04X}'}›", MARK, note)


def plain(text: str) -> str:
    """One harmless line of ``text``, for a name, an address or a value: marks as text, line feeds too, isolated."""
    return isolated("".join(span.text for span in spans(text.replace("\n", "␊"))))


def harmless_json(text: str) -> str:
    """JSON text with escapes for what could act on a terminal; the value it stands for is the same."""
    return _ACTING_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cut(text: str, most: int | None) -> tuple[str, int]:
    """The first ``most`` characters (None: all), not parted from their combining marks, and how many were left off."""
    if most is None or len(text) <= most:
        return text, 0
    end = most
    while end < len(text) and _attaches(text[end - 1] if end else "", text[end]):
        end += 1
    return text[:end], len(text) - end


def has_right_to_left(text: str) -> bool:
    """Whether a character of a right-to-left script, or a digit of one, is in ``text``."""
    return not text.isascii() and any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)


def is_right_to_left(text: str) -> bool:
    """Whether the first strong character is one of a right-to-left script (Annex 9, rules P2 and P3)."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def isolated(text: str) -> str:
    """``text`` in a first strong isolate if it has right-to-left characters, else as it is."""
    return f"{FSI}{text}{PDI}" if has_right_to_left(text) else text


def lines(parts: Iterable[Span]) -> list[list[Span]]:
    """Spans parted at line feeds, which are left out."""
    found: list[list[Span]] = [[]]
    for part in parts:
        first, *others = part.text.split("\n")
        if first:
            found[-1].append(Span(first, part.kind, part.note))
        for other in others:
            found.append([Span(other, part.kind, part.note)] if other else [])
    return found


def wrapped(line: Sequence[Span], width: int) -> list[list[Span]]:
    """A line as rows of at most ``width`` cells: broken after spaces and beside wide characters, else anywhere."""
    from rich.cells import cell_len

    rows: list[list[tuple[str, Span]]] = [[]]
    used = place = 0  # cells of the row; where in it a break may be made
    for cluster, span in _clusters(line):
        size = cell_len(cluster)
        if used + size > width and rows[-1] and not cluster.isspace():
            row = rows[-1]
            at = place if place > 0 else len(row)
            rows[-1], rest = row[:at], row[at:]
            rows.append(rest)
            used, place = sum(cell_len(text) for text, _ in rest), 0
        rows[-1].append((cluster, span))
        used += size
        if cluster.isspace() or size == 2:
            place = len(rows[-1])
    return [_joined(row) for row in rows]


def _clusters(line: Sequence[Span]) -> Iterable[tuple[str, Span]]:
    for span in line:
        if span.kind == MARK:
            yield span.text, span
            continue
        start = 0
        for end in range(1, len(span.text) + 1):
            if end == len(span.text) or not _attaches(span.text[end - 1], span.text[end]):
                yield span.text[start:end], span
                start = end


def _attaches(before: str, character: str) -> bool:
    """Whether a character belongs to the one before it: marks, joiners and what they join, skin tones."""
    if character < "\u0300":
        return False
    return (
        character == _JOINER
        or before == _JOINER
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or unicodedata.category(character)[0] == "M"
    )


def _joined(row: list[tuple[str, Span]]) -> list[Span]:
    found: list[Span] = []
    for text, span in row:
        if found and span.kind != MARK and (found[-1].kind, found[-1].note) == (span.kind, span.note):
            found[-1] = Span(found[-1].text + text, span.kind, span.note)
        else:
            found.append(Span(text, span.kind, span.note))
    return found


def laid_out(line: Sequence[Span], width: int | None) -> list[list[Span]]:
    """The rows of a line, wrapped to ``width`` cells (None: not at all), those with right-to-left text in isolates.

    All rows of a line have the direction of the line, and so a right-to-left isolate where its first strong character
    says so; a mark in such a row is a left-to-right isolate of its own.
    """
    whole = "".join(span.text for span in line if span.kind != MARK)
    if not has_right_to_left(whole):
        return [list(line)] if width is None else wrapped(line, width)
    begin = RLI if is_right_to_left(whole) else LRI
    rows = [list(line)] if width is None else wrapped(line, width)
    if width is None:
        begin = FSI
    return [
        [
            Span(begin),
            *(Span(f"{LRI}{span.text}{PDI}", span.kind, span.note) if span.kind == MARK else span for span in row),
            Span(PDI),
        ]
        for row in rows
    ]
