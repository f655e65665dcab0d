"""The stage sample on shards that dedup wrote and of which all is taken: copied as they are, with the same outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.sample
from lola_data.layout import Layout
from lola_data.recipe import Recipe
from lola_data.schemas import DEDUPED, IDENTIFIED
from lola_data.shards import Unit
from pipelines import dedup, sample
from pipelines.run import run_stage
from pipelines.sample import DEDUP_PHASE, known_counts

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = {
    "de/a": ["eins zwei drei", "Würde", "vier fünf sechs", "eins zwei drei"],
    "de/b": ["sieben acht", "neun zehn elf zwölf"],
    "sw/a": ["moja mbili tatu"],
}


def deduplicated(folder: Path) -> Path:
    """The work folder of a corpus that has been deduplicated: one document of seven is gone."""
    for shard, texts in TEXTS.items():
        lang = shard.split("/")[0]
        rows = [
            {"id": f"{shard}/{row}", "text": text, "claimed_lang": lang, "lang": lang, "lang_score": 1.0}
            for row, text in enumerate(texts)
        ]
        path = folder / "identified" / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=IDENTIFIED), path)
    recipe = Recipe.model_validate({"workdir": str(folder / "work")})
    run_stage(dedup.build(recipe, Layout(recipe.workdir, {"identify": str(folder / "identified")})), recipe.executor)
    return folder / "work"


def sampled(work: Path, trees: dict[str, str] | None = None, *, tasks: int = 1, **section: Any) -> dict[str, Any]:
    recipe = Recipe.model_validate(
        {"workdir": str(work), "executor": {"tasks": tasks, "workers": min(tasks, 2)}, "sample": section}
    )
    return run_stage(sample.build(recipe, Layout(recipe.workdir, trees or {})), recipe.executor)


def shards(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


def unread(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a shard was read")


@pytest.mark.parametrize("unit", ["documents", "bytes"])
@pytest.mark.parametrize("tasks", [1, 3])
def test_the_outcome_is_that_of_reading_and_writing(
    tmp_path: Path, unit: str, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = deduplicated(tmp_path)
    # The same shards as a tree from elsewhere, of which there is no record: they are read.
    read = sampled(tmp_path / "other", {"dedup": str(work / "deduped")}, method="all", unit=unit)
    if tasks == 1:
        monkeypatch.setattr(pipelines.sample, "read_batches", unread)
    copied = sampled(work, method="all", unit=unit, tasks=tasks)
    assert shards(work / "sampled") == shards(work / "deduped")
    for path in shards(work / "sampled"):
        tables = [pq.read_table(root / "sampled" / path) for root in (work, tmp_path / "other")]
        assert tables[0].schema.equals(DEDUPED)
        assert tables[0].equals(tables[1])
    for key in ("languages", "totals", "plan"):
        assert copied[key] == read[key]
    assert copied["totals"]["out"] == {"documents": 6, "characters": 79, "bytes": 82, "tokens": 0}
    assert [(file["path"], file["rows"]) for file in copied["files"]] == [
        (file["path"], file["rows"]) for file in read["files"]
    ]


def test_the_phase_that_is_asked_for_is_the_one_that_writes_the_tree() -> None:
    assert dedup.FilterStep.phase == DEDUP_PHASE


def test_a_language_taken_in_part_is_read_beside_one_taken_whole(tmp_path: Path) -> None:
    work = deduplicated(tmp_path)
    manifest = sampled(work, method="budgets", unit="documents", budgets={"de": 3, "sw": 1})
    assert manifest["languages"]["de"]["removed"]["not_sampled"]["documents"] == 2
    assert (work / "sampled/sw/a.parquet").read_bytes() == (work / "deduped/sw/a.parquet").read_bytes()


def test_neither_copy_feels_what_happens_to_the_other(tmp_path: Path) -> None:
    work = deduplicated(tmp_path)
    sampled(work, method="all")
    before = shards(work / "deduped")
    damaged, deleted = work / "sampled/de/a.parquet", work / "deduped/de/b.parquet"
    with damaged.open("r+b") as handle:
        handle.truncate(10)
    assert shards(work / "deduped") == before
    deleted.unlink()
    assert pq.read_table(work / "sampled/de/b.parquet")["text"].to_pylist() == TEXTS["de/b"]
    deleted.write_bytes(before["de/b.parquet"])
    sampled(work, method="all")
    assert shards(work / "sampled") == before


def test_a_run_that_stopped_on_the_way_goes_on_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = deduplicated(tmp_path)
    copy = pipelines.sample.storage.copy
    copied: list[str] = []

    def stopping(source: str, target: str) -> None:
        if copied:
            raise KeyboardInterrupt
        copied.append(target)
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.sample.storage, "copy", stopping)
        with pytest.raises(KeyboardInterrupt):
            sampled(work, method="all")
    assert len(shards(work / "sampled")) == 1
    kept = next((work / "sampled").rglob("*.parquet"))
    inode = kept.stat().st_ino
    sampled(work, method="all")
    assert shards(work / "sampled") == shards(work / "deduped")
    assert kept.stat().st_ino == inode


def test_what_the_records_do_not_vouch_for_is_read(tmp_path: Path) -> None:
    work = deduplicated(tmp_path)
    layout = Layout(str(work))
    path = work / "deduped/de/b.parquet"
    size = path.stat().st_size
    whole = Unit("de", "de/b.parquet", "b", 0, 1, 0, 2, 100)
    counts = known_counts(layout, whole)
    assert counts is not None
    assert (counts.documents, counts.characters, counts.bytes) == (2, 30, 31)
    # Part of a file, a tree from elsewhere, a shard without a record, another file under the name.
    assert known_counts(layout, Unit("de", "de/b.parquet", "b-00000", 0, 1, 0, 1, 100)) is None
    assert known_counts(Layout(str(work), {"dedup": str(work / "deduped")}), whole) is None
    (work / "deduped/de/c.parquet").write_bytes(path.read_bytes())
    assert known_counts(layout, Unit("de", "de/c.parquet", "c", 0, 1, 0, 2, 100)) is None
    path.write_bytes(path.read_bytes() + b"x")
    assert path.stat().st_size == size + 1
    assert known_counts(layout, whole) is None
