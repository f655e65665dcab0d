"""Section ``hard``: documents out of the ordinary must cost no more than their bytes.

Each case is measured beside ordinary text of as many bytes: that of one language of the corpus, told anew as often as
it takes (:mod:`benchmarks.tiles`), in documents of its own lengths. The long documents are that very text, joined.
Texts of no bytes are measured by the row.

A text without spaces is one word that no other text has, so a tokenizer that remembers words cannot make use of that,
and costs more per byte than for ordinary text, for us as for any other. What is asked of it is that its cost grows with
its bytes alone: it is measured beside ten such documents of together as many bytes, and those are shown beside ordinary
text without a verdict.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.harness import Run, run_call
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.harness import Work

NAME = "hard"
TIMES = 2.0
"""A case may cost so many times as much CPU time per byte (or row) as ordinary text."""
LARGE, SMALL, MANY = 100_000_000, 20_000_000, 100_000
FULL_BYTES = 16_000_000
"""A smaller corpus gets smaller cases, in proportion."""
WORKS = ("identify", "signatures", "dedup", "tokenize")
ORDINARY = "ordinary text"
PIECES = 10
PATIENCE = 20
"""A case is ended when it has taken so many times as long as ordinary text."""


@dataclass(frozen=True)
class Case:
    """A collection of documents. ``beside``: what it is measured beside, none for ordinary text; ``judged``: whether
    anything must hold of it."""

    name: str
    documents: int
    bytes: int
    beside: str | None = None
    judged: bool = True

    @property
    def amount(self) -> float:
        """What the cost is reckoned by: bytes, or rows where there are next to none."""
        return self.bytes if self.bytes > 10 * self.documents else self.documents


def collections(ordinary: list[str], scale: float) -> Iterator[tuple[str, list[str], str | None]]:
    """Name, texts, and what each is measured beside."""
    large = _first(ordinary, LARGE * scale)
    small = _first(ordinary, SMALL * scale)
    many = round(MANY * scale)
    names = [f"{ORDINARY}, {_megabytes(texts)}" for texts in (large, small)]
    yield names[0], large, None
    yield names[1], small, None
    yield "one document", ["\n".join(large)], names[0]
    yield "one document of one line", [" ".join(small).replace("\n", " ")], names[1]
    word = "".join(re.findall(r"[^\W\d_]+", "".join(small)))
    for what, text in (("word", word), ("letter", "a" * round(SMALL * scale))):
        tenth = -(-len(text) // PIECES)
        pieces = [text[start : start + tenth] for start in range(0, len(text), tenth)]
        yield f"{PIECES} documents of one {what}", pieces, names[1]
        yield f"one document of one {what}", [text], f"{PIECES} documents of one {what}"
    stem = " ".join(" ".join(small[:50]).split())[:1_000]
    words = stem.split(" ")
    yield f"{many:,} identical documents", [stem] * many, names[0]
    yield (
        f"{many:,} documents, a word changed in each",
        [" ".join([*words[: row % len(words)], f"x{row}", *words[row % len(words) + 1 :]]) for row in range(many)],
        names[0],
    )
    yield f"{many:,} empty texts", [""] * many, names[1]
    yield f"{many:,} blank texts", [" \n\t\u3000"] * many, names[1]


def _first(texts: list[str], total: float) -> list[str]:
    size = 0
    for number, text in enumerate(texts):
        size += len(text.encode())
        if size >= total:
            return texts[: number + 1]
    return texts


def _megabytes(texts: list[str]) -> str:
    return f"{sum(len(text.encode()) for text in texts) / 1e6:.1f} MB"


def load(out: Path, *, what: str, tree: str, sampled: str, tokenizer: str) -> Work:
    """The work ``what`` over a tree, as the stages of the benchmark do it; ``sampled`` is what it warms up with."""
    from pathlib import Path

    from benchmarks.ours import stages, warm

    if what in ("identify", "signatures"):
        return (_identify if what == "identify" else _sign)(tree)
    recipe: dict[str, Any] = {
        "dedup": {"url": False, "max_removed_share": 1.0},
        "tokenize": {"valid_share": 0.0},
    }
    trees = {"identify": tree} if what == "dedup" else {"sample": tree, "tokenizer": tokenizer}
    warm(out, [what], raw=Path(sampled), trees=trees, recipe=recipe)
    return stages(out, [what], trees=trees, recipe=recipe)


def _batches(tree: str, columns: list[str]) -> list[Any]:
    from lola_data.schemas import IDENTIFIED
    from lola_data.shards import plan_units, read_batches

    return [batch for unit in plan_units(tree) for batch in read_batches(tree, unit, IDENTIFIED, columns=columns)]


def _identify(tree: str) -> Work:
    import pyarrow as pa

    from benchmarks.stages.identify import MODEL
    from lola_data.lid.identifier import Identifier

    columns = [batch["text"] for batch in _batches(tree, ["text"])]
    identifier = Identifier(MODEL)
    identifier.identify(pa.array(["to warm up"]))

    def work() -> None:
        for column in columns:
            identifier.identify(column)

    return work


def _sign(tree: str) -> Work:
    from benchmarks.stages.signatures import COLUMNS, sign_batches, sign_texts

    batches = _batches(tree, COLUMNS)
    sign_texts(["a few words to warm up with"])

    def work() -> None:
        sign_batches(batches)

    return work


def measure(bench: Bench) -> Told:
    """Every case through every work."""
    from benchmarks.tiles import Raw, documents, write

    folders = sorted(bench.corpus.raw.iterdir(), key=lambda path: (path.name != "en", path.name))
    scale = min(1.0, bench.corpus.bytes / FULL_BYTES)
    bench.say(f"{NAME}: preparing inputs")
    ordinary = [row.text for row in documents(folders[0], LARGE * scale)]
    places: dict[str, Any] = {
        "sampled": str(inputs.sampled(bench.corpus)),
        "tokenizer": str(inputs.tokenizer(bench.corpus)),
    }
    cases: list[Case] = []
    runs: dict[str, dict[str, Run | str]] = {}
    for name, texts, beside in collections(ordinary, scale):
        size = sum(len(text.encode()) for text in texts)
        case = Case(name, len(texts), size, beside, judged=beside is not None and not name.startswith(f"{PIECES} "))
        cases.append(case)
        raw, tree = bench.work / "raw", bench.work / "tree"
        rows = iter([Raw(text, None, None, None) for text in texts])
        write(rows, raw / "en", "en_part_00000.parquet")
        inputs.write_sampled(raw, tree)
        runs[name] = {}
        for what in WORKS:
            usual = runs[beside][what] if beside else None
            limit = PATIENCE * (usual.wall + usual.load) if isinstance(usual, Run) else None
            run = run_call(load, bench.work / "out", limit_s=limit, what=what, tree=str(tree), **places)
            runs[name][what] = run
            told = run if isinstance(run, str) else f"{case.bytes / 1e6 / run.wall:.2f} MB/s"
            bench.say(f"{NAME}: {name}: {what}: {told}")
        shutil.rmtree(raw)
        shutil.rmtree(tree)
    return tell(cases, runs)


def times_ordinary(case: Case, run: Run, usual_case: Case, usual: Run) -> float:
    """CPU time per byte, or per row, of a case by that of ordinary text."""
    if case.amount == case.documents:
        return (run.cpu / case.documents) / (usual.cpu / usual_case.documents)
    return (run.cpu / case.bytes) / (usual.cpu / usual_case.bytes)


def tell(cases: list[Case], runs: dict[str, dict[str, Run | str]]) -> Told:
    """The table and whether each case keeps to its bytes."""
    lines = [["documents", "MB", *(f"{what}: MB/s, times the cost, peak MB" for what in WORKS), ""]]
    by_name = {case.name: case for case in cases}
    entries: list[Entry] = []
    values: dict[str, Any] = {}
    for case in cases:
        cells: list[str] = []
        costs: dict[str, float | None] = {}
        for what in WORKS:
            run = runs[case.name][what]
            usual = runs[case.beside][what] if case.beside else None
            times = None
            if isinstance(run, Run) and isinstance(usual, Run) and case.beside:
                times = times_ordinary(case, run, by_name[case.beside], usual)
            cells.append(_cell(case, run, times))
            costs[what] = times
        values[case.name] = {"bytes": case.bytes, "documents": case.documents, "times": costs}
        if case.judged and case.beside:
            broken = [what for what in WORKS if (times := costs[what]) is None or times > TIMES]
            held = f"{NOT_HELD}: {', '.join(broken)}" if broken else HELD
            known = [times for times in costs.values() if times is not None]
            worst = f"at most {max(known):.2f}x" if known else ""
            goal = f"{TIMES:g}x the cost per byte of {case.beside}"
            entries.append(Entry(NAME, case.name, goal, worst, NOT_HELD if broken else HELD))
        else:
            held = ""
        lines.append([case.name, f"{case.bytes / 1e6:.1f}", *cells, held])
    body = (
        f"Beside ordinary text of as many bytes, in CPU time per byte (texts of no bytes: per row); one word and one "
        f"letter beside {PIECES} such documents, of together as many bytes. More than {TIMES:g} times as much is NOT "
        f"HELD. One process each; `dedup` and `tokenize` are the whole stages.\n\n"
        f"{markdown_table(lines)}"
    )
    return Told(body, entries, values, all(entry.verdict == HELD for entry in entries))


def _cell(case: Case, run: Run | str, times: float | None) -> str:
    if isinstance(run, str):
        return run
    rate = (
        f"{case.documents / run.wall / 1e3:.0f}k rows/s"
        if case.amount == case.documents
        else f"{case.bytes / 1e6 / run.wall:.1f}"
    )
    cost = "" if times is None else f", {times:.2f}x"
    return f"{rate}{cost}, {run.peak_rss / 1e6:.0f}"


SECTION = Section(
    name=NAME,
    title="documents out of the ordinary cost no more than their bytes",
    measure=measure,
    versions=("numba", "sentencepiece"),
)
