"""Which documents of a language go, and in favour of which kept document.

In: per document (N of them, in order of id) a 128-bit digest of its normalised text, a 128-bit hash of its URL, its
number of shingles, and ways to read band keys and shingle sets. Out: :class:`Decisions`, by one rule:

    The documents are visited once, in priority order. A document is removed if and only if a document already *kept*
    has the same normalised text (``exact``), or else the same URL (``url``), or else shares an LSH band key with it and
    has a Jaccard similarity of at least the threshold to it (``near``; of several such, the most similar, then the one
    visited first). Every other document is kept.

So each removal names a document that is there to be looked at and is like the removed one; nothing goes along a chain
of neighbours. The outcome depends on the documents and their order alone, not on how the work is cut up.

Work: documents of one digest are one *node*, compared once. Components of tied documents (:mod:`lola_data.components`)
cannot influence each other; they are judged in blocks whose shingle sets fit ``memory_bytes``. A component larger than
a block is judged block after block, each first against the kept documents of the blocks before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from lola_data.components import BandKeys, Components, Indices, Keys, find_components

KEPT, EXACT, URL, NEAR = 0, 1, 2, 3
REASONS: tuple[str | None, ...] = (None, "exact", "url", "near")
"""Name of each code in :attr:`Decisions.reason`; None: kept."""

Survivor: TypeAlias = Literal["first", "longest", "highest_score"]
FetchSets: TypeAlias = Callable[[Indices], tuple[Keys, Indices]]
"""From D ascending document indices to their shingle sets: flat uint64 hashes, ascending and distinct within a
document, and (D + 1,) int64 offsets."""

MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Decisions:
    """For each of N documents what became of it, and what finding out has cost.

    ``keeper`` (N,) int64: the kept document it was removed for, -1 where kept. ``reason`` (N,) uint8: a code of
    :data:`REASONS`. ``similarity`` (N,) float64: exact Jaccard for ``near``, 1 for ``exact``, NaN for ``url`` and kept.
    ``cluster_size`` (N,) int32: for a kept document 1 + the number removed for it, for a removed one 0.
    ``bucket_pairs``: pairs of different texts in a common bucket, counted once for each band they meet in.
    ``verified_pairs``: comparisons with a kept text, each pair once; ``rejected_pairs``: those below the threshold.
    """

    keeper: Indices
    reason: npt.NDArray[np.uint8]
    similarity: npt.NDArray[np.float64]
    cluster_size: npt.NDArray[np.int32]
    bucket_pairs: int
    verified_pairs: int
    rejected_pairs: int

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(N,) bool."""
        return self.reason == KEPT


def priority_order(survivor: Survivor, *, sizes: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]) -> Indices:
    """Document indices in visiting order, (N,) int64: as they are (``first``), from large to small ``sizes``
    (``longest``) or from high to low ``scores``, NaN last (``highest_score``); ties by index."""
    if survivor == "first":
        return np.arange(sizes.size, dtype=np.int64)
    if survivor == "longest":
        return np.argsort(-sizes.astype(np.int64), kind="stable")
    if survivor == "highest_score":
        return np.argsort(-scores.astype(np.float64), kind="stable")
    raise ValueError(f"survivor is first, longest or highest_score, not {survivor!r}")


@numba.njit(cache=True, nogil=True)
def jaccard_at_least(one, other, threshold):
    """Jaccard similarity of two ascending sets of uint64, or -1 where it is below ``threshold``.

    Stops as soon as what is left of both sets can no longer reach it.
    """
    sizes = one.size + other.size
    # An intersection below this gives a similarity below the threshold, rounding allowed for.
    needed = np.int64(threshold / (1.0 + threshold) * sizes) - 1
    common = np.int64(0)
    i = np.int64(0)
    j = np.int64(0)
    while i < one.size and j < other.size:
        left, right = one[i], other[j]
        if left == right:
            common += 1
            i += 1
            j += 1
        else:
            if left < right:
                i += 1
            else:
                j += 1
            if common + min(one.size - i, other.size - j) < needed:
                return -1.0
    similarity = common / max(1, sizes - common)
    return similarity if similarity >= threshold else -1.0


