"""Any amount of text from the corpus's own, no two documents alike but copies: what grows a corpus without the builder.

In: the corpus's raw tree. Out: its documents, then the same documents told anew, again and again. To tell a document
anew its pieces of three words are put in another order, so that it keeps its words, its bytes and its language and
shares next to no run of five words with what it was. Texts of as many pieces get the same order: an edited copy stays
as like its original as it was.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lola_data.schemas import RAW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE_WORDS = 3
PIECE_CHARACTERS = 4
"""Of a text written without spaces."""
LONG_WORD = 20
"""Characters a word, on average, from which a text is taken to be one."""
GROUP_BYTES = 500_000
"""Text of a row group."""


class Raw(NamedTuple):
    """A row of a raw tree."""

    text: str
    timestamp: str | None
    url: str | None
    source: str | None


@lru_cache(maxsize=1 << 16)
def _order(telling: int, pieces: int) -> list[int]:
    return np.random.default_rng([telling, pieces]).permutation(pieces).tolist()


def told_anew(text: str, telling: int) -> str:
    """The pieces of a text in an order that depends on their number and on ``telling``; 0 leaves it as it is.

    >>> sorted(told_anew("a b c d e f", 1).split(" "))
    ['a', 'b', 'c', 'd', 'e', 'f']
    """
    if not telling:
        return text
    words = text.split(" ")
    if len(text) > LONG_WORD * len(words):
        words, size, joint = list(text), PIECE_CHARACTERS, ""
    else:
        size, joint = PIECE_WORDS, " "
    pieces = [joint.join(words[start : start + size]) for start in range(0, len(words), size)]
    return joint.join([pieces[place] for place in _order(telling, len(pieces))])


def documents(folder: Path, total: float) -> Iterator[Raw]:
    """Documents of one language's folder of a raw tree, told anew as often as it takes for ``total`` bytes."""
    rows = [
        Raw(*values)
        for path in sorted(folder.glob("*.parquet"))
        for values in zip(*pq.read_table(path, schema=RAW).to_pydict().values(), strict=True)
    ]
    size = 0
    for telling in count() if rows else ():
        for row in rows:
            if size >= total:
                return
            text = told_anew(row.text, telling)
            size += len(text.encode())
            yield row._replace(text=text, url=row.url and f"{row.url}/{telling}")


def tile(raw: Path, folder: Path, total: float, *, languages: int) -> int:
    """Write a tree of about ``total`` bytes of text, the largest ``languages`` in their proportions in ``raw``; bytes
    written."""
    sizes = {lang.name: _text_bytes(lang) for lang in sorted(raw.iterdir())}
    sizes = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:languages])
    everything = sum(sizes.values())
    return sum(
        write(documents(raw / lang, total * size / everything), folder / lang, f"{lang}_part_00000.parquet")
        for lang, size in sizes.items()
    )


def _text_bytes(folder: Path) -> int:
    return sum(
        pc.sum(pc.binary_length(pq.read_table(path, columns=["text"])["text"])).as_py() or 0
        for path in folder.glob("*.parquet")
    )


def write(rows: Iterator[Raw], folder: Path, name: str) -> int:
    """Write a raw shard, a row group for each :data:`GROUP_BYTES`; bytes of text written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = size = 0
    held: list[Raw] = []
    with pq.ParquetWriter(folder / name, RAW, compression="zstd") as writer:

        def flush() -> None:
            columns = zip(*held, strict=True)
            writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=RAW))
            held.clear()

        for row in rows:
            held.append(row)
            size += len(row.text.encode())
            if size >= GROUP_BYTES:
                flush()
                written, size = written + size, 0
        if held:
            flush()
    return written + size
