"""The stage tokenize, from sampled shards to token shards: the very text, the split, the manifest, tasks, damage."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from lola_data.errors import StageError
from lola_data.layout import Layout
from lola_data.recipe import Recipe
from lola_data.sampling.methods import plan
from lola_data.schemas import DEDUPED
from lola_data.sections import ExecutorSection, TokenizeSection
from lola_data.shards import read_batches
from lola_data.tokens import TokenShard, bin_path, idx_path
from pipelines.run import run_stage
from pipelines.tokenize import build, held_out_bound, held_out_mask
from tokenizer.encode import Encoder
from tokenizer.train import train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from lola_data.shards import Unit

SPECIAL = [
    "",
    "nul\0",
    "</s> in a text",
    "▁ mark",
    "line\n\tbreaks\r\n",
    "  spaces  ",
    "می‌خواهم",
    "👩‍👩‍👧 字 e\u0301",
    None,
]


def texts_of(lang: str) -> list[str | None]:
    return [*(f"{lang} document {number} with words {number * 7}" for number in range(120)), *SPECIAL]


def write_corpus(work: Path) -> None:
    """Sampled shards of two languages, three shards in all, and a tokenizer trained on them."""
    for lang, shards in (("en", 2), ("sw", 1)):
        rows = texts_of(lang)
        size = -(-len(rows) // shards)
        for shard in range(shards):
            name = f"{lang}_part_{shard:05d}"
            part = [
                {"id": f"{lang}/{name}/{row}", "text": text, "lang": lang, "claimed_lang": lang, "cluster_size": 1}
                for row, text in enumerate(rows[shard * size : (shard + 1) * size])
            ]
            path = work / "sampled" / lang / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(part, schema=DEDUPED), path, row_group_size=20)
    train_tokenizer(str(work / "sampled"), work / "tokenizer", vocab_size=400, seed=1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("corpus")
    write_corpus(work)
    return work


def run(corpus: Path, work: Path, *, tasks: int = 1, unit_mb: int = 512, **options: Any) -> dict[str, Any]:
    recipe = Recipe(workdir=str(work), tokenize=TokenizeSection(**{"valid_share": 0.2, **options}), unit_mb=unit_mb)
    trees = {"sample": str(corpus / "sampled"), "tokenizer": str(corpus / "tokenizer")}
    return run_stage(build(recipe, Layout(str(work), trees)), ExecutorSection(tasks=tasks, workers=min(tasks, 2)))


@pytest.fixture(scope="module")
def tokenized(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    work = tmp_path_factory.mktemp("work")
    manifest = run(corpus, work)
    return work / "tokens", manifest


def source_rows(corpus: Path) -> dict[str, str]:
    rows: dict[str, str] = {}
    for path in sorted((corpus / "sampled").rglob("*.parquet")):
        for row in pq.read_table(path, columns=["id", "text"]).to_pylist():
            rows[row["id"]] = row["text"] or ""
    return rows


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_megatron_reads_the_very_text(corpus: Path, tokenized: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Megatron-Core warns that Transformer Engine and Apex are absent
        from megatron.core.datasets.indexed_dataset import IndexedDataset
    root, manifest = tokenized
    encoder = Encoder(corpus / "tokenizer" / "tokenizer.model")
    eod = manifest["tokenizer"]["eod_id"]
    found: dict[str, str] = {}
    for entry in manifest["shards"]:
        dataset: Any = IndexedDataset(str(root / entry["path"]))
        ids = pq.read_table(root / f"{entry['path']}.ids.parquet")
        assert len(dataset) == ids.num_rows == entry["documents"]
        for number, (name, tokens) in enumerate(zip(*ids.to_pydict().values(), strict=True)):
            document = dataset[number].tolist()
            assert len(document) == tokens
            assert document[-1] == eod
            assert document.count(eod) == 1, "the end of a document stands once, at its end"
            found[name] = encoder.decode(document)
    assert found == source_rows(corpus)


def test_the_split_is_by_hash_in_every_language(corpus: Path, tokenized: tuple[Path, dict[str, Any]]) -> None:
    root, manifest = tokenized
    key = xxhash.xxh64_intdigest(b"1234/valid")
    by_split: dict[str, set[str]] = {"train": set(), "valid": set()}
    for entry in manifest["shards"]:
        by_split[entry["split"]] |= set(pq.read_table(root / f"{entry['path']}.ids.parquet")["id"].to_pylist())
    expected = {name for name in source_rows(corpus) if xxhash.xxh64_intdigest(name.encode(), key) < 0.2 * 2**64}
    assert by_split["valid"] == expected
    assert by_split["train"] == source_rows(corpus).keys() - expected
    assert {name.split("/")[0] for name in expected} == {"en", "sw"}


def held_out_by_hand(ids: list[str], share: float, seed: int = 1234) -> set[str]:
    """The documents below the share of XXH64's range, but one at least and not all, in the order of their hashes."""
    key = xxhash.xxh64_intdigest(f"{seed}/valid".encode())
    ranked = sorted(ids, key=lambda name: xxhash.xxh64_intdigest(name.encode(), key))
    below = sum(xxhash.xxh64_intdigest(name.encode(), key) < int(share * 2**64) for name in ids)
    return set(ranked[: min(max(below, 1), len(ids) - 1)] if share else [])


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.01, 0.3, 0.5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 40])
def test_of_two_documents_one_is_held_out_and_one_is_left(count: int, share: float) -> None:
    for seed in range(40):
        ids = [f"xx/xx_part_00000/{seed * 100 + row}" for row in range(count)]
        pieces = [pa.array(ids[start : start + 3], pa.string()) for start in range(0, count, 3)]
        found = held_out_mask(pa.array(ids, pa.string()), held_out_bound(pieces, share, seed), seed)
        backwards = held_out_bound([pa.array(ids[::-1], pa.string())], share, seed)
        assert backwards == held_out_bound(pieces, share, seed)
        held = {name for name, out in zip(ids, found.tolist(), strict=True) if out}
        assert held == held_out_by_hand(ids, share, seed)
        if share and count > 1:
            assert 0 < len(held) < count


