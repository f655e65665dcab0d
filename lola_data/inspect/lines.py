"""Documents as lines for a terminal or a file: what was seen in, :class:`Line` out, and their way onto the screen.

The same lines serve both. On a terminal they have colours and are wrapped to its width; elsewhere each is one line of
text without escape sequences, and what differs between two texts is marked as wdiff marks it: ``[-only in the first-]``
and ``{+only in the second+}``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lola_data.inspect.words import LESS, MORE, SAME, compare, excerpt
from lola_data.languages import LANGUAGES
from lola_data.shown_text import MARK, Span, cut, decoded, laid_out, lines, plain, spans, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

    from lola_data.inspect.documents import Seen
    from lola_data.inspect.rows import Row
    from lola_data.inspect.trace import Journey, Step

HEAD, LABEL, DIM = "head", "label", "dim"
"""Kinds of spans beside those of :mod:`lola_data.shown_text` and :mod:`lola_data.inspect.words`."""
AROUND = 120
"""Characters shown on either side of a difference."""
NOT_AT_HAND = "its text is in no tree at hand; --raw names the raw shards where they lie elsewhere"
LITTLE = 0.3
"""Texts that share less of their words than this are shown one after the other, not merged."""

_STYLES = {
    HEAD: "bold", LABEL: "cyan", DIM: "dim", MARK: "reverse yellow", LESS: "red strike", MORE: "green underline",
    "elided": "dim italic",
}  # fmt: skip
_LABEL_CELLS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its spans, how far it is indented, and whether it is a line of a document's text."""

    spans: tuple[Span, ...]
    indent: int = 0
    is_text: bool = False


def fact(label: str, *values: str) -> Line:
    """A label and what there is to say of it; empty values are left out."""
    shown = "  ".join(value for value in values if value)
    return Line((Span(label.ljust(_LABEL_CELLS), LABEL), Span(shown)), 2)


def heading(text: str, rest: str = "") -> Line:
    """A line that begins a block."""
    return Line((Span(text, HEAD), Span(f"  {rest}" if rest else "", DIM)))


BLANK = Line(())


def language_name(code: str) -> str:
    """``yo (Yoruba)``; the code alone for one that CulturaX has not."""
    known = LANGUAGES.get(code)
    return plain(code) if known is None else f"{code} ({known.name})"


def text_lines(data: bytes | None, most: int | None, *, missing: str = "no text") -> list[Line]:
    """The lines of a document's text, of its first ``most`` characters."""
    if data is None:
        return [Line((Span(f"[{missing}]", DIM),), 4)]
    if not data:
        return [Line((Span("[empty]", DIM),), 4)]
    text, left = cut(decoded(data), most)
    found = [Line(tuple(line), 4, True) for line in lines(spans(text))]
    if left:
        found.append(Line((Span(f"[… {left:,} more characters]", DIM),), 4))
    return found


