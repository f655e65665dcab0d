"""Section ``scale``: matching in parts, as a language of any size takes it.

First, 64 parts leave the very files that one does, on the corpus and on made documents. Then 200 million band keys, as
14.3 million documents have them, are grouped in 64 parts: a task for each part, then one that joins what they found.
Which documents belong together is known from how the keys are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.harness import run_call
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from benchmarks.harness import Run, Work

NAME = "scale"
PARTS = 64
MOST_MEMORY = 8_000_000_000
KEYS = 200_000_000
BANDS = 14
DOCUMENTS = -(-KEYS // BANDS)
UNIT_DOCUMENTS = 500_000
GROUP = 3
"""Documents of a group, ..."""
GROUPED_SHARE = 0.3
"""... as which this share of the documents comes, ..."""
SHARED_BANDS = 4
"""... and the bands in which they have one key."""
STRIDE = 6_700_417
"""A prime: documents of a group lie far apart, in different units."""


def groups_planted(documents: int = DOCUMENTS) -> int:
    """Groups among the documents."""
    return int(documents * GROUPED_SHARE) // GROUP


def unit_keys(start: int, end: int, documents: int = DOCUMENTS) -> list[np.ndarray]:
    """Band keys of the documents ``start`` to ``end``: a (n,) uint64 array a band."""
    import numpy as np

    # Which document of the plan lies at a place: groups are the plan's first documents, three by three.
    planned = np.arange(start, end, dtype=np.uint64) * np.uint64(STRIDE) % np.uint64(documents)
    group = planned // np.uint64(GROUP)
    grouped = group < np.uint64(groups_planted(documents))
    bands = []
    for band in range(BANDS):
        name = np.where(grouped, group, planned + np.uint64(documents)) if band < SHARED_BANDS else planned
        bands.append(_mixed(name * np.uint64(BANDS) + np.uint64(band)))
    return bands


def _mixed(values: np.ndarray) -> np.ndarray:
    """A bijection of the 64-bit integers that looks random (MurmurHash3's finaliser)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def units(documents: int = DOCUMENTS) -> list[tuple[int, int]]:
    """First document and one past the last of each unit."""
    return [(start, min(start + UNIT_DOCUMENTS, documents)) for start in range(0, documents, UNIT_DOCUMENTS)]


def load_spread(out: Path, *, folder: str, documents: int) -> Work:
    """Make the keys of each unit, and deal them into parts."""
    import numpy as np

    from pipelines.partition import write_keys

    del out

    def work() -> None:
        for number, (start, end) in enumerate(units(documents)):
            everyone = np.ones(end - start, dtype=bool)
            columns = [(keys, everyone) for keys in unit_keys(start, end, documents)]
            write_keys(f"{folder}/{number}.keys", columns, PARTS)

    return work


def load_tie(out: Path, *, folder: str, documents: int) -> Work:
    """Find the ties of each part."""
    from pipelines.partition import write_ties

    del out
    spread = [f"{folder}/{number}.keys" for number in range(len(units(documents)))]
    sizes = [end - start for start, end in units(documents)]

    def work() -> None:
        for part in range(PARTS):
            write_ties(f"{folder}/{part}.ties", spread, sizes, part)

    return work


def load_group(out: Path, *, folder: str, documents: int) -> Work:
    """Join them all; leaves the members and the groups."""
    from pipelines.partition import join_ties

    def work() -> None:
        groups = join_ties([f"{folder}/{part}.ties" for part in range(PARTS)], documents)
        groups.cut(1_000_000)
        (out / "found").write_text(f"{groups.members} {groups.groups()}", encoding="utf-8")

    return work


def load_dedup(out: Path, *, tree: str, partitions: int) -> Work:
    """The whole stage."""
    from benchmarks.ours import stages
    from benchmarks.stages.match import RECIPE

    recipe = {**RECIPE, "dedup": {**RECIPE["dedup"], "partitions": partitions}}
    return stages(out, ["dedup"], trees={"identify": tree}, recipe=recipe)


def digests(work: Path) -> dict[str, str]:
    """Of the files with kept and removed rows."""
    import hashlib

    return {
        path.relative_to(work).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("deduped", "removed")
        for path in sorted((work / name).rglob("*.parquet"))
    }


def measure(bench: Bench, *, documents: int = DOCUMENTS) -> Told:
    """Both halves."""
    from benchmarks import inputs
    from benchmarks.stages.match import made

    entries: list[Entry] = []
    lines = [("tree", "documents removed", "files", "in 64 parts")]
    for name, tree in (("the corpus", inputs.sampled(bench.corpus)), ("made documents", made(bench.corpus))):
        found: list[dict[str, str]] = []
        for partitions in (1, PARTS):
            bench.say(f"{NAME}: {name}, partitions: {partitions}")
            out = bench.work / f"{partitions}"
            run = run_call(load_dedup, out, tree=str(tree), partitions=partitions)
            if isinstance(run, str):
                return _failed(run)
            found.append(digests(out))
        removed = _rows(bench.work / "1" / "removed")
        same = found[0] == found[1] and removed > 0
        lines.append((name, f"{removed:,}", f"{len(found[0]):,}", "the same to the byte" if same else "**others**"))
        entries.append(
            Entry(NAME, f"{name} in one part", f"same files in {PARTS} parts", "", HELD if same else NOT_HELD)
        )
    keys = _keys(bench, documents)
    if isinstance(keys, str):
        return _failed(keys)
    runs, told = keys
    wanted = (groups_planted(documents) * GROUP, groups_planted(documents))
    peak = max(run.peak_rss for run in runs.values())
    right, fits = told == wanted, peak <= MOST_MEMORY
    millions = documents * BANDS / 1e6
    table = [("step", "seconds", "million keys a second", "peak MB")]
    for name, run in runs.items():
        rate = f"{millions / run.wall:.1f}"
        table.append((name, f"{run.wall:.1f}", rate, f"{run.peak_rss / 1e6:,.0f}"))
    entries.append(
        Entry(
            NAME, f"{millions:.0f} million band keys, one core", f"at most {MOST_MEMORY / 1e6:,.0f} MB",
            f"{peak / 1e6:,.0f} MB", HELD if fits else NOT_HELD, HELD if right else NOT_HELD,
        )
    )  # fmt: skip
    body = (
        f"Whole deduplication in one part and in {PARTS}:\n\n{markdown_table(lines)}\n\n"
        f"{millions:.0f} million band keys of {documents:,} documents in {PARTS} parts. {GROUPED_SHARE:.0%} of the "
        f"documents come in groups of {GROUP} with {SHARED_BANDS} of {BANDS} keys in common. Found: {told[0]:,} "
        f"documents in {told[1]:,} groups; planted: {wanted[0]:,} in {wanted[1]:,}. Making the keys is part of "
        f"`spread`.\n\n"
        f"{markdown_table(table)}"
    )
    values = {
        "same_files": all(entry.verdict == HELD for entry in entries[:2]),
        "found": told,
        "planted": wanted,
        "steps": {name: {"seconds": run.wall, "peak_bytes": run.peak_rss} for name, run in runs.items()},
    }
    return Told(body, entries, values, all(NOT_HELD not in (entry.verdict, entry.agrees) for entry in entries))


def _keys(bench: Bench, documents: int) -> tuple[dict[str, Run], tuple[int, int]] | str:
    folder = bench.work / "keys"
    folder.mkdir(parents=True)
    runs: dict[str, Run] = {}
    for name, step in (("spread", load_spread), ("tie", load_tie), ("group", load_group)):
        bench.say(f"{NAME}: {documents * BANDS / 1e6:.0f} million keys: {name}")
        run = run_call(step, bench.work / "out", folder=str(folder), documents=documents)
        if isinstance(run, str):
            return run
        runs[name] = run
    members, groups = (bench.work / "out" / "found").read_text(encoding="utf-8").split()
    return runs, (int(members), int(groups))


def _failed(why: str) -> Told:
    return Told(why, [Entry(NAME, "lola-data dedup", "", "", "failed")], {"failed": why}, sound=False)


def _rows(tree: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in tree.rglob("*.parquet"))


SECTION = Section(NAME, "matching in parts: the same outcome, in bounded memory", measure)
