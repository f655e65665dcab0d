"""Arrow schemas of every tree of Parquet shards a stage reads or writes.

A tree is ``<root>/<lang>/<shard>.parquet``. Columns are matched by name, never by position: a missing optional column
reads as null, and any string-like type (``large_string``, dictionary, all-null) is read as ``string``. Columns that a
raw shard has besides (a quality score, say) go with their rows, behind those of the tree's own schema. See
:func:`lola_data.shards.read_batches` and :func:`lola_data.shards.further_columns`.
"""

from __future__ import annotations

import pyarrow as pa

RAW = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("timestamp", pa.string()),
        pa.field("url", pa.string()),
        pa.field("source", pa.string()),
    ]
)
"""A CulturaX shard as published (columns in that order)."""

IDENTIFIED = pa.schema(
    [
        pa.field("id", pa.string()),
        *RAW,
        pa.field("claimed_lang", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("lang_score", pa.float32()),
        pa.field("script", pa.string()),
    ]
)
"""After identify. ``id`` is ``<lang>/<shard>/<row>`` of the raw shard; ``claimed_lang`` the folder it lay in; ``lang``
the code the model gave (``und``: no text to judge); ``lang_score`` its probability in [0, 1]; ``script`` the ISO 15924
code of the script that most letters of the text belong to (``Zyyy``: no letters)."""

DEDUPED = pa.schema([*IDENTIFIED, pa.field("cluster_size", pa.int32())])
"""After dedup. ``cluster_size`` counts the document itself and all those removed in its favour."""

REMOVED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("claimed_lang", pa.string()),
        pa.field("lang", pa.string()),
        pa.field("lang_score", pa.float32()),
        pa.field("source", pa.string()),
        pa.field("url", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("kept_id", pa.string()),
        pa.field("similarity", pa.float32()),
    ]
)
"""One row per removed document, in ``removed/<stage>/<lang>/``. ``bytes`` is the UTF-8 length of its text; ``kept_id``
and ``similarity`` (Jaccard in [0, 1]) are null unless it was removed because of another document."""

REQUIRED = frozenset({"text"})
"""Columns a raw shard cannot do without; the others read as null when absent. Later trees need `id` too."""
