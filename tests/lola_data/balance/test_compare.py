"""Two corpora beside each other, against figures worked out by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.balance.compare import compare, distances, shared_unit
from lola_data.balance.measure import measure
from lola_data.schemas import RAW
from tests.lola_data.balance.trees import write_rows, write_run, write_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.balance.measure import Balance


def corpus(root: Path, sizes: dict[str, int]) -> Balance:
    for lang, size in sizes.items():
        rows = [{"text": "x" * size, "source": "mC4", "url": f"https://{lang}.org/"}] if size else []
        write_rows(root / lang / "a.parquet", RAW, rows)
    return measure(root)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Balance, Balance]:
    ours = corpus(tmp_path / "ours", {"de": 50, "yo": 30, "nl": 20, "fr": 0})
    return ours, corpus(tmp_path / "theirs", {"de": 25, "yo": 25, "sw": 50})


def test_shares_beside_each_other(pair: tuple[Balance, Balance]) -> None:
    table = compare(*pair)
    columns = ("lang", "name", "documents", "other_documents", "bytes", "other_bytes", "share", "other_share", "ratio")
    assert table.select(columns).rows() == [
        ("de", "German", 1, 1, 50, 25, 0.5, 0.25, 2.0),
        ("yo", "Yoruba", 1, 1, 30, 25, 0.3, 0.25, 1.2),
        ("nl", "Dutch", 1, 0, 20, 0, 0.2, 0.0, None),
        ("sw", "Swahili", 0, 1, 0, 50, 0.0, 0.5, 0.0),
    ]
    assert table["difference"].to_list() == pytest.approx([0.25, 0.05, 0.2, -0.5])
    assert table["mean_length"].to_list() == [50, 30, 20, None]
    assert table["other_mean_length"].to_list() == [25, 25, None, 50]
    assert table["script"].to_list() == ["Latn"] * 4


def test_distances(pair: tuple[Balance, Balance]) -> None:
    found = distances(compare(*pair))
    assert found.total_variation == pytest.approx((0.25 + 0.05 + 0.2 + 0.5) / 2)
    middle, ours, theirs = ([0.375, 0.275, 0.1, 0.25], [0.5, 0.3, 0.2], [0.25, 0.25, 0.5])
    entropy = [-sum(share * math.log2(share) for share in shares) for shares in (middle, ours, theirs)]
    assert found.jensen_shannon == pytest.approx(entropy[0] - (entropy[1] + entropy[2]) / 2)
    assert (found.only_here, found.only_there) == (("nl",), ("sw",))
    turned = distances(compare(pair[1], pair[0]))
    assert turned.total_variation == pytest.approx(found.total_variation)
    assert turned.jensen_shannon == pytest.approx(found.jensen_shannon)
    assert (turned.only_here, turned.only_there) == (("sw",), ("nl",))


def test_the_same_and_the_wholly_different(tmp_path: Path, pair: tuple[Balance, Balance]) -> None:
    same = distances(compare(pair[0], pair[0]))
    assert (same.total_variation, same.jensen_shannon) == (0.0, pytest.approx(0.0, abs=1e-12))
    apart = distances(compare(pair[0], corpus(tmp_path / "others", {"ja": 7, "ko": 9})))
    assert (apart.total_variation, apart.jensen_shannon) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(("by", "groups"), [("script", 1), ("family", 2), ("source", 1), ("domain", 4)])
def test_other_groups(pair: tuple[Balance, Balance], by: Any, groups: int) -> None:
    table = compare(*pair, by=by)
    assert (table.height, table.columns[0]) == (groups, by)
    assert table["documents"].sum() == table["other_documents"].sum() == 3
    assert table["share"].sum() == pytest.approx(1)
    assert table["other_share"].sum() == pytest.approx(1)


def test_texts_against_token_shards(tmp_path: Path, pair: tuple[Balance, Balance]) -> None:
    write_tokens(tmp_path / "tokens/train/de_00000", [9, 1, 2])
    write_tokens(tmp_path / "tokens/train/yo_00000", [9])
    shards = measure(tmp_path / "tokens")
    assert [shared_unit(pair[0], other) for other in (pair[1], shards)] == ["bytes", "documents"]
    assert shared_unit(shards, shards) == "tokens"
    table = compare(pair[0], shards)
    shown = {row["lang"]: (row["share"], row["other_share"], row["other_tokens"]) for row in table.to_dicts()}
    assert shown["de"] == (pytest.approx(1 / 3), 0.75, 12)
    assert shown["nl"] == (pytest.approx(1 / 3), 0.0, None)
    assert table["other_bytes"].null_count() == table.height


def test_of_work_folders_the_subjects_are_compared(tmp_path: Path, pair: tuple[Balance, Balance]) -> None:
    write_run(tmp_path / "work")
    table = compare(measure(tmp_path / "work"), pair[0])
    assert dict(table.select("lang", "documents").iter_rows()) == {"br": 1, "de": 2, "yo": 2, "nl": 0}
