"""The last lines of a log, to be shown beside the failure that it tells of."""

from __future__ import annotations

from lola_data import storage
from lola_data.shown_text import plain

LINES = 5
_BYTES = 8192


def with_tail(path: str, *, lines: int = LINES) -> list[str]:
    """The last lines of a local log, indented; none if it cannot be read. What a terminal would obey is spelled out."""
    if storage.is_remote(path):
        return []
    try:
        with storage.local_path(path).open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _BYTES))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [f"    {plain(line)}" for line in text.splitlines()[-lines:]]
