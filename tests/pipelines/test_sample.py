"""The stage sample on trees made here; the choice itself is tested in tests/lola_data/sampling/test_methods.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
import xxhash

from lola_data import storage
from lola_data.errors import LolaError, RecipeError, StageError
from lola_data.layout import Layout
from lola_data.recipe import Recipe
from lola_data.sampling.methods import SamplingPlan
from lola_data.schemas import DEDUPED
from pipelines.run import run_stage
from pipelines.sample import build

if TYPE_CHECKING:
    from pathlib import Path

SEED = 1234


def write_tree(folder: Path, shards: dict[str, int], *, row_group_size: int = 25) -> None:
    """Shards ``<lang>/<name>`` of so many documents; text i has 1 + i % 7 letters of two bytes each."""
    for shard, documents in shards.items():
        lang = shard.split("/")[0]
        path = folder / "deduped" / f"{shard}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "id": [f"{shard}/{row}" for row in range(documents)],
                "text": ["ü" * (1 + row % 7) for row in range(documents)],
                "claimed_lang": [lang] * documents,
                "lang": [lang] * documents,
            }
        )
        pq.write_table(table, path, row_group_size=row_group_size)


def run(folder: Path, *, tasks: int = 1, work: str = "work", **section: Any) -> dict[str, Any]:
    """Sample ``folder/deduped`` into ``folder/<work>``; the manifest."""
    executor = {"tasks": tasks, "workers": min(tasks, 2)}
    top = {key: section.pop(key) for key in ("seed", "languages") if key in section}
    values = {"workdir": str(folder / work), "executor": executor, "sample": section, **top}
    recipe = Recipe.model_validate(values)
    layout = Layout(recipe.workdir, {"dedup": str(folder / "deduped")})
    return run_stage(build(recipe, layout), recipe.executor)


def rows(folder: Path, work: str = "work") -> dict[str, list[dict[str, Any]]]:
    """File -> rows of the sampled tree."""
    root = folder / work / "sampled"
    return {
        path.relative_to(root).as_posix(): pq.ParquetFile(path).read().to_pylist()
        for path in sorted(root.rglob("*.parquet"))
    }


def ids(folder: Path, work: str = "work") -> dict[str, set[str]]:
    """Language -> ids of the sampled documents."""
    found: dict[str, set[str]] = {}
    for file, taken in rows(folder, work).items():
        names = [row["id"] for row in taken]
        assert len(names) == len(set(names))
        found.setdefault(file.split("/")[0], set()).update(names)
    return found


def files(folder: Path, work: str) -> dict[str, bytes]:
    root = folder / work
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {"logs", "lock"} & set(path.relative_to(root).parts)
    }


def by_hash(names: list[str], count: int) -> set[str]:
    """The ids with the smallest hash, by the reference library."""
    key = xxhash.xxh64_intdigest(f"{SEED}/sample".encode())
    return set(sorted(names, key=lambda name: xxhash.xxh64_intdigest(name.encode(), key))[:count])


def test_documents_with_the_smallest_hash_are_taken_whole_and_in_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 90, "de/b": 60, "sw/a": 50})
    manifest = run(tmp_path, method="proportional", unit="documents", total=40)
    everything = {
        "de": [f"de/a/{row}" for row in range(90)] + [f"de/b/{row}" for row in range(60)],
        "sw": [f"sw/a/{row}" for row in range(50)],
    }
    assert ids(tmp_path) == {"de": by_hash(everything["de"], 30), "sw": by_hash(everything["sw"], 10)}
    for file, taken in rows(tmp_path).items():
        source = pq.read_table(tmp_path / "deduped" / file).to_pylist()
        names = {row["id"] for row in taken}
        expected = [{**dict.fromkeys(DEDUPED.names), **row} for row in source if row["id"] in names]
        assert taken == expected
    assert manifest["languages"]["de"]["removed"]["not_sampled"]["documents"] == 120
    totals = manifest["totals"]
    for count in ("documents", "characters", "bytes"):
        assert totals["in"][count] == totals["out"][count] + totals["removed"]["not_sampled"][count]


def test_the_plan_is_written_beside_the_rows(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 900, "sw/a": 100})
    manifest = run(tmp_path, method="temperature", unit="documents", alpha=0.3)
    written = storage.read_json(str(tmp_path / "work/sampled/plan.json"))
    assert written == manifest["plan"]
    plan = SamplingPlan.from_json(written)
    de, sw = plan.languages["de"], plan.languages["sw"]
    assert (round(de.share, 4), round(sw.share, 4)) == (0.6591, 0.3409)
    assert (de.available, de.budget, sw.available, sw.budget) == (900, 659, 100, 341)
    assert sw.epochs == 3.41
    # A language that is to be gone over three times lies in the files once.
    assert (len(ids(tmp_path)["de"]), len(ids(tmp_path)["sw"])) == (659, 100)
    text = (tmp_path / "work/sampled/plan.txt").read_text()
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["de", "sw"]
    assert "3.410" in text


def test_bytes_are_counted_and_never_exceeded(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 500, "sw/a": 70})
    run(tmp_path, method="budgets", unit="bytes", budgets={"de": 1001, "sw": 10_000})
    taken = rows(tmp_path)
    size = sum(len(row["text"].encode()) for row in taken["de/a.parquet"])
    assert 1001 - 14 < size <= 1001
    assert len(taken["sw/a.parquet"]) == 70


def test_a_larger_budget_takes_a_superset(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 300, "de/b": 200})
    before: set[str] = set()
    for number, total in enumerate((10, 100, 400, 500)):
        run(tmp_path, work=f"work{number}", method="proportional", unit="documents", total=total)
        taken = ids(tmp_path, f"work{number}")["de"]
        assert len(taken) == total
        assert before < taken
        before = taken


def test_the_sample_does_not_depend_on_how_documents_are_cut_into_shards(tmp_path: Path) -> None:
    write_tree(tmp_path / "one", {"de/a": 300})
    whole = pq.read_table(tmp_path / "one/deduped/de/a.parquet")
    (tmp_path / "two/deduped/de").mkdir(parents=True)
    pq.write_table(whole.slice(170), tmp_path / "two/deduped/de/a.parquet", row_group_size=11)
    pq.write_table(whole.slice(0, 170), tmp_path / "two/deduped/de/b.parquet", row_group_size=40)
    for folder in ("one", "two"):
        run(tmp_path / folder, method="proportional", unit="documents", total=77)
    assert ids(tmp_path / "one") == ids(tmp_path / "two")


def test_another_seed_takes_others(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 300})
    run(tmp_path, method="proportional", unit="documents", total=100)
    run(tmp_path, work="other", seed=7, method="proportional", unit="documents", total=100)
    both = ids(tmp_path)["de"] & ids(tmp_path, "other")["de"]
    assert 15 < len(both) < 55


def test_lola_v1_takes_the_first_documents_in_order(tmp_path: Path) -> None:
    """Beyond 100,000 documents a share, from the front; below it all."""
    write_tree(tmp_path, {"de/a": 1000, "de/b": 99_500, "sw/a": 300}, row_group_size=20_000)
    manifest = run(tmp_path, method="lola-v1", unit="documents")
    # 16 % of 100,500.
    taken = [row["id"] for part in ("de/a.parquet", "de/b.parquet") for row in rows(tmp_path)[part]]
    assert taken == [f"de/a/{row}" for row in range(1000)] + [f"de/b/{row}" for row in range(16_080 - 1000)]
    assert len(rows(tmp_path)["sw/a.parquet"]) == 300
    assert manifest["plan"]["languages"]["de"]["budget"] == 16_080


def test_unimax_leaves_the_rest_unspent_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, {"aa/a": 100, "bb/a": 10, "cc/a": 1})
    manifest = run(tmp_path, method="unimax", unit="documents", total=480, max_epochs=4.0)
    assert [budget["budget"] for budget in manifest["plan"]["languages"].values()] == [400, 40, 4]
    assert manifest["plan"]["unspent"] == 36
    assert "36 of 480 left unspent" in capsys.readouterr().err
    assert {lang: len(names) for lang, names in ids(tmp_path).items()} == {"aa": 100, "bb": 10, "cc": 1}


def test_a_language_without_budget_leaves_no_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 50, "sw/a": 20})
    manifest = run(tmp_path, method="budgets", unit="documents", budgets={"de": 10})
    assert list(ids(tmp_path)) == ["de"]
    assert manifest["languages"]["sw"]["removed"]["not_sampled"]["documents"] == 20


def test_tokens_are_those_of_the_token_shards(tmp_path: Path) -> None:
    """A model of nothing but bytes and single letters: a text has two tokens a letter or one, and its end."""
    model = tmp_path / "tiny.model"
    with model.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"] * 10),
            model_writer=stream,
            model_type="bpe",
            vocab_size=266,
            byte_fallback=True,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            minloglevel=2,
        )
    write_tree(tmp_path, {"de/a": 70, "sw/a": 7})
    manifest = run(tmp_path, method="budgets", unit="tokens", tokenizer=str(model), budgets={"de": 100}, max_epochs=1.0)
    # Ten times (2 + 4 + ... + 14) bytes, each a token, and 70 ends.
    assert manifest["plan"]["languages"]["de"]["available"] == 10 * 56 + 70
    taken = rows(tmp_path)["de/a.parquet"]
    assert 100 - 15 < sum(2 * len(row["text"]) + 1 for row in taken) <= 100
    model.write_bytes(model.read_bytes().replace(b"identity", b"identitY"))
    with pytest.raises(StageError, match="tokenizer_sha256"):
        run(tmp_path, method="budgets", unit="tokens", tokenizer=str(model), budgets={"de": 100}, max_epochs=1.0)


def test_outputs_do_not_depend_on_the_number_of_tasks(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 90, "de/b": 60, "sw/a": 50, "yo/a": 3})
    section = {"method": "temperature", "unit": "bytes", "total": 500}
    run(tmp_path, **section)
    run(tmp_path, work="many", tasks=3, **section)
    assert files(tmp_path, "work") == files(tmp_path, "many")


def test_documents_without_an_id_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 5})
    path = tmp_path / "deduped/de/a.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "id", pa.array(["de/a/0", None, None, "de/a/3", "de/a/4"])), path)
    with pytest.raises(LolaError, match=r"de/a\.parquet: documents without `id`.*run the stage `identify`"):
        run(tmp_path, method="all", unit="documents")
    assert not (tmp_path / "work/sampled").exists()


def test_a_budget_for_a_language_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    write_tree(tmp_path, {"de/a": 5})
    with pytest.raises(RecipeError, match=r"sample\.budgets: no documents in sw; the languages at hand are de"):
        run(tmp_path, method="budgets", unit="documents", budgets={"de": 1, "sw": 1})
    assert not (tmp_path / "work/sampled").exists()


def test_a_second_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, {"de/a": 30, "sw/a": 30})
    first = run(tmp_path, method="proportional", unit="documents", total=20)
    before = files(tmp_path, "work")
    capsys.readouterr()
    assert run(tmp_path, method="proportional", unit="documents", total=20) == first
    assert "up to date" in capsys.readouterr().err
    assert files(tmp_path, "work") == before
