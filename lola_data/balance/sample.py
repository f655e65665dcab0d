"""Counts of Parquet shards too large to be read whole: a tree of files in, the same frames out, partly estimated.

What costs little is counted: documents from the footers, UTF-8 bytes from the footers too where their writer told them,
and from the labels (source, url, timestamp, languages, script), which are some per cent of a shard, everything that
hangs on them. What hangs on the texts (characters, lengths, empty documents, and bytes by source) is estimated from
pages of texts: a simple random sample of each language, chosen by hash, of some tens of pages and megabytes. A language
that has no more than that is counted whole. How far an estimate may be off is told with it; see
:mod:`lola_data.balance.estimate`.

A page holds about a thousand documents that lie side by side. Where pages cannot be read one by one (a URL, a rare
encoding) whole row groups take their place.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
import pyarrow as pa

from lola_data.balance.closer import Closer, Looked, look, taker
from lola_data.balance.count import in_order
from lola_data.balance.estimate import effective_documents, ratio
from lola_data.balance.fill import GROUPED, TextSample, put_together
from lola_data.balance.labels import LabelSums
from lola_data.balance.pages import DamagedPage, read_pages
from lola_data.balance.rows import TEXTS, present_columns, read_group, text_sizes, unreadable
from lola_data.balance.sums import together
from lola_data.balance.survey import WHOLE_GROUP, pages_of, reading, survey_shard, text_column
from lola_data.balance.table import LEVELS
from lola_data.remote_parquet import foresee
from lola_data.shards import open_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from lola_data.balance.closer import Chances, Take
    from lola_data.balance.count import Tally
    from lola_data.balance.survey import Survey
    from lola_data.balance.thrift import Read
    from lola_data.balance.trees import Shard, Tree

SAMPLE_BYTES = 32 * 2**20
"""Text read of a language, about."""
LEAST_UNITS, MOST_UNITS = 16, 256
"""Pages of a language that are read: fewer tell too little of how they differ, more cost more than they tell."""
NEARLY_ALL = 0.8
"""A language of whose pages this share would be read is read whole."""

_SOURCES = ("source", "claimed_lang", "lang")
_READ = ("text", *_SOURCES)
_TASK_UNITS = 8
_LANGUAGES_AHEAD = 3


def sample_documents(
    tree: Tree, *, workers: int = 2, closer: Closer | None = None, progress: Callable[[int], None] | None = None
) -> Tally:
    """Tally of a tree of documents; arguments, errors and frames as for
    :func:`lola_data.balance.count.count_documents`."""
    closer = closer or Closer()
    shards = sorted(tree.shards, key=lambda shard: (shard.lang, shard.path))
    parts: list[dict[str, pl.DataFrame]] = []
    samples: dict[str, TextSample] = {}
    started: deque[tuple[_Draft, list[Future[_Figures]]]] = deque()

    def finish() -> None:
        draft, futures = started.popleft()
        samples[draft.lang] = draft.finished([future.result() for future in futures])

    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            surveyed = in_order(pool, lambda shard: survey_shard(shard, closer.seed), shards, 2 * workers)
            for lang, group in groupby(surveyed, key=lambda pair: pair[0].lang):
                own: list[Shard] = []
                surveys: list[Survey] = []
                labels = LabelSums(lang)
                for shard, survey in group:
                    own.append(shard)
                    labels.absorb(survey.labels)
                    surveys.append(survey)
                    if progress is not None:
                        progress(shard.size)
                parts.append(labels.part())
                draft = _draft(lang, own, surveys, closer)
                started.append((draft, [pool.submit(_read, draft, task, closer) for task in draft.tasks()]))
                if len(started) > _LANGUAGES_AHEAD:
                    finish()
            while started:
                finish()
        finally:
            for _, futures in started:
                for future in futures:
                    future.cancel()
    return put_together(together(parts), samples, closer)


@dataclass
class _Figures:
    """What some units held, a row or array each."""

    rows: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)
    groups: list[pl.DataFrame] = field(default_factory=list)
    """source, claimed, detected | documents, bytes, characters, empty."""
    sources: list[pl.DataFrame] = field(default_factory=list)
    """source, length | documents."""
    looked: Looked = field(default_factory=Looked)

    def absorb(self, other: _Figures) -> None:
        for name in ("rows", "bytes", "characters", "empty", "lengths", "groups", "sources"):
            getattr(self, name).extend(getattr(other, name))
        self.looked.absorb(other.looked)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one row group from ``row`` on: bytes and characters int64[rows], the columns ``_SOURCES``, the texts."""

    row: int
    size: NDArray[np.int64]
    length: NDArray[np.int64]
    labels: list[pa.Array]
    take: Take


