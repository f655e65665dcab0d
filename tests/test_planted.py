"""What was planted in the embedded corpus, and what download, identify and dedup make of it: counted from shards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lola_data.recipe import parse_recipe
from lola_data.sample_corpus import Plant, PlantKind, planted, sample_root
from pipelines.corpus import run_corpus
from tests.console import lola
from tests.lola_data.test_sample_corpus import jaccard

THRESHOLD = 0.8
"""Of the default recipe."""


def read_tree(root: Path) -> dict[str, dict[str, Any]]:
    """Every row of a tree by its id, with the ``folder`` it lies in; ids must be unique."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("*/*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            assert row["id"] not in rows
            rows[row["id"]] = {**row, "folder": path.parent.name}
    return rows


def of_kind(*kinds: PlantKind) -> list[Plant]:
    return [plant for plant in planted() if plant.kind in kinds]


def id_of(plant: Plant) -> str:
    return f"{plant.lang}/{Path(plant.file).stem}/{plant.row}"


def original_id(plant: Plant) -> str:
    assert plant.of_file is not None
    return f"{plant.lang}/{Path(plant.of_file).stem}/{plant.of_row}"


class Trees:
    """The rows of every tree of one run."""

    def __init__(self, work: Path) -> None:
        self.raw = {
            f"{path.parent.name}/{path.stem}/{number}": row
            for path in sorted(sample_root().glob("*/*.parquet"))
            for number, row in enumerate(pq.ParquetFile(path).read().to_pylist())
        }
        self.identified = read_tree(work / "identified")
        self.deduped = read_tree(work / "deduped")
        self.misfiled = read_tree(work / "removed" / "identify")
        self.duplicates = read_tree(work / "removed" / "dedup")

    def keeper(self, document: str) -> str:
        """The document that stands for this one in the end."""
        return self.duplicates[document]["kept_id"] if document in self.duplicates else document

    def judged(self, plant: Plant) -> bool:
        """Whether both documents of a pair came as far as dedup."""
        return id_of(plant) in self.identified and original_id(plant) in self.identified


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    work = tmp_path_factory.mktemp("planted") / "work"
    recipe = parse_recipe("", overrides=[f"workdir={work}", "executor.tasks=2", "executor.workers=2"])
    run_corpus(recipe, only=["download", "identify", "dedup"])
    return Trees(work)


def test_rows_balance(trees: Trees) -> None:
    assert len(trees.raw) > 5_000
    assert trees.identified.keys() | trees.misfiled.keys() == trees.raw.keys()
    assert not trees.identified.keys() & trees.misfiled.keys()
    assert trees.deduped.keys() | trees.duplicates.keys() == trees.identified.keys()
    assert not trees.deduped.keys() & trees.duplicates.keys()


def test_rows_balance_in_every_language(trees: Trees) -> None:
    raw = Counter(document.split("/")[0] for document in trees.raw)
    parts = (trees.misfiled, trees.duplicates, trees.deduped)
    assert raw == Counter(document.split("/")[0] for part in parts for document in part)
    for part in (trees.identified, *parts):
        assert all(row["folder"] == document.split("/")[0] == row["claimed_lang"] for document, row in part.items())


def test_ids_lead_back_to_the_raw_row(trees: Trees) -> None:
    for tree in (trees.identified, trees.deduped):
        for document, row in tree.items():
            assert {name: row[name] for name in ("text", "url", "source", "timestamp")} == trees.raw[document]
    for document, row in {**trees.misfiled, **trees.duplicates}.items():
        assert row["bytes"] == len(trees.raw[document]["text"].encode())
        assert row["url"] == trees.raw[document]["url"]


def test_every_removed_row_names_a_document_that_is_there(trees: Trees) -> None:
    for document, row in trees.duplicates.items():
        assert row["kept_id"] in trees.deduped, document
        assert row["kept_id"].split("/")[0] == document.split("/")[0]
    stood_for = Counter(row["kept_id"] for row in trees.duplicates.values())
    assert {document: row["cluster_size"] for document, row in trees.deduped.items()} == {
        document: 1 + stood_for[document] for document in trees.deduped
    }


