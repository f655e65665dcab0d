"""What a path holds, and how many rows its files have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import fsspec
import pytest

from lola_data.errors import RecipeError, ShardError
from lola_data.inspect.places import check_languages, find_places, rows_of_shards, shown_path, tree_of, work_folder
from lola_data.layout import Layout
from lola_data.schemas import RAW
from tests.lola_data.balance.trees import write_rows
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Truth]]:
    root = tmp_path_factory.mktemp("run") / "work"
    return root, write_small_run(root, model=False)


@pytest.mark.parametrize(
    ("inner", "removed", "names", "kind"),
    [
        ("", False, ["sampled"], "text"),
        ("raw", False, ["raw"], "text"),
        ("raw/de", False, ["raw"], "text"),
        ("deduped/de/de_part_00000.parquet", False, ["deduped"], "text"),
        ("", True, ["removed/identify", "removed/dedup"], "removed"),
        ("removed", False, ["removed/identify", "removed/dedup"], "removed"),
        ("removed/dedup", True, ["removed/dedup"], "removed"),
        ("removed/identify/yo", False, ["removed/identify"], "removed"),
        ("tokens", False, ["tokens"], "tokens"),
        ("tokens/valid", False, ["tokens"], "tokens"),
    ],
)
def test_kinds_of_paths(run: tuple[Path, list[Truth]], inner: str, removed: bool, names: list[str], kind: str) -> None:
    root, _ = run
    for path in (str(root / inner), f"{root / inner}/"):
        places = find_places(path, removed=removed)
        assert [place.name for place in places] == names
        assert {place.kind for place in places} == {kind}
        assert {place.workdir for place in places} == {str(root)}


def test_rows_come_from_a_manifest_that_fits_else_from_the_files(run: tuple[Path, list[Truth]]) -> None:
    root, truth = run
    (place,) = find_places(str(root / "raw"))
    assert shown_path(place, place.shards[0].path) == "raw/ar/ar_part_00000.parquet"
    assert rows_of_shards(place) == [7, 5, 13, 8, 9]
    assert sum(rows_of_shards(place)) == len(truth)
    # The manifest is believed where the size of the file fits: that is what makes a draw cheap.
    manifest = root / "raw/manifest.json"
    before = manifest.read_text()
    value = json.loads(before)
    for file in value["files"]:
        file["rows"] += 1000
    value["files"][0]["bytes"] += 1
    manifest.write_text(json.dumps(value))
    first = value["files"][0]["path"].split("/")[-1]
    counts = dict(zip((shard.path.split("/")[-1] for shard in place.shards), rows_of_shards(place), strict=True))
    manifest.write_text(before)
    assert {name for name, rows in counts.items() if rows < 1000} == {first}


def test_a_tree_of_no_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "corpus/de/a.parquet", RAW, [{"text": "x"}] * 3)
    (place,) = find_places(str(tmp_path / "corpus"))
    assert (place.name, place.kind, place.workdir, rows_of_shards(place)) == ("corpus", "text", None, [3])
    assert work_folder(str(tmp_path / "corpus")) is None
    with pytest.raises(ShardError, match="no removed rows"):
        find_places(str(tmp_path / "corpus"), removed=True)


def test_a_url(tmp_path: Path) -> None:
    write_rows(tmp_path / "de/a.parquet", RAW, [{"text": "x"}] * 4)
    memory = fsspec.filesystem("memory")
    memory.pipe("/places/raw/de/a.parquet", (tmp_path / "de/a.parquet").read_bytes())
    try:
        (place,) = find_places("memory://places/raw")
        assert place.root == "memory:///places/raw"
        assert shown_path(place, place.shards[0].path) == "raw/de/a.parquet"
        assert rows_of_shards(place) == [4]
    finally:
        memory.rm("/places", recursive=True)


def test_what_is_not_there(run: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, _ = run
    assert tree_of(Layout(str(tmp_path / "empty")), "dedup") is None
    with pytest.raises(ShardError, match="no such file"):
        find_places(str(tmp_path / "nowhere"))
    with pytest.raises(ShardError, match="name its work folder"):
        find_places(str(root / "sampled"), removed=True)
    places = find_places(str(root))
    check_languages(places, ["de", "br"], "x")
    with pytest.raises(RecipeError, match="nearest of its 5 languages is 'de'"):
        check_languages(places, ["deu"], "x")
