"""The lines of a log to be shown beside the failure that it tells of: the last error, else the last lines."""

from __future__ import annotations

from lola_data import storage
from lola_data.shown_text import plain

LINES = 5
_BYTES = 8192
_ERROR = "| ERROR "


def with_tail(path: str, *, lines: int = LINES) -> list[str]:
    """Lines of a local log, indented; none if it cannot be read. What a terminal would obey is spelled out."""
    if storage.is_remote(path):
        return []
    try:
        with storage.local_path(path).open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _BYTES))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    told = text.splitlines()
    # A task's log ends with datatrove's statistics.
    errors = [number for number, line in enumerate(told) if _ERROR in line]
    shown = told[errors[-1] :][:lines] if errors else told[-lines:]
    return [f"    {plain(line)}" for line in shown]
