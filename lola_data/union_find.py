"""Union-find in an array of parents, for compiled kernels: who belongs together.

Paths are halved on the way to a root (Tarjan and van Leeuwen, "Worst-case analysis of set union algorithms", JACM 1984,
doi:10.1145/62.2160). The smaller root becomes the root of both, so that a group is named by its first item.
"""

from __future__ import annotations

import numba


@numba.njit(cache=True, nogil=True)
def find_root(parent, item):
    """The first item of the group of ``item``. ``parent``: (N,) integers, at the start each item its own."""
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@numba.njit(cache=True, nogil=True)
def join(parent, one, other):
    """Make one group of those of two items."""
    one, other = find_root(parent, one), find_root(parent, other)
    if one < other:
        parent[other] = one
    elif other < one:
        parent[one] = other
