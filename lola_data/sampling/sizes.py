"""How large languages are, without reading a text: from a tree of shards, or from CulturaX's published table.

In: the root of a tree ``<lang>/*.parquet``, of which footers and the manifest are read, or nothing. Out:
:class:`KnownSizes`, a :class:`lola_data.sampling.plan.LanguageSize` for every language and where they come from.

Sources of the estimates: the data card of CulturaX, which has 27 TB of text and 6.3 trillion tokens, and the sum of
its published document counts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lola_data import storage
from lola_data.errors import LolaError, RecipeError, ShardError, StageError
from lola_data.languages import LANGUAGES, language
from lola_data.sampling.plan import LanguageSize

if TYPE_CHECKING:
    from collections.abc import Iterable

CULTURAX_BYTES = 27 * 10**12
CULTURAX_TOKENS = 63 * 10**11

_FOOTERS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class KnownSizes:
    """Sizes of languages.

    Attributes:
        source: ``tree`` or ``published``.
        place: root of the tree, empty for the table.
        languages: by code.
        notes: for people: where the sizes come from (``sizes``), how ``bytes`` and ``tokens`` were counted or
            estimated, which languages are ``missing``.
    """

    source: Literal["tree", "published"]
    place: str
    languages: dict[str, LanguageSize]
    notes: dict[str, str]


def published_sizes(languages: Iterable[str] | None = None) -> KnownSizes:
    """Languages of CulturaX as published (None: all 167).

    Documents are published for all, tokens for 48. Other tokens are estimated at the mean of these 48 a document,
    bytes at the mean of the whole of CulturaX a document.

    Raises:
        RecipeError: a code that is not CulturaX's.
    """
    codes = list(LANGUAGES) if languages is None else sorted(languages)
    counted = [entry for entry in LANGUAGES.values() if entry.tokens is not None]
    tokens = sum(entry.tokens or 0 for entry in counted)
    documents = sum(entry.documents for entry in counted)
    everything = sum(entry.documents for entry in LANGUAGES.values())
    found: dict[str, LanguageSize] = {}
    for code in codes:
        entry = language(code)
        found[code] = LanguageSize(
            documents=entry.documents,
            bytes=_scaled(entry.documents, CULTURAX_BYTES, everything),
            tokens=_scaled(entry.documents, tokens, documents) if entry.tokens is None else entry.tokens,
            estimated=frozenset({"bytes"} if entry.tokens is not None else {"bytes", "tokens"}),
        )
    published = sum("tokens" not in size.estimated for size in found.values())
    notes = {
        "sizes": f"sizes: CulturaX as published, {_languages(len(found))}; documents are counts",
        "bytes": f"bytes: estimated at {CULTURAX_BYTES / everything:,.0f} a document, the mean of CulturaX (27 TB of "
        f"text in {everything:,} documents)",
        "tokens": f"tokens: as published for {published} of these, for the others estimated at "
        f"{tokens / documents:,.0f} a document, the mean of all that are published",
    }
    return KnownSizes("published", "", found, notes)


def tree_sizes(root: str, languages: Iterable[str] | None = None) -> KnownSizes:
    """Languages of a tree of shards; None where it has no shards.

    Documents are counted in the Parquet footers. Bytes are those of the tree's manifest, for languages whose shards
    are the ones it lists, or those of size statistics in the footers; without either they are estimated from the
    size of the column chunks. Tokens are estimated from the bytes.

    Args:
        root: folder or URL.
        languages: only these (None: all).

    Raises:
        StageError: no shards, or files in the wrong place.
        RecipeError: none of ``languages`` is there.
        ShardError: a shard without a footer or a column ``text``.
    """
    from lola_data.shards import list_shards

    shards = list_shards(root)
    if not shards:
        raise StageError(f"sample: {root}: no shards <lang>/*.parquet there; give a tree of deduplicated shards")
    here = sorted({path.split("/")[0] for path, _ in shards})
    wanted = set(here if languages is None else languages)
    shards = [(path, size) for path, size in shards if path.split("/")[0] in wanted]
    if not shards:
        raise RecipeError(f"sample: {root}: no shards of {', '.join(sorted(wanted))}; its languages are {_some(here)}")
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        footers = list(pool.map(lambda shard: _footer(storage.join(root, shard[0])), shards))
    documents: dict[str, int] = defaultdict(int)
    rough: dict[str, int] = defaultdict(int)
    files: dict[str, dict[str, int]] = defaultdict(dict)
    for (path, size), (rows, text_bytes) in zip(shards, footers, strict=True):
        lang = path.split("/")[0]
        documents[lang] += rows
        rough[lang] += text_bytes
        files[lang][path] = size
    told = _manifest_bytes(root, documents, files)
    left = [path for lang in files if lang not in told for path in files[lang]]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        statistics = dict(zip(left, pool.map(lambda path: _exact_bytes(storage.join(root, path)), left), strict=True))
    found: dict[str, LanguageSize] = {}
    for lang in sorted(documents):
        # The stage plans no language of which there is no document.
        if documents[lang]:
            parts = [told[lang]] if lang in told else [statistics[path] for path in files[lang]]
            exact = None if None in parts else sum(part or 0 for part in parts)
            text_bytes = rough[lang] if exact is None else exact
            found[lang] = LanguageSize(
                documents=documents[lang],
                bytes=text_bytes,
                tokens=_scaled(text_bytes, CULTURAX_TOKENS, CULTURAX_BYTES),
                estimated=frozenset({"tokens"} if exact is not None else {"bytes", "tokens"}),
            )
    return KnownSizes("tree", root, found, _tree_notes(root, found, sorted(wanted - set(found)), len(shards)))


def _tree_notes(root: str, found: dict[str, LanguageSize], missing: list[str], shards: int) -> dict[str, str]:
    rough = sum("bytes" in size.estimated for size in found.values())
    estimated = f"of {_languages(rough)} estimated from the size of the column chunks"
    notes = {
        "sizes": f"sizes: {root}, {_languages(len(found))} in {shards:,} shards; documents are counts",
        "bytes": f"bytes: {estimated if rough else 'counts'}",
        "tokens": f"tokens: estimated at {CULTURAX_BYTES / CULTURAX_TOKENS:.2f} bytes a token, the mean of CulturaX "
        "(27 TB of text, 6.3 trillion tokens); the stage counts them with your tokenizer",
    }
    if missing:
        notes["missing"] = f"missing: no documents of {_some(missing)} there"
    return notes


def _footer(path: str) -> tuple[int, int]:
    """Documents of a shard, and roughly the bytes of its texts."""
    from lola_data.shards import open_parquet

    with open_parquet(path) as file:
        meta = file.metadata
        leaves = [meta.schema.column(number).path for number in range(meta.num_columns)]
        if "text" not in leaves:
            raise ShardError(
                f"{path}: no column `text`; its columns are {', '.join(leaves) or 'none'}. Rename the text column, or "
                f"leave the file out"
            )
        place = leaves.index("text")
        chunks = [meta.row_group(group).column(place) for group in range(meta.num_row_groups)]
        # Plainly encoded, a text has its length before it, in four bytes.
        return meta.num_rows, sum(max(0, chunk.total_uncompressed_size - 4 * chunk.num_values) for chunk in chunks)


def _exact_bytes(path: str) -> int | None:
    """Bytes of a shard's texts by the size statistics of its footer; None where it has none."""
    from lola_data.balance.thrift import text_bytes_by_group

    with storage.open_input(path) as handle:

        def read(at: int, size: int) -> bytes:
            handle.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
            return handle.read(size)

        groups = text_bytes_by_group(read, "text")
    return None if groups is None or None in groups else sum(size or 0 for size in groups)


