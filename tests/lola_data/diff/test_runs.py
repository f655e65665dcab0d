"""Two runs compared, and the audit of one, against what is known of every document."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Literal

import pyarrow.parquet as pq
import pytest

from lola_data.diff.audit import NOT_SAMPLED, audit
from lola_data.diff.runs import Setting, compare_raw, compare_runs, differing
from lola_data.errors import ShardError
from lola_data.layout import Layout
from tests.lola_data.inspect.trees import Truth, write_small_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, list[Truth]]:
    return tmp_path / "work", write_small_run(tmp_path / "work", model=False)


def stage_of(one: Truth) -> str:
    return one.removed_at or ("sample" if one.end == NOT_SAMPLED else "")


def test_the_audit_is_what_counting_gives(run: tuple[Path, list[Truth]]) -> None:
    root, truth = run
    found = audit(Layout(str(root)))
    assert found.stages == ["identify", "dedup", "sample"]
    for stage, place in (("identify", "claimed"), ("dedup", "lang"), ("sample", "lang")):
        earlier = {"identify": set(), "dedup": {"identify"}, "sample": {"identify", "dedup"}}[stage]
        given = [one for one in truth if one.removed_at not in earlier]
        groupings: list[tuple[Literal["language", "source"], str]] = [("language", place), ("source", "source")]
        for by, field in groupings:
            counts = Counter(getattr(one, field) for one in given)
            gone: dict[str, Counter[str]] = defaultdict(Counter)
            sizes: dict[str, Counter[str]] = defaultdict(Counter)
            for one in given:
                if stage_of(one) == stage:
                    gone[getattr(one, field)][one.end] += 1
                    sizes[getattr(one, field)][one.end] += len(one.text.encode())
            rows = found.rows(by, stage)
            assert {row.group: row.given for row in rows} == counts
            for row in rows:
                assert {reason: r.documents for reason, r in row.removed.items()} == gone[row.group]
                if stage != "sample" or by == "language":
                    assert {reason: r.bytes for reason, r in row.removed.items()} == sizes[row.group]
                assert row.share == pytest.approx(sum(gone[row.group].values()) / counts[row.group])
    assert found.relabelled == {("cy", "br"): sum(o.lang == "br" and o.removed_at != "identify" for o in truth)}


@pytest.mark.parametrize("languages", [["cy"], ["br"], ["de", "yo"]])
def test_the_audit_of_some_languages_is_that_part_of_the_whole(
    run: tuple[Path, list[Truth]], languages: list[str]
) -> None:
    whole, part = audit(Layout(str(run[0]))), audit(Layout(str(run[0])), languages=languages)
    for stage in whole.stages:
        expected = [row for row in whole.rows("language", stage) if row.group in languages]
        assert part.rows("language", stage) == expected


def test_the_audit_needs_no_raw_shards_and_follows_the_run(run: tuple[Path, list[Truth]]) -> None:
    root, _ = run
    whole = audit(Layout(str(root)))
    shutil.rmtree(root / "raw")
    shutil.rmtree(root / "sampled")
    found = audit(Layout(str(root)))
    assert found.stages == ["identify", "dedup"]
    for stage in found.stages:
        assert found.rows("source", stage) == whole.rows("source", stage)
    assert audit(Layout(str(root / "nothing"))).stages == []


def test_samples_of_the_audit(run: tuple[Path, list[Truth]]) -> None:
    root, truth = run
    by_id = {one.id: one for one in truth}
    found = audit(Layout(str(root)), samples=2, seed=1).samples
    shown = Counter((one.place.name, by_id[str(one.row.id)].end) for one in found)
    there = Counter((f"removed/{one.removed_at}", one.end) for one in truth if one.removed_at)
    assert shown == {key: min(2, count) for key, count in there.items()}
    for seen in found:
        one = by_id[str(seen.row.id)]
        assert seen.text == one.text.encode()
        assert (seen.survivor and seen.survivor.text) == (by_id[one.kept_id].text.encode() if one.kept_id else None)
    # near: three documents, of two languages; one of each is shown.
    near = [seen.row.lang for seen in found if seen.row.values["reason"] == "near"]
    assert sorted(near) == ["br", "de"]


def test_a_run_and_one_with_other_decisions(run: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, truth = run
    other = tmp_path / "other"
    shutil.copytree(root, other)
    fingerprint = other / "state/dedup/fingerprint.json"
    fingerprint.write_text(json.dumps({"settings": {"threshold": 0.9, "url": True, "bands": 20}, "stage": "dedup"}))
    # The other run kept what this one removed as `url`, and sampled everything.
    shutil.rmtree(other / "removed/dedup/yo")
    for tree in ("deduped", "sampled"):
        for path in (other / "identified/yo").glob("*.parquet"):
            table = pq.read_table(path)
            pq.write_table(table.append_column("cluster_size", [[1] * table.num_rows]), other / tree / "yo" / path.name)
    shutil.copytree(other / "deduped/de", other / "sampled/de", dirs_exist_ok=True)
    found = compare_runs(Layout(str(root)), Layout(str(other)), samples=50)
    assert found.settings == [Setting("dedup", "bands", "-", "20"), Setting("dedup", "threshold", "0.8", "0.9")]
    assert found.raw is not None
    assert found.raw.alike
    assert list(found.stages) == ["identify", "dedup", "sample"]
    assert found.stages["identify"].totals.same == sum(one.removed_at != "identify" for one in truth)
    assert (found.stages["dedup"].totals.came, found.stages["dedup"].totals.went) == (1, 0)
    last = found.stages["sample"]
    unsampled = [one.id for one in truth if one.end == NOT_SAMPLED]
    assert last.totals.came == 1 + len(unsampled)
    assert not last.with_text
    why = {sample.row.id: sample.why for sample in last.samples}
    assert why == {
        "yo/yo_part_00000/8": "removed at dedup: url, yo/yo_part_00000/0 was kept",
        **dict.fromkeys(unsampled, "not sampled"),
    }
    removed = [one.totals("dedup").removed for one in found.audits]
    assert removed[0]["url"].documents == 1
    assert "url" not in removed[1]


def test_changed_raw_shards_let_texts_be_compared(run: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    root, _ = run
    other = tmp_path / "other"
    shutil.copytree(root, other)
    manifest = json.loads((other / "raw/manifest.json").read_text())
    manifest["source"]["shards"][0]["sha256"] = "f" * 64
    gone = manifest["files"].pop()
    (other / "raw/manifest.json").write_text(json.dumps(manifest))
    path = other / "sampled/ar/ar_part_00000.parquet"
    table = pq.read_table(path)
    texts = [f"{text}!" for text in table["text"].to_pylist()]
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", [texts]), path)
    found = compare_runs(Layout(str(root)), Layout(str(other)), samples=1)
    assert found.raw is not None
    first = manifest["source"]["shards"][0]["path"]
    assert (found.raw.changed, found.raw.went, found.raw.came) == ((first,), (gone["path"].removeprefix("raw/"),), ())
    assert found.stages["sample"].by("language")["ar"].changed == len(texts)
    assert not found.stages["dedup"].with_text
    (root / "raw/manifest.json").unlink()
    assert compare_raw(Layout(str(root)), Layout(str(other))) is None


def test_runs_without_a_tree_in_common(run: tuple[Path, list[Truth]], tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no tree of text"):
        compare_runs(Layout(str(run[0])), Layout(str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1]}}, [("a.b", "[1, 2]", "[1]")]),
        ({"a": None}, {}, [("a", "null", "-")]),
        ({"a": {"x": 1}}, {"a": 2}, [("a", '{"x": 1}', "2")]),
    ],
)
def test_differing(first: object, second: object, expected: list[tuple[str, str, str]]) -> None:
    assert differing(first, second) == expected