@dataclass(frozen=True)
class _Draft:
    """The sample of a language before it is read."""

    lang: str
    shards: list[Shard]
    documents: int
    text_bytes: int | None
    nominal: int
    """Bytes of text as headers tell."""
    units: int
    chosen: NDArray[np.void]
    chances: Chances

    @property
    def fraction(self) -> float:
        """Of the units that are read."""
        return self.chosen.size / self.units if self.units else 1.0

    def tasks(self) -> list[NDArray[np.void]]:
        """The units to read, a few of a shard at a time."""
        cuts = np.flatnonzero(np.diff(self.chosen["shard"])) + 1
        return [
            part[start : start + _TASK_UNITS]
            for part in np.split(self.chosen, cuts)
            for start in range(0, part.size, _TASK_UNITS)
        ]

    def finished(self, read: list[_Figures]) -> TextSample:
        """The sample with what its units held."""
        figures = _Figures()
        for part in read:
            figures.absorb(part)
        fraction, sizes = self.fraction, np.array(figures.bytes, np.float64)
        # With the bytes known, characters go with them; else both go with what the headers tell.
        known = self.text_bytes is not None or fraction >= 1.0
        x = sizes if known else self.chosen["size"].astype(np.float64)
        whole = sizes.sum() if fraction >= 1.0 else self.nominal if self.text_bytes is None else self.text_bytes
        per_byte, width = ratio(figures.characters, x, fraction=fraction)
        half_widths = {"characters": width * whole}
        total = float(whole)
        if not known:
            per_nominal, width = ratio(sizes, x, fraction=fraction)
            total, half_widths["bytes"] = per_nominal * whole, width * whole
        empty, width = ratio(figures.empty, figures.rows, fraction=fraction)
        effective = effective_documents(figures.lengths, [level for _, level in LEVELS], fraction=fraction)
        # Where none was empty, up to 3 in n may be: at that rate the chance to see none is 5 %.
        half_widths["empty"] = self.documents * (width if empty else min(1.0, 3.0 / effective))
        return TextSample(
            documents=self.documents,
            bytes=total,
            characters=per_byte * whole,
            empty=empty * self.documents,
            half_widths=half_widths if fraction < 1.0 else {},
            effective=effective,
            read=(sum(figures.rows), sum(figures.bytes)),
            fraction=fraction,
            groups=_grouped(figures.groups, GROUPED, ("documents", "bytes", "characters", "empty")),
            lengths=_grouped(figures.sources, ("source", "length"), ("documents",)),
            looked=figures.looked,
            chances=self.chances,
        )


def _draft(lang: str, shards: list[Shard], surveys: list[Survey], closer: Closer) -> _Draft:
    """Choose the units of a language that are read: those with the smallest hashes."""
    for number, survey in enumerate(surveys):
        survey.units["shard"] = number
    units = np.concatenate([survey.units for survey in surveys])
    nominal = int(units["size"].sum())
    count = units.size
    if nominal > SAMPLE_BYTES:
        count = min(MOST_UNITS, max(LEAST_UNITS, math.ceil(SAMPLE_BYTES * units.size / nominal)))
    if count >= NEARLY_ALL * units.size:
        count = units.size
    chosen = np.sort(np.sort(units, order=["key", "shard", "group", "page"])[:count], order=["shard", "group", "page"])
    texts = [survey.text_bytes for survey in surveys]
    known = None if None in texts else sum(size for size in texts if size is not None)
    documents = sum(survey.documents for survey in surveys)
    chances = closer.chances(int(chosen["rows"].sum()), int(chosen["size"].sum()))
    return _Draft(lang, shards, documents, known, nominal, units.size, chosen, chances)


