"""Whether a file is a whole fastText classifier, told from its structure before fastText reads it.

In: a path. Out: nothing, or a LolaError. fastText believes what a file says of its own sizes: one that was cut off
makes it stop the process or fill the memory, one with a flipped byte makes it read beyond its tables. So the sizes are
added up here first, each number that an index is made of is held against the table it points into, and every weight
must be a number. Layout: versions up to 12 of fastText's binary format, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lola_data.errors import LolaError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = 793_712_314
SUPERVISED = 3
_CENTROIDS = 256
_MOST_DIMENSIONS = 2**16
_LONGEST_NGRAM = 1_000
_MOST_COUNTS = 10**15
"""What fastText takes for infinite when it builds the tree of its hierarchical softmax."""
_LARGEST_WEIGHT = 1e9
_PIECE_BYTES = 2**24


def check_model_file(path: Path) -> None:
    """Raise LolaError unless ``path`` is a complete fastText model of the supervised kind (a classifier)."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Reader(path, content).check()
    except (OSError, ValueError) as error:
        raise LolaError(f"{path}: cannot be read as a fastText model: {error}") from error


@dataclass(frozen=True, slots=True)
class _Header:
    """The arguments that decide what is read when a text is judged."""

    dimension: int
    word_ngrams: int
    loss: int
    buckets: int
    shortest: int
    longest: int


