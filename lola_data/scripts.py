"""The script that a text is written in, as an ISO 15924 code.

In: an Arrow column of texts. Out: a column of codes. Letters, and the marks on them, are counted by the Unicode Script
property; ``resources/script_ranges.tsv`` holds it. Han, kana and Hangul are read together, for no single character
tells Japanese from Chinese: ``Jpan``, ``Kore`` or ``Hani`` comes out. Simplified and traditional Han (Hans, Hant) are
not told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numba
import numpy as np
import pyarrow as pa

from lola_data.buffers import Text, string_buffer, string_chunks
from lola_data.languages import LANGUAGES, unicode_scripts

if TYPE_CHECKING:
    import numpy.typing as npt

    from lola_data.buffers import Bytes, Offsets

NO_LETTERS = "Zyyy"
"""Code of a text without letters."""

KANA_SHARE = 0.1
"""Han with at least this share of kana among both is Japanese: running Japanese has four times as much, Chinese that
quotes some has less. The same share of Hangul makes it Korean."""

_CODE_POINTS = 0x110000


@dataclass(frozen=True, eq=False)
class ScriptTable:
    """``codes``: ISO 15924 codes, ``Zyyy`` first. ``of`` (0x110000,) uint8: for a code point its script's place in
    ``codes``, 0 for characters that are no letter or mark of one script. Both read only."""

    codes: tuple[str, ...]
    of: npt.NDArray[np.uint8]


@lru_cache(maxsize=1)
def script_table() -> ScriptTable:
    """The table, read from the package's resource at first use."""
    text = (files("lola_data") / "resources" / "script_ranges.tsv").read_text(encoding="utf-8")
    ranges = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    codes = (NO_LETTERS, *sorted({code for _, _, code in ranges} | {"Jpan", "Kore"}))
    place = {code: number for number, code in enumerate(codes)}
    of = np.zeros(_CODE_POINTS, dtype=np.uint8)
    for first, last, code in ranges:
        of[int(first, 16) : int(last, 16) + 1] = place[code]
    of.setflags(write=False)
    return ScriptTable(codes, of)


def dominant_script(text: Text) -> pa.Array:
    """The script that most letters of each text belong to, (n,) string.

    ``Jpan``, ``Kore`` and ``Hani`` stand for Han, kana, Bopomofo and Hangul together, by :data:`KANA_SHARE`. Ties go to
    the code that comes first in the alphabet. A null text, or one without letters, is ``Zyyy``. Bytes that are not
    UTF-8 are passed over.
    """
    table = script_table()
    names = np.array(table.codes, dtype=object)
    place = {code: number for number, code in enumerate(table.codes)}
    east = np.array([place[code] for code in ("Hani", "Hira", "Kana", "Bopo", "Hang", "Jpan", "Kore")], dtype=np.int64)
    parts = [np.empty(0, dtype=np.uint8)]
    for chunk in string_chunks(text):
        out = np.empty(len(chunk), dtype=np.uint8)
        _dominant(*string_buffer(chunk), table.of, east, KANA_SHARE, out)
        parts.append(out)
    return pa.array(names[np.concatenate(parts)], pa.string())


def writes(code: str, script: str) -> bool:
    """Whether the CulturaX language ``code`` is ordinarily written in ``script``, a code of :func:`dominant_script`.

    Raises:
        RecipeError: no such language.
    """
    return script in unicode_scripts(code) or script in LANGUAGES[code].scripts


@numba.njit(nogil=True, cache=True)
def _dominant(
    data: Bytes,
    offsets: Offsets,
    script_of: npt.NDArray[np.uint8],
    east: npt.NDArray[np.int64],
    kana_share: float,
    out: npt.NDArray[np.uint8],
) -> None:
    counts = np.zeros(256, dtype=np.int64)
    han, hira, kana, bopo, hang, jpan, kore = east
    # Of ASCII all letters are Latin. Elsewhere the next character most often has the script of the one before: the
    # length of such a run is kept at hand.
    latin = script_of[0x61]
    for row in range(offsets.size - 1):
        counts[:] = 0
        letters, script, run = 0, np.uint8(0), 0
        at, end = offsets[row], offsets[row + 1]
        while at < end:
            lead = data[np.uint64(at)]
            if lead < 0x80:
                letters += script_of[lead] == latin
                at += 1
                continue
            if lead < 0xE0:
                point, width = np.uint32(lead & 0x1F), 2
            elif lead < 0xF0:
                point, width = np.uint32(lead & 0x0F), 3
            else:
                point, width = np.uint32(lead & 0x07), 4
            if at + width > end:
                break
            for place in range(at + 1, at + width):
                point = np.uint32(point << np.uint32(6) | np.uint32(data[np.uint64(place)] & 0x3F))
            if point < script_of.size:
                if script_of[point] != script:
                    counts[script] += run
                    script, run = script_of[point], 0
                run += 1
            at += width
        counts[script] += run
        counts[latin] += letters
        counts[0] = 0
        kanas = counts[hira] + counts[kana]
        hangs = counts[hang]
        hans = counts[han] + counts[bopo]
        name = han
        if kanas >= hangs and kanas > 0 and kanas >= kana_share * (kanas + hans):
            name = jpan
        elif hangs > 0 and hangs >= kana_share * (hangs + hans):
            name = kore
        for number in east:
            counts[number] = 0
        counts[name] = kanas + hangs + hans
        best = 0
        for number in range(1, counts.size):
            if counts[number] > counts[best]:
                best = number
        out[row] = best