@numba.njit(cache=True, nogil=True)
def _compare(node, other, sets, own_set, other_sets, other_set, threshold, best, best_similarity, kept_by):
    """Jaccard of two nodes, taken as the node's best where it is; whether it reaches the threshold."""
    values, offsets = sets
    other_values, other_offsets = other_sets
    mine, its = own_set[node], other_set[other]
    similarity = jaccard_at_least(
        values[offsets[mine] : offsets[mine + 1]],
        other_values[other_offsets[its] : other_offsets[its + 1]],
        threshold,
    )
    if similarity < 0.0:
        return False
    if similarity > best_similarity[node] or (
        similarity == best_similarity[node] and kept_by[other] < kept_by[best[node]]
    ):
        best_similarity[node] = similarity
        best[node] = other
    return True


@numba.njit(cache=True, nogil=True)
def _judge(start, end, node_of, url_of, slots, lists, state, sets, set_of, threshold, keeper, reason, similarity):
    """Visit members ``start`` to ``end``; every kept document before ``start`` has been compared already.

    ``lists`` chain the kept nodes of each bucket, the last kept first. ``judged[node]``: the last member up to which
    kept documents have been compared with the node. Returns verified and rejected pairs.
    """
    slot_start, slot_bucket, slot_node = slots
    head, following = lists
    kept_by, kept_url, best, best_similarity, judged, stamp = state
    verified = rejected = 0
    for member in range(start, end):
        node, url = node_of[member], url_of[member]
        if kept_by[node] >= 0:
            keeper[member], reason[member], similarity[member] = kept_by[node], EXACT, 1.0
            continue
        if url >= 0 and kept_url[url] >= 0:
            keeper[member], reason[member] = kept_url[url], URL
            continue
        for slot in range(slot_start[node], slot_start[node + 1]):
            link = head[slot_bucket[slot]]
            while link >= 0 and kept_by[slot_node[link]] > judged[node]:
                other = slot_node[link]
                if stamp[other] != member:
                    stamp[other] = member
                    verified += 1
                    if not _compare(node, other, sets, set_of, sets, set_of, threshold, best, best_similarity, kept_by):
                        rejected += 1
                link = following[link]
        judged[node] = member
        if best[node] >= 0:
            keeper[member], reason[member] = kept_by[best[node]], NEAR
            similarity[member] = best_similarity[node]
            continue
        kept_by[node] = member
        if url >= 0:
            kept_url[url] = member
        for slot in range(slot_start[node], slot_start[node + 1]):
            following[slot] = head[slot_bucket[slot]]
            head[slot_bucket[slot]] = slot
    return verified, rejected


@numba.njit(cache=True, nogil=True)
def _mark_carried(nodes, slots, lists, kept_by, judged, needed):
    """Mark the kept nodes that the given nodes must still be compared with."""
    slot_start, slot_bucket, slot_node = slots
    head, following = lists
    for node in nodes:
        for slot in range(slot_start[node], slot_start[node + 1]):
            link = head[slot_bucket[slot]]
            while link >= 0 and kept_by[slot_node[link]] > judged[node]:
                needed[slot_node[link]] = True
                link = following[link]


@numba.njit(cache=True, nogil=True)
def _compare_carried(nodes, slots, lists, state, sets, set_of, kept_sets, kept_set_of, threshold):
    """Compare the given nodes with those kept earlier whose sets are loaded. Returns verified and rejected pairs."""
    slot_start, slot_bucket, slot_node = slots
    head, following = lists
    kept_by, _, best, best_similarity, judged, stamp = state
    verified = rejected = 0
    for node in nodes:
        for slot in range(slot_start[node], slot_start[node + 1]):
            link = head[slot_bucket[slot]]
            while link >= 0 and kept_by[slot_node[link]] > judged[node]:
                other = slot_node[link]
                if kept_set_of[other] >= 0 and stamp[other] != -2 - node:
                    stamp[other] = -2 - node
                    verified += 1
                    if not _compare(
                        node, other, sets, set_of, kept_sets, kept_set_of, threshold, best, best_similarity, kept_by
                    ):
                        rejected += 1
                link = following[link]
    return verified, rejected


