"""The keys that the section ``scale`` is measured on, and the search through them, at a small size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks import scale

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DOCUMENTS = 20_000
GROUPS = 2_000


def test_keys_are_shared_as_planned() -> None:
    """30 % of 20,000 documents are 2,000 groups of three: two keys fewer for each in a shared band."""
    assert scale.groups_planted(DOCUMENTS) == GROUPS
    keys = scale.unit_keys(0, DOCUMENTS, DOCUMENTS)
    distinct = [np.unique(band).size for band in keys]
    assert distinct == [DOCUMENTS - 2 * GROUPS] * 4 + [DOCUMENTS] * 10
    assert np.unique(np.concatenate(keys)).size == sum(distinct)
    # A piece has the keys that the whole has there.
    assert np.array_equal(scale.unit_keys(5_000, 6_000, DOCUMENTS)[2], keys[2][5_000:6_000])


def test_groups_are_found_over_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "UNIT_DOCUMENTS", 3_000)
    assert scale.units(DOCUMENTS)[-1] == (18_000, 20_000)
    for step in (scale.load_spread, scale.load_tie, scale.load_group):
        step(tmp_path, folder=str(tmp_path), documents=DOCUMENTS)()
    assert (tmp_path / "found").read_text(encoding="utf-8") == f"{3 * GROUPS} {GROUPS}"
