"""Columns that a raw shard has besides ours go with their rows to the sampled tree, whatever they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.sample_corpus import sample_root
from tests.console import lola, trees

if TYPE_CHECKING:
    from pathlib import Path

STAGES = ("identify", "dedup", "sample")


def further(count: int) -> dict[str, pa.Array]:
    """Columns of every kind, and some with names that later stages use for columns of their own."""
    numbers = list(range(count))
    return {
        "quality": pa.array([number / 7 for number in numbers], pa.float64()),
        "tags": pa.array([[f"t{number}", None] if number % 3 else None for number in numbers], pa.list_(pa.string())),
        "meta": pa.array(
            [{"shard": number, "by": [{"name": f"n{number}"}]} for number in numbers],
            pa.struct([("shard", pa.int32()), ("by", pa.list_(pa.struct([("name", pa.string())])))]),
        ),
        "counts": pa.array([[("a", number)] for number in numbers], pa.map_(pa.string(), pa.int64())),
        "note": pa.array([f"note {number}" for number in numbers], pa.large_string()),
        "kind": pa.array([f"k{number % 2}" for number in numbers]).dictionary_encode(),
        "reason": pa.array([f"because {number}" for number in numbers]),
        "similarity": pa.array([f"like {number}" for number in numbers]),
        "bytes": pa.array([f"b{number}" for number in numbers]),
        "tokens": pa.array([f"t{number}" for number in numbers]),
        # Ours of that name takes its place.
        "lang_score": pa.array([f"theirs {number}" for number in numbers]),
    }


CARRIED = [name for name in further(0) if name != "lang_score"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text in three languages with the planted copies and misfiled documents, and further columns in two."""
    root = tmp_path_factory.mktemp("source")
    for lang in ("de", "fr", "ru"):
        (root / lang).mkdir()
        table = pa.concat_tables(pq.read_table(path) for path in sorted((sample_root() / lang).glob("*.parquet")))
        if lang != "fr":
            for name, values in further(table.num_rows).items():
                table = table.append_column(name, values)
        pq.write_table(table, root / lang / f"{lang}.parquet", row_group_size=100)
    return root


def run(root: Path, source: Path, *more: str) -> Path:
    recipe = root / "recipe.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(
        f"workdir: {root}/w\nlanguages: [de, fr, ru]\ndownload: {{source: local, path: {source}}}\n"
        "identify: {policy: relabel, keep_unknown: true, min_score: 0.5}\n"
        "sample: {method: budgets, budgets: {ru: 40000}}\n"
    )
    wanted = [part for stage in ("download", *STAGES) for part in ("--only", stage)]
    outcome = lola("run", recipe, *wanted, *(part for one in more for part in ("--set", one)))
    assert outcome.code == 0, outcome.stderr
    return root / "w"


def rows(tree: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(tree.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def test_every_row_keeps_its_own(tmp_path: Path, source: Path) -> None:
    workdir = run(tmp_path, source, "executor.tasks=1")
    raw = {
        f"{path.parent.name}/{path.stem}/{number}": row
        for path in sorted(source.rglob("*.parquet"))
        for number, row in enumerate(pq.ParquetFile(path).read().to_pylist())
    }
    for tree in ("identified", "deduped", "sampled", "unknown"):
        found = rows(workdir / tree)
        assert found, tree
        for row in found:
            for name in ("text", "url", *(CARRIED if not row["id"].startswith("fr/") else ())):
                assert row[name] == raw[row["id"]][name]
            assert isinstance(row["lang_score"], float)
    # Something was relabelled, removed and left out, or this shows little.
    assert list((workdir / "identified").rglob("*.from-*.parquet"))
    assert len(rows(workdir / "sampled")) < len(rows(workdir / "deduped")) < len(rows(workdir / "identified"))
    removed = rows(workdir / "removed")
    assert {type(row["bytes"]) for row in removed} == {int}
    assert {row["reason"].split()[0] for row in removed} <= {"near", "exact", "url", "wrong_language", "low_score"}


def test_the_bytes_do_not_depend_on_the_tasks(tmp_path: Path, source: Path) -> None:
    one = run(tmp_path / "one", source, "executor.tasks=1")
    three = run(tmp_path / "three", source, "executor.tasks=3", "executor.workers=2")
    assert trees(one, STAGES) == trees(three, STAGES)


def test_ours_come_first_and_strings_are_compressed(tmp_path: Path, source: Path) -> None:
    workdir = run(tmp_path, source)
    (path,) = (workdir / "deduped" / "de").glob("de*.parquet")
    file = pq.ParquetFile(path)
    assert file.schema_arrow.names[:10] == [
        "id", "text", "timestamp", "url", "source", "claimed_lang", "lang", "lang_score", "script", "cluster_size",
    ]  # fmt: skip
    assert file.schema_arrow.names[10:] == CARRIED
    assert file.schema_arrow.field("note").type == file.schema_arrow.field("kind").type == pa.string()
    group = file.metadata.row_group(0)
    codecs = {group.column(place).path_in_schema: group.column(place).compression for place in range(group.num_columns)}
    for leaf in ("note", "tags.list.element", "meta.by.list.element.name", "counts.key_value.key"):
        assert codecs[leaf] == "ZSTD", codecs
    assert codecs["quality"] == "UNCOMPRESSED"


def test_none_come_where_they_are_to_be_dropped(tmp_path: Path, source: Path) -> None:
    workdir = run(tmp_path, source, "download.extra_columns=drop")
    for tree in ("raw", "identified", "deduped", "sampled"):
        for path in (workdir / tree).rglob("*.parquet"):
            assert not set(pq.read_schema(path).names) & set(CARRIED)


def test_one_that_is_no_text_is_found(tmp_path: Path) -> None:
    path = tmp_path / "source" / "de" / "a.parquet"
    path.parent.mkdir(parents=True)
    notes = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe"))
    pq.write_table(pa.table({"text": ["Guten Tag", "Guten Abend"], "note": notes}), path)
    outcome = lola(
        "run", "--only", "download", "--only", "identify", "--set", f"workdir={tmp_path}/w", "--set", "languages=[de]",
        "--set", "download.source=local", "--set", f"download.path={tmp_path}/source", _recipe(tmp_path),
    )  # fmt: skip
    assert outcome.code == 1
    assert "row 1: `note` is not valid UTF-8" in outcome.stderr


def _recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text("workdir: w\n")
    return path


def test_looking_at_such_trees(tmp_path: Path, source: Path) -> None:
    """Commands that know columns by name are not led astray by others of that name."""
    workdir = run(tmp_path, source)
    for tree in ("raw", "sampled", "removed/dedup"):
        outcome = lola("inspect", workdir / tree, "--n", "3", "--json")
        assert outcome.code == 0, outcome.stderr
    for command in (
        ("balance", workdir, "--json"),
        ("balance", workdir / "raw", "--exact", "--json"),
        ("diff", workdir / "identified", workdir / "sampled", "--json"),
        ("diff", workdir, "--json"),
        ("verify", workdir),
        ("card", workdir, "--out", tmp_path / "card"),
    ):
        outcome = lola(*command)
        assert outcome.code == 0, (command, outcome.stderr)
