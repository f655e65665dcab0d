"""A second run over a work folder that has changed: stale, lost or foreign output is never taken for the recipe's."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.console import ROAD, lola, replace_shard, trees, upto, write_recipe, write_source

if TYPE_CHECKING:
    from pathlib import Path

SHORT_TRAINING = (
    "train: {tokens: 512, batch_size: 4, eval_tokens: 32, model: {layers: 2, d_model: 16, heads: 2, seq_len: 16}}"
)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, a recipe and a work folder in which every stage has been run."""
    folder = tmp_path_factory.mktemp("road")
    recipe = write_recipe(folder, write_source(folder / "source"), SHORT_TRAINING)
    outcome = lola("run", recipe)
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def done(road: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A recipe and a work folder of its own, a copy of the one above."""
    shutil.copytree(road / "source", tmp_path / "source")
    shutil.copytree(road / "work", tmp_path / "work", symlinks=True)
    # The source's place is a setting of the run, so the copy keeps that of the first.
    recipe = write_recipe(tmp_path, road / "source", SHORT_TRAINING)
    return recipe, tmp_path / "work"


def test_nothing_is_done_twice(done: tuple[Path, Path]) -> None:
    recipe, _ = done
    outcome = lola("run", recipe)
    assert outcome.code == 0
    assert outcome.stderr.count("up to date") == len(ROAD) + 2


def test_stages_after_an_input_made_anew_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    recipe = write_recipe(tmp_path, source)
    assert lola("run", recipe, *upto("dedup")).code == 0
    greek = source / "el" / "el_part_00000.parquet"
    replace_shard(greek, pq.read_table(greek).slice(0, 10))
    # The stage alone deletes its own output only.
    assert lola("download", "--recipe", recipe, "--redo").code == 0
    outcome = lola("run", recipe, *upto("dedup"))
    assert outcome.code == 1
    assert "inputs.download" in outcome.message
    assert "--redo identify" in outcome.message
    assert lola("run", recipe, *upto("dedup"), "--redo", "identify").code == 0
    manifest = json.loads((tmp_path / "work" / "deduped" / "manifest.json").read_text())
    assert manifest["languages"]["el"]["in"]["documents"] <= 10


def test_a_tokenizer_of_a_run_is_not_written_over(done: tuple[Path, Path]) -> None:
    recipe, work = done
    before = trees(work)
    for call in (("--recipe", recipe), (work / "sampled", "--out", work / "tokenizer")):
        outcome = lola("tokenizer", "train", *call, "--vocab-size", 600)
        assert outcome.code == 2
        assert "--redo tokenizer" in outcome.message
    assert trees(work) == before


def test_a_tokenizer_made_elsewhere_is_known_by_its_bytes(done: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, work = done
    model = tmp_path / "own.model"
    shutil.copy(work / "tokenizer" / "tokenizer.model", model)
    own = ("--set", f"tokenizer.model={model}")
    upto_tokens = (*upto("tokenize"), *own)
    assert lola("run", recipe, *upto_tokens, "--redo", "tokenizer").code == 0
    assert lola("tokenizer", "train", work / "sampled", "--out", tmp_path / "other", "--vocab-size", 450).code == 0
    shutil.copy(tmp_path / "other" / "tokenizer.model", model)
    outcome = lola("run", recipe, *upto_tokens)
    assert outcome.code == 1
    assert "settings.sha256" in outcome.message


def test_single_stages_make_a_road_of_their_own(done: tuple[Path, Path]) -> None:
    """`tokenizer train` into the place of the run's tokenizer, then `tokenize`: the same token shards."""
    recipe, work = done
    expected = trees(work, ["tokenize"])
    for gone in ("tokenizer", "tokens", "state/tokenizer", "state/tokenize"):
        shutil.rmtree(work / gone)
    assert lola("tokenizer", "train", "--recipe", recipe, "--no-report").code == 0
    outcome = lola("tokenize", "--recipe", recipe)
    assert outcome.code == 0, outcome.stderr
    assert trees(work, ["tokenize"]) == expected


@pytest.mark.parametrize(
    "lost",
    [
        "raw/el/el_part_00000.parquet", "identified/el/el_part_00000.parquet", "sampled/plan.json",
        "tokenizer/tokenizer.model", "tokenizer/card.json", "report/balance.html", "runs/moe/summary.json",
        "runs/moe/checkpoints",
    ],
)  # fmt: skip
def test_what_is_lost_is_made_again(done: tuple[Path, Path], lost: str) -> None:
    recipe, work = done
    path = work / lost
    files = [path] if path.is_file() else sorted(path.rglob("step_*/*"))
    before = [one.read_bytes() for one in files]
    assert before
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    outcome = lola("run", recipe)
    assert outcome.code == 0, outcome.stderr
    assert [one.read_bytes() for one in files] == before
    assert lola("run", recipe).stderr.count("up to date") == len(ROAD) + 2


def test_removed_rows_that_are_lost_with_their_records_are_made_again(done: tuple[Path, Path]) -> None:
    recipe, work = done
    shard = next((work / "removed" / "identify").rglob("*.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(b"")
    for record in (work / "state" / "identify").glob(f"*/done/*{shard.stem}*.json"):
        record.write_bytes(b"")
    assert lola("run", recipe, *upto("identify")).code == 0
    assert shard.read_bytes() == content


def test_names_that_a_loss_of_power_left_without_content(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    work = tmp_path / "work"
    assert lola("run", recipe, *upto("dedup")).code == 0
    before = trees(work)
    records = sorted((work / "state").rglob("el*.json"))
    assert {path.parents[2].name for path in records} == {"download", "identify", "dedup"}
    for path in (*records, work / "identified" / "el" / "el_part_00000.parquet", *work.rglob("plan.json")):
        path.write_bytes(b"")
    for path in (work / "state").rglob("complete.json"):
        path.unlink()
    outcome = lola("run", recipe, *upto("dedup"))
    assert outcome.code == 0, outcome.stderr
    assert trees(work) == before


@pytest.mark.parametrize("redo", [False, True])
def test_input_is_never_output(done: tuple[Path, Path], redo: bool) -> None:
    recipe, work = done
    before = trees(work)
    again = ("--redo",) if redo else ()
    outcome = lola("identify", work / "identified", "--workdir", work, *again)
    assert outcome.code == 1
    assert "Set another `workdir`" in outcome.message
    outcome = lola("download", "--source", "local", "--path", work / "raw", "--workdir", work, *again)
    assert outcome.code == 1
    assert "Set another `workdir`" in outcome.message
    assert trees(work) == before
    assert lola("run", recipe).code == 0


def test_redo_that_would_leave_a_stage_without_its_input_deletes_nothing(done: tuple[Path, Path]) -> None:
    recipe, work = done
    before = trees(work)
    outcome = lola("run", recipe, "--only", "train", "--redo", "download")
    assert outcome.code == 2
    assert "Nothing has been deleted" in outcome.message
    assert trees(work) == before


def test_redo_of_a_tree_that_is_a_link(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    recipe = write_recipe(tmp_path, source)
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "raw").symlink_to(disk)
    assert lola("run", recipe, "--only", "download").code == 0
    shutil.rmtree(source / "el")
    outcome = lola("run", recipe, "--only", "download", "--redo", "download", "--set", "languages=[cy, sw, yo]")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "work" / "raw").is_symlink()
    assert sorted(path.name for path in disk.iterdir() if path.is_dir()) == ["cy", "sw", "yo"]


@pytest.mark.parametrize(
    ("wrong", "stage"),
    [("download.path=/nowhere", "download"), ("tokenizer.vocab_size=900000", "tokenizer")],
)
def test_a_setting_that_made_nothing_is_mended_freely(tmp_path: Path, wrong: str, stage: str) -> None:
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    outcome = lola("run", recipe, *upto(stage), "--set", wrong)
    assert outcome.code in (1, 2)
    assert lola("run", recipe, *upto(stage)).code == 0


def test_status_tells_what_stopped_a_whole_stage(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    assert lola("run", recipe, *upto("tokenizer"), "--set", "tokenizer.vocab_size=900000").code == 2
    outcome = lola("status", tmp_path / "work")
    assert outcome.code == 1
    assert "set it to at most" in outcome.stdout
    assert lola("run", recipe, *upto("tokenizer")).code == 0
    assert lola("status", tmp_path / "work").code == 0


def test_a_failed_shard_taken_away_is_forgotten(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    extra = source / "el" / "el_part_00001.parquet"
    extra.write_bytes(b"no shard")
    recipe = write_recipe(tmp_path, source)
    assert lola("run", recipe, "--only", "download").code == 1
    extra.unlink()
    assert lola("run", recipe, "--only", "download").code == 0
    assert lola("status", tmp_path / "work").code == 0


def test_dry_run_tells_what_the_run_would_do(done: tuple[Path, Path]) -> None:
    recipe, _ = done

    def states(*options: str) -> dict[str, str]:
        plan = json.loads(lola("run", recipe, "--dry-run", "--json", *options).stdout)
        return {row["stage"]: row["state"] for row in plan["stages"]}

    assert set(states().values()) == {"complete"}
    redone = states("--redo", "sample")
    assert [name for name, state in redone.items() if state == "to do"] == list(redone)[3:]
    assert states("--set", "dedup.threshold=0.7")["dedup"] == "of another recipe"
    text = lola("run", recipe, "--dry-run", "--set", "dedup.threshold=0.7").stdout
    assert "the run will refuse it without `--redo dedup`" in text
    outcome = lola("run", recipe, "--dry-run", "--redo", "bogus")
    assert outcome.code == 2
    assert "no stage `bogus`" in outcome.message


@pytest.mark.parametrize("name", ["scratch", "identified", "removed"])
def test_a_file_where_a_folder_should_be(tmp_path: Path, name: str) -> None:
    recipe = write_recipe(tmp_path, write_source(tmp_path / "source"))
    assert lola("run", recipe, "--only", "download").code == 0
    shutil.rmtree(tmp_path / "work" / name, ignore_errors=True)
    (tmp_path / "work" / name).write_text("mine")
    outcome = lola("run", recipe, *upto("dedup"))
    assert outcome.code == 1
    assert str(tmp_path / "work" / name) in outcome.message
    assert "bug" not in outcome.message
    (tmp_path / "work" / name).unlink()
    assert lola("run", recipe, *upto("dedup")).code == 0
