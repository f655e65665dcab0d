"""Which shards are taken: limits on shards, documents and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lola_data.errors import StageError
from pipelines.selection import pick, ranked
from pipelines.sources import RawShard
from tests.pipelines.download_cases import corpus, stage_of, write_tree

if TYPE_CHECKING:
    from pathlib import Path


def shards_of(sizes: dict[str, list[int]]) -> list[RawShard]:
    return [
        RawShard(lang, f"{lang}/{number:04d}.parquet", f"{lang}/{number:04d}.parquet", size)
        for lang, some in sizes.items()
        for number, size in enumerate(some)
    ]


SIZES = st.dictionaries(
    st.sampled_from(["de", "en", "sw", "yo", "zh"]), st.lists(st.integers(1, 100), min_size=1, max_size=12), min_size=1
)


class TestBytes:
    @given(SIZES, st.integers(0, 10), st.floats(0, 1))
    def test_never_more_than_allowed_and_one_of_each_language(
        self, sizes: dict[str, list[int]], seed: int, share: float
    ) -> None:
        shards = shards_of(sizes)
        least = sum(some[0].bytes for some in ranked(shards, seed).values())
        budget = least + int(share * sum(shard.bytes for shard in shards))
        picked = pick(shards, seed, max_bytes=budget)
        assert sum(shard.bytes for shard in picked) <= budget
        assert {shard.lang for shard in picked} == set(sizes)

    @given(SIZES, st.integers(0, 10), st.integers(0, 300), st.integers(0, 300))
    def test_a_larger_budget_keeps_what_a_smaller_one_took(
        self, sizes: dict[str, list[int]], seed: int, more: int, yet_more: int
    ) -> None:
        shards = shards_of(sizes)
        least = sum(some[0].bytes for some in ranked(shards, seed).values())
        small = pick(shards, seed, max_bytes=least + more)
        large = pick(shards, seed, max_bytes=least + more + yet_more)
        assert {shard.path for shard in small} <= {shard.path for shard in large}

    def test_small_languages_come_whole_and_large_ones_share_the_rest(self) -> None:
        # By hand: yo has 2 of 10 bytes each. Of the 100 bytes left, de and en get five shards of 10 each.
        shards = shards_of({"de": [10] * 50, "en": [10] * 80, "yo": [10, 10]})
        picked = pick(shards, 7, max_bytes=120)
        counts = {lang: sum(shard.lang == lang for shard in picked) for lang in ("de", "en", "yo")}
        assert counts == {"de": 5, "en": 5, "yo": 2}

    def test_a_budget_below_one_shard_each_is_refused_with_what_it_takes(self) -> None:
        with pytest.raises(
            StageError, match=r"each of the 2 languages takes 3,000,000,000 bytes, more than `max_bytes`, which is 2,9"
        ):
            pick(shards_of({"de": [2 * 10**9], "en": [10**9]}), 1, max_bytes=2_900_000_000)


class TestDocuments:
    ROWS = 100

    def test_whole_shards_as_long_as_they_hold_no_more(self) -> None:
        shards = shards_of({"de": [1] * 20, "yo": [1]})
        picked = pick(shards, 3, max_documents=350, rows=lambda _: self.ROWS)
        assert sum(shard.lang == "de" for shard in picked) == 3
        assert sum(shard.lang == "yo" for shard in picked) == 1
        order = ranked(shards, 3)["de"]
        assert {shard.path for shard in picked if shard.lang == "de"} == {shard.path for shard in order[:3]}

    def test_one_at_least_and_no_footer_read_in_vain(self) -> None:
        asked: list[str] = []

        def rows(shard: RawShard) -> int:
            asked.append(shard.path)
            return self.ROWS

        picked = pick(shards_of({"de": [1] * 20}), 3, max_documents=10, rows=rows)
        assert len(picked) == 1
        assert len(asked) == 1

    def test_row_counts_come_from_the_footers(self, tmp_path: Path) -> None:
        # Shard number n has 3 + n rows: 3, 4, 5 and 6.
        source = write_tree(tmp_path / "source", corpus({"de": 4}))
        options = ["download.source=local", f"download.path={source}", "download.max_documents=10"]
        works = [work.to_json()["path"] for work in stage_of(tmp_path / "w", *options).phases[0].plan()]
        order = [shard.path for shard in ranked(shards_of({"de": [0] * 4}), 1234)["de"]]
        assert order  # the ranking goes by path, so it must be that of the real paths
        rows = {f"de/de_part_{number:05d}.parquet": 3 + number for number in range(4)}
        assert sum(rows[path] for path in works) <= 10
        left = [path for path in rows if path not in works]
        assert all(sum(rows[path] for path in works) + rows[path] > 10 for path in left[:1]) or len(works) == 4


def test_limits_work_together() -> None:
    shards = shards_of({"de": [10] * 50, "yo": [10] * 3})
    picked = pick(shards, 1, max_shards=4, max_documents=300, max_bytes=50, rows=lambda _: 100)
    counts = {lang: sum(shard.lang == lang for shard in picked) for lang in ("de", "yo")}
    assert counts == {"de": 3, "yo": 2}