@pytest.mark.parametrize("kind", ["exact_copy", "normalised_copy"])
def test_every_copy_is_found(trees: Trees, kind: PlantKind) -> None:
    pairs = [plant for plant in of_kind(kind) if trees.judged(plant)]
    assert len(pairs) >= 0.97 * len(of_kind(kind))
    for plant in pairs:
        assert trees.keeper(id_of(plant)) == trees.keeper(original_id(plant))
        assert trees.duplicates[id_of(plant)]["reason"] in ("exact", "url")


def test_a_copy_is_not_lost_between_stages(trees: Trees) -> None:
    """Identify sees the same text twice and says the same; only a normalised copy may be judged another way."""
    for plant in of_kind("exact_copy"):
        assert (id_of(plant) in trees.identified) == (original_id(plant) in trees.identified)


def test_every_same_url_pair_is_found(trees: Trees) -> None:
    pairs = [plant for plant in of_kind("same_url") if trees.judged(plant)]
    assert len(pairs) >= 0.97 * len(of_kind("same_url"))
    for plant in pairs:
        assert trees.keeper(id_of(plant)) == trees.keeper(original_id(plant))


def test_near_duplicates_are_found(trees: Trees) -> None:
    pairs = [plant for plant in of_kind("near_duplicate") if (plant.jaccard or 0) >= 0.9 and trees.judged(plant)]
    assert len(pairs) >= 50
    found = [plant for plant in pairs if trees.keeper(id_of(plant)) == trees.keeper(original_id(plant))]
    assert len(found) >= 0.95 * len(pairs)


def test_decoys_stay(trees: Trees) -> None:
    pairs = [plant for plant in of_kind("decoy") if trees.judged(plant)]
    assert len(pairs) >= 40
    assert all((plant.jaccard or 0) < 0.4 for plant in pairs)
    removed = [plant for plant in pairs if trees.keeper(id_of(plant)) == trees.keeper(original_id(plant))]
    assert len(removed) < 0.01 * len(pairs)


def test_similarities_are_true(trees: Trees) -> None:
    """Each near-duplicate is as similar to the very document it goes for as its row says, by another way to count."""
    rows = [row for row in trees.duplicates.values() if row["reason"] == "near"]
    assert len(rows) >= 80
    for row in rows:
        similarity = jaccard(trees.raw[row["id"]]["text"], trees.raw[row["kept_id"]]["text"])
        assert row["similarity"] == pytest.approx(similarity, abs=1e-6)
        assert similarity >= THRESHOLD


def test_nothing_else_is_removed_as_a_duplicate(trees: Trees) -> None:
    """Documents that nobody planted go only as true duplicates: by the same words, or the same address."""
    pairs = of_kind("exact_copy", "normalised_copy", "near_duplicate", "same_url")
    planned = {name for plant in pairs for name in (id_of(plant), original_id(plant))}
    for document, row in trees.duplicates.items():
        if document not in planned and row["reason"] == "exact":
            texts = [" ".join(trees.raw[name]["text"].casefold().split()) for name in (document, row["kept_id"])]
            assert texts[0] == texts[1]


def test_long_documents_in_the_wrong_language_are_removed(trees: Trees) -> None:
    plants = of_kind("wrong_language")
    assert len(plants) >= 50
    found = [plant for plant in plants if trees.misfiled.get(id_of(plant), {}).get("reason") == "wrong_language"]
    assert len(found) >= 0.95 * len(plants)


def test_few_documents_in_the_right_language_are_removed(trees: Trees) -> None:
    plants = {id_of(plant) for plant in of_kind("wrong_language", "wrong_language_short")}
    assert len(trees.misfiled.keys() - plants) < 0.02 * len(trees.raw)


def test_relabelling_moves_them_home(tmp_path: Path) -> None:
    work = tmp_path / "work"
    outcome = lola("identify", sample_root(), "--workdir", work, "--policy", "relabel", "--tasks", 1)
    assert outcome.code == 0, outcome.stderr
    rows = read_tree(work / "identified")
    plants = of_kind("wrong_language")
    home = [plant for plant in plants if rows.get(id_of(plant), {}).get("folder") == plant.true_lang]
    assert len(home) >= 0.95 * len(plants)
    for plant in home:
        row = rows[id_of(plant)]
        assert (row["claimed_lang"], row["lang"]) == (plant.lang, plant.true_lang)
    assert len(rows) + len(read_tree(work / "removed" / "identify")) == sum(
        pq.read_metadata(path).num_rows for path in sample_root().glob("*/*.parquet")
    )