SMALL = {"aa": 1, "bb": 2, "cc": 3, "dd": 30, "ee": 400}


def write_small(root: Path, tokenizer: Path, shard_rows: int) -> Path:
    """Languages of ``SMALL`` documents in shards of ``shard_rows``; ids do not tell of the shard."""
    for lang, count in SMALL.items():
        for start in range(0, count, shard_rows):
            rows = [
                {"id": f"{lang}/p/{n}", "text": f"{lang} {n}"} for n in range(start, min(count, start + shard_rows))
            ]
            path = root / "sampled" / lang / f"p_{start:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema=DEDUPED), path, row_group_size=7)
    shutil.copytree(tokenizer, root / "tokenizer")
    return root


def ids_by_split(tokens: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"train": set(), "valid": set()}
    for split, ids in found.items():
        for path in (tokens / split).glob("*.ids.parquet"):
            ids |= set(pq.read_table(path)["id"].to_pylist())
    return found


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_every_language_has_both_splits_however_it_is_cut(corpus: Path, tmp_path: Path, share: float) -> None:
    splits = []
    for shard_rows, tasks in ((1000, 1), (11, 3)):
        source = write_small(tmp_path / f"from_{shard_rows}", corpus / "tokenizer", shard_rows)
        run(source, tmp_path / f"work_{shard_rows}", tasks=tasks, valid_share=share)
        splits.append(ids_by_split(tmp_path / f"work_{shard_rows}" / "tokens"))
    assert splits[0] == splits[1]
    ids = {lang: [f"{lang}/p/{n}" for n in range(count)] for lang, count in SMALL.items()}
    assert splits[0]["valid"] == set().union(*(held_out_by_hand(names, share) for names in ids.values()))
    assert splits[0]["train"] == set().union(*ids.values()) - splits[0]["valid"]
    assert {name[:2] for name in splits[0]["valid"]} == {"bb", "cc", "dd", "ee"}
    assert {name[:2] for name in splits[0]["train"]} == SMALL.keys()


def test_only_ids_of_languages_that_may_lack_a_split_are_read_for_the_plan(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, list[str] | None]] = []

    def spy(root: str, unit: Unit, schema: pa.Schema, **options: Any) -> Any:
        read.append((unit.lang, options.get("columns")))
        return read_batches(root, unit, schema, **options)

    monkeypatch.setattr("pipelines.tokenize.read_batches", spy)
    source = write_small(tmp_path / "from", corpus / "tokenizer", 1000)
    recipe = Recipe(workdir=str(tmp_path / "work"), tokenize=TokenizeSection(valid_share=0.25))
    stage = build(recipe, Layout(str(tmp_path / "work"), {"sample": str(source / "sampled")}))
    stage.phases[0].plan()
    assert read == [(lang, ["id"]) for lang in ("aa", "bb", "cc", "dd")]  # of ee, 100 are expected to be held out


def test_a_broken_shard_fails_its_language_and_is_mended(corpus: Path, tmp_path: Path) -> None:
    source = write_small(tmp_path / "from", corpus / "tokenizer", 11)
    run(source, tmp_path / "whole", valid_share=0.1)
    shard = source / "sampled" / "dd" / "p_00011.parquet"
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-100])
    with pytest.raises(StageError, match=r"dd/p_00011\.parquet: not a complete Parquet file"):
        run(source, tmp_path / "work", valid_share=0.1)
    done = ids_by_split(tmp_path / "work" / "tokens")
    assert {name[:2] for name in done["train"]} == SMALL.keys() - {"dd"}
    shard.write_bytes(sound)
    run(source, tmp_path / "work", valid_share=0.1)
    assert ids_by_split(tmp_path / "work" / "tokens") == ids_by_split(tmp_path / "whole" / "tokens")


