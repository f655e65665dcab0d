"""Section ``limits``: how far each of our stages is from what the machine allows.

The parts that a stage cannot do without are measured alone, on the same text in memory or in the page cache: a copy and
a pass over the bytes, decoding and encoding shards, and the kernels. The bound of a stage is all its parts one after
the other, on one core; its share of the bound says what plan, records, checks and the moving of rows cost beside them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from benchmarks import inputs
from benchmarks.harness import Run, run_call, run_ours
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.harness import Finish, Work

NAME = "limits"
REPEATS = 3
"""Each part is done so often in a process; the fastest counts, for it is to be a limit."""
MOST_ROUNDS = 3
BLOCK = 1 << 20
"""Bytes that zstd is given at a time: a page of Parquet."""
COPY, PASS = "copy in memory", "one pass over the bytes"
ZSTD_DECODE, ZSTD_ENCODE = "zstd decode", "zstd encode, level 1"
READ_TEXT, READ, WRITE = "Parquet decode, text alone", "Parquet decode, all columns", "Parquet encode, all columns"
LANGUAGE, SIGNATURES, TOKENS = "language kernel", "signatures kernel", "tokens kernel"
PARTS: dict[str, tuple[str, ...]] = {
    "io": (READ, WRITE),
    "identify": (PASS,),
    "identify-shards": (READ, PASS, LANGUAGE, WRITE),
    "signatures": (PASS,),
    "exact": (PASS,),
    "dedup": (READ_TEXT, SIGNATURES, READ, WRITE),
    "tokenise": (READ_TEXT, PASS, TOKENS),
    "road": (
        *(READ, PASS, LANGUAGE, WRITE),
        *(READ_TEXT, SIGNATURES, READ, WRITE),
        *(READ_TEXT, READ, WRITE),
        *(READ_TEXT, PASS, TOKENS),
    ),
}
"""Stage of the benchmark -> what it cannot do without, as often as it does. `dedup` reads the text for signatures and
all rows to part them; `sample`, in the road, reads sizes and then all rows."""


@dataclass(frozen=True)
class Bound:
    """``rate``: MB/s of all parts one after the other; ``largest``: that with most of the time; ``share``: of it."""

    rate: float
    largest: str
    share: float


def bound(parts: tuple[str, ...], rates: Mapping[str, float]) -> Bound:
    """The bound of a stage with these parts, each done at its rate in MB/s.

    >>> bound(("a", "b", "a"), {"a": 100.0, "b": 50.0})
    Bound(rate=25.0, largest='a', share=0.5)
    """
    seconds: dict[str, float] = {}
    for part in parts:
        seconds[part] = seconds.get(part, 0.0) + 1.0 / rates[part]
    total = sum(seconds.values())
    largest = max(seconds, key=lambda part: seconds[part])
    return Bound(1.0 / total, largest, seconds[largest] / total)


@numba.njit(cache=True)
def _sum(data):
    total = np.uint64(0)
    for byte in data:
        total += byte
    return total


def load(out: Path, *, raw: str, sampled: str, tokenizer: str) -> Work:
    """Every part alone; the rates of all go to a file."""
    size, parts = _parts(raw, sampled, tokenizer)
    for part in parts.values():
        part()  # to warm up

    def work() -> Finish:
        rates: dict[str, float] = {}
        for name, part in parts.items():
            taken: list[float] = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                part()
                taken.append(time.perf_counter() - started)
            rates[name] = size / 1e6 / min(taken)

        def finish() -> None:
            (out / "rates.json").write_text(json.dumps(rates), encoding="utf-8")

        return finish

    return work


def _parts(raw: str, sampled: str, tokenizer: str) -> tuple[int, dict[str, Callable[[], object]]]:
    """Bytes of text, and each part as a function that goes over all of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.stages.identify import MODEL
    from benchmarks.stages.signatures import COLUMNS, sign_batches
    from lola_data.buffers import string_buffer
    from lola_data.lid.identifier import Identifier
    from lola_data.schemas import IDENTIFIED, RAW
    from lola_data.shards import plan_units, read_batches
    from tokenizer.encode import Encoder

    files = sorted(Path(raw).rglob("*.parquet"))
    tables = [pq.read_table(path, schema=RAW) for path in files]
    columns = [chunk for table in tables for chunk in table["text"].chunks]
    signed = [
        batch for unit in plan_units(sampled) for batch in read_batches(sampled, unit, IDENTIFIED, columns=COLUMNS)
    ]
    buffers = [string_buffer(column) for column in columns]
    text = np.concatenate([data[offsets[0] : offsets[-1]] for data, offsets in buffers])
    other = np.empty_like(text)
    blocks = [text[start : start + BLOCK].tobytes() for start in range(0, text.size, BLOCK)]
    codec = pa.Codec("zstd", 1)
    packed = [codec.compress(block, asbytes=True) for block in blocks]
    identifier = Identifier(MODEL)
    encoder = Encoder(tokenizer)
    documents = [(data[offsets[0] : offsets[-1]], offsets - offsets[0]) for data, offsets in buffers]

    def write() -> None:
        for table in tables:
            with pq.ParquetWriter(pa.BufferOutputStream(), RAW, compression="zstd", compression_level=1) as writer:
                writer.write_table(table)

    return text.size, {
        COPY: lambda: np.copyto(other, text),
        PASS: lambda: _sum(text),
        ZSTD_DECODE: lambda: [
            codec.decompress(block, decompressed_size=len(whole), asbytes=True)
            for block, whole in zip(packed, blocks, strict=True)
        ],
        ZSTD_ENCODE: lambda: [codec.compress(block, asbytes=True) for block in blocks],
        READ_TEXT: lambda: [pq.read_table(path, columns=["text"], use_threads=False) for path in files],
        READ: lambda: [pq.read_table(path, use_threads=False) for path in files],
        WRITE: write,
        LANGUAGE: lambda: [identifier.identify(column) for column in columns],
        SIGNATURES: lambda: sign_batches(signed),
        TOKENS: lambda: [encoder._encode(data, offsets) for data, offsets in documents],
    }


