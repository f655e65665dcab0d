"""Section ``chaos``: hundreds of runs to which things happen, each compared with a calm one.

The corpus of the other sections is not read: a run of the whole graph over a handful of documents takes a second, and
what is tried is the order in which files come into being, not how many there are. README.md says what happens to runs.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.chaos.scenes import KINDS
from benchmarks.chaos.seeds import Outcome, run_seeds
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "chaos"
SEEDS = 40
"""For each round that is asked for: five rounds make 200."""
LANES = (os.cpu_count() or 1) + 1
"""Seeds at a time: a run on the store waits for answers much of the time."""
TREES, ENDS, LOCK = ("trees", "rows", "verify", "again"), ("hang", "traceback", "exit code", "message", "stuck"), "lock"
"""Words that what is wrong begins with."""
FOUND = (
    "A loss of power left an empty file in which a task tells what it used; the next start took it for a broken file "
    "and stopped. It is passed over now.",
    "A machine that came to a shared run after the leading one had finished waited a minute and failed. It now ends "
    "well, for nothing is left to do.",
    "A run whose fork server was killed said that it had been interrupted. It says now what was killed.",
    "Where the answer to the first write of a lock on the store was lost, a run waited half a minute for itself. It "
    "knows its own lock now.",
    "Of two runs that started at the same moment both had the lock where the store let two conditional writes through. "
    "Who has written it looks again after a second, and a run that is taken over ends and says by whom.",
    "A loss of power that took a file of removed rows and the record of its unit was not seen once the stage was "
    "complete. It is made again now.",
    "An interrupt between two lines of a shard's end left a writer behind, which said with a traceback that its file "
    "was closed. It is silent now.",
    "Where the disk was full at the moment a token shard was begun, a message called that a bug. It names the file "
    "now, and so it does where a disk or the server of a file system has a fault.",
)
"""What runs like these have shown, and what became of it."""


def measure(bench: Bench) -> Told:
    """All seeds."""
    kept = Path("work") / "chaos"
    count = SEEDS * bench.rounds
    done: list[Outcome] = []

    def say(one: Outcome) -> None:
        done.append(one)
        for why in one.wrong:
            bench.say(f"{NAME}: seed {one.seed}, {one.kind}: {why}; see {kept / f'seed-{one.seed}'}")
        if len(done) % 10 == 0 or len(done) == count:
            bench.say(f"{NAME}: {len(done)} of {count} runs, {sum(bool(one.wrong) for one in done)} of them wrong")

    shutil.rmtree(kept, ignore_errors=True)
    return tell(run_seeds(range(count), bench.work, kept, lanes=LANES, say=say))


def tell(outcomes: Sequence[Outcome]) -> Told:
    """Table, what was found, and whether all held."""
    heads = ("what happens", "runs", "faults", "starts", "wrong trees", "hangs", "tracebacks", "other", "seconds")
    lines: list[tuple[str, ...]] = [heads]
    for kind in [*KINDS, "all"]:
        mine = [one for one in outcomes if kind in (one.kind, "all")]
        wrong = Counter(_word(why) for one in mine for why in {_word(why): why for why in one.wrong}.values())
        trees = sum(any(_word(why) in TREES for why in one.wrong) for one in mine)
        other = wrong.total() - sum(wrong[word] for word in (*TREES, "hang", "traceback"))
        counts = (
            len(mine), sum(one.injected for one in mine), sum(one.starts for one in mine), trees, wrong["hang"],
            wrong["traceback"], other,
        )  # fmt: skip
        lines.append((kind, *(f"{count:,}" for count in counts), f"{sum(one.seconds for one in mine):.0f}"))
    runs, starts = len(outcomes), sum(one.starts for one in outcomes)
    twice = [one for one in outcomes if one.kind.startswith("started twice")]
    entries = [
        _entry(f"{runs} runs with faults", "trees of a calm run, no row lost or doubled", outcomes, TREES),
        _entry(f"{starts:,} starts in them", "exit code 0 or 1 with a line that says why; no hang", outcomes, ENDS),
        _entry("started twice at once", "one at a time writes, and is named to the others", twice, (LOCK,)),
    ]
    told = [f"- Seed {one.seed}, {one.kind}: {'; '.join(one.wrong)}" for one in outcomes if one.wrong]
    body = (
        f"A run is the whole graph, without training, over some 70 documents, started again until nothing is wrong any "
        f"more; README.md says what happens to it. `faults` are those that came about, `starts` those of the command, "
        f"`seconds` the sum over runs, of which several go on at a time.\n\n"
        f"{markdown_table(lines)}\n\n"
        + ("Not as it must be:\n\n" + "\n".join(told) + "\n\n" if told else "")
        + "Found by such runs, and mended since:\n\n"
        + "\n".join(f"- {line}" for line in FOUND)
    )
    values = [
        {"seed": one.seed, "kind": one.kind, "injected": one.injected, "starts": one.starts, "wrong": list(one.wrong)}
        for one in outcomes
    ]
    return Told(body, entries, values, not any(one.wrong for one in outcomes))


def _word(why: str) -> str:
    return why.partition(":")[0]


def _entry(against: str, goal: str, outcomes: Sequence[Outcome], words: Sequence[str]) -> Entry:
    wrong = sum(any(_word(why) in words for why in one.wrong) for one in outcomes)
    held = HELD if outcomes and not wrong else NOT_HELD
    return Entry(NAME, against, goal, f"{len(outcomes) - wrong} of {len(outcomes)} runs", held)


SECTION = Section(
    name=NAME,
    title="runs that are killed, starved and started twice come out as calm ones",
    measure=measure,
    versions=("datatrove", "s3fs", "moto"),
)
