"""The table that RESULTS.md begins with: a line for each goal and each promise, over all sections.

Every section carries its lines in a comment at its end, so that the table is made anew from the file alone whenever
one of them is rewritten.
"""

from __future__ import annotations

import json
import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.harness import Row

COLUMNS = ("section", "against", "goal", "measured", "verdict", "results agree")
MET, MISSED, HELD, NOT_HELD = "met", "**missed**", "held", "**NOT HELD**"
_COMMENT = re.compile(r"^<!-- summary: (.*) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A line of the table. ``verdict``: of the goal; ``agrees``: of the results."""

    section: str
    against: str
    goal: str
    measured: str
    verdict: str
    agrees: str = ""


def entries_of(stage: str, rows: Sequence[Row], text_bytes: int) -> list[Entry]:
    """Of a stage: its rows that have a goal, and those whose results are not what they must be."""
    found: list[Entry] = []
    for row in rows:
        holds = [agreement.holds for agreement in row.agreements if agreement.holds is not None]
        agrees = "" if not holds else HELD if all(holds) else NOT_HELD
        if row.status != "measured":
            if row.ours or row.goal is not None:
                goal = "" if row.goal is None else f"{row.goal:g}x"
                found.append(Entry(stage, row.name, goal, "", row.status, agrees))
        elif row.goal is not None and row.ratio is not None:
            verdict = MET if row.met else MISSED
            found.append(Entry(stage, row.name, f"{row.goal:g}x", f"{row.ratio:.2f}x", verdict, agrees))
        elif row.rate_goal is not None:
            rate = row.rate(text_bytes)
            verdict = MET if rate >= row.rate_goal else MISSED
            found.append(Entry(stage, "(ours)", f"{row.rate_goal:g} MB/s", f"{rate:.2f} MB/s", verdict, agrees))
        elif agrees and (row.ours or agrees == NOT_HELD):
            found.append(Entry(stage, "(ours)" if row.ours else row.name, "", "", "", agrees))
    return found


def comment(entries: Sequence[Entry]) -> str:
    """The lines of a section as it carries them."""
    # Two dashes would end the comment for some readers.
    values = json.dumps([astuple(entry) for entry in entries], ensure_ascii=False).replace("--", "-\\u002d")
    return f"<!-- summary: {values} -->"


def read_entries(text: str) -> list[Entry]:
    """The lines of all sections of a file, in order."""
    return [Entry(*values) for found in _COMMENT.findall(text) for values in json.loads(found)]


def table(entries: Sequence[Entry]) -> str:
    """A sentence with the counts, and the table."""
    goals = [entry.verdict for entry in entries if entry.verdict in (MET, MISSED)]
    promises = [one for entry in entries for one in (entry.verdict, entry.agrees) if one in (HELD, NOT_HELD)]
    counts = f"{goals.count(MET)} of {len(goals)} goals met; {promises.count(HELD)} of {len(promises)} promises held."
    return f"{counts}\n\n{markdown_table([COLUMNS, *(astuple(entry) for entry in entries)])}"
