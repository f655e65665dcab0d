"""Text for reading on the page: counts in few digits, and names in which nothing is hidden.

Folder names, domains and titles come from outside. Escaping them for HTML is the template's business; what a browser
would obey or swallow rather than show (a right-to-left override, a NUL, a line break, half a surrogate pair) is spelled
out here, so that such a name looks like what it is and cannot disturb its neighbours.
"""

from __future__ import annotations

import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""General categories (Unicode Standard, table 4-4) of characters that have no look of their own."""
_SUFFIXES = ("", "k", "M", "G", "T", "P")


def visible(text: str) -> str:
    """``text`` with characters that cannot be seen as their code points.

    >>> visible("ab\\u202ecd\\0")
    'ab‹U+202E›cd‹U+0000›'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"‹U+{ord(character):04X}›" if unicodedata.category(character) in _UNSEEN else character for character in text
    )


def short_count(count: float) -> str:
    """A count with at most three digits and its power of a thousand.

    >>> short_count(950), short_count(1234), short_count(20_000_000)
    ('950', '1.23k', '20.0M')
    """
    power = 0
    while count >= 999.5 and power < len(_SUFFIXES) - 1:
        count, power = count / 1000, power + 1
    if power == 0:
        return f"{count:.0f}"
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f}{_SUFFIXES[power]}"