def _blocks(ties: Components, set_bytes: Indices, budget: int) -> Iterator[tuple[int, int]]:
    """Cut the M members into blocks (start, end) whose sets fit the budget, whole components where those do.

    ``set_bytes`` (M,): size of the set of each member's node.
    """
    members = ties.document.size
    leads = ties.node == np.arange(members)
    running = np.concatenate([[0], np.cumsum(np.where(leads, set_bytes, 0))])
    repeated = np.concatenate([[0], np.cumsum(set_bytes)])
    totals = running[ties.starts]
    start = 0
    while start < members:
        component = int(np.searchsorted(ties.starts, start, side="right")) - 1
        end = 0
        if ties.starts[component] == start:
            end = int(ties.starts[np.searchsorted(totals, totals[component] + budget, side="right") - 1])
        if end <= start:
            # A component too large by itself. Copies of a text may fall into several of its blocks, each of which then
            # loads its set, so here every member counts.
            fits = int(np.searchsorted(repeated, repeated[start] + budget, side="right")) - 1
            end = min(max(fits, start + 1), int(ties.starts[component + 1]))
        yield start, end
        start = end


class _Judge:
    """The one pass over the tied documents."""

    def __init__(
        self, ties: Components, documents: Indices, shingles: Indices, fetch: FetchSets, threshold: float, budget: int
    ) -> None:
        members = ties.document.size
        self._ties = ties
        self._documents = documents
        self._fetch = fetch
        self._threshold = threshold
        self._budget = budget
        self._has_slots = np.diff(ties.slot_start) > 0
        self._set_bytes = np.where(self._has_slots[ties.node], 8 * shingles, 0)
        self._slots = (ties.slot_start, ties.slot_bucket, ties.slot_node)
        self._lists = (
            np.full(ties.buckets, -1, dtype=np.int64),
            np.empty(ties.slot_node.size, dtype=np.int64),
        )
        self._kept_by = np.full(members, -1, dtype=np.int64)
        self._judged = np.full(members, -1, dtype=np.int64)
        self._state = (
            self._kept_by,
            np.full(members, -1, dtype=np.int64),
            np.full(members, -1, dtype=np.int64),
            np.full(members, -1.0, dtype=np.float64),
            self._judged,
            np.full(members, -1, dtype=np.int64),
        )
        self._set_of = np.full(members, -1, dtype=np.int64)
        self._kept_set_of = np.full(members, -1, dtype=np.int64)
        self.keeper = np.full(members, -1, dtype=np.int64)
        self.reason = np.zeros(members, dtype=np.uint8)
        self.similarity = np.full(members, np.nan, dtype=np.float64)
        self.verified = 0
        self.rejected = 0

    def run(self) -> None:
        """Judge every member."""
        for start, end in _blocks(self._ties, self._set_bytes, self._budget):
            nodes = np.unique(self._ties.node[start:end])
            # A copy of a text that is kept already needs no comparison.
            nodes = nodes[self._has_slots[nodes] & (self._kept_by[nodes] < 0)]
            sets = self._load(nodes, self._set_of)
            self._carry(start, nodes, sets)
            self._count(
                _judge(
                    start, end, self._ties.node, self._ties.url, self._slots, self._lists, self._state, sets,
                    self._set_of, self._threshold, self.keeper, self.reason, self.similarity,
                )
            )  # fmt: skip
            self._set_of[nodes] = -1

    def _load(self, nodes: Indices, set_of: Indices) -> tuple[Keys, Indices]:
        """The shingle sets of nodes; ``set_of`` is told where each lies."""
        if nodes.size == 0:
            return np.empty(0, dtype=np.uint64), np.zeros(1, dtype=np.int64)
        documents = self._documents[nodes]
        order = np.argsort(documents)
        set_of[nodes[order]] = np.arange(nodes.size)
        return self._fetch(documents[order])

    def _carry(self, start: int, nodes: Indices, sets: tuple[Keys, Indices]) -> None:
        """Compare the nodes of a block with the documents kept in earlier blocks."""
        needed = np.zeros(self._kept_by.size, dtype=bool)
        _mark_carried(nodes, self._slots, self._lists, self._kept_by, self._judged, needed)
        kept = np.flatnonzero(needed)
        running = np.concatenate([[0], np.cumsum(self._set_bytes[kept])])
        first = 0
        while first < kept.size:
            last = max(first + 1, int(np.searchsorted(running, running[first] + self._budget, side="right")) - 1)
            chunk = kept[first:last]
            first = last
            kept_sets = self._load(chunk, self._kept_set_of)
            self._count(
                _compare_carried(
                    nodes, self._slots, self._lists, self._state, sets, self._set_of, kept_sets, self._kept_set_of,
                    self._threshold,
                )
            )  # fmt: skip
            self._kept_set_of[chunk] = -1
        self._judged[nodes] = start - 1

    def _count(self, pairs: tuple[int, int]) -> None:
        self.verified += pairs[0]
        self.rejected += pairs[1]


