"""The figures of docs/scaling.md, from RESULTS.md by arithmetic: ``python -m benchmarks.scaling`` writes them anew."""

from __future__ import annotations

import math
import re
from pathlib import Path

from benchmarks.tables import markdown_table
from lola_data.languages import LANGUAGES
from lola_data.sections import DedupSection
from pipelines.partition import GATHERED_BYTES, key_parts, kinds_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PAGE = ROOT / "docs" / "scaling.md"

TEXT_BYTES = 27e12
"""CulturaX unpacked (its dataset card)."""
DAY = 86_400
STAGES = {"identify": "identify-shards", "dedup": "dedup", "tokenize": "tokenise", "the whole road": "road"}
"""Row of the table -> section of the results."""
MEMORY = 8_000_000_000
TIED_SHARES = (0.1, 0.3, 0.5)
ENTRY_ON_DISK = 12
"""Bytes of a key and its row."""


def section(results: str, name: str) -> str:
    """The text of a section. Raises ValueError if there is none."""
    found = re.search(rf"^## {re.escape(name)}: .*?(?=^## |\Z)", results, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"RESULTS.md has no section `{name}`; run `python -m benchmarks {name}`")
    return found[0]


def rows(text: str) -> list[dict[str, str]]:
    """The first table with a column of rates, as dicts."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], one, strict=False)) for one in cells[2:]]


def corpus_megabytes(text: str) -> float:
    """10^6 bytes of text of the corpus that a section was measured on."""
    found = re.search(r"^- Corpus: ([\d.]+) MB of text", text, re.MULTILINE)
    if found is None:
        raise ValueError("a section without its corpus")
    return float(found[1])


def core_days(megabytes_a_second: float, text_bytes: float = TEXT_BYTES) -> float:
    """Days of one core.

    >>> core_days(10.0, 8.64e11)
    1.0
    """
    return text_bytes / 1e6 / megabytes_a_second / DAY


def stage_table(results: str) -> str:
    """Core-days, disk and memory of each stage."""
    heads = (
        "stage",
        "MB/s per core",
        "core-days",
        "datatrove: core-days",
        "written a byte",
        "for 27 TB",
        "peak of a task",
    )
    lines: list[tuple[str, ...]] = [heads]
    for stage, name in STAGES.items():
        text = section(results, name)
        ours, *others = rows(text)
        peers = [
            one for one in others if one["contender"].startswith("datatrove") and one["MB/s per core"][:1].isdigit()
        ]
        rate = float(ours["MB/s per core"])
        written = float(ours["output MB"]) / corpus_megabytes(text)
        theirs = f"{core_days(float(peers[0]['MB/s per core'])):.0f}" if peers else "not measured"
        disk = f"{written * TEXT_BYTES / 1e12:.1f} TB"
        peak = f"{float(ours['peak MB']):.0f} MB"
        lines.append((stage, f"{rate:.2f}", f"{core_days(rate):.1f}", theirs, f"{written:.2f}", disk, peak))
    return markdown_table(lines)


def english_table(results: str) -> str:
    """What the phases of matching take for the largest language."""
    documents = LANGUAGES["en"].documents
    keys = documents * kinds_of(DedupSection())
    parts = key_parts(documents, DedupSection(), MEMORY)
    rates = {row["step"]: float(row["million keys a second"]) * 1e6 for row in rows(_second_table(results))}
    half = f"{MEMORY / 2e9:.0f} GB"
    lines = [("phase", "tasks", "work", "core-hours", "disk", "memory of a task")]
    work, disk = f"{keys / 1e9:.1f} billion keys", f"{keys * ENTRY_ON_DISK / 1e9:,.0f} GB"
    lines.append(("spread", "one a unit", work, _hours(keys / rates["spread"]), disk, "a unit's keys"))
    work = f"{keys / parts / 1e6:.0f} million keys each"
    lines.append(("tie", f"{parts:,}", work, _hours(keys / rates["tie"]), "8 bytes a tie", half))
    for share in TIED_SHARES:
        tied = documents * share
        work, case = f"{tied / 1e6:,.0f} million documents", f"if {share:.0%} have a tie"
        memory = f"{(tied * 4 + documents * 1.5 / 8) / 1e9:.1f} GB"
        lines.append((f"group, {case}", "1", work, _hours(keys / rates["group"]), "8 bytes a document", memory))
        pieces = math.ceil(tied * GATHERED_BYTES / (MEMORY / 2))
        work = f"{tied / pieces / 1e6:.1f} million documents each"
        hours = _hours(tied / _decided_a_second(results))
        lines.append((f"match, {case}", f"{pieces:,}", work, hours, "their texts", half))
    return markdown_table(lines)


def _second_table(results: str) -> str:
    text = section(results, "scale")
    return text[text.index("| step") :]


def _decided_a_second(results: str) -> float:
    """Made documents that the phase `match` decides on in a second, all of them looked at."""
    text = section(results, "match")
    found = re.search(r"on ([\d,]+) made documents", text)
    if found is None:
        raise ValueError("the section `match` does not say how many documents it was")
    seconds = corpus_megabytes(text) / float(rows(text)[0]["MB/s per core"])
    return int(found[1].replace(",", "")) / seconds


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}"


def blocks(results: str) -> dict[str, str]:
    """What stands between the marks of the page."""
    return {"stages": stage_table(results), "english": english_table(results)}


def filled(page: str, results: str) -> str:
    """The page with its figures."""
    for name, table in blocks(results).items():
        begin, end = f"<!-- figures: {name} -->\n", "<!-- end -->"
        start = page.index(begin) + len(begin)
        page = page[:start] + table + "\n" + page[page.index(end, start) :]
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8"), RESULTS.read_text("utf-8")), "utf-8")
