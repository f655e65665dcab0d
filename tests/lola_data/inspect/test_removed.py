"""Removed rows: the ones asked for, each as likely as any other, with the right texts beside them."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lola_data.errors import RecipeError
from lola_data.inspect.documents import sample_documents
from lola_data.inspect.places import find_places
from lola_data.inspect.removed import draw_removed, reason_name
from lola_data.inspect.rows import read_rows
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, Truth]]:
    return tmp_path / "work", {one.id: one for one in write_small_run(tmp_path / "work", model=False)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [("near-duplicate", "near"), ("Near_Duplicate", "near"), ("near", "near"), ("exact-duplicate", "exact"),
     ("same-url", "url"), ("wrong-language", "wrong_language"), ("low score", "low_score"), ("empty", "empty")],
)  # fmt: skip
def test_reason_names(given: str, expected: str) -> None:
    assert reason_name(given) == expected


@pytest.mark.parametrize("reasons", [[], ["near-duplicate"], ["wrong-language", "exact"], ["low_score"]])
def test_all_rows_of_the_reasons_are_drawn_and_no_others(
    run: tuple[Path, dict[str, Truth]], reasons: list[str]
) -> None:
    root, truth = run
    spots, total = draw_removed(find_places(str(root), removed=True), reasons, 1000, 5)
    wanted = {reason_name(reason) for reason in reasons}
    expected = {one.id for one in truth.values() if one.removed_at and (not wanted or one.end in wanted)}
    ids = [read_rows(s.shard.path, s.shard.lang, [s.number])[s.number].id for s in spots]
    assert total == len(expected) == len(ids)
    assert set(ids) == expected


def test_the_draw_is_even_over_shards_and_groups_of_unequal_size(run: tuple[Path, dict[str, Truth]]) -> None:
    root, truth = run
    places = find_places(str(root), removed=True)
    expected = sum(one.end == "wrong_language" for one in truth.values())
    trials = 60 * expected
    seen = Counter((s.shard.path, s.number) for seed in range(trials)
                   for s in draw_removed(places, ["wrong_language"], 1, seed)[0])  # fmt: skip
    assert len(seen) == expected
    chi_square = sum((count - 60) ** 2 / 60 for count in seen.values())
    assert chi_square < {2: 10.8, 3: 13.8, 4: 16.3, 5: 18.5, 6: 20.5, 7: 22.5}[expected]  # one in a thousand


def test_a_reason_that_is_not_there_is_refused_with_those_that_are(run: tuple[Path, dict[str, Truth]]) -> None:
    places = find_places(str(run[0]), removed=True)
    with pytest.raises(RecipeError, match=r"--reason urls: .*did you mean 'url'\?.*near \(3\)"):
        draw_removed(places, ["near", "urls"], 1, 0)


@pytest.mark.parametrize("missing", ["nothing", "raw", "changed"])
def test_texts_come_back_beside_the_survivor(run: tuple[Path, dict[str, Truth]], missing: str) -> None:
    root, truth = run
    if missing == "raw":
        shutil.rmtree(root / "raw")
    # Raw shards fetched anew, with other rows: their texts must not pass for those removed.
    if missing == "changed":
        shutil.copy(root / "raw/yo/yo_part_00000.parquet", root / "raw/de/de_part_00000.parquet")
        shutil.copy(root / "raw/yo/yo_part_00000.parquet", root / "raw/de/de_part_00001.parquet")
    seen, total = sample_documents(find_places(str(root), removed=True), 100, 1)
    assert total == len(seen) == sum(bool(one.removed_at) for one in truth.values())
    for one in seen:
        own = truth[str(one.row.id)]
        at_hand = missing == "nothing" or own.removed_at == "dedup" or (missing == "changed" and own.claimed != "de")
        assert one.text == (own.text.encode() if at_hand else None)
        if own.kept_id and missing != "changed":
            assert one.survivor is not None
            assert one.survivor.text == truth[own.kept_id].text.encode()
        assert own.kept_id or one.survivor is None


def test_raw_shards_that_lie_elsewhere(run: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    root, truth = run
    shutil.move(root / "raw", tmp_path / "elsewhere")
    places = find_places(str(root / "removed/identify"))
    without, _ = sample_documents(places, 100, 1)
    assert {one.text for one in without} == {None}
    found, _ = sample_documents(places, 100, 1, raw=str(tmp_path / "elsewhere"))
    assert all(one.text == truth[str(one.row.id)].text.encode() for one in found)