class _Reader:
    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.at = 0

    def check(self) -> None:
        magic, version = self._take("<ii") if len(self.content) >= 8 else (0, 0)
        if magic != MAGIC or not 1 <= version <= 12:
            raise LolaError(f"{self.path}: not a fastText model; give a .bin or .ftz file, or a registered name")
        arguments = self._take("<12id")
        if arguments[7] != SUPERVISED:
            raise LolaError(f"{self.path}: a fastText model of word vectors, not a classifier; it has no languages")
        header = _Header(arguments[0], arguments[5], arguments[6], *arguments[8:11])
        self._check_header(header)
        words, labels, pruned = self._check_dictionary(header)
        quantised = self._take("<?")[0]
        if pruned >= 0 and not quantised:
            raise self._damaged("words were taken out of it, yet it is not quantised")
        rows = self._check_matrix(quantised, header.dimension)
        if rows < words + (pruned if pruned >= 0 else header.buckets):
            raise self._damaged(f"{rows:,} input vectors are fewer than its words and n-grams need")
        quantised_output = self._take("<?")[0]
        rows = self._check_matrix(quantised and quantised_output, header.dimension)
        if rows != labels:
            raise self._damaged(f"{rows:,} output vectors for {labels:,} labels")
        if self.at != len(self.content):
            raise self._damaged(f"{len(self.content) - self.at:,} bytes follow its end")

    def _check_header(self, header: _Header) -> None:
        sizes = {
            "dim": (header.dimension, 1, _MOST_DIMENSIONS),
            "wordNgrams": (header.word_ngrams, 0, _LONGEST_NGRAM),
            "loss": (header.loss, 1, 4),
            "bucket": (header.buckets, 0, 2**31 - 1),
            "minn": (header.shortest, 0, _LONGEST_NGRAM),
            "maxn": (header.longest, 0, _LONGEST_NGRAM),
        }
        for name, (value, least, most) in sizes.items():
            if not least <= value <= most:
                raise self._damaged(f"its {name} is {value:,}, not in {least:,} to {most:,}")
        if not header.buckets and (header.longest or header.word_ngrams > 1):
            raise self._damaged("it uses n-grams, but its bucket is 0")

    def _check_dictionary(self, header: _Header) -> tuple[int, int, int]:
        """Words, labels, and n-grams that were kept (-1: all)."""
        size, words, labels, _, pruned = self._take("<iiiqq")
        if labels <= 0:
            raise LolaError(f"{self.path}: the model has no labels")
        if words < 0 or size != words + labels:
            raise self._damaged(f"{words:,} words and {labels:,} labels are not its {size:,} entries")
        total = 0
        for entry in range(size):
            start = self.at
            end = self.content.find(b"\0", start)
            if end < 0:
                raise self._cut()
            self.at = end + 1
            count, kind = self._take("<qb")
            if kind != (entry >= words):
                raise self._damaged(f"entry {entry:,} of its dictionary is of kind {kind}")
            if entry >= words:
                total += count
                if count < 0 or total >= _MOST_COUNTS:
                    raise self._damaged(f"label {entry - words:,} is said to occur {count:,} times")
                try:
                    self.content[start:end].decode()
                except UnicodeDecodeError as error:
                    raise self._damaged(f"label {entry - words:,} is not valid UTF-8") from error
        if pruned < -1:
            raise self._damaged(f"{pruned:,} n-grams were kept")
        if pruned > 0:
            start = self.at
            self._skip(8 * pruned)
            table = np.frombuffer(self.content[start : self.at], "<i4").reshape(-1, 2)
            if table.min() < 0 or table[:, 0].max() >= header.buckets or table[:, 1].max() >= pruned:
                raise self._damaged("its table of n-grams points outside of its vectors")
        return words, labels, pruned

    def _check_matrix(self, quantised: bool, dimension: int) -> int:
        """Rows of a matrix of so many columns."""
        if not quantised:
            rows, columns = self._take("<qq")
            self._check_shape(rows, columns, dimension)
            self._check_weights(rows * columns)
            return rows
        normed, rows, columns, code_bytes = self._take("<?qqi")
        self._check_shape(rows, columns, dimension)
        start = self.at
        self._skip(code_bytes)
        if code_bytes != rows * self._check_quantiser(dimension):
            raise self._damaged(f"{self.at - start:,} bytes of codes are not those of {rows:,} vectors")
        if normed:
            self._skip(rows)
            self._check_quantiser(1)
        return rows

    def _check_shape(self, rows: int, columns: int, dimension: int) -> None:
        if rows < 0 or columns != dimension:
            raise self._damaged(f"a table of {rows:,} vectors of {columns:,} numbers, where its dim is {dimension:,}")

    def _check_quantiser(self, dimension: int) -> int:
        """Parts that a vector is cut into, each with a code of one byte."""
        columns, parts, width, last = self._take("<4i")
        # The last part may be narrower than the others.
        if columns != dimension or not 1 <= width <= columns or parts != -(-columns // width):
            raise self._damaged(f"vectors of {columns:,} numbers in {parts:,} parts of {width:,}")
        if last != (columns % width or width):
            raise self._damaged(f"a last part of {last:,} numbers")
        self._check_weights(columns * _CENTROIDS)
        return parts

    def _check_weights(self, count: int) -> None:
        start = self.at
        self._skip(4 * count)
        for at in range(start, self.at, _PIECE_BYTES):
            weights = np.frombuffer(self.content[at : min(at + _PIECE_BYTES, self.at)], "<f4")
            # NaN compares as false. What is larger comes of no training, and its products are not finite.
            if not (np.abs(weights) <= _LARGEST_WEIGHT).all():
                raise self._damaged("a weight that is not a number, or far too large a one")

    def _take(self, layout: str) -> tuple:
        size = struct.calcsize(layout)
        self._skip(size)
        return struct.unpack_from(layout, self.content, self.at - size)

    def _skip(self, count: int) -> None:
        if count < 0 or self.at + count > len(self.content):
            raise self._cut()
        self.at += count

    def _cut(self) -> LolaError:
        return LolaError(
            f"{self.path}: the fastText model is cut off or damaged ({len(self.content):,} bytes are there, more are "
            "announced); copy or download it again"
        )

    def _damaged(self, what: str) -> LolaError:
        return LolaError(f"{self.path}: the fastText model is damaged: {what}; copy or download it again")