def _manifest_bytes(root: str, documents: dict[str, int], files: dict[str, dict[str, int]]) -> dict[str, int]:
    """Bytes of the languages whose shards are those that the manifest of the tree lists, by name and size."""
    manifest: dict[str, Any] = {}
    with suppress(LolaError, OSError, ValueError):
        manifest = storage.read_json(storage.join(root, "manifest.json"))
    found: dict[str, int] = {}
    try:
        listed: dict[str, dict[str, int]] = defaultdict(dict)
        for file in manifest.get("files", []):
            path = "/".join(file["path"].split("/")[-2:])
            listed[path.split("/")[0]][path] = file["bytes"]
        for lang, counts in manifest.get("languages", {}).items():
            out = counts["out"]
            # Of raw shards the stage download counts documents only.
            if listed[lang] == files.get(lang) and out["documents"] == documents[lang] and out["bytes"]:
                found[lang] = int(out["bytes"])
    except (AttributeError, KeyError, TypeError):
        return {}
    return found


def _scaled(count: int, part: int, of: int) -> int:
    """``count * part / of``, rounded."""
    return (2 * count * part + of) // (2 * of)


def _languages(count: int) -> str:
    return f"{count} language{'' if count == 1 else 's'}"


def _some(codes: list[str], most: int = 12) -> str:
    more = len(codes) - most
    return ", ".join(codes[:most]) + (f" and {more} more" if more > 0 else "")
