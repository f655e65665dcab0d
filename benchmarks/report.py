"""What was measured, for people and programs: a table on the terminal, JSON, a section of RESULTS.md."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.summary import comment, entries_of, read_entries, table
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Row, Stage
    from benchmarks.machine import Machine
    from benchmarks.section import Section, Told
    from benchmarks.summary import Entry

COLUMNS = (
    "contender",
    "MB/s per core",
    "ratio",
    "goal",
    "ratio in CPU time",
    "CPU s",
    "peak MB",
    "load s",
    "output MB",
    "agreement",
)
HEADING = """\
# Results

Every goal and promise, and below it a section for each stage, written by the command it names. README.md says what the
columns mean. Nothing here is edited by hand.
"""


def cells(row: Row, text_bytes: int) -> list[str]:
    """A row of the table."""
    if row.status != "measured":
        reason = f"{row.status}: {row.reason}" if row.reason else row.status
        goal = f"{row.goal:g}x" if row.goal else ""
        return [row.name, reason, "", goal, *[""] * (len(COLUMNS) - 4)]
    goal = "" if row.goal is None else f"{row.goal:g}x {'met' if row.met else 'missed'}"
    if row.rate_goal is not None:
        goal = f"{row.rate_goal:g} MB/s {'met' if row.rate(text_bytes) >= row.rate_goal else 'missed'}"
    return [
        row.name,
        f"{row.rate(text_bytes):.2f}",
        "1" if row.ours else _times(row.ratios),
        goal,
        "1" if row.ours else _times(row.cpu_ratios),
        f"{row.median('cpu'):.2f}",
        f"{row.median('peak_rss') / 1e6:.0f}",
        f"{row.median('load'):.1f}",
        f"{row.median('out_bytes') / 1e6:.1f}",
        "; ".join(f"{'' if one.holds in (None, True) else 'NOT HELD: '}{one.text}" for one in row.agreements),
    ]


def _times(ratios: Sequence[float]) -> str:
    """Median, and the least and the most of the rounds: ``5.1x (4.9 to 5.6)``."""
    ordered = sorted(ratios)
    if not ordered:
        return ""
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    spread = f" ({ordered[0]:.2f} to {ordered[-1]:.2f})" if len(ordered) > 1 else ""
    return f"{median:.2f}x{spread}"


def markdown(rows: Sequence[Row], text_bytes: int) -> str:
    """The table in Markdown."""
    return markdown_table([COLUMNS, *(cells(row, text_bytes) for row in rows)])


def show(title: str, rows: Sequence[Row], text_bytes: int) -> None:
    """The table on standard output: drawn on a terminal, in Markdown elsewhere."""
    if not sys.stdout.isatty():
        print(f"{title}\n\n{markdown(rows, text_bytes)}\n", flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, title=title, title_justify="left")
    for row in rows:
        colour = "bold" if row.ours else "red" if row.status == "failed" else "dim" if row.status != "measured" else ""
        table.add_row(*cells(row, text_bytes), style=colour)
    Console().print(table)


def to_json(rows: Sequence[Row], text_bytes: int) -> list[dict[str, Any]]:
    """The rows as plain dicts, with each round."""
    return [
        {
            **asdict(row),
            "ratio": row.ratio,
            "cpu_ratio": row.cpu_ratio,
            "met": row.met,
            "megabytes_per_second": row.rate(text_bytes) if row.runs else None,
        }
        for row in rows
    ]


def corpus_line(corpus: Corpus) -> str:
    """What the corpus is."""
    facts = corpus.facts
    planted = ", ".join(f"{count:,} {kind}" for kind, count in facts["planted"].items())
    again = facts["redrawn_bytes"] / facts["bytes"]
    return (
        f"{facts['bytes'] / 1e6:.1f} MB of text, {facts['documents']:,} documents, {len(facts['languages'])} languages "
        f"(results are compared on {len(facts['others'])} more), made from {facts['origin']} (seed {facts['seed']}); "
        f"{again:.0%} of it drawn again from the same sentences or copied; planted duplicates: {planted}"
    )


def section(
    stage: Stage, rows: Sequence[Row], corpus: Corpus, machine: Machine, packages: dict[str, str], command: str
) -> str:
    """The stage's section of RESULTS.md."""
    rounds = max((len(row.runs) for row in rows), default=0)
    body = markdown(rows, corpus.bytes)
    entries = entries_of(stage.name, rows, corpus.bytes)
    return written(stage.name, stage.title, f"`{command}`, {rounds} rounds", corpus, machine, packages, body, entries)


def special_section(
    section: Section, told: Told, corpus: Corpus, machine: Machine, packages: dict[str, str], command: str
) -> str:
    """The section of RESULTS.md that is no race of contenders."""
    return written(section.name, section.title, f"`{command}`", corpus, machine, packages, told.body, told.entries)


def written(
    name: str,
    title: str,
    how: str,
    corpus: Corpus,
    machine: Machine,
    packages: dict[str, str],
    body: str,
    entries: Sequence[Entry],
) -> str:
    """A section: what was run on what, what came out, and its lines of the summary."""
    named = ", ".join(f"{package} {number}" for package, number in packages.items())
    size = f"{machine.cores} cores, {machine.memory_gb} GB"
    idle = "" if machine.idle else " **The machine was not idle.**"
    return f"""\
## {name}: {title}

- {machine.date}, {how}
- {machine.cpu}, {size}, {machine.kernel}; load {machine.load} at the start.{idle}
- Python {machine.python}, {named}
- Corpus: {corpus_line(corpus)}

{body}

{comment(entries)}
"""


def replace_section(text: str, name: str, written: str, order: Sequence[str]) -> str:
    """``text`` with the section ``name`` replaced, or put in its place by ``order``."""
    parts = text.split("\n## ")
    sections = {part.partition(":")[0]: part for part in parts[1:]}
    sections[name] = written.removeprefix("## ")
    known = [one for one in order if one in sections]
    others = [one for one in sections if one not in order]
    bodies = [sections[one].strip() for one in [*known, *others]]
    return "\n\n## ".join([parts[0].strip(), *bodies]) + "\n"


def with_summary(text: str) -> str:
    """``text`` with what comes before the first section made anew."""
    sections = text.split("\n## ")[1:]
    head = f"{HEADING}\n{table(read_entries(text))}"
    return "\n\n## ".join([head, *(one.strip() for one in sections)]) + "\n"


def update(path: Path, name: str, written: str, order: Sequence[str]) -> None:
    """Rewrite one section of the file of results, and the summary."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEADING
    path.write_text(with_summary(replace_section(text, name, written, order)), encoding="utf-8")