def measure(bench: Bench) -> Told:
    """Parts and stages in turns; stages that this run has measured already are taken from there."""
    from benchmarks.stages import load_stage

    given: dict[str, Any] = {
        "raw": str(bench.corpus.raw),
        "sampled": str(inputs.sampled(bench.corpus)),
        "tokenizer": str(inputs.tokenizer(bench.corpus) / "tokenizer.model"),
    }
    seconds = {name: [run.wall for run in rows[0].runs] for name, rows in bench.measured.items() if name in PARTS}
    missing = [name for name in PARTS if not seconds.get(name)]
    rates: dict[str, list[float]] = {}
    for number in range(min(bench.rounds, MOST_ROUNDS)):
        run = run_call(load, bench.work / "parts", **given)
        if isinstance(run, str):
            return _failed(f"the parts: {run}")
        found = json.loads((bench.work / "parts" / "rates.json").read_text(encoding="utf-8"))
        for name, rate in found.items():
            rates.setdefault(name, []).append(rate)
        bench.say(f"{NAME}: round {number + 1}: parts measured")
        for name in missing:
            run = run_ours(load_stage(name), bench.corpus, bench.work / "stage")
            if isinstance(run, Run):
                seconds.setdefault(name, []).append(run.wall)
                bench.say(f"{NAME}: {name}: {bench.corpus.bytes / 1e6 / run.wall:.2f} MB/s")
    return tell(
        {name: max(some) for name, some in rates.items()},
        {
            name: bench.corpus.bytes / 1e6 / float(np.median(seconds[name])) if seconds.get(name) else None
            for name in PARTS
        },
    )


def _failed(reason: str) -> Told:
    return Told(reason, [Entry(NAME, "parts", "", "", "failed")], {"failed": reason}, sound=False)


def tell(rates: Mapping[str, float], stages: Mapping[str, float | None]) -> Told:
    """Two tables: the parts, and each stage beside its bound. ``stages``: MB/s, None where it failed."""
    lines = [["our stage", "MB/s", "its bound, MB/s", "share reached", "parts of the bound", "what bounds it most"]]
    values: dict[str, Any] = {"parts": dict(rates), "stages": {}}
    for name, rate in stages.items():
        limit = bound(PARTS[name], rates)
        share = "" if rate is None else f"{rate / limit.rate:.0%}"
        counted = {part: PARTS[name].count(part) for part in PARTS[name]}
        parts = " + ".join(f"{times} x {part}" if times > 1 else part for part, times in counted.items())
        lines.append(
            [
                name,
                "failed" if rate is None else f"{rate:.2f}",
                f"{limit.rate:.1f}",
                share,
                parts,
                f"{limit.largest} ({limit.share:.0%})" if len(counted) > 1 else "computing, not the bytes",
            ]
        )
        values["stages"][name] = {"rate": rate, "bound": limit.rate, "largest": limit.largest}
    parts_table = markdown_table(
        [["part, alone on one core", "MB/s"], *([name, f"{rate:.0f}"] for name, rate in rates.items())]
    )
    body = (
        "MB of text a second. The bound of a stage is its parts one after the other; where that is one pass over the "
        f"bytes, the stage computes more than it reads.\n\n{markdown_table(lines)}\n\n{parts_table}"
    )
    return Told(body, [], values, sound=True)


SECTION = Section(
    name=NAME,
    title="our stages beside the limits of the machine",
    measure=measure,
    versions=("numba", "sentencepiece"),
)
