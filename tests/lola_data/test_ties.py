"""Ties found part by part, and the groups they make, against a plain search through a graph."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lola_data.tied_groups import TiedGroups
from lola_data.ties import deal_entries, find_ties

COUNT = 2_000


def columns(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three kinds of keys from one small range, so that kinds must be told apart; not every document has each."""
    draws = np.random.default_rng(seed)
    return [(draws.integers(0, 1_500, COUNT).astype(np.uint64), draws.random(COUNT) < 0.3) for _ in range(3)]


def first_of_group(kinds: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """For each document the first that can be reached from it over equal keys of one kind."""
    holders: dict[tuple[int, int], list[int]] = {}
    for kind, (keys, valid) in enumerate(kinds):
        for document in np.flatnonzero(valid):
            holders.setdefault((kind, int(keys[document])), []).append(int(document))
    beside: list[list[list[int]]] = [[] for _ in range(COUNT)]
    for documents in holders.values():
        for document in documents:
            beside[document].append(documents)
    first = [-1] * COUNT
    for start in range(COUNT):
        if first[start] >= 0:
            continue
        waiting = [start]
        first[start] = start
        while waiting:
            for documents in beside[waiting.pop()]:
                for other in documents:
                    if first[other] < 0:
                        first[other] = start
                        waiting.append(other)
    return first


def grouped(kinds: list[tuple[np.ndarray, np.ndarray]], parts: int) -> tuple[TiedGroups, int]:
    keys, rows, starts = deal_entries(kinds, parts)
    ties = [find_ties(keys[a:b], rows[a:b]) for a, b in pairwise(starts)]
    groups = TiedGroups(COUNT)
    for one, other in ties:
        groups.mark(one)
        groups.mark(other)
    for one, other in ties:
        groups.join(one, other)
    return groups, sum(one.size for one, _ in ties)


@pytest.mark.parametrize("parts", [1, 2, 7, 64, 5_000])
def test_groups_are_those_of_the_graph(parts: int) -> None:
    kinds = columns()
    first = first_of_group(kinds)
    sizes = Counter(first)
    tied = [document for document in range(COUNT) if sizes[first[document]] > 1]
    groups, _ = grouped(kinds, parts)
    groups.cut(10)
    documents, part = groups.between(0, COUNT)
    assert documents.tolist() == tied
    assert groups.groups() == len({first[document] for document in tied})
    # Groups are whole, and about ten members come to a part.
    homes: dict[int, set[int]] = {}
    for document, number in zip(tied, part.tolist(), strict=True):
        homes.setdefault(first[document], set()).add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())
    assert groups.parts == -(-len(tied) // 10) == 54
    members = Counter(part.tolist())
    assert max(members) < groups.parts
    assert groups.largest == max(members.values()) < 40


@pytest.mark.parametrize("parts", [1, 64])
def test_entries_are_dealt_whole(parts: int) -> None:
    kinds = columns(1)
    keys, rows, starts = deal_entries(kinds, parts)
    assert keys.size == sum(int(valid.sum()) for _, valid in kinds) == starts[-1]
    assert Counter(rows.tolist()) == sum((Counter(np.flatnonzero(valid).tolist()) for _, valid in kinds), Counter())
    # An equal key is in one part, and parts are about equal: 1,800 entries over 64 parts are 28 +- 5.3 each.
    part_of = np.repeat(np.arange(parts), np.diff(starts))
    homes: dict[int, set[int]] = {}
    for key, part in zip(keys.tolist(), part_of.tolist(), strict=True):
        homes.setdefault(key, set()).add(part)
    assert all(len(parts_of_key) == 1 for parts_of_key in homes.values())
    assert np.diff(starts).max() < 28 + 8 * 5.3 if parts == 64 else True


def test_a_group_of_equal_keys_is_a_star() -> None:
    same = np.full(COUNT, 7, dtype=np.uint64)
    groups, ties = grouped([(same, np.ones(COUNT, dtype=bool))], 3)
    assert ties == COUNT - 1
    groups.cut(100)
    assert (groups.parts, groups.largest) == (20, COUNT)
    assert groups.between(64, 66)[0].tolist() == [0, 1]
    assert groups.groups() == 1


def test_no_ties_at_all() -> None:
    groups, ties = grouped([(np.arange(COUNT, dtype=np.uint64), np.ones(COUNT, dtype=bool))], 4)
    groups.cut(5)
    assert ties == groups.members == groups.parts == groups.largest == groups.groups() == 0
    assert groups.between(0, COUNT)[0].size == 0


def test_documents_beyond_31_bits() -> None:
    last = 2**32 - 2
    groups = TiedGroups(last + 1)
    one, other = np.array([5, 2**31 + 1], np.uint32), np.array([last, last], np.uint32)
    groups.mark(one)
    groups.mark(other)
    groups.join(one, other)
    groups.cut(3)
    assert (groups.parts, groups.groups(), groups.members) == (1, 1, 3)
    rows, parts = groups.between(2**31, 2**31 + 100)
    assert (rows.tolist(), parts.tolist()) == ([1], [0])
