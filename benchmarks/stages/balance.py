"""Section ``balance``: a tree of 10 languages counted by ``lola-data balance``, on all cores, with its memory.

The tree is made once and kept beside the corpus: documents of the corpus, told anew until there are enough of them,
shuffled for each row group, under made-up hosts and dates, written by pyarrow's defaults with zstd. No row group has a
text twice, so that pages compress and decode as those of other texts do. ``LOLA_BENCH_BALANCE_GB`` sets its size in GB
of Parquet, 5 unless told otherwise; ``python -m benchmarks.stages.balance --gigabytes 0.2`` runs this section alone.

Every contender is a process of its own that may use all cores, and reads the files from the page cache. Ours does more
than the others: it also has lengths, domains, years, sources and scripts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, MET, MISSED, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

NAME = "balance"
GIGABYTES = float(os.environ.get("LOLA_BENCH_BALANCE_GB") or 5)
LANGUAGES = 10
POOL_BYTES = 64_000_000
"""Different texts of a language."""
ROWS_OF_GROUP = 1_000
SHARD_BYTES = 256_000_000
"""Of Parquet, after which the next shard begins."""
HOSTS = 20_000
"""Of a language; the most frequent has some per cent of the documents."""
RATE_GOAL = 1e9
MEMORY_GOAL = 1_000_000_000
SEED = 0
OUTSIDE = 0.05
"""Share of the intervals that may miss the truth by what they say; twice as many are let pass, for chance."""
OURS, EXACT, POLARS, DUCKDB = "lola-data balance", "lola-data balance --exact", "polars group_by", "DuckDB GROUP BY"
TREE = "balance-{gigabytes:g}gb"


def make_tree(raw: Path, root: Path, gigabytes: float, say: Callable[[str], None]) -> None:
    """Write the tree unless it is there; it appears under its name when it is whole."""
    import shutil

    from benchmarks.tiles import documents

    if root.exists():
        return
    half = root.with_name(f".{root.name}")
    shutil.rmtree(half, ignore_errors=True)
    sizes = {folder.name: sum(path.stat().st_size for path in folder.glob("*.parquet")) for folder in raw.iterdir()}
    chosen = sorted(sizes, key=lambda lang: (-sizes[lang], lang))[:LANGUAGES]
    total = sum(sizes[lang] for lang in chosen)
    for lang in sorted(chosen):
        goal = round(gigabytes * 1e9 * sizes[lang] / total)
        say(f"{NAME}: making {lang}: {goal / 1e6:.0f} MB of Parquet")
        pool = list(dict.fromkeys(row.text for row in documents(raw / lang, min(POOL_BYTES, 4 * goal))))
        _write_language(half / lang, lang, pool, goal)
    half.rename(root)


def _write_language(folder: Path, lang: str, pool: Sequence[str], goal: int) -> None:
    import zlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    from lola_data.schemas import RAW

    folder.mkdir(parents=True)
    draws = np.random.default_rng([SEED, zlib.crc32(lang.encode())])
    texts = pa.array(pool, pa.large_string())
    written, shard = 0, 0
    while written < goal:
        path = folder / f"{lang}_part_{shard:05d}.parquet"
        with pq.ParquetWriter(path, RAW, compression="zstd") as writer:
            while path.stat().st_size < min(SHARD_BYTES, goal - written):
                rows = draws.permutation(len(pool))[:ROWS_OF_GROUP]
                writer.write_table(_row_group(texts.take(pa.array(rows)), draws))
        written, shard = written + path.stat().st_size, shard + 1


def _row_group(texts: pa.Array, draws: np.random.Generator) -> pa.Table:
    """Texts with what else a raw shard has. Hosts are distributed as 1 / rank, sources and years unevenly."""
    import pyarrow as pa

    from benchmarks.build import SOURCE_SHARES, SOURCES
    from lola_data.schemas import RAW

    count = len(texts)
    hosts = np.minimum(HOSTS, np.exp(draws.random(count) * np.log(HOSTS)).astype(np.int64))
    numbers = draws.integers(0, 1 << 48, (3, count))
    urls = [
        f"https://www.site-{host}.example/{first % 1000}/{second:x}"
        for host, first, second in zip(hosts.tolist(), numbers[0].tolist(), numbers[1].tolist(), strict=True)
    ]
    years = draws.choice(np.arange(2013, 2024), count, p=np.arange(1, 12) / 66)
    days = numbers[2] % 86_400
    times = [
        f"{year}-{1 + day % 12:02d}-{1 + day % 28:02d}T{day // 3600:02d}:{day // 60 % 60:02d}:{day % 60:02d}Z"
        for year, day in zip(years.tolist(), days.tolist(), strict=True)
    ]
    sources = draws.choice(SOURCES, count, p=SOURCE_SHARES)
    columns = [texts.cast(pa.string()), times, urls, sources.tolist()]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=RAW)


def _ours(tree: Path, *, exact: bool | None) -> dict[str, Any]:
    from lola_data.balance.measure import measure
    from lola_data.balance.table import LEVELS

    balance = measure(tree, exact=exact)
    names = ["documents", "bytes", "characters", *(name for name, _ in LEVELS)]
    found: dict[str, Any] = {"read_bytes": int(balance.read["bytes"].sum())}
    for row in balance.table().iter_rows(named=True):
        found[row["lang"]] = {name: row[name] for name in names}
        for name in sorted(balance.estimated_columns() & set(names)):
            found[row["lang"]][f"{name}_bounds"] = [row[f"{name}_low"], row[f"{name}_high"]]
    return found


def _polars(tree: Path) -> dict[str, Any]:
    import polars as pl

    text = pl.col("text")
    scanned = pl.scan_parquet(f"{tree}/*/*.parquet", include_file_paths="path").group_by("path")
    sums = scanned.agg(pl.len(), text.str.len_bytes().cast(pl.Int64).sum(), text.str.len_chars().cast(pl.Int64).sum()
                       .alias("characters")).collect(engine="streaming")  # fmt: skip
    return _by_language(sums.iter_rows())


def _duckdb(tree: Path) -> dict[str, Any]:
    duckdb: Any = import_module("duckdb")
    query = (
        "SELECT filename, count(*), sum(strlen(text)), sum(length(text)) "
        f"FROM read_parquet('{tree}/*/*.parquet', filename=true) GROUP BY filename"
    )
    return _by_language(duckdb.sql(query).fetchall())


def _by_language(rows: Any) -> dict[str, Any]:
    """Rows of (path, documents, bytes, characters)."""
    found: dict[str, Any] = {}
    for path, *sums in rows:
        own = found.setdefault(Path(path).parent.name, dict.fromkeys(("documents", "bytes", "characters"), 0))
        for name, value in zip(own, sums, strict=True):
            own[name] += int(value)
    return found


CONTENDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    OURS: lambda tree: _ours(tree, exact=False),
    EXACT: lambda tree: _ours(tree, exact=True),
    POLARS: _polars,
    DUCKDB: _duckdb,
}


def run_contender(name: str, tree: Path) -> None:
    """The process of one contender: print what it found, its seconds and its most memory (VmHWM)."""
    import polars as pl
    import pyarrow.parquet as pq

    from benchmarks.worker import _memory

    del pl, pq  # imported: only the work is timed
    if name in (OURS, EXACT):
        from lola_data.balance.measure import measure
        from lola_data.sample_corpus import sample_root

        # Kernels are loaded from numba's cache, as by any second call of the command.
        measure(sample_root() / "de", exact=name == EXACT)
    cpu, started = time.process_time(), time.perf_counter()
    found = CONTENDERS[name](tree)
    seconds = time.perf_counter() - started
    told = {"found": found, "seconds": seconds, "cpu": time.process_time() - cpu, "peak": _memory("VmHWM")}
    print(json.dumps(told))


def _start(name: str, tree: Path) -> dict[str, Any] | str:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.stages.balance", "--run", name, "--tree", str(tree)]
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["no output"])[-1]
    return json.loads(ended.stdout.splitlines()[-1])


def _files(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*.parquet"))


def _warm(tree: Path) -> None:
    """Into the page cache."""
    for path in _files(tree):
        with path.open("rb", buffering=0) as handle:
            while handle.read(1 << 24):
                pass


def _cool(tree: Path) -> None:
    """Out of the page cache, as far as the kernel takes advice."""
    for path in _files(tree):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(bench: Bench, *, gigabytes: float = GIGABYTES) -> Told:
    """Contenders in turns on the tree; ours once more with the files not in memory."""
    tree = bench.corpus.inputs / TREE.format(gigabytes=gigabytes)
    tree.parent.mkdir(parents=True, exist_ok=True)
    make_tree(bench.corpus.raw, tree, gigabytes, bench.say)
    size = sum(path.stat().st_size for path in _files(tree))
    names = [name for name in CONTENDERS if name != DUCKDB or find_spec("duckdb")]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(bench.rounds):
        for name in names:
            # Those that read everything take minutes at full size and show the same every time.
            if name != OURS and number >= 3:
                continue
            _warm(tree)
            run = _start(name, tree)
            if isinstance(run, str):
                return Told(f"{name}: {run}", [Entry(NAME, name, "", "", "failed")], {"failed": run}, sound=False)
            runs[name].append(run)
            rate = size / 1e9 / run["seconds"]
            bench.say(f"{NAME}: round {number + 1}: {name}: {rate:.2f} GB/s, {run['peak'] / 1e6:.0f} MB")
    _cool(tree)
    cold = _start(OURS, tree)
    return tell(runs, size, None if isinstance(cold, str) else cold["seconds"])


def tell(runs: dict[str, list[dict[str, Any]]], size: int, cold: float | None) -> Told:
    """Table, goals, and whether the figures agree."""
    seconds = {name: median(run["seconds"] for run in own) for name, own in runs.items()}
    peaks = {name: max(run["peak"] for run in own) for name, own in runs.items()}
    truth, ours = runs[EXACT][0]["found"], runs[OURS][0]["found"]
    read, text = ours.pop("read_bytes"), sum(own["bytes"] for own in ours.values())
    truth.pop("read_bytes")
    lines = [("", "seconds", "GB/s of Parquet", "CPU seconds", "peak MB", "documents, bytes, characters")]
    agreed: dict[str, str] = {}
    for name, own in runs.items():
        cpu = median(run["cpu"] for run in own)
        agreed[name] = "" if name in (OURS, EXACT) else HELD if equal(truth, own[0]["found"]) else NOT_HELD
        if name == OURS:
            agreed[name] = HELD if equal(truth, ours, names=("documents", "bytes")) else NOT_HELD
        told = {OURS: "documents and bytes counted, equal: "}.get(name, "")
        lines.append(
            (name, f"{seconds[name]:.2f}", f"{size / 1e9 / seconds[name]:.2f}", f"{cpu:.1f}",
             f"{peaks[name] / 1e6:,.0f}", f"{told}{agreed[name] or 'what the others must equal'}")
        )  # fmt: skip
    agrees = NOT_HELD if NOT_HELD in agreed.values() else HELD
    inside, intervals, widths = covered(truth, ours)
    holds = inside >= intervals * (1 - 2 * OUTSIDE) - 1
    rate, peak = size / seconds[OURS], peaks[OURS]
    entries = [
        Entry(NAME, f"{size / 1e9:.2f} GB of Parquet", f"{RATE_GOAL / 1e9:g} GB/s", f"{rate / 1e9:.2f} GB/s",
              MET if rate >= RATE_GOAL else MISSED, agrees),
        Entry(NAME, "memory of the process", f"at most {MEMORY_GOAL / 1e6:,.0f} MB", f"{peak / 1e6:,.0f} MB",
              MET if peak <= MEMORY_GOAL else MISSED),
        Entry(NAME, "intervals that hold the truth", "95%", f"{inside} of {intervals}", "",
              HELD if holds else NOT_HELD),
    ]  # fmt: skip
    body = (
        f"{len(truth)} languages, {size / 1e9:.2f} GB of Parquet (zstd, row groups of {ROWS_OF_GROUP:,} documents), "
        f"{text / 1e9:.2f} GB of text, in the page cache; all cores. Ours reads all other columns and the texts of "
        f"{read / 1e6:,.0f} MB, {read / max(1, text):.1%} of them, the rest from headers."
        + (f" Not in the page cache it takes {cold:.2f} s." if cold is not None else "")
        + f"\n\n{markdown_table(lines)}\n\n"
        f"Of {intervals} intervals of 95 % (characters and the percentiles 10, 50, 90, 99 of lengths, in each "
        f"language) {inside} hold what `--exact` counts. Half of their width, median: "
        + ", ".join(f"{name} {width:.2%}" for name, width in widths.items())
        + "."
    )
    values = {"bytes": size, "seconds": seconds, "peaks": peaks, "inside": inside, "intervals": intervals, "cold": cold}
    return Told(body, entries, values, all(NOT_HELD not in (entry.verdict, entry.agrees) for entry in entries))


def equal(
    truth: dict[str, Any], other: dict[str, Any], names: Sequence[str] = ("documents", "bytes", "characters")
) -> bool:
    """Whether the counts are the same in every language."""
    return truth.keys() == other.keys() and all(
        truth[lang][name] == other[lang][name] for lang in truth for name in names
    )


def covered(truth: dict[str, Any], ours: dict[str, Any]) -> tuple[int, int, dict[str, float]]:
    """Intervals that hold the truth, all intervals, and half their width over the truth, a median for each figure."""
    inside = intervals = 0
    widths: dict[str, list[float]] = {}
    for lang, own in ours.items():
        for name in truth[lang]:
            bounds = own.get(f"{name}_bounds")
            if bounds is None:
                continue
            value = truth[lang][name]
            intervals += 1
            # Sums are told as whole numbers.
            inside += bounds[0] - 1 <= value <= bounds[1] + 1
            widths.setdefault(name, []).append((bounds[1] - bounds[0]) / 2 / max(1.0, value))
    return inside, intervals, {name: median(own) for name, own in widths.items()}


SECTION = Section(NAME, "balance of a large tree, without reading all of it", measure, versions=("polars", "duckdb"))


def main() -> None:
    """This section alone, at any size."""
    import click

    @click.command()
    @click.option("--gigabytes", default=GIGABYTES, show_default=True, help="Parquet of the tree.")
    @click.option("--runs", default=5, show_default=True, help="Rounds.")
    @click.option("--megabytes", default=32.0, show_default=True, help="Text of the corpus it is made from.")
    @click.option("--workdir", default="work/bench", show_default=True, type=click.Path(path_type=Path))
    @click.option("--run", "contender", type=click.Choice(list(CONTENDERS)), hidden=True)
    @click.option("--tree", type=click.Path(path_type=Path), hidden=True)
    def command(
        gigabytes: float, runs: int, megabytes: float, workdir: Path, contender: str | None, tree: Path | None
    ) -> None:
        """Measure `lola-data balance` on a tree of this size."""
        if contender is not None and tree is not None:
            run_contender(contender, tree)
            return
        from benchmarks.build import ensure

        corpus = ensure(workdir.resolve(), megabytes=megabytes, languages=32, data=None)
        told = measure(
            Bench(corpus, workdir, runs, lambda line: print(line, file=sys.stderr, flush=True)), gigabytes=gigabytes
        )
        print(told.body)
        sys.exit(0 if told.sound else 1)

    command()


if __name__ == "__main__":
    main()
