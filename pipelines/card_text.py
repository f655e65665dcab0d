"""Words from outside made fit for a page that is published: nothing secret, nothing of this machine, no markup.

Repository names, prefixes, folder names and values of ``source`` come from others. In Markdown they are code, in which
neither markup nor HTML means anything; characters that cannot be seen are spelled out. Of a URL, whoever it lets in is
cut off: user and password before the host, and the query and fragment, where signatures and tokens stand. Of a path on
this machine only the last part is told.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from lola_data.report.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PATHS = frozenset({"path", "model", "tokenizer"})
"""Settings that may be paths of this machine, absolute or not."""
_LOCAL = re.compile(r"/|~|\.{1,2}/|[A-Za-z]:[\\/]|\\\\|file:")
"""How a path of this machine begins."""
_PORT = re.compile(r"[^:]*:\d*")
_TICKS = re.compile(r"`+")


def code(text: object, *, in_table: bool = False) -> str:
    """``text`` as a code span of CommonMark, in which nothing else has a meaning.

    >>> code("a`b"), code("x|y", in_table=True)
    ('``a`b``', '`x\\\\|y`')
    """
    shown = visible(str(text)) or "(empty)"
    fence = "`" * (1 + max((len(run) for run in _TICKS.findall(shown)), default=0))
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    if in_table:
        # Cells are told apart before code is.
        shown = shown.replace("|", "\\|")
    return f"{fence}{pad}{shown}{pad}{fence}"


def public_url(url: str) -> str:
    """A URL without what lets its reader in.

    >>> public_url("https://me:secret@host/data?X-Amz-Signature=1")
    'https://host/data'
    """
    # One file system may stand on another: zip://inner.zip::https://host/...
    return "::".join(_public_link(link) for link in url.split("::"))


def _public_link(link: str) -> str:
    scheme, separator, whole = link.partition("://")
    if not separator:
        return re.split(r"[?#]", link, maxsplit=1)[0]
    rest = re.split(r"[?#]", whole, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = host.rpartition("@")[2]
    elif ":" in host and not host.startswith("[") and not _PORT.fullmatch(host):
        # A password with a slash or a question mark in it, which ends the host by the rules and not by the meaning.
        return f"{scheme}{separator}{path.rpartition('@')[2]}" if "@" in path else f"{scheme}{separator}(hidden)"
    return f"{scheme}{separator}{host}{slash}{path}"


def public_place(place: str) -> str:
    """A place in words that may be published: a URL without secrets, of a local path the last part."""
    if place.startswith("file:") or "://" not in place:
        return re.split(r"[\\/]", place.rstrip("\\/"))[-1] or "(root)"
    return public_url(place)


def public(value: Any, key: str = "") -> Any:
    """A setting, with every string in it made public."""
    if isinstance(value, dict):
        return {public(str(name)): public(one, str(name)) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(one, key) for one in value]
    if isinstance(value, str) and ("://" in value or key in _PATHS or _LOCAL.match(value)):
        return public_place(value)
    return value


def setting(name: str, value: Any) -> str:
    """A setting and its value, for a list in Markdown."""
    shown = public(value, name)
    return f"{code(name)}: {code(shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False))}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> list[str]:
    """A table of Markdown and an empty line; all columns but the first ``text_columns`` are numbers, to the right."""
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    lines = [heads, rule, *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def count(value: int | None) -> str:
    """A count with separators; empty for what is not known."""
    return "" if value is None else f"{value:,}"
