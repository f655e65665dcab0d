"""Writes script_ranges.tsv: the letters and marks of each script, from the Unicode Character Database.

Run where the file lies, with the source of the Scripts property installed and not needed by anything else:

    pip install fonttools==4.68.0
    python lola_data/resources/build_script_ranges.py

fontTools holds Scripts.txt (Unicode 18.0.0) as tables. Characters without a script of their own (Common, Inherited,
Unknown) are left out, and so are numbers, punctuation and symbols: what is counted are letters and the marks on them.
General categories come from the running Python; characters newer than it are taken for letters.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from fontTools.unicodedata import script  # pyright: ignore[reportMissingImports]

HEADER = """\
# Letters and marks by script: first and last code point (hex), ISO 15924 code.
# Made by build_script_ranges.py from the Unicode Character Database 18.0.0, property Script.
# Copyright (c) 1991-2026 Unicode, Inc., Unicode License V3 (SPDX: Unicode-3.0), https://www.unicode.org/license.txt
"""


def main() -> None:
    ranges: list[list] = []
    for point in range(0x110000):
        code = script(chr(point))
        if code in ("Zyyy", "Zinh", "Zzzz") or unicodedata.category(chr(point))[0] not in "LMC":
            continue
        if ranges and ranges[-1][1] == point - 1 and ranges[-1][2] == code:
            ranges[-1][1] = point
        else:
            ranges.append([point, point, code])
    lines = [f"{first:04X}\t{last:04X}\t{code}\n" for first, last, code in ranges]
    Path(__file__).with_name("script_ranges.tsv").write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