def _read(draft: _Draft, units: NDArray[np.void], closer: Closer) -> _Figures:
    """Read some units, all of them of one shard."""
    shard = draft.shards[int(units["shard"][0])]
    figures = _Figures()
    rows: list[_Piece] = []
    with open_parquet(shard.path) as file, reading(shard.path) as (read, _):
        present = [name for name in present_columns(file, shard.path, TEXTS) if name in _READ]
        counts = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        foresee(file, sorted({unit[2] for unit in units.tolist()}), present)
        for group, own in groupby(units.tolist(), key=lambda unit: unit[2]):
            first = sum(counts[:group])
            for pieces in _texts(shard, file, read, group, [unit[3] for unit in own], present):
                rows += _unit(figures, pieces, first, shard, draft, closer)
    together = _frame(rows, shard.lang)
    documents = pl.len().cast(pl.Int64).alias("documents")
    empty = (pl.col("bytes") == 0).sum().cast(pl.Int64).alias("empty")
    sums = (pl.col("bytes").sum(), pl.col("length").sum().alias("characters"))
    figures.groups = [together.group_by(GROUPED).agg(documents, *sums, empty)]
    figures.sources = [together.group_by("source", "length").agg(documents)]
    return figures


def _texts(
    shard: Shard, file: pq.ParquetFile, read: Read, group: int, numbers: list[int], present: list[str]
) -> Iterator[Iterator[_Piece]]:
    """The rows of each unit of a row group, piece by piece."""
    if numbers == [WHOLE_GROUP]:
        yield _whole_group(shard, file, group, present)
        return
    chunk = pages_of(file, read, group, text_column(file))
    assert chunk is not None  # or it would not have been a unit
    pages = [chunk.pages[number] for number in numbers]
    labels = _labels(shard, file, group, [name for name in present if name != "text"])
    try:
        for page, texts in zip(pages, read_pages(read, chunk, pages), strict=True):
            own = [column.slice(page.first_row, page.rows) for column in labels]
            yield iter([_Piece(page.first_row, texts.sizes, texts.characters, own, texts.take)])
    except DamagedPage as error:
        raise unreadable(shard.path, [group], error) from error


def _whole_group(shard: Shard, file: pq.ParquetFile, group: int, present: list[str]) -> Iterator[_Piece]:
    row = 0
    for batch in read_group(file, shard.path, [group], _READ, present):
        text = batch["text"]
        size, length = (column.to_numpy() for column in text_sizes(text))
        yield _Piece(row, size, length, [batch[name] for name in _SOURCES], taker(text))
        row += len(text)


def _labels(shard: Shard, file: pq.ParquetFile, group: int, present: list[str]) -> list[pa.Array]:
    batches = list(read_group(file, shard.path, [group], _SOURCES, present))
    return [pa.concat_arrays([batch[name] for batch in batches]) for name in _SOURCES]


def _unit(
    figures: _Figures, pieces: Iterator[_Piece], first: int, shard: Shard, draft: _Draft, closer: Closer
) -> list[_Piece]:
    """Add the figures of one unit; its rows, without their texts."""
    found: list[_Piece] = []
    seen = Looked()
    for piece in pieces:
        start = first + piece.row
        numbers = np.arange(start, start + piece.size.size, dtype=np.int64)
        seen.absorb(look(closer, draft.chances, piece.take, shard, numbers))
        found.append(replace(piece, take=_gone))
    if draft.fraction < 1.0:
        seen.tokens = seen.tokens.as_unit()
    figures.looked.absorb(seen)
    figures.lengths.append(np.concatenate([piece.length for piece in found]))
    figures.rows.append(figures.lengths[-1].size)
    figures.bytes.append(sum(int(piece.size.sum()) for piece in found))
    figures.characters.append(int(figures.lengths[-1].sum()))
    figures.empty.append(sum(int(np.count_nonzero(piece.size == 0)) for piece in found))
    return found


def _gone(chosen: NDArray[np.bool_] | None) -> pa.Array:
    raise LookupError("these texts are no longer held")


def _frame(rows: Sequence[_Piece], lang: str) -> pl.DataFrame:
    """source, claimed, detected, bytes, length of rows of one language."""
    source, claimed, detected = (
        cast("pl.Series", pl.from_arrow(pa.concat_arrays([one.labels[number] for one in rows])))
        for number in range(len(_SOURCES))
    )
    return pl.DataFrame(
        {
            "source": source,
            "claimed": claimed.fill_null(lang),
            "detected": detected,
            "bytes": np.concatenate([one.size for one in rows]),
            "length": np.concatenate([one.length for one in rows]),
        }
    )


def _grouped(frames: Sequence[pl.DataFrame], keys: Sequence[str], sums: Sequence[str]) -> pl.DataFrame:
    if not frames:
        schema = {**{key: pl.Int64 if key == "length" else pl.String for key in keys}, **dict.fromkeys(sums, pl.Int64)}
        return pl.DataFrame(schema=schema)
    return pl.concat(frames).group_by(keys).agg(pl.col(sums).sum()).sort(keys)
