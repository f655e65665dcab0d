"""Inputs that break a run: what is said, what is left behind, and that it goes on once the cause is mended."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.layout import TREES
from lola_data.text_tables import readable_bytes
from lola_data.tokens import TokenShard
from pipelines.download import FetchStep
from tests.console import (
    ROAD,
    Outcome,
    check_whole,
    lola,
    lola_process,
    only,
    replace_bytes,
    replace_shard,
    trees,
    upto,
    write_recipe,
    write_source,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GREEK = Path("el", "el_part_00000.parquet")
SIBLINGS = ("cy", "sw", "yo")


class Corpus:
    """A source of one's own, a recipe for it, and the trees that a run without a fault makes."""

    def __init__(self, folder: Path, right: dict[str, Any]) -> None:
        self.source = write_source(folder / "source")
        self.recipe = write_recipe(folder, self.source)
        self.work = folder / "work"
        self._right = right

    @property
    def greek(self) -> Path:
        return self.source / GREEK

    def run(self, stage: str, *arguments: str | Path) -> Outcome:
        return lola("run", self.recipe, *upto(stage), *arguments)

    def refused(self, outcome: Outcome, *words: str | Path, code: int = 1) -> None:
        """One message with all these words, the exit code, and nothing half-written."""
        assert outcome.code == code, outcome.stderr
        assert "Traceback" not in outcome.stderr + outcome.stdout
        assert "bug" not in outcome.message
        for word in words:
            assert str(word) in outcome.message
        check_whole(self.work)

    def goes_on(self, stage: str, *arguments: str | Path) -> None:
        """The same command succeeds, and the trees are those of a run that met no fault."""
        outcome = self.run(stage, *arguments)
        assert outcome.code == 0, outcome.stderr
        self.right(stage)

    def right(self, stage: str) -> None:
        stages = ROAD[: ROAD.index(stage) + 1]
        names = tuple(f"{root}/" for name in stages for root in (TREES[name], f"removed/{name}"))
        wanted = {name: content for name, content in self._right.items() if name.startswith(names)}
        found = trees(self.work, stages)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []
        check_whole(self.work)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The trees of a run that meets no fault."""
    folder = tmp_path_factory.mktemp("right")
    recipe = write_recipe(folder, write_source(folder / "source"))
    outcome = lola("run", recipe, *upto("tokenize"))
    assert outcome.code == 0, outcome.stderr
    return trees(folder / "work")


@pytest.fixture
def corpus(tmp_path: Path, right: dict[str, Any]) -> Corpus:
    return Corpus(tmp_path, right)


def with_row(table: pa.Table, row: int, text: bytes) -> pa.Table:
    """The table with the bytes of one text exchanged, valid or not."""
    texts: list[bytes] = table["text"].cast(pa.binary()).to_pylist()
    texts[row] = text
    # A view, not a cast: a cast would refuse what is not UTF-8.
    column = pa.array(texts, pa.binary()).view(pa.string())
    return table.set_column(table.schema.get_field_index("text"), "text", column)


def damage_last_row_group(path: Path) -> None:
    """Overwrite the middle of the text of the last row group; the footer stays whole."""
    metadata = pq.read_metadata(path)
    group = metadata.row_group(metadata.num_row_groups - 1)
    chunk = group.column(0)
    assert chunk.path_in_schema == "text"
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    middle = start + chunk.total_compressed_size // 2
    content[middle : middle + 64] = b"\xff" * 64
    replace_bytes(path, bytes(content))


# Files that are missing


def test_missing_recipe(tmp_path: Path) -> None:
    outcome = lola_process("run", tmp_path / "nowhere.yaml")
    assert outcome.code == 2
    assert outcome.message.strip() == f"{tmp_path}/nowhere.yaml: no such recipe; `lola-data init` writes one"
    assert outcome.stdout == ""


def test_missing_source_folder(corpus: Corpus) -> None:
    away = corpus.source.rename(corpus.source.with_name("away"))
    corpus.refused(corpus.run("dedup"), corpus.source, "no such folder", "set `path`")
    away.rename(corpus.source)
    corpus.goes_on("dedup")


def test_source_is_a_file(corpus: Corpus) -> None:
    shutil.rmtree(corpus.source)
    corpus.source.write_text("not a folder")
    corpus.refused(corpus.run("download"), corpus.source, "is a file, not a folder")
    corpus.source.unlink()
    write_source(corpus.source)
    corpus.goes_on("download")


def test_shards_not_in_language_folders(corpus: Corpus) -> None:
    stray = corpus.source / "el_part_00000.parquet"
    shutil.move(corpus.greek, stray)
    corpus.refused(corpus.run("download"), stray, "<lang>/<shard>.parquet")
    shutil.move(stray, corpus.greek)
    corpus.goes_on("download")


@pytest.mark.parametrize("stage", ["download", "identify", "dedup", "sample"])
def test_shard_deleted_between_stages(corpus: Corpus, stage: str) -> None:
    """A later stage on its own must not go on with less; the whole road makes the shard again."""
    assert corpus.run(stage).code == 0
    gone = corpus.work / TREES[stage] / GREEK
    gone.unlink()
    following = {"sample": "tokenizer"}.get(stage, ROAD[ROAD.index(stage) + 1])
    alone = lola("run", corpus.recipe, "--only", following)
    corpus.refused(alone, gone, f"`{stage}`")
    assert not list((corpus.work / TREES[following]).rglob("*.parquet"))
    corpus.goes_on(following)


def test_input_tree_that_is_not_there(tmp_path: Path) -> None:
    outcome = lola("identify", tmp_path / "nowhere", "--workdir", tmp_path / "work")
    assert outcome.code == 1
    assert str(tmp_path / "nowhere") in outcome.message


def test_stage_before_its_input(corpus: Corpus) -> None:
    corpus.refused(lola("run", corpus.recipe, "--only", "dedup"), corpus.work / "identified", "`identify`")
    corpus.goes_on("dedup")


def readers(corpus: Corpus) -> Iterator[Outcome]:
    """Each way in which a tree of raw shards is listed."""
    yield corpus.run("download")
    yield lola("run", corpus.recipe, "--dry-run")
    yield lola("identify", corpus.source, "--workdir", corpus.work.with_name("other"))
    out = corpus.work.with_name("tokenizer")
    yield lola("tokenizer", "train", corpus.source, "--out", out, "--vocab-size", 500, "--train-bytes", 40_000)
    assert not out.exists()


@pytest.mark.parametrize("target", ["gone", "el_part_00001.parquet"])
def test_link_that_leads_nowhere(corpus: Corpus, target: str) -> None:
    """To a shard that is not there, or to itself."""
    link = corpus.source / "el" / "el_part_00001.parquet"
    link.symlink_to(target)
    for outcome in readers(corpus):
        corpus.refused(outcome, link, "a symbolic link that leads nowhere", target, "remove the link")
    link.unlink()
    corpus.goes_on("identify")


def test_folder_that_lies_in_itself(corpus: Corpus) -> None:
    link = corpus.source / "el" / "all"
    link.symlink_to("..")
    for outcome in readers(corpus):
        corpus.refused(outcome, link, "a symbolic link to a folder that it lies in", "remove the link")
    link.unlink()
    corpus.goes_on("identify")


def test_file_name_that_is_no_text(corpus: Corpus) -> None:
    odd = corpus.source / "el" / os.fsdecode(b"el_\xe9.parquet")
    shutil.copy(corpus.greek, odd)
    for outcome in readers(corpus):
        corpus.refused(outcome, f"{corpus.source}/el/el_\\xe9.parquet", "not valid UTF-8", "rename the file")
    odd.unlink()
    corpus.goes_on("identify")


@pytest.mark.parametrize(
    ("place", "words"),
    [("nosuch://bucket/x", "Protocol not known: nosuch"), ("s3://bucket/x", "pip install 'lola-data[s3]'")],
)
def test_place_of_another_kind(corpus: Corpus, place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # Another test of this process may have used it.
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    for call in (
        ("run", corpus.recipe, "--set", f"workdir={place}"),
        ("run", corpus.recipe, "--set", f"workdir={place}", "--dry-run"),
        ("run", corpus.recipe, "--set", f"download={{source: url, path: '{place}'}}"),
        ("identify", place, "--workdir", corpus.work.with_name("other")),
        ("status", place),
        ("balance", place),
        ("tokenizer", "train", place, "--out", corpus.work.with_name("tokenizer")),
        ("tokenizer", "encode", place, "--text", "a"),
    ):
        corpus.refused(lola(*call), f"{place}", words)
    assert not list(corpus.work.rglob("*.parquet"))


# Files that are damaged


def test_truncated_shard(corpus: Corpus) -> None:
    whole = corpus.greek.read_bytes()
    replace_bytes(corpus.greek, whole[:-100])
    corpus.refused(corpus.run("dedup"), corpus.greek, "not a complete Parquet file", "Fetch the shard again", "[log: ")
    assert sorted(path.name for path in (corpus.work / "raw").iterdir() if path.is_dir()) == list(SIBLINGS)
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("dedup")


def test_truncated_shard_of_another_tree(corpus: Corpus, tmp_path: Path) -> None:
    whole = corpus.greek.read_bytes()
    replace_bytes(corpus.greek, whole[:-100])
    command = ("identify", corpus.source, "--workdir", corpus.work, "--recipe", corpus.recipe)
    corpus.refused(lola(*command), corpus.greek, "not a complete Parquet file")
    identified = [path.parent.name for path in sorted((corpus.work / "identified").rglob("*.parquet"))]
    assert identified == list(SIBLINGS)
    replace_bytes(corpus.greek, whole)
    outcome = lola(*command)
    assert outcome.code == 0, outcome.stderr
    reference = write_recipe(tmp_path / "reference", corpus.source)
    assert lola("run", reference, *upto("identify")).code == 0
    assert trees(corpus.work, ["identify"]) == trees(tmp_path / "reference" / "work", ["identify"])


def test_damaged_row_group(corpus: Corpus) -> None:
    whole = corpus.greek.read_bytes()
    damage_last_row_group(corpus.greek)
    corpus.refused(corpus.run("dedup"), corpus.greek, "row group 1 (bytes ", "The file is damaged", "delete it")
    assert [path.parent.name for path in sorted((corpus.work / "raw").rglob("*.parquet"))] == list(SIBLINGS)
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("dedup")


def test_damaged_row_group_leaves_sibling_tasks_alone(corpus: Corpus) -> None:
    """A disk that goes bad after the download."""
    assert corpus.run("download").code == 0
    damaged = corpus.work / "raw" / GREEK
    damage_last_row_group(damaged)
    tasks = ("--set", "executor.tasks=2", "--set", "executor.workers=2")
    outcome = lola_process("run", corpus.recipe, *upto("identify"), *tasks)
    corpus.refused(outcome, damaged, "row group 1 (bytes ", "1 of 4 units failed", "delete it")
    log = outcome.message.partition("[log: ")[2].partition("]")[0]
    assert "row group 1" in Path(log).read_text()
    identified = [path.parent.name for path in sorted((corpus.work / "identified").rglob("*.parquet"))]
    assert identified == list(SIBLINGS)
    # As the message says: the copy deleted; the source is sound.
    damaged.unlink()
    corpus.goes_on("identify")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"{'text': 'this is no Parquet file'}\n" * 3, "not a complete Parquet file"),
        (b"PAR1", "not a complete Parquet file"),
    ],
)
def test_not_parquet(corpus: Corpus, content: bytes, words: str) -> None:
    whole = corpus.greek.read_bytes()
    replace_bytes(corpus.greek, content)
    corpus.refused(corpus.run("download"), corpus.greek, words)
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("download")


# Shards of another schema


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"content": ["Γειά σου"], "url": ["https://x.example"]}, "no column `text`; its columns are content, url"),
        ({"text": [1, 2, 3]}, "column `text` is int64, not string"),
        ({"text": [["ένα"], ["δύο"]]}, "column `text` is list"),
        ({"text": [b"a", b"b"]}, "column `text` is binary, not string"),
        ({"text": ["a"], "url": [{"host": "x"}]}, "column `url` is struct"),
    ],
)
def test_foreign_schema(corpus: Corpus, columns: dict[str, Any], words: str) -> None:
    whole = corpus.greek.read_bytes()
    replace_shard(corpus.greek, pa.table(columns))
    corpus.refused(corpus.run("identify"), corpus.greek, words)
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("identify")


@pytest.mark.parametrize("fault", ["twice", "no text"])
def test_columns_that_cannot_be_told_apart(corpus: Corpus, fault: str) -> None:
    """It fails its own shard, and no other."""
    whole = corpus.greek.read_bytes()
    table = pq.read_table(corpus.greek)
    if fault == "twice":
        replace_shard(corpus.greek, table.append_column("text", table["url"]))
        words = "2 columns have the name `text`"
    else:
        replace_shard(corpus.greek, table.append_column("colX", table["url"]))
        replace_bytes(corpus.greek, corpus.greek.read_bytes().replace(b"colX", b"col\xff"))
        words = "the name of a column is not valid UTF-8"
    corpus.refused(corpus.run("identify"), corpus.greek, words, "1 of 4 units failed")
    assert sorted(path.name for path in (corpus.work / "raw").iterdir() if path.is_dir()) == list(SIBLINGS)
    other = corpus.work.with_name("other")
    corpus.refused(lola("identify", corpus.source, "--workdir", other), corpus.greek, words, "1 of 4 units failed")
    assert [path.parent.name for path in sorted((other / "identified").rglob("*.parquet"))] == list(SIBLINGS)
    out = corpus.work.with_name("tokenizer")
    corpus.refused(lola("tokenizer", "train", corpus.source, "--out", out), corpus.greek, words)
    assert not out.exists()
    for call in (("run", corpus.recipe, "--dry-run"), ("balance", corpus.source)):
        outcome = lola(*call)
        # Who does not read the texts may pass over it.
        if outcome.code:
            corpus.refused(outcome, corpus.greek, words)
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("identify")


def test_raw_shards_given_to_dedup(corpus: Corpus) -> None:
    command = ("dedup", corpus.source, "--workdir", corpus.work)
    corpus.refused(lola(*command), corpus.greek, "no column `id`", "`identify`")
    assert not list((corpus.work / "deduped").rglob("*.parquet"))


# Languages without documents


def test_language_that_the_source_does_not_have(corpus: Corpus) -> None:
    away = (corpus.source / "el").rename(corpus.source.parent / "el")
    corpus.refused(corpus.run("download"), corpus.source, "no shards of `el`", "`languages`")
    away.rename(corpus.source / "el")
    corpus.goes_on("download")


def test_language_with_no_rows(corpus: Corpus) -> None:
    table = pq.read_table(corpus.greek)
    replace_shard(corpus.greek, table.slice(0, 0))
    corpus.refused(corpus.run("identify"), "`el`", "no documents", "`languages`")
    replace_shard(corpus.greek, table, row_group_size=30)
    corpus.goes_on("identify", "--redo", "download")


def test_empty_shard_beside_a_full_one(corpus: Corpus) -> None:
    replace_shard(corpus.source / "el" / "el_part_00001.parquet", pq.read_table(corpus.greek).slice(0, 0))
    outcome = corpus.run("tokenize")
    assert outcome.code == 0, outcome.stderr
    for stage in ("identify", "dedup", "sample"):
        shards = [path.name for path in (corpus.work / TREES[stage] / "el").iterdir()]
        assert shards == ["el_part_00000.parquet"]
    check_whole(corpus.work)


def test_language_that_loses_every_document_in_identify(corpus: Corpus) -> None:
    """Greek text in the Yoruba folder: all of it is removed, the road goes on with the other languages."""
    replace_shard(corpus.source / "yo" / "yo_part_00000.parquet", pq.read_table(corpus.greek))
    outcome = corpus.run("tokenize")
    assert outcome.code == 0, outcome.stderr
    assert sorted(path.name for path in (corpus.work / "identified").iterdir() if path.is_dir()) == ["cy", "el", "sw"]
    manifest = json.loads((corpus.work / "identified" / "manifest.json").read_text())
    assert manifest["languages"]["yo"]["out"]["documents"] == 0
    removed = pq.read_table(corpus.work / "removed" / "identify" / "yo")
    assert removed.num_rows == 60
    assert set(removed["lang"].to_pylist()) == {"el"}
    check_whole(corpus.work)


def test_every_language_loses_every_document(corpus: Corpus) -> None:
    greek = pq.read_table(corpus.greek)
    for lang in SIBLINGS:
        replace_shard(corpus.source / lang / f"{lang}_part_00000.parquet", greek)
    narrow = ("--set", "languages=[cy, sw]")
    outcome = corpus.run("tokenize", *narrow)
    corpus.refused(outcome, corpus.work / "sampled", "with documents in it")


# Rows that are not clean text


@pytest.mark.parametrize(
    ("text", "check", "words"),
    [
        (b"\xce\x93\xce\xb5\xce\xb9\xff\xce", "invalid_utf8", "`text` is not valid UTF-8"),
        ("Γειά σου\0 κόσμε".encode(), "nul", "NUL character (U+0000)"),
    ],
)
def test_unclean_row(corpus: Corpus, text: bytes, check: str, words: str) -> None:
    table = pq.read_table(corpus.greek)
    replace_shard(corpus.greek, with_row(table, 41, text), row_group_size=30)
    corpus.refused(corpus.run("dedup"), f"{corpus.work / 'raw' / GREEK}: row 41: ", words, f"checks.{check}: drop")
    identified = [path.parent.name for path in sorted((corpus.work / "identified").rglob("*.parquet"))]
    assert identified == list(SIBLINGS)
    # As the message says.
    outcome = corpus.run("dedup", "--set", f"checks.{check}=drop")
    assert outcome.code == 0, outcome.stderr
    check_whole(corpus.work)
    removed = pq.read_table(corpus.work / "removed" / "identify" / "el").to_pylist()
    assert [row["id"] for row in removed if row["reason"] == check] == ["el/el_part_00000/41"]
    manifest = json.loads((corpus.work / "identified" / "manifest.json").read_text())
    assert manifest["languages"]["el"]["removed"][check]["documents"] == 1


def test_unclean_row_mended_at_the_source(corpus: Corpus) -> None:
    whole = corpus.greek.read_bytes()
    replace_shard(corpus.greek, with_row(pq.read_table(corpus.greek), 3, b"a\0b"), row_group_size=30)
    corpus.refused(corpus.run("identify"), "row 3: ")
    replace_bytes(corpus.greek, whole)
    corpus.goes_on("identify", "--redo", "download")


def test_a_looser_check_is_not_a_way_around_a_stricter_one(corpus: Corpus) -> None:
    """What was dropped by the checks may not pass for the tree of a recipe that says `error`."""
    replace_shard(corpus.greek, with_row(pq.read_table(corpus.greek), 3, b"a\0b"), row_group_size=30)
    assert corpus.run("identify", "--set", "checks.nul=drop").code == 0
    corpus.refused(corpus.run("identify"), "checks.nul", "--redo identify")


def test_a_limit_that_is_raised(corpus: Corpus) -> None:
    """What passed under the old limit is not done again, and the tree is that of the new one."""
    corpus.refused(corpus.run("identify", "--set", "checks.max_document_bytes=1000"), "row ", "checks.oversized: drop")
    done = {path: path.stat().st_mtime_ns for path in (corpus.work / "identified").rglob("*.parquet")}
    assert done
    corpus.goes_on("identify")
    assert {path: path.stat().st_mtime_ns for path in done} == done


HUGE = 100 * 2**20


def huge_document() -> bytes:
    sentence = "Το μεγάλο κείμενο γράφεται ξανά και ξανά, αλλά κάθε γραμμή έχει τον δικό της αριθμό: ".encode()
    lines = HUGE // (len(sentence) + 9) + 1
    return b"".join(b"%s%08d\n" % (sentence, number) for number in range(lines))[:HUGE].rstrip(b"\xce\xcf")


@pytest.mark.slow
def test_document_of_100_megabytes(corpus: Corpus) -> None:
    text = huge_document()
    replace_shard(corpus.greek, with_row(pq.read_table(corpus.greek), 17, text), row_group_size=30)
    place = f"{corpus.work / 'raw' / GREEK}: row 17: "
    corpus.refused(corpus.run("identify"), place, "checks.max_document_bytes = 67,108,864", "checks.oversized: drop")

    dropped = corpus.run("tokenize", "--set", "checks.oversized=drop")
    assert dropped.code == 0, dropped.stderr
    removed = pq.read_table(corpus.work / "removed" / "identify" / "el").to_pylist()
    found = [(row["id"], row["bytes"]) for row in removed if row["reason"] == "oversized"]
    assert found == [("el/el_part_00000/17", len(text))]

    whole = corpus.work.with_name("whole")
    let_through = ("--set", "checks.max_document_bytes=110000000", "--set", f"workdir={whole}")
    # All of every language, and a tokenizer that is there: what is tried is the document, not the sampling.
    rest = ("--set", "sample.method=all", "--set", f"tokenizer.model={corpus.work}/tokenizer/tokenizer.model")
    passed = corpus.run("tokenize", *let_through, *rest)
    assert passed.code == 0, passed.stderr
    check_whole(whole)
    sampled = pq.read_table(whole / "sampled" / "el", columns=["id", "text"])
    row = sampled["id"].to_pylist().index("el/el_part_00000/17")
    assert sampled["text"][row].as_py().encode() == text
    ids: list[str] = []
    longest = 0
    for index in sorted((whole / "tokens").rglob("el_*.idx")):
        ids += pq.read_table(index.with_suffix(".ids.parquet"))["id"].to_pylist()
        longest = max(longest, int(TokenShard(index.with_suffix("")).lengths.max()))
    assert sorted(ids) == sorted(sampled["id"].to_pylist())
    assert longest > 1_000_000


# A disk that is full


def limited(bytes_allowed: int) -> Callable[[], None]:
    """No file may grow beyond this: what a quota does, for one process and its children."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))