def deduplicate(
    *,
    order: Indices,
    shingles: Indices,
    digests: Keys | None = None,
    urls: Keys | None = None,
    has_url: npt.NDArray[np.bool_] | None = None,
    band_keys: BandKeys | None = None,
    bands: int = 0,
    fetch: FetchSets | None = None,
    threshold: float = 0.8,
    memory_bytes: int = MEMORY_BYTES,
) -> Decisions:
    """Decide on N documents by the rule of the module docstring.

    Args:
        order: (N,) int64, document indices in visiting order (:func:`priority_order`).
        shingles: (N,) int64, shingles of each document, repeats counted or not: only whether there are any, and a bound
            on the memory its set takes.
        digests: (N, 2) uint64 of the normalised texts; None leaves the rule ``exact`` out.
        urls, has_url: (N, 2) uint64 and (N,) bool; None leaves the rule ``url`` out.
        band_keys, bands, fetch: LSH keys and shingle sets; ``bands`` 0 leaves the rule ``near`` out. Each band is asked
            for once.
        threshold: Jaccard similarity at which a document is removed, in (0, 1].
        memory_bytes: bound on the shingle sets held at one time (a single set may be larger).
    """
    if bands and (band_keys is None or fetch is None):
        raise ValueError("bands need band_keys and fetch")
    count = order.size
    with_url = np.ones(count, dtype=bool) if has_url is None else has_url
    ties = find_components(
        digests=None if digests is None else digests[order],
        urls=None if urls is None else urls[order],
        has_url=with_url[order],
        shingled=shingles[order] > 0,
        band_keys=(lambda band: band_keys(band)[order]) if band_keys is not None else _no_band,
        bands=bands,
    )
    documents = order[ties.document]
    judge = _Judge(ties, documents, shingles[documents], fetch or _no_sets, threshold, max(1, memory_bytes // 2))
    judge.run()

    removed = judge.keeper >= 0
    keeper = np.full(count, -1, dtype=np.int64)
    keeper[documents[removed]] = documents[judge.keeper[removed]]
    reason = np.zeros(count, dtype=np.uint8)
    reason[documents] = judge.reason
    similarity = np.full(count, np.nan, dtype=np.float64)
    similarity[documents] = judge.similarity
    cluster_size = np.where(keeper >= 0, 0, 1 + np.bincount(keeper[keeper >= 0], minlength=count))
    return Decisions(
        keeper=keeper,
        reason=reason,
        similarity=similarity,
        cluster_size=cluster_size.astype(np.int32),
        bucket_pairs=ties.bucket_pairs,
        verified_pairs=judge.verified,
        rejected_pairs=judge.rejected,
    )


def _no_band(band: int) -> Keys:
    raise IndexError(f"there is no band {band}")


def _no_sets(documents: Indices) -> tuple[Keys, Indices]:
    raise LookupError(f"no shingle sets for {documents.size} documents")
