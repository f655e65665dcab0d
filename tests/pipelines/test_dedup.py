"""The stage dedup, from identified shards to deduplicated ones: outcomes, balance, resume, alarm."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data import storage
from lola_data.errors import RemovalAlarm, StageError
from lola_data.layout import Layout
from lola_data.planted import MAX_WORDS
from lola_data.recipe import Recipe
from lola_data.schemas import DEDUPED, IDENTIFIED, REMOVED
from lola_data.sections import DedupSection, ExecutorSection
from lola_data.shards import Unit
from pipelines.dedup import build
from pipelines.run import run_stage
from pipelines.signatures import SignatureColumns, read_signatures, signature_schema, signatures_path

if TYPE_CHECKING:
    from pathlib import Path


def numbered(prefix: str, first: int, count: int) -> str:
    return " ".join(f"{prefix}{number}" for number in range(first, first + count))


LOREM = numbered("w", 0, 100)

ROWS: dict[str, list[dict[str, Any]]] = {
    # Shard -> rows; the id is <lang>/<shard>/<row>.
    "de/a": [
        {"text": LOREM, "url": "http://example.org/one", "source": "mC4"},
        {"text": "hello", "source": "mC4"},
        {"text": "goodbye", "source": "OSCAR-2301"},
        {"text": f"{LOREM} more", "source": "OSCAR-2301"},
        {"text": None, "url": "", "source": None},
    ],
    "de/b": [
        {"text": " Hello\n", "source": "mC4"},
        {"text": "another text at one address", "url": "https://EXAMPLE.org/one/#top", "source": "mC4"},
        {"text": LOREM.upper(), "source": "mC4"},
        {"text": numbered("v", 0, 30), "url": "", "source": "mC4"},
        {"text": "", "source": "mC4"},
    ],
    "sw/a": [{"text": LOREM, "url": "http://example.org/one", "source": "mC4"}],
}

EXPECTED_REMOVED = {
    "de/a/3": ("near", "de/a/0", 96 / 97),
    "de/b/0": ("exact", "de/a/1", 1.0),
    "de/b/1": ("url", "de/a/0", None),
    "de/b/2": ("exact", "de/a/0", 1.0),
    "de/b/4": ("exact", "de/a/4", 1.0),
}
EXPECTED_CLUSTERS = {"de/a/0": 4, "de/a/1": 2, "de/a/2": 1, "de/a/4": 2, "de/b/3": 1, "sw/a/0": 1}


def write_identified(work: Path, shards: dict[str, list[dict[str, Any]]], *, row_group_size: int = 2) -> None:
    for shard, rows in shards.items():
        lang = shard.split("/")[0]
        full = [
            {"id": f"{shard}/{number}", "claimed_lang": lang, "lang": lang, "lang_score": 0.5, "script": "Latn", **row}
            for number, row in enumerate(rows)
        ]
        path = work / "trees" / "identified" / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(full, schema=IDENTIFIED), path, row_group_size=row_group_size)


def run(work: Path, *, tasks: int = 1, unit_mb: int = 512, **options: Any) -> dict[str, Any]:
    section = DedupSection(**{"alarm_min_documents": 1000, **options})
    recipe = Recipe(workdir=str(work / "corpus"), dedup=section, unit_mb=unit_mb)
    layout = Layout(recipe.workdir, {"identify": str(work / "trees" / "identified")})
    return run_stage(build(recipe, layout), ExecutorSection(tasks=tasks, workers=min(tasks, 2)))


def read_tree(root: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(root.rglob("*.parquet")):
        table = pq.read_table(path)
        assert table.schema.equals(schema)
        rows += table.to_pylist()
    return rows


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "logs" not in path.parts
    }


def test_rows_go_where_the_rule_sends_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_identified(tmp_path, ROWS)
    manifest = run(tmp_path)
    kept = read_tree(tmp_path / "corpus/deduped", DEDUPED)
    removed = read_tree(tmp_path / "corpus/removed/dedup", REMOVED)
    assert {row["id"]: row["cluster_size"] for row in kept} == EXPECTED_CLUSTERS
    assert {row["id"]: (row["reason"], row["kept_id"]) for row in removed} == {
        document: fate[:2] for document, fate in EXPECTED_REMOVED.items()
    }
    for row in removed:
        expected = EXPECTED_REMOVED[row["id"]][2]
        assert row["similarity"] == (None if expected is None else pytest.approx(expected, rel=1e-7))
    # What is stored is what came in, letter for letter.
    texts = {f"{shard}/{number}": row["text"] for shard, rows in ROWS.items() for number, row in enumerate(rows)}
    assert {row["id"]: row["text"] for row in kept} == {row["id"]: texts[row["id"]] for row in kept}
    assert {row["id"]: row["bytes"] for row in removed} == {
        row["id"]: len((texts[row["id"]] or "").encode()) for row in removed
    }
    assert manifest["languages"]["de"]["in"]["documents"] == 10
    assert manifest["languages"]["de"]["out"]["documents"] == 5
    assert {reason: one["documents"] for reason, one in manifest["languages"]["de"]["removed"].items()} == {
        "exact": 3,
        "near": 1,
        "url": 1,
    }
    assert manifest["audit"]["de"] == {
        "": {"documents": 1},
        "OSCAR-2301": {"documents": 2, "near": 1},
        "mC4": {"documents": 7, "exact": 3, "url": 1},
    }
    # LOREM and LOREM + "more", a Jaccard of 96 / 97, meet in some of the 14 bands and are compared once.
    search = manifest["search"]["de"]
    assert 1 <= search["bucket_pairs"] <= 14
    assert (search["verified_pairs"], search["rejected_pairs"]) == (1, 0)
    printed = capsys.readouterr().err
    assert "dedup: de mC4: 4 of 7 removed (57.1%): exact 3, url 1" in printed
    assert "0.8: 0.924" in printed


def test_output_does_not_depend_on_tasks(tmp_path: Path) -> None:
    for name in ("one", "many"):
        write_identified(tmp_path / name, ROWS)
    run(tmp_path / "one", tasks=1)
    run(tmp_path / "many", tasks=5)
    for tree in ("deduped", "removed"):
        assert tree_bytes(tmp_path / "one/corpus" / tree) == tree_bytes(tmp_path / "many/corpus" / tree)


def test_ids_decide_not_the_files_they_lie_in(tmp_path: Path) -> None:
    # The same documents, ids and all, dealt to other files in another order: rows of one id meet the same fate.
    rows = [
        {"id": f"{shard}/{number}", **row}
        for shard, shard_rows in ROWS.items()
        if shard.startswith("de/")
        for number, row in enumerate(shard_rows)
    ]
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    write_identified(tmp_path, {"de/x": shuffled[:1], "de/y": shuffled[1:7], "de/z": shuffled[7:]})
    run(tmp_path)
    removed = read_tree(tmp_path / "corpus/removed/dedup", REMOVED)
    assert {row["id"]: (row["reason"], row["kept_id"]) for row in removed} == {
        document: fate[:2] for document, fate in EXPECTED_REMOVED.items()
    }
    kept = read_tree(tmp_path / "corpus/deduped", DEDUPED)
    assert {row["id"]: row["cluster_size"] for row in kept} == {
        document: size for document, size in EXPECTED_CLUSTERS.items() if document.startswith("de/")
    }


def test_survivor_by_score(tmp_path: Path) -> None:
    rows = [{"text": LOREM, "lang_score": 0.4}, {"text": f"{LOREM} more", "lang_score": 0.9}]
    write_identified(tmp_path, {"de/a": rows})
    run(tmp_path, survivor="highest_score")
    assert [row["id"] for row in read_tree(tmp_path / "corpus/deduped", DEDUPED)] == ["de/a/1"]


def test_rows_are_numbers_in_the_order_of_ids(tmp_path: Path) -> None:
    # Row 10 comes after row 9, though "10" sorts before "9".
    rows = [{"text": f"filler {number}"} for number in range(11)]
    rows[9] = rows[10] = {"text": "the same"}
    write_identified(tmp_path, {"de/a": rows})
    run(tmp_path)
    assert [row["id"] for row in read_tree(tmp_path / "corpus/removed/dedup", REMOVED)] == ["de/a/10"]


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    write_identified(tmp_path, ROWS)
    manifest = run(tmp_path, exact=False, url=False, minhash=False)
    assert manifest["totals"]["removed"] == {}
    assert manifest["s_curve"] == []
    assert manifest["recall"] == {}


def test_the_recall_of_the_bands_is_measured_in_each_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{"text": numbered("s", start, 400)} for start in range(0, 40_000, 400)]
    write_identified(tmp_path, {"de/a": long[:40], "de/b": long[40:80], "sw/a": long[80:], "yo/a": [{"text": "short"}]})
    recall = run(tmp_path)["recall"]
    assert set(recall) == {"de", "sw"}
    assert 0 < recall["sw"]["planted"] <= 20 < recall["de"]["planted"] <= 80
    # Similarities of 0.8 to 1 through bands of 14 x 8: between 92 % and all of them.
    assert 0.92 * recall["de"]["planted"] < recall["de"]["expected"] <= recall["de"]["planted"]
    assert recall["de"]["found"] >= 0.9 * recall["de"]["planted"]
    errors = capsys.readouterr().err
    planted, found = (sum(one[name] for one in recall.values()) for name in ("planted", "found"))
    assert f"of {planted} edited copies of your documents at or above the threshold, {found / planted:.1%}" in errors


def test_finished_work_is_not_done_again_and_a_lost_shard_is(tmp_path: Path) -> None:
    write_identified(tmp_path, ROWS)
    run(tmp_path)
    corpus = tmp_path / "corpus"
    assert not (corpus / "scratch/dedup").exists()
    before = {tree: tree_bytes(corpus / tree) for tree in ("deduped", "removed")}
    (corpus / "deduped/de/a.parquet").unlink()
    run(tmp_path)
    assert {tree: tree_bytes(corpus / tree) for tree in ("deduped", "removed")} == before


def test_a_language_that_loses_too_much_stops_the_stage_until_waived(tmp_path: Path) -> None:
    rows = [{"text": LOREM}, *({"text": f"{LOREM} more {number}"} for number in range(9))]
    write_identified(tmp_path, {"de/a": rows, "sw/a": [{"text": numbered("s", 0, 20)}]})
    with pytest.raises(RemovalAlarm) as caught:
        run(tmp_path, alarm_min_documents=5)
    message = str(caught.value)
    assert "de: 9 of 10 documents (90.0%) would go" in message
    assert "de/a/1 for de/a/0 (near, similarity 0.980)" in message
    assert "w0 w1 w2" in message
    assert not (tmp_path / "corpus/deduped").exists()
    manifest = run(tmp_path, alarm_min_documents=5, waive=["de"])
    assert manifest["languages"]["de"]["out"]["documents"] == 1


def test_an_alarm_needs_a_larger_share_than_allowed(tmp_path: Path) -> None:
    for name in ("calm", "loud"):
        write_identified(tmp_path / name, {"de/a": [{"text": LOREM}, {"text": LOREM}]})
    run(tmp_path / "calm", alarm_min_documents=2, max_removed_share=0.5)
    with pytest.raises(RemovalAlarm):
        run(tmp_path / "loud", alarm_min_documents=2, max_removed_share=0.49)


def test_an_id_twice_is_refused(tmp_path: Path) -> None:
    write_identified(tmp_path, {"de/a": [{"text": "a", "id": "de/a/7"}, {"text": "b", "id": "de/a/7"}]})
    with pytest.raises(StageError, match="`de/a/7` is there twice"):
        run(tmp_path)


def test_input_changed_between_the_phases_is_noticed(tmp_path: Path) -> None:
    write_identified(tmp_path, {"de/a": [{"text": LOREM}, *({"text": f"{LOREM} more {n}"} for n in range(9))]})
    with pytest.raises(RemovalAlarm):
        run(tmp_path, alarm_min_documents=5)
    path = tmp_path / "trees/identified/de/a.parquet"
    table = pq.read_table(path)
    ids = pa.array([f"de/other/{number}" for number in range(10)])
    pq.write_table(table.set_column(0, IDENTIFIED.field("id"), ids), path, row_group_size=2)
    with pytest.raises(StageError, match="changed"):
        run(tmp_path, alarm_min_documents=5, waive=["de"])


def test_no_documents_at_all(tmp_path: Path) -> None:
    write_identified(tmp_path, {"de/a": [], "sw/a": [{"text": "x"}]})
    manifest = run(tmp_path)
    assert list(manifest["languages"]) == ["sw"]


def test_intermediate_files_are_named_after_their_units(tmp_path: Path) -> None:
    write_identified(tmp_path, ROWS)
    manifest = run(tmp_path)
    assert [file["path"] for file in manifest["files"]] == [
        "deduped/de/a.parquet",
        "deduped/de/b.parquet",
        "deduped/sw/a.parquet",
        "removed/dedup/de/a.parquet",
        "removed/dedup/de/b.parquet",
    ]
    for file in manifest["files"]:
        assert file["bytes"] == storage.size(str(tmp_path / "corpus" / file["path"]))


def test_columns_come_in_id_order_however_many_are_held(tmp_path: Path) -> None:
    write_identified(tmp_path, {"de/b": ROWS["de/b"], "de/a": ROWS["de/a"]})
    recipe = Recipe(workdir=str(tmp_path / "corpus"))
    layout = Layout(recipe.workdir, {"identify": str(tmp_path / "trees/identified")})
    sign = build(recipe, layout).phases[0]
    units = [Unit(**work.to_json()) for work in sign.plan()]
    for unit in reversed(units):
        sign.process(unit)
    # The units in the other order than their ids.
    paths = [signatures_path(layout, unit.lang, unit.name) for unit in reversed(units)]
    all_at_once, one_by_one = (
        SignatureColumns(
            [partial(read_signatures, path) for path in paths], signature_schema(14).names, held_bytes=size
        )
        for size in (1 << 20, 1)
    )
    sizes = [len((row["text"] or "").encode()) for shard in ("de/a", "de/b") for row in ROWS[shard]]
    for columns in (all_at_once, one_by_one):
        assert columns.order.tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
        assert columns.column("bytes").tolist() == sizes
        assert columns.present("url_0").tolist() == [True, *[False] * 5, True, *[False] * 3]
        assert columns.ids(0).to_pylist() == [f"de/b/{row}" for row in range(5)]
        assert columns.pair("url")[0].tolist() == columns.pair("url")[6].tolist()
    for name in ("band_0", "band_13", "digest_1"):
        assert all_at_once.column(name).tolist() == one_by_one.column(name).tolist()


def test_urls_are_not_read_where_they_do_not_count(tmp_path: Path) -> None:
    write_identified(tmp_path, {"de/a": ROWS["de/a"]})
    for counts in (True, False):
        recipe = Recipe.model_validate({"workdir": str(tmp_path / str(counts)), "dedup": {"url": counts}})
        layout = Layout(recipe.workdir, {"identify": str(tmp_path / "trees/identified")})
        sign = build(recipe, layout).phases[0]
        (unit,) = (Unit(**work.to_json()) for work in sign.plan())
        sign.process(unit)
        signed = read_signatures(signatures_path(layout, unit.lang, unit.name), ["url_0", "url_1"])
        assert (signed["url_0"].null_count < len(signed)) == counts
        assert signed["url_1"].null_count == signed["url_0"].null_count


def test_no_copy_is_made_of_a_very_long_document(tmp_path: Path) -> None:
    long = " ".join(f"w{number}" for number in range(MAX_WORDS + 1))
    write_identified(tmp_path, {"de/a": [{"text": text, "url": "", "source": None} for text in (long, long[:600_000])]})
    recipe = Recipe(workdir=str(tmp_path / "corpus"))
    layout = Layout(recipe.workdir, {"identify": str(tmp_path / "trees/identified")})
    sign = build(recipe, layout).phases[0]
    (unit,) = (Unit(**work.to_json()) for work in sign.plan())
    assert sign.process(unit).extra["recall"]["planted"] == 1