@pytest.mark.parametrize("stage", ["identify", "dedup", "tokenizer", "tokenize"])
def test_file_larger_than_allowed(corpus: Corpus, stage: str) -> None:
    assert lola("run", corpus.recipe, *only(ROAD[: ROAD.index(stage)])).code == 0
    # Records stay below every limit here; the stage's own files do not.
    allowed = {"tokenizer": 5_000, "dedup": 15_000}.get(stage, 20_000)
    outcome = lola_process("run", corpus.recipe, "--only", stage, preexec_fn=limited(allowed))
    corpus.refused(outcome, "cannot be written", "larger", "again")
    if stage == "identify":
        identified = [path.parent.name for path in sorted((corpus.work / "identified").rglob("*.parquet"))]
        assert identified == list(SIBLINGS)
    corpus.goes_on(stage)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("file systems may not be mounted here; test_file_larger_than_allowed stands in")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Leave so many bytes of a file system free."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    ballast.write_bytes(b"\0" * (free - leave))
    return ballast


@pytest.mark.parametrize(
    ("stage", "leave"),
    [
        ("identify", 0),
        ("identify", 64 * 1024),
        ("dedup", 0),
        ("dedup", 64 * 1024),
        ("tokenizer", 0),
        ("tokenizer", 12 * 1024),
        ("tokenize", 0),
        ("tokenize", 64 * 1024),
    ],
)
def test_full_disk(corpus: Corpus, small_disk: Path, stage: str, leave: int) -> None:
    corpus.work = small_disk / "work"
    corpus.recipe.write_text(corpus.recipe.read_text().replace(str(corpus.recipe.parent / "work"), str(corpus.work)))
    before = ROAD[: ROAD.index(stage)]
    if before:
        assert lola("run", corpus.recipe, *only(before)).code == 0
    ballast = fill(small_disk, leave=leave)
    outcome = lola("run", corpus.recipe, "--only", stage)
    corpus.refused(outcome, "no space left on the device", "run the same command")
    ballast.unlink()
    corpus.goes_on(stage)


