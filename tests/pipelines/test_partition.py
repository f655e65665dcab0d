"""Matching in parts: the same files as in one go, by any number of tasks and after a fault; parts fit in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.stages.match_check import made_texts, write_tree
from lola_data.errors import StageError
from lola_data.layout import Layout
from lola_data.recipe import Recipe
from lola_data.sections import DedupSection, ExecutorSection
from pipelines.dedup import build
from pipelines.partition import key_parts, member_limit
from pipelines.run import run_stage

if TYPE_CHECKING:
    from pathlib import Path


def run(tree: Path, work: Path, *, tasks: int = 1, **options: Any) -> dict[str, Any]:
    section = DedupSection(max_removed_share=1.0, **options)
    recipe = Recipe(workdir=str(work), dedup=section)
    stage = build(recipe, Layout(recipe.workdir, {"identify": str(tree)}))
    return run_stage(stage, ExecutorSection(tasks=tasks, workers=min(tasks, 2)))


def files(work: Path) -> dict[str, bytes]:
    trees = [path for name in ("deduped", "removed") for path in (work / name).rglob("*")]
    return {path.relative_to(work).as_posix(): path.read_bytes() for path in trees if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the made documents of two languages, two in five have near or exact copies, in other shards too. A third has
    none, a fourth one document, a fifth only empty ones."""
    root = tmp_path_factory.mktemp("made")
    texts = made_texts(3_000)
    write_tree(root, "en", texts, rows=500)
    write_tree(root, "sw", texts[:300], rows=50)
    write_tree(root, "yo", [f"a text like no other, number {number}" for number in range(9)], rows=5)
    write_tree(root, "zu", ["one text"])
    write_tree(root, "xh", ["", ""])
    return root


@pytest.fixture(scope="module")
def in_one_go(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    work = tmp_path_factory.mktemp("whole")
    manifest = run(tree, work)
    assert manifest["search"]["en"]["verified_pairs"] > 100
    assert manifest["languages"]["en"]["removed"]["near"]["documents"] > 100
    return files(work)


@pytest.mark.parametrize(("partitions", "tasks"), [(2, 1), (64, 1), (7, 2)])
def test_parts_give_the_same_files(
    tree: Path, in_one_go: dict[str, bytes], tmp_path: Path, partitions: int, tasks: int
) -> None:
    run(tree, tmp_path, partitions=partitions, tasks=tasks)
    assert files(tmp_path) == in_one_go


def test_without_url_or_bands_too(tree: Path, tmp_path: Path) -> None:
    for name, options in (("exact", {"minhash": False, "url": False}), ("bands", {"exact": False})):
        run(tree, tmp_path / name / "one", **options)
        run(tree, tmp_path / name / "parts", partitions=5, **options)
        whole = files(tmp_path / name / "one")
        assert files(tmp_path / name / "parts") == whole
        assert any(path.startswith("removed") for path in whole)


def test_a_lost_intermediate_file_is_made_again(
    tree: Path, in_one_go: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each phase fails once, with a file of the phase before it gone; another number of parts is asked for then."""
    from pipelines.partition import GatherStep, GroupStep, TieStep

    for step, lost in (
        (TieStep, "spread/en/made-00002.frames"),
        (GroupStep, "ties/en/00001.frames"),
        (GatherStep, "groups/en.frames"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(step, "process", _fail)
            with pytest.raises(StageError, match="units failed"):
                run(tree, tmp_path, partitions=4)
        path = tmp_path / "scratch/dedup" / lost
        assert path.exists()
        path.unlink()
    run(tree, tmp_path, partitions=9)
    assert files(tmp_path) == in_one_go


def _fail(self: Any, work: Any) -> Any:
    raise StageError(f"{work.key}: a fault")


def test_ids_that_are_there_twice_meet(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", "en", made_texts(40), rows=40)
    shard = tmp_path / "tree/en/made-00000.parquet"
    (tmp_path / "tree/en/other.parquet").write_bytes(shard.read_bytes())
    with pytest.raises(StageError, match=r"the id `en/made/\d+` is there twice"):
        run(tmp_path / "tree", tmp_path / "work", partitions=3)


def test_a_group_beyond_the_memory_is_told(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.partition.GATHERED_BYTES", 10**9)
    run(tree, tmp_path, partitions=4)
    told = [line for line in capsys.readouterr().err.splitlines() if "hang together" in line]
    assert len(told) == 2
    assert told[0].startswith("dedup: en: ")
    assert told[0].endswith("and --memory says 4.0 GB")


def test_parts_fit_in_memory() -> None:
    section = DedupSection(bands=14)
    memory = 4 * 10**9
    assert key_parts(1_000_000, section, memory) == 1
    # English: 3.2 billion documents, 17 keys each of 48 bytes, in pieces of 2 GB.
    documents = 3_200_000_000
    assert key_parts(documents, section, memory) == -(-documents * 17 * 48 // (2 * 10**9)) == 1306
    assert member_limit(10**9, section, memory) * 800 <= memory // 2
    assert key_parts(10, DedupSection(partitions=64), memory) == 64
    assert member_limit(1_000, DedupSection(partitions=64), memory) == 16
