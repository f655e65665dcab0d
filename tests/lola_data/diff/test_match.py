"""Pairs of records: the counts that counting by hand gives, whatever is there several times."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from lola_data.diff.match import Shelves, match
from lola_data.diff.records import MOST_NAMES, OTHERS, RECORD, Names, Records, hash128
from lola_data.errors import ShardError

PARTS = ("same", "changed", "moved", "went", "came")
Document = tuple[int, int, int]
"""Key, folder, text."""
documents = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), max_size=25)


def records(given: list[Document]) -> Records:
    """Records of documents, in their order."""
    found = np.zeros(len(given), RECORD)
    for number, (key, lang, text) in enumerate(given):
        found[number] = (key * 2**60, key + 7, text, lang, 0, 0, number)
    return found


def counted(first: list[Document], second: list[Document]) -> dict[str, int]:
    """The same rule on multisets, a step at a time."""
    ours, theirs = Counter(first), Counter(second)
    counts = {"same": sum((ours & theirs).values())}
    left, right = ours - theirs, theirs - ours
    for name, kept in (("changed", (0, 1)), ("moved", (0, 2)), ("moved", (0,))):
        a: Counter[tuple[int, ...]] = Counter()
        b: Counter[tuple[int, ...]] = Counter()
        for side, some in ((a, left), (b, right)):
            for one, count in some.items():
                side[tuple(one[place] for place in kept)] += count
        pairs = a & b
        counts[name] = counts.get(name, 0) + sum(pairs.values())
        left, right = _without(left, pairs, kept), _without(right, pairs, kept)
    return {**counts, "went": sum(left.values()), "came": sum(right.values())}


def _without(some: Counter[Document], pairs: Counter[tuple[int, ...]], kept: tuple[int, ...]) -> Counter[Document]:
    pairs = pairs.copy()
    left: Counter[Document] = Counter()
    for one in some.elements():
        key = tuple(one[place] for place in kept)
        if pairs[key]:
            pairs[key] -= 1
        else:
            left[one] += 1
    return left


@given(documents, documents)
def test_counts_and_pairs(first: list[Document], second: list[Document]) -> None:
    found = match(records(first), records(second))
    sizes = {name: len(getattr(found, name)) for name in PARTS}
    same = sum((Counter(first) & Counter(second)).values())
    assert sizes["same"] == same
    # Which of several copies is left over for the next step is free, so where keys come once all counts are fixed.
    if len({key for key, _, _ in first}) == len(first) and len({key for key, _, _ in second}) == len(second):
        assert sizes == counted(first, second)
    used = [*found.same[:, 0], *found.changed[:, 0], *found.moved[:, 0], *found.went]
    assert sorted(used) == list(range(len(first)))
    used = [*found.same[:, 1], *found.changed[:, 1], *found.moved[:, 1], *found.came]
    assert sorted(used) == list(range(len(second)))
    for a, b in found.same:
        assert first[a] == second[b]
    for a, b in found.changed:
        assert (first[a][:2], first[a][2] != second[b][2]) == (second[b][:2], True)
    for a, b in found.moved:
        assert (first[a][0], first[a][1] != second[b][1]) == (second[b][0], True)
    # Of no key is something left on both sides.
    assert not {first[a][0] for a in found.went} & {second[b][0] for b in found.came}


def test_a_document_in_the_same_folder_is_preferred() -> None:
    found = match(records([(1, 0, 0), (1, 1, 0)]), records([(1, 1, 5), (1, 2, 0), (1, 0, 0)]))
    assert found.same.tolist() == [[0, 2]]
    assert found.changed.tolist() == [[1, 0]]
    assert found.came.tolist() == [1]


@given(documents, documents, st.integers(1, 5))
def test_shelves_hold_all_and_keep_what_is_alike_together(
    first: list[Document], second: list[Document], pieces: int
) -> None:
    a, b = records(first), records(second)
    total = len(first) + len(second)
    memory = Shelves(total, 2**30)
    disk = Shelves(total, max(1, total * RECORD.itemsize * 4 // 3))
    results = []
    for shelves in (memory, disk):
        with shelves:
            for side, some in ((0, a), (1, b)):
                for part in np.array_split(some, pieces):
                    shelves.add(side, part)
            counts: Counter[str] = Counter()
            seen: tuple[list[int], list[int]] = ([], [])
            for ours, theirs in shelves:
                seen[0].extend(ours["row"])
                seen[1].extend(theirs["row"])
                found = match(ours, theirs)
                counts.update(
                    {name: len(getattr(found, name)) for name in ("same", "changed", "moved", "went", "came")}
                )
            assert (sorted(seen[0]), sorted(seen[1])) == (list(range(len(first))), list(range(len(second))))
            results.append(counts)
    assert memory.count == 1
    assert total < 3 or disk.count > 1
    assert results[0] == results[1]


def test_no_room_for_shelves() -> None:
    with Shelves(10**15, 2**20) as shelves, pytest.raises(ShardError, match="set TMPDIR"):
        shelves.check_space(10**15)


def test_hashes_are_xxh3_of_the_bytes() -> None:
    import pyarrow as pa

    values = ["", "a", "ẹ káàárọ̀", "x" * 5000, None]
    expected = [xxhash.xxh3_128_intdigest((value or "").encode()) for value in values]
    for array in (pa.array(values), pa.array(["skip", *values], pa.large_string())[1:]):
        assert [int(high) << 64 | int(low) for high, low in hash128(array)] == expected


def test_names_beyond_what_two_bytes_count_are_one() -> None:
    names = Names()
    numbers = [names.number(str(one)) for one in range(MOST_NAMES + 3)]
    assert numbers == [*range(MOST_NAMES), *[MOST_NAMES] * 3]
    assert list(names.numbers)[-1] == OTHERS
    assert names.number("5") == 5