def test_download_asks_for_room_first(corpus: Corpus, small_disk: Path) -> None:
    corpus.work = small_disk / "work"
    corpus.recipe.write_text(corpus.recipe.read_text().replace(str(corpus.recipe.parent / "work"), str(corpus.work)))
    ballast = fill(small_disk, leave=16 * 1024)
    shards = list(corpus.source.rglob("*.parquet"))
    needed = readable_bytes(sum(path.stat().st_size for path in shards))
    outcome = corpus.run("download")
    corpus.refused(outcome, f"{len(shards)} shards need {needed}, but {small_disk}", "run the same command again")
    assert re.search(r"has \d+\.\d+ kB free", outcome.message)
    assert not (corpus.work / "raw").exists()
    ballast.unlink()
    corpus.goes_on("download")


def test_disk_fills_up_while_shards_are_copied(
    corpus: Corpus, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when it was asked for, and another process took it."""
    corpus.work = small_disk / "work"
    corpus.recipe.write_text(corpus.recipe.read_text().replace(str(corpus.recipe.parent / "work"), str(corpus.work)))
    monkeypatch.setattr(FetchStep, "_check_space", lambda *_: None)
    ballast = fill(small_disk, leave=64 * 1024)
    corpus.refused(corpus.run("download"), "no space left on the device", "run the same command")
    ballast.unlink()
    corpus.goes_on("download")


def test_full_disk_in_two_tasks(corpus: Corpus, small_disk: Path) -> None:
    """A task that cannot even record its failure still says why it stopped."""
    corpus.work = small_disk / "work"
    corpus.recipe.write_text(corpus.recipe.read_text().replace(str(corpus.recipe.parent / "work"), str(corpus.work)))
    tasks = ("--set", "executor.tasks=2", "--set", "executor.workers=2")
    assert corpus.run("download").code == 0
    ballast = fill(small_disk, leave=32 * 1024)
    corpus.refused(lola_process("run", corpus.recipe, "--only", "identify", *tasks), "no space left on the device")
    ballast.unlink()
    corpus.goes_on("identify")


# A work folder that is none


def test_workdir_is_a_file(corpus: Corpus) -> None:
    corpus.work.write_text("something of value")
    outcome = corpus.run("identify")
    assert outcome.code == 1
    assert str(corpus.work) in outcome.message
    assert "Not a directory" in outcome.message or "is a file" in outcome.message
    assert corpus.work.read_text() == "something of value"
    corpus.work.unlink()
    corpus.goes_on("identify")


def test_tree_folder_is_a_file(corpus: Corpus) -> None:
    corpus.work.mkdir()
    (corpus.work / "identified").write_text("in the way")
    corpus.refused(corpus.run("identify"), corpus.work / "identified", "move it away")
    (corpus.work / "identified").unlink()
    corpus.goes_on("identify")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder that may not be written to, whoever runs the tests, and what makes it writable."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.getuid():
        folder.chmod(0o555)
        yield folder, lambda: folder.chmod(0o755)
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root may write everywhere, and file systems may not be mounted here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True) and None
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_workdir_that_may_not_be_written(corpus: Corpus, read_only: tuple[Path, Callable[[], None]]) -> None:
    folder, allow = read_only
    corpus.work = folder / "work"
    corpus.recipe.write_text(corpus.recipe.read_text().replace(str(corpus.recipe.parent / "work"), str(corpus.work)))
    outcome = corpus.run("identify")
    corpus.refused(outcome, corpus.work, "cannot be written", "Check the rights")
    allow()
    corpus.goes_on("identify")


# Recipes and command lines


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("dedup: {treshold: 0.9}", ["recipe.yaml:7: `dedup.treshold`: unknown key; did you mean `threshold`?"]),
        ("dedupe: {}", ["recipe.yaml:7: `dedupe`: unknown key; did you mean `dedup`?"]),
        ("dedup: {threshold: high}", ["recipe.yaml:7: `dedup.threshold`", '(got "high")']),
        ("dedup: {threshold: 1.5}", ["recipe.yaml:7: `dedup.threshold`", "(got 1.5)"]),
        ("dedup: {bands: 14.5}", ["recipe.yaml:7: `dedup.bands`"]),
        ("seed: yes", ["recipe.yaml:7: `seed`", '(got "yes")']),
        ("seed: 1\nseed: 2", ["recipe.yaml:8: `seed` is given twice"]),
        ("sample: {method: unimax}", ["recipe.yaml:7: `sample`", "`method: unimax` needs `total`"]),
        ("sample: {method: fair}", ["recipe.yaml:7: `sample.method`"]),
        ("sample:\n  unit: tokens", ["recipe.yaml:7: `sample`", "needs `tokenizer`"]),
        ("identify: [drop]", ["recipe.yaml:7: `identify`"]),
        ("checks: {nul: maybe}", ["recipe.yaml:7: `checks.nul`"]),
        ("dedup: {threshold: 0.9", ["recipe.yaml:", "not valid YAML"]),
        ("train: {model: {layers: -1}}", ["recipe.yaml:7: `train", "layers"]),
        ("train: {modle: {}}", ["recipe.yaml:7: `train.modle`: unknown key; did you mean `model`?"]),
    ],
)
def test_wrong_recipe(corpus: Corpus, lines: str, words: list[str]) -> None:
    recipe = write_recipe(corpus.recipe.parent, corpus.source, *lines.splitlines())
    corpus.refused(lola("run", recipe, *upto("download")), *words, code=2)
    assert not corpus.work.exists()


def test_wrong_recipe_mended(corpus: Corpus) -> None:
    good = corpus.recipe.read_text()
    corpus.recipe.write_text(good + "identify: {polcy: keep}\n")
    corpus.refused(corpus.run("identify"), "did you mean `policy`?", code=2)
    corpus.recipe.write_text(good)
    corpus.goes_on("identify")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a\n- list\n",
        b"just text",
        b"\xff\xfe\x00",
        b"seed: 1\0",
        b"seed: 1\x1b[0m",
        b"a: &x [*x]\n",
        b"a: !!python/object:os.system {}",
        b"seed: !!bool x",
        b"2024-01-01: x",
        b"2024-13-45: x",
        b"? {a: b}\n: x",
        b"a: " + b"[" * 100_000,
        b"seed: " + b"9" * 100_000,
    ],
    ids=lambda content: str(content[:12]),
)
def test_recipe_that_is_no_recipe(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    if not content:
        # An empty recipe is the recipe of all defaults: the embedded corpus.
        assert lola("recipe", "check", recipe).code == 0
        return
    outcome = lola("run", recipe)
    assert outcome.code == 2
    assert outcome.message.startswith(str(recipe))
    assert list(tmp_path.iterdir()) == [recipe]


def test_recipe_is_a_folder(tmp_path: Path) -> None:
    outcome = lola("run", tmp_path)
    assert outcome.code == 2
    assert outcome.message.startswith(str(tmp_path))


@pytest.mark.parametrize("option", ["--only", "--from", "--redo"])
def test_unknown_stage(corpus: Corpus, option: str) -> None:
    outcome = lola("run", corpus.recipe, option, "deduplicate")
    corpus.refused(outcome, "no stage `deduplicate`", "dedup, sample, tokenizer", code=2)
    assert not corpus.work.exists()


def test_stages_that_exclude_each_other(corpus: Corpus) -> None:
    """`--only` a stage before `--from` leaves nothing to do; that is not a success."""
    outcome = lola("run", corpus.recipe, "--only", "download", "--from", "dedup")
    corpus.refused(outcome, "download", "dedup", code=2)


def test_unknown_language(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"workdir: {tmp_path}/work\nlanguages: [de, gx]\n")
    outcome = lola("run", recipe)
    assert outcome.code == 2
    assert "recipe.yaml:2" in outcome.message or outcome.message.startswith(f"{recipe}: ")
    assert "gx" in outcome.message
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "value", ["dedup", "dedup.threshold", "=1", "seed.x=1", "dedup.threshold=[", "dedup.thresold=1"]
)
def test_wrong_override(corpus: Corpus, value: str) -> None:
    corpus.refused(corpus.run("download", "--set", value), f"--set {value}", code=2)
    assert not corpus.work.exists()


def test_recipe_changed_midway(corpus: Corpus) -> None:
    assert corpus.run("dedup").code == 0
    changed = corpus.run("dedup", "--set", "dedup.threshold=0.7")
    corpus.refused(changed, "threshold: 0.8 -> 0.7", "--redo dedup")
    corpus.goes_on("dedup")


def test_two_runs_in_one_work_folder(corpus: Corpus) -> None:
    import fcntl

    (corpus.work / "state").mkdir(parents=True)
    with (corpus.work / "state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on elsewhere")
        lock.flush()
        corpus.refused(corpus.run("download"), corpus.work, "in use by process 1 on elsewhere")
    corpus.goes_on("download")