def difference_lines(first: bytes, second: bytes, most: int | None, *, colour: bool) -> tuple[list[Line], float]:
    """Two texts merged, what differs marked, and the share of their words that is alike.

    Args:
        first: the removed text.
        second: that of its survivor.
        most: characters shown.
        colour: kinds of spans tell what differs; otherwise brackets do.
    """
    compared = compare(decoded(first), decoded(second))
    found: list[Span] = []
    for stretch in excerpt(compared.stretches, AROUND if most is None else min(AROUND, most // 4)):
        inner = spans(stretch.text, stretch.kind)
        if stretch.kind in (LESS, MORE) and not colour:
            begin, end = ("[-", "-]") if stretch.kind == LESS else ("{+", "+}")
            inner = [Span(begin, stretch.kind), *inner, Span(end, stretch.kind)]
        found += inner
    shown = _cut_spans(found, most)
    result = [Line(tuple(line), 4, True) for line in lines(shown)]
    if all(stretch.kind == SAME for stretch in compared.stretches):
        same = f"{spaces_differ(compared.spaces)}, nothing else" if compared.spaces else "the texts are the same"
        result = [Line((Span(f"[{same}]", DIM),), 4)]
    elif compared.spaces:
        result.append(Line((Span(f"[{spaces_differ(compared.spaces)}, which is not marked]", DIM),), 4))
    if compared.cut:
        result.append(Line((Span(f"[… {compared.cut:,} characters further on were not compared]", DIM),), 4))
    return result, compared.alike


def spaces_differ(runs: int) -> str:
    """That what both texts share differs in white space."""
    return f"the white space differs in {runs:,} {'place' if runs == 1 else 'places'}"


def _cut_spans(given: Sequence[Span], most: int | None) -> list[Span]:
    if most is None:
        return list(given)
    found: list[Span] = []
    for span in given:
        if most <= 0:
            found.append(Span(" […]", DIM))
            break
        found.append(span if span.kind == MARK else Span(cut(span.text, most)[0], span.kind, span.note))
        most -= len(span.text)
    return found


def name_of(seen: Seen) -> str:
    """What a drawn document is called: its id, or its place in a tree without ids."""
    return plain(seen.row.id or f"{seen.file}, row {seen.row.number:,}")


def document_lines(seen: Seen, number: int, count: int, most: int | None, *, colour: bool) -> list[Line]:
    """One drawn document, the ``number``-th of ``count``."""
    found = [heading(name_of(seen), f"{number} of {count}"), *document_facts(seen)]
    if seen.tokens is not None:
        found += piece_lines(seen.pieces, most)
    if seen.place.kind != "removed":
        return [*found, *text_lines(seen.text, most)]
    return [*found, *pair_lines(seen.text, seen.survivor, most, colour=colour)]


def document_facts(seen: Seen) -> list[Line]:
    """What is known of a drawn document beside its text."""
    row = seen.row
    found = [fact("file", f"{plain(seen.file)}, {'document' if seen.tokens else 'row'} {row.number:,}")]
    found += _facts_of(row, seen.text)
    if seen.tokens is not None:
        found.append(fact("tokens", f"{len(seen.tokens.ids):,}, from token {seen.tokens.first:,} of the shard"))
    if seen.place.kind != "removed":
        return found
    found.append(fact("removed", f"{seen.place.name.removeprefix('removed/')}: {plain(str(row.values.get('reason')))}"))
    kept = row.values.get("kept_id")
    if kept:
        similarity = row.values.get("similarity")
        found.append(fact("kept", plain(str(kept)), "" if similarity is None else f"similarity {similarity:.3f}"))
        if seen.survivor is not None and seen.survivor.values.get("url"):
            found.append(fact("", plain(str(seen.survivor.values["url"]))))
    return found


def _facts_of(row: Row, text: bytes | None) -> list[Line]:
    values = row.values
    detected = values.get("lang")
    language = [language_name(row.lang)]
    if detected and detected != row.lang:
        language.append(f"detected as {language_name(detected)}")
    if values.get("claimed_lang") not in (None, row.lang):
        language.append(f"claimed as {language_name(values['claimed_lang'])}")
    if values.get("lang_score") is not None:
        language.append(f"score {values['lang_score']:.3f}")
    if values.get("script"):
        language.append(f"script {plain(values['script'])}")
    origin = [plain(str(values[name])) for name in ("source", "timestamp") if values.get(name)]
    found = [fact("language", ", ".join(language))]
    if origin:
        found.append(fact("source", ", ".join(origin)))
    if values.get("url"):
        found.append(fact("url", plain(str(values["url"]))))
    if text is not None:
        found.append(fact("size", size_of(text)))
    elif values.get("bytes") is not None:
        found.append(fact("size", f"{values['bytes']:,} bytes"))
    if (values.get("cluster_size") or 1) > 1:
        found.append(fact("cluster", f"kept, and {values['cluster_size'] - 1:,} removed in its favour"))
    return found


def size_of(text: bytes) -> str:
    """Characters and bytes of a text."""
    return f"{len(decoded(text)):,} characters, {len(text):,} bytes"


def pair_lines(text: bytes | None, survivor: Row | None, most: int | None, *, colour: bool) -> list[Line]:
    """A removed text and its survivor's, if it has one: merged where they are alike, else one after the other."""
    if text is None or survivor is None or survivor.text is None:
        found = text_lines(text, most, missing=NOT_AT_HAND)
        if survivor is not None:
            found += [Line((Span("that was kept:", DIM),), 2), *text_lines(survivor.text, most)]
        return found
    merged, alike = difference_lines(text, survivor.text, most, colour=colour)
    legend = Line(
        (
            Span(f"{alike:.1%} of the words alike; ", DIM),
            Span("only in the removed text" if colour else "[-only in the removed text-]", LESS),
            Span(", ", DIM),
            Span("only in the kept one" if colour else "{+only in the kept one+}", MORE),
        ),
        2,
    )
    if alike >= LITTLE:
        return [legend, *merged]
    return [
        Line((Span(f"{alike:.1%} of the words alike; removed:", DIM),), 2),
        *text_lines(text, most),
        Line((Span("kept:", DIM),), 2),
        *text_lines(survivor.text, most),
    ]


def piece_lines(pieces: Sequence[str] | None, most: int | None) -> list[Line]:
    """The pieces of a document's tokens, parted by bars; those of its first ``most`` characters."""
    shown: list[Span] = []
    left = most
    for number, piece in enumerate(pieces or ()):
        if left is not None and left <= 0:
            shown.append(Span(f" [… {len(pieces or ()) - number:,} more]", DIM))
            break
        shown += [*spans(piece.replace("\n", "␊")), Span("│", DIM)]
        left = None if left is None else left - len(piece)
    return [Line(tuple(shown), 4, True)] if shown else []


_VERDICTS = {"kept": "", "removed": "removed", "absent": "not there", "not run": "not run, or not to its end"}


def journey_lines(journey: Journey, most: int | None, *, colour: bool) -> list[Line]:
    """A document's way through the stages."""
    found = [heading(plain(journey.id), language_name(journey.lang))]
    for step in journey.steps:
        found += step_lines(step)
        if step.stage == "tokenize":
            found += piece_lines(journey.pieces, most)
    found += favoured_lines(journey)
    found.append(fact("text", "" if journey.text is None else size_of(journey.text)))
    return [*found, *pair_lines(journey.text, journey.survivor, most, colour=colour)]


def favoured_lines(journey: Journey) -> list[Line]:
    """Those removed in favour of the document."""
    if not journey.favoured:
        return []
    found = [fact("favoured", f"{len(journey.favoured):,} removed for this document:")]
    for name, reason, similarity in journey.favoured:
        found.append(fact("", plain(name), plain(reason if similarity is None else f"{reason}, {similarity:.3f}")))
    return found


def step_lines(step: Step) -> list[Line]:
    """What one stage did."""
    what = _VERDICTS[step.verdict]
    unit = "document" if step.stage == "tokenize" else "row"
    group = "" if step.group is None else f" (row group {step.group})"
    place = "" if step.file is None else f"{plain(step.file)}, {unit} {step.row:,}{group}"
    found = [fact(step.stage, what, place)]
    if step.facts:
        found.append(fact("", ", ".join(f"{name} {value}".lstrip() for name, value in step_facts(step))))
    return found


_FACT_NAMES = {
    "lang_score": "score", "kept_id": "kept", "first_token": "from token", "claimed_lang": "claimed", "note": "",
    "lang": "detected",
}  # fmt: skip


def step_facts(step: Step) -> list[tuple[str, str]]:
    """What a stage found out, as names and values for people; a note has no name."""
    found: list[tuple[str, str]] = []
    for name, value in step.facts.items():
        number = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else None
        found.append((_FACT_NAMES.get(name, name.replace("_", " ")), number or plain(str(value))))
    return found


def print_lines(found: Iterable[Line], stream: TextIO | None = None) -> None:
    """Write lines to standard output: with colours and wrapped on a terminal, plain elsewhere."""
    out = stream if stream is not None else sys.stdout
    if not out.isatty():
        for line in found:
            for row in _rows(line, None):
                out.write(f"{' ' * line.indent}{''.join(span.text for span in row)}".rstrip(" ") + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, highlight=False, markup=False, emoji=False)
    for line in found:
        label = [span for span in line.spans if span.kind == LABEL]
        hang = _LABEL_CELLS if label else 0
        rest = Line(line.spans[len(label) :], line.indent, line.is_text)
        for number, row in enumerate(_rows(rest, max(20, console.width - line.indent - hang)) or [[]]):
            shown = Text(" " * line.indent)
            for span in label if number == 0 else [Span(" " * hang)]:
                shown.append(span.text, _STYLES.get(span.kind))
            for span in row:
                shown.append(span.text, _STYLES.get(span.kind))
            console.print(shown, soft_wrap=True)


def _rows(line: Line, width: int | None) -> list[list[Span]]:
    if line.is_text:
        return laid_out(line.spans, width)
    return [list(line.spans)] if width is None else wrapped(line.spans, width)
