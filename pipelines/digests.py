"""Digests of files: the SHA-256 of one, git's name for its content, and what a ``checksum.sha256`` lists.

In: files, or the text of such a listing. Out: hexadecimal digests, and in words how a file differs from what its
source says of it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, cast

from lola_data import storage
from lola_data.foreign_names import why_unsafe

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.sources import RawShard

LISTING = "checksum.sha256"
"""Name of the file beside the shards of a language, as CulturaX has it; in the format that ``sha256sum`` writes."""
_CHUNK_BYTES = 2**20
_LISTED = re.compile(r"\\?([0-9A-Fa-f]{64}) [ *](.+)")


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file, local or at a URL, in hexadecimal."""
    with storage.open_input(str(path)) as handle:
        return hashlib.file_digest(cast("Any", handle), "sha256").hexdigest()


def git_blob_id(path: Path) -> str:
    """The name git gives to a file's content: SHA-1 of ``blob <size>``, a NUL and the bytes."""
    with path.open("rb") as handle:
        state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := handle.read(_CHUNK_BYTES):
            state.update(chunk)
        return state.hexdigest()


def listed_digests(text: str) -> dict[str, str]:
    """File name (without folders) -> SHA-256, of what ``sha256sum`` wrote. Lines of another kind are passed over, and
    so are names such as ``..`` that are no file's."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _LISTED.fullmatch(line.rstrip()):
            name = match[2].rsplit("/", 1)[-1]
            if why_unsafe(name) is None:
                found[name] = match[1].lower()
    return found


def mismatch(path: Path, shard: RawShard) -> str | None:
    """How a local file differs from what its source says of it, or None."""
    size = path.stat().st_size
    if shard.bytes and size != shard.bytes:
        return f"{size:,} bytes instead of {shard.bytes:,}"
    kind, _, expected = (shard.digest or "").partition(":")
    if kind == "git" and (found := git_blob_id(path)) != expected:
        return f"git blob {found} instead of {expected}"
    if kind != "sha256" and not shard.listed:
        return None
    found = sha256_of(path)
    if kind == "sha256" and found != expected:
        return f"sha256 {found} instead of {expected}"
    if shard.listed and found != shard.listed:
        return f"sha256 {found} instead of {shard.listed}, which {LISTING} lists"
    return None
