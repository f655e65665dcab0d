"""Whether a file is a whole fastText classifier, told from its structure before fastText reads it.

In: a path. Out: nothing, or a LolaError. fastText believes what a file says of its own sizes: one that was cut off
makes it stop the process or fill the memory, so the sizes are added up here first. Layout: versions up to 12 of
fastText's binary format, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from lola_data.errors import LolaError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = 793_712_314
SUPERVISED = 3
_CENTROIDS = 256


def check_model_file(path: Path) -> None:
    """Raise LolaError unless ``path`` is a complete fastText model of the supervised kind (a classifier)."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Reader(path, content).check()
    except (OSError, ValueError) as error:
        raise LolaError(f"{path}: cannot be read as a fastText model: {error}") from error


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
        self._skip_dictionary()
        quantised_input = self._take("<?")[0]
        self._skip_matrix(quantised_input)
        quantised_output = self._take("<?")[0]
        self._skip_matrix(quantised_input and quantised_output)

    def _skip_dictionary(self) -> None:
        size, _, labels, _, pruned = self._take("<iiiqq")
        if labels <= 0:
            raise LolaError(f"{self.path}: the model has no labels")
        for _ in range(size):
            end = self.content.find(b"\0", self.at)
            if end < 0:
                raise self._cut()
            self.at = end + 1
            self._skip(9)
        self._skip(8 * max(0, pruned))

    def _skip_matrix(self, quantised: bool) -> None:
        if not quantised:
            rows, columns = self._take("<qq")
            self._skip(4 * rows * columns)
            return
        normed, rows, _, code_bytes = self._take("<?qqi")
        self._skip(code_bytes)
        self._skip_quantiser()
        if normed:
            self._skip(rows)
            self._skip_quantiser()

    def _skip_quantiser(self) -> None:
        dimension = self._take("<4i")[0]
        self._skip(4 * dimension * _CENTROIDS)

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
