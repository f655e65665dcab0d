"""The documents of a tree as records of 36 bytes: a tree in, arrays of :data:`RECORD` out, a batch at a time.

A document is known by its id or by the hash of its text (XXH3, 128 bits of either), so that two trees can be compared
whose texts do not fit into memory. Two texts, or two ids, of one hash are not to be expected: among 10^10 documents
with a chance of about 10^-19.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from lola_data.buffers import string_buffer, string_chunks
from lola_data.errors import ShardError
from lola_data.inspect.rows import columns_of, read_shard
from lola_data.schemas import IDENTIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.balance.trees import Shard
    from lola_data.inspect.places import Place

Match = Literal["id", "text"]
"""What a document is known by."""
Records = npt.NDArray[Any]
"""Structured array of :data:`RECORD`."""

RECORD = np.dtype(
    [
        ("high", "<u8"), ("low", "<u8"),  # hash of the id, or of the text
        ("text", "<u8"),  # hash of the text where the id is the key; 0 where texts are not compared
        ("lang", "<u2"), ("source", "<u2"),  # numbers in Names
        ("file", "<u4"), ("row", "<u4"),  # shard of the place, row in it
    ]
)  # fmt: skip
MOST_NAMES = 2**16 - 1
OTHERS = "(others)"
"""Stands for all names beyond :data:`MOST_NAMES`."""


@dataclass
class Names:
    """Numbers for strings that come again and again, in the order in which they come."""

    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """The number of a name."""
        found = self.numbers.get(name)
        if found is None:
            if len(self.numbers) >= MOST_NAMES:
                return self.numbers.setdefault(OTHERS, MOST_NAMES)
            found = self.numbers[name] = len(self.numbers)
        return found


def has_ids(place: Place) -> bool:
    """Whether the documents of a place have ids, by its first shard."""
    return "id" in columns_of(place.shards[0].path)


def records_of(
    place: Place, match: Match, languages: Names, sources: Names, *, with_text: bool = True
) -> Iterator[Records]:
    """Records of all documents of a place, in order.

    Args:
        place: a tree of text.
        match: what documents are known by.
        languages: gets the folders.
        sources: gets the values of ``source``; a null is the empty string.
        with_text: read and hash the texts too, though documents are known by their ids.

    Raises:
        ShardError: a shard that cannot be read, or documents without an id that are to be known by it.
    """
    names = ["source", *(["id"] if match == "id" else []), *(["text"] if with_text or match == "text" else [])]
    schema = pa.schema([IDENTIFIED.field(name) for name in names])
    for number, shard in enumerate(place.shards):
        lang = languages.number(shard.lang)
        row = 0
        for batch in read_shard(shard.path, shard.lang, schema):
            records = np.zeros(batch.num_rows, RECORD)
            records["lang"] = lang
            records["source"] = _numbers(batch["source"], sources)
            records["file"] = number
            records["row"] = np.arange(row, row + batch.num_rows)
            _put_hashes(records, batch, match, shard)
            row += batch.num_rows
            yield records


def _put_hashes(records: Records, batch: pa.RecordBatch, match: Match, shard: Shard) -> None:
    key = batch[match]
    if match == "id" and key.null_count:
        raise ShardError(f"{shard.path}: documents without `id`; compare by text (`--match text`)")
    hashes = hash128(key)
    records["high"], records["low"] = hashes[:, 0], hashes[:, 1]
    if match == "id" and "text" in batch.schema.names:
        records["text"] = hash128(batch["text"])[:, 1]


def hash128(text: pa.Array) -> npt.NDArray[np.uint64]:
    """XXH3 of the bytes of each row, (N, 2) uint64: high and low half. A null hashes as the empty string."""
    digests: list[bytes] = []
    for chunk in string_chunks(text):
        data, offsets = string_buffer(chunk)
        view, ends = data.data, offsets.tolist()
        digest = xxhash.xxh3_128_digest
        digests += [digest(view[ends[row] : ends[row + 1]]) for row in range(len(ends) - 1)]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64).reshape(-1, 2)


def _numbers(column: pa.Array, names: Names) -> npt.NDArray[np.uint16]:
    """The number of each value of a column of few values."""
    encoded = column.cast(pa.large_binary()).fill_null(b"").dictionary_encode()
    known = [names.number(value.decode("utf-8", "backslashreplace")) for value in encoded.dictionary.to_pylist()]
    return np.array(known or [0], np.uint16)[encoded.indices.to_numpy(zero_copy_only=False)]
