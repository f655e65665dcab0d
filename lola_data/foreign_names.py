"""File names that others chose (a hub, a server, an archive, a manifest): a path in, why it may not be joined out.

A path is joined to a folder of ours only if what it names lies below that folder, and if nothing in it would steer the
terminal that it is shown on. What stands in the way is told; nothing is quietly made into another name, which could
then be that of another file.
"""

from __future__ import annotations

import re

_ACTING = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_REFUSED = re.compile(f"[{_ACTING}]")
"""Controls (NUL, ESC, ...), what turns the direction of the text beside it, and bytes that are not UTF-8."""
_ESCAPED = re.compile(f"[{_ACTING}\t\n\r\u2028\u2029]")
"""Also what would end the line: names may have it."""


def why_unsafe(path: str) -> str | None:
    """Why a path is not one below a folder, in words that follow "has"; None where it is.

    >>> why_unsafe("de/a.parquet") is None, why_unsafe("../a.parquet"), why_unsafe("/etc/passwd")
    (True, 'a part `..`', 'an empty part')
    """
    character = _REFUSED.search(path)
    if character is not None:
        return f"the character U+{ord(character[0]):04X} in its name"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"a part `{part}`" if part else "an empty part"
    return None


def escaped(text: str) -> str:
    """``text`` in one line, with escapes for what would act on a terminal or end the line: fit for a message.

    >>> escaped("a" + chr(10) + chr(0x202E) + "b")
    'a\\\\n\\\\u202eb'
    """
    return _ESCAPED.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)