def test_the_manifest(corpus: Path, tokenized: tuple[Path, dict[str, Any]]) -> None:
    root, manifest = tokenized
    assert manifest == json.loads((root / "manifest.json").read_text("utf-8"))
    model = corpus / "tokenizer" / "tokenizer.model"
    assert manifest["tokenizer"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (manifest["tokenizer"]["vocab_size"], manifest["tokenizer"]["eod_id"]) == (400, 2)
    assert (root / manifest["tokenizer"]["path"]).resolve() == model.resolve()
    assert [entry["path"] for entry in manifest["shards"]] == [
        "train/en_00000",
        "train/en_00001",
        "train/sw_00000",
        "valid/en_00000",
        "valid/en_00001",
        "valid/sw_00000",
    ]
    for entry in manifest["shards"]:
        shard = TokenShard(root / entry["path"])
        assert (shard.num_documents, shard.num_tokens) == (entry["documents"], entry["tokens"])
        assert shard.dtype == np.uint16
        for kind, path in (("bin", bin_path(root / entry["path"])), ("idx", idx_path(root / entry["path"]))):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"][kind]
    texts = {lang: [text or "" for text in texts_of(lang)] for lang in ("en", "sw")}
    for lang, rows in texts.items():
        counts = manifest["languages"][lang]
        assert counts["in"]["documents"] == counts["out"]["documents"] == len(rows)
        assert counts["in"]["bytes"] == sum(len(text.encode()) for text in rows)
        entries = [entry for entry in manifest["shards"] if entry["lang"] == lang]
        assert counts["out"]["tokens"] == sum(entry["tokens"] for entry in entries)
        assert counts["out"]["bytes"] == sum(entry["bytes"] for entry in entries)
    assert manifest["shares"] == {}


def test_shares_come_from_the_sampling_plan(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    shares = plan("temperature", {"en": 900, "sw": 100}, alpha=0.3)
    (tmp_path / "corpus" / "sampled" / "plan.json").write_text(json.dumps(shares.to_json()), "utf-8")
    manifest = run(tmp_path / "corpus", tmp_path / "work")
    assert manifest["shares"] == pytest.approx({"en": 0.6591, "sw": 0.3409}, abs=1e-4)


def test_same_bytes_for_any_number_of_tasks(
    corpus: Path, tokenized: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run(corpus, tmp_path, tasks=3)
    one, three = files_of(tokenized[0]), files_of(tmp_path / "tokens")
    for files in (one, three):
        value = json.loads(files.pop("manifest.json"))
        value["tokenizer"].pop("path")  # relative to a work folder of another depth
        files["manifest"] = json.dumps(value, sort_keys=True).encode()
    assert one == three


def test_lost_and_half_written_shards_are_made_again(
    corpus: Path, tokenized: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run(corpus, tmp_path)
    tokens = tmp_path / "tokens"
    whole = files_of(tokens)
    (tokens / "train" / "en_00001.idx").unlink()
    (tokens / "train" / "sw_00000.bin").write_bytes(b"cut")
    (tokens / "valid" / ".sw_00000.bin.tmp").write_bytes(b"what a killed writer leaves")
    run(corpus, tmp_path)
    assert files_of(tokens) == whole


def test_another_share_is_another_recipe(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path)
    with pytest.raises(StageError, match=r"valid_share: 0\.2 -> 0\.3"):
        run(corpus, tmp_path, valid_share=0.3)


def test_nothing_held_out(corpus: Path, tmp_path: Path) -> None:
    manifest = run(corpus, tmp_path, valid_share=0.0)
    assert {entry["split"] for entry in manifest["shards"]} == {"train"}
    assert not (tmp_path / "tokens" / "valid").exists()


def test_a_text_that_is_not_utf8_fails_its_unit_by_name(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    text = pa.array([b"fine", b"bro\xffken"], pa.binary()).view(pa.string())
    table = pa.table({"id": ["de/a/0", "de/a/1"], "text": text})
    (tmp_path / "corpus" / "sampled" / "de").mkdir()
    pq.write_table(table, tmp_path / "corpus" / "sampled" / "de" / "a.parquet")
    with pytest.raises(StageError, match="de/a/1: text is not valid UTF-8"):
        run(tmp_path / "corpus", tmp_path / "work")
    tokens = tmp_path / "work" / "tokens"
    assert sorted(path.name for path in (tokens / "train").glob("*.idx")) == [
        "en_00000.idx",
        "en_00001.idx",
        "sw_00000.idx",
    ]
    assert not list(tokens.rglob("*de_*"))


def test_a_tokenizer_that_is_not_there(corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "corpus" / "tokenizer" / "tokenizer.model").unlink()
    with pytest.raises(StageError, match=r"tokenizer\.model: No such file"):
        run(tmp_path / "corpus", tmp_path / "work")
