"""URLs as deduplication compares them: two that differ only in what rarely names another page are the same.

In: an Arrow column of URLs as published. Out: the column in a normal form, null where there is nothing to compare. The
scheme http or https, the fragment and slashes at the end of the path are left out, and the host is lower-cased (RFC
3986, section 6.2.2.1); path and query are kept as they are, since servers may tell them apart.
"""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

# RE2. An address of another scheme keeps it, as part of the host; bytes that are not UTF-8 match nothing.
_PARTS = (
    r"(?s)^(?:(?i:https?)://|//)?(?P<host>(?:[A-Za-z][A-Za-z0-9+.\-]*://)?[^/?#]*)"
    r"(?P<path>[^?#]*?)/*(?P<query>\?[^#]*)?(?:#.*)?$"
)


def normalise_urls(urls: pa.Array) -> pa.Array:
    """Normal forms of N URLs, string, null where the URL is null, blank or without a host.

    >>> normalise_urls(pa.array(["https://Example.org/A/?q=1#top", "http://example.org/A?q=1", " ", None])).to_pylist()
    ['example.org/A?q=1', 'example.org/A?q=1', None, None]
    """
    compute = cast("Any", pc)
    parts = compute.extract_regex(compute.ascii_trim_whitespace(urls.cast(pa.string())), _PARTS)
    host = compute.ascii_lower(compute.struct_field(parts, "host"))
    joined = compute.binary_join_element_wise(
        host, compute.struct_field(parts, "path"), compute.struct_field(parts, "query"), ""
    )
    return compute.if_else(compute.equal(host, ""), pa.scalar(None, pa.string()), joined)
