"""Which documents may influence each other's fate: equal digests, equal URLs and common LSH buckets, as components.

In: documents numbered in visiting order, with 128-bit keys and band keys. Out: :class:`Components`, the documents that
have any such tie, ordered by component, and the buckets they meet in. Documents without ties are not in it.

Equality is found by sorting, components by union-find over plain integer arrays, one band at a time. Memory: about 60
bytes a document, one band's keys, and 24 bytes for each bucket a text shares with another text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from lola_data.union_find import find_root, join

Indices: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.uint64]
BandKeys: TypeAlias = Callable[[int], Keys]
"""From a band's number to its (N,) uint64 keys."""


@dataclass(frozen=True, eq=False)
class Components:
    """M tied documents in order of (component, visiting order); all indices but ``document``'s values are places in it.

    ``document`` (M,): its number. ``starts`` (C + 1,): first member of each of C components. ``node`` (M,): the first
    member with the same digest, which stands for all of them in LSH. ``url`` (M,): the first member with the same URL,
    -1 for none. ``slot_start`` (M + 1,) offsets into ``slot_bucket`` (S,): the buckets, of ``buckets`` in all, that a
    node shares with other nodes; ``slot_node`` (S,) is the node of each. All int64. ``bucket_pairs``: pairs of nodes in
    a common bucket, counted once for each band they meet in.
    """

    document: Indices
    starts: Indices
    node: Indices
    url: Indices
    slot_start: Indices
    slot_bucket: Indices
    slot_node: Indices
    buckets: int
    bucket_pairs: int


@numba.njit(cache=True, nogil=True)
def _first_of_runs(keys, order, first):
    """Set ``first`` to the smallest index with the same key, over runs of equal first halves in ``order``."""
    start = 0
    while start < order.size:
        end = start + 1
        mixed = False
        least = order[start]
        while end < order.size and keys[order[end], 0] == keys[order[start], 0]:
            mixed |= keys[order[end], 1] != keys[order[start], 1]
            least = min(least, order[end])
            end += 1
        if not mixed:
            for place in range(start, end):
                first[order[place]] = least
        else:
            # Two keys that agree in one half alone: a chance of 2^-64 a pair, so a plain double loop will do.
            for place in range(start, end):
                least = order[place]
                for other in range(start, end):
                    if keys[order[other], 1] == keys[order[place], 1]:
                        least = min(least, order[other])
                first[order[place]] = least
        start = end


def first_equal(keys: Keys, among: Indices) -> Indices:
    """For each row of (N, 2) ``keys`` the smallest index with the same row, (N,) int64; -1 for rows not ``among``."""
    order = among[np.argsort(keys[among, 0])]
    first = np.full(keys.shape[0], -1, dtype=np.int64)
    _first_of_runs(keys, order, first)
    return first


@numba.njit(cache=True, nogil=True)
def _join_first(parent, first):
    for item in range(first.size):
        if first[item] >= 0 and first[item] != item:
            join(parent, first[item], item)


@numba.njit(cache=True, nogil=True)
def _flatten(parent):
    for item in range(parent.size):
        parent[item] = find_root(parent, item)


@numba.njit(cache=True, nogil=True)
def _join_buckets(parent, keys, order, nodes, members, bucket, first_bucket):
    """Join the nodes of each run of two and more equal keys; fill ``members`` and their ``bucket`` numbers.

    Returns the members, the buckets and the pairs found.
    """
    member_count = 0
    bucket_count = 0
    pairs = 0
    start = 0
    while start < order.size:
        end = start + 1
        while end < order.size and keys[order[end]] == keys[order[start]]:
            end += 1
        size = end - start
        if size > 1:
            for place in range(start, end):
                members[member_count] = nodes[order[place]]
                bucket[member_count] = first_bucket + bucket_count
                member_count += 1
                join(parent, nodes[order[start]], nodes[order[place]])
            bucket_count += 1
            pairs += size * (size - 1) // 2
        start = end
    return member_count, bucket_count, pairs


def find_components(
    *,
    digests: Keys | None,
    urls: Keys | None,
    has_url: npt.NDArray[np.bool_],
    shingled: npt.NDArray[np.bool_],
    band_keys: BandKeys,
    bands: int,
) -> Components:
    """Tie N documents, numbered in visiting order, by equal digest, equal URL and common LSH bucket.

    ``digests``, ``urls``: (N, 2) uint64 or None to leave that tie out. ``has_url``, ``shingled``: (N,) bool; documents
    without shingles are in no bucket. ``band_keys``: called once for each of ``bands``.
    """
    count = shingled.size
    everyone = np.arange(count, dtype=np.int64)
    parent = everyone.copy()
    first_text = everyone if digests is None else first_equal(digests, everyone)
    first_url = np.full(count, -1, dtype=np.int64) if urls is None else first_equal(urls, np.flatnonzero(has_url))
    _join_first(parent, first_text)
    _join_first(parent, first_url)

    nodes = np.flatnonzero(shingled & (first_text == everyone))
    members: list[Indices] = [np.empty(0, dtype=np.int64)]
    member_buckets: list[Indices] = [np.empty(0, dtype=np.int64)]
    buckets = pairs = 0
    for band in range(bands):
        keys = band_keys(band)[nodes]
        found = np.empty(nodes.size, dtype=np.int64)
        bucket = np.empty(nodes.size, dtype=np.int64)
        used, new, new_pairs = _join_buckets(parent, keys, np.argsort(keys), nodes, found, bucket, buckets)
        members.append(found[:used].copy())
        member_buckets.append(bucket[:used].copy())
        buckets += new
        pairs += new_pairs

    _flatten(parent)
    sizes = np.bincount(parent, minlength=count)
    tied = np.flatnonzero(sizes[parent] > 1)
    tied = tied[np.argsort(parent[tied], kind="stable")]
    roots = parent[tied]
    starts = np.flatnonzero(np.concatenate([[True], roots[1:] != roots[:-1]])) if tied.size else np.empty(0, np.int64)
    place = np.full(count, -1, dtype=np.int64)
    place[tied] = np.arange(tied.size)

    slot_node = place[np.concatenate(members)]
    slot_order = np.argsort(slot_node, kind="stable")
    slot_node = slot_node[slot_order]
    url = first_url[tied]
    return Components(
        document=tied,
        starts=np.concatenate([starts, [tied.size]]).astype(np.int64),
        node=place[first_text[tied]],
        url=np.where(url >= 0, place[url], -1),
        slot_start=np.searchsorted(slot_node, np.arange(tied.size + 1)).astype(np.int64),
        slot_bucket=np.concatenate(member_buckets)[slot_order],
        slot_node=slot_node,
        buckets=buckets,
        bucket_pairs=pairs,
    )
