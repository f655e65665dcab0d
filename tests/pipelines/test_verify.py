"""`lola-data verify` and `--repair`, on trees that were damaged in every way."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.errors import StageError
from lola_data.layout import Layout
from lola_data.recipe import parse_recipe
from pipelines.download import build
from pipelines.repair import repair
from pipelines.verify import verify
from tests.console import lola
from tests.pipelines.download_cases import corpus, fetch, manifest_of, read_tree, shard, stage_of, write_tree

FILES = corpus({"de": 3, "sw": 1})
FIRST, SECOND, THIRD, FOURTH = sorted(FILES)


def damaged(path: Path) -> None:
    """Flip a byte in the middle, in a file of its own: the tree may hold the source's file under another name."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    source = write_tree(tmp_path / "source", FILES)
    stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
    assert fetch(stage) == []
    stage.write_manifest({"settings": stage.settings})
    return tmp_path / "w"


def kinds(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for fault in verify(str(root)).faults:
        found.setdefault(Path(fault.path).relative_to(root).as_posix(), []).append(fault.kind)
    return found


def test_what_was_downloaded_is_sound(work: Path) -> None:
    for root in (work, work / "raw"):
        found = verify(str(root))
        assert (found.files, found.digests, found.faults) == (4, 4, [])


def test_every_kind_of_damage_is_told_and_mended(work: Path) -> None:
    raw = work / "raw"
    damaged(raw / FIRST)
    (raw / SECOND).unlink()
    content = (raw / FOURTH).read_bytes()
    (raw / FOURTH).unlink()
    (raw / FOURTH).write_bytes(content[:-10])
    (raw / "de" / "stranger.parquet").write_bytes(shard("x"))
    assert kinds(work) == {
        f"raw/{FIRST}": ["digest"],
        f"raw/{SECOND}": ["missing"],
        f"raw/{FOURTH}": ["size"],
        "raw/de/stranger.parquet": ["unlisted"],
    }
    mended, left = repair(str(work), verify(str(work)).faults)
    assert mended == [str(raw / path) for path in (FIRST, SECOND, FOURTH)]
    assert [fault.kind for fault in left] == ["unlisted"]
    (raw / "de" / "stranger.parquet").unlink()
    assert kinds(work) == {}
    assert {path: content for path, content in read_tree(raw).items() if path != "manifest.json"} == FILES
    # What was damaged can still be looked at.
    assert sorted(read_tree(work / "scratch" / "download" / "damaged")) == [FIRST, FOURTH]


def test_a_source_that_is_damaged_too_repairs_nothing(work: Path, tmp_path: Path) -> None:
    damaged(tmp_path / "source" / FIRST)
    damaged(work / "raw" / FIRST)
    before = (work / "raw" / FIRST).read_bytes()
    mended, left = repair(str(work), verify(str(work)).faults)
    assert mended == []
    assert "not repaired" in left[0].message
    assert (work / "raw" / FIRST).read_bytes() == before


def test_a_shard_of_another_shape_is_made_again(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"Satz {number}"}) + "\n" for number in range(50)).encode()
    source = write_tree(tmp_path / "source", {"de/a.jsonl": lines})
    stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
    assert fetch(stage) == []
    stage.write_manifest({"settings": stage.settings})
    whole = (tmp_path / "w/raw/de/a.parquet").read_bytes()
    damaged(tmp_path / "w/raw/de/a.parquet")
    assert kinds(tmp_path / "w") == {"raw/de/a.parquet": ["digest"]}
    assert repair(str(tmp_path / "w"), verify(str(tmp_path / "w")).faults)[1] == []
    assert (tmp_path / "w/raw/de/a.parquet").read_bytes() == whole


def test_a_plain_tree_is_held_to_its_checksum_files(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", FILES)
    listing = {path: hashlib.sha256(FILES[path]).hexdigest() for path in (FIRST, SECOND)}
    text = "".join(f"{digest} *{path.split('/')[1]}\n" for path, digest in listing.items())
    (tree / "de" / "checksum.sha256").write_text(text + f"{'0' * 64}  de_part_00099.parquet\n")
    damaged(tree / FIRST)
    assert kinds(tree) == {FIRST: ["digest"], "de/de_part_00099.parquet": ["missing"]}
    with pytest.raises(StageError, match="not on record where these shards came from"):
        repair(str(tree), verify(str(tree)).faults)


def test_without_any_record_what_can_be_read_is_read(tmp_path: Path) -> None:
    bad = pa.array([b"gut", b"schl\xff", b"gut", b"\xc3"], pa.binary()).view(pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table({"text": bad, "url": ["a", "b", "c", "d"]}), out)
    tree = write_tree(
        tmp_path / "tree",
        {
            "de/cut.parquet": shard("de", rows=50)[:-1000],
            "de/foreign.parquet": shard("", columns={"body": ["x"]}),
            "de/sound.parquet": shard("de"),
            "de/utf8.parquet": out.getvalue(),
        },
    )
    found = verify(str(tree))
    said = {Path(fault.path).name: (fault.kind, fault.message) for fault in found.faults}
    assert said["cut.parquet"][0] == "parquet"
    assert said["foreign.parquet"] == ("parquet", said["foreign.parquet"][1])
    assert "no column `text`" in said["foreign.parquet"][1]
    assert said["utf8.parquet"] == ("utf8", "`text` is not valid UTF-8 in 2 rows, the first of them row 1")
    assert found.digests == 0
    # A quick look reads footers alone.
    assert {Path(fault.path).name for fault in verify(str(tree), quick=True).faults} == {"cut.parquet"}


def test_later_trees_are_held_to_their_manifests(tmp_path: Path) -> None:
    alone = ("--workdir", tmp_path, "--languages", "sw,yo", "--tasks", "1", "--workers", "1")
    for command in (("download", "--source", "sample"), ("identify",)):
        outcome = lola(*command, *alone)
        assert outcome.code == 0, outcome.stderr
    assert kinds(tmp_path) == {}
    target = next((tmp_path / "identified" / "sw").glob("*.parquet"))
    table = pq.read_table(target)
    pq.write_table(table.slice(1), target)
    assert [value for path, value in kinds(tmp_path).items() if path.startswith("identified/sw")] == [["size"]]


class TestCommand:
    def test_exit_codes_and_json(self, work: Path) -> None:
        assert lola("verify", work).code == 0
        damaged(work / "raw" / FIRST)
        outcome = lola("verify", work, "--json")
        assert outcome.code == 1
        (fault,) = json.loads(outcome.stdout)["faults"]
        assert fault["path"] == str(work / "raw" / FIRST)
        assert fault["kind"] == "digest"
        outcome = lola("verify", work, "--repair")
        assert outcome.code == 0, outcome.stderr
        assert "fetched again" in outcome.stdout
        assert lola("verify", work).code == 0

    @pytest.mark.parametrize(("what", "said"), [("nowhere", "no such folder"), ("empty", "nothing to verify")])
    def test_nothing_to_verify_is_an_error(self, tmp_path: Path, what: str, said: str) -> None:
        (tmp_path / "empty").mkdir()
        outcome = lola("verify", tmp_path / what)
        assert outcome.code == 1
        assert said in outcome.stderr
        assert "Traceback" not in outcome.stderr


def test_a_tree_by_itself(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "source", FILES)
    layout = Layout.of_raw_tree(str(tmp_path / "shards"))
    recipe = parse_recipe("", overrides=["download.source=local", f"download.path={source}"])
    stage = build(recipe, layout)
    assert fetch(stage) == []
    stage.write_manifest({"settings": stage.settings})
    visible = {path: content for path, content in read_tree(tmp_path / "shards").items() if path[0] != "."}
    del visible["manifest.json"]
    assert visible == FILES
    assert verify(str(tmp_path / "shards")).digests == 4
    damaged(tmp_path / "shards" / FIRST)
    mended, left = repair(str(tmp_path / "shards"), verify(str(tmp_path / "shards")).faults)
    assert (len(mended), left) == (1, [])
    assert manifest_of(stage)["files"][0]["path"] == FIRST


ALTERED: dict[str, tuple[Any, str]] = {
    "a list": ([], "it is list, not an object"),
    "no stage": ({}, "`stage` is None"),
    "nothing else": ({"stage": "download"}, "`fingerprint.settings` is missing"),
    "no files": ({"stage": "download", "fingerprint": {"settings": {}}}, "`files` is missing"),
    "a file without size": (
        {"stage": "identify", "fingerprint": {"settings": {}}, "files": [{"path": "identified/de/a.parquet"}]},
        "`files[0].bytes` is missing",
    ),
    "a file without path": (
        {"stage": "identify", "fingerprint": {"settings": {}}, "files": [{"bytes": 3}]},
        "`files[0].path` is missing",
    ),
    "no origins": ({"stage": "download", "fingerprint": {"settings": {}}, "files": []}, "`source.shards` is missing"),
}


@pytest.mark.parametrize("case", ALTERED)
@pytest.mark.parametrize("mend", [False, True])
def test_a_manifest_that_was_altered_is_told(work: Path, case: str, mend: bool) -> None:
    content, said = ALTERED[case]
    (work / "raw" / "manifest.json").write_text(json.dumps(content))
    outcome = lola("verify", work, *(["--repair"] if mend else []))
    assert outcome.code == 1
    assert said in outcome.stderr
    assert str(work / "raw" / "manifest.json") in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_what_fetching_again_does_not_mend_is_not_called_sound(work: Path) -> None:
    path = work / "raw" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][1]["rows"] += 1
    path.write_text(json.dumps(manifest))
    outcome = lola("verify", work, "--repair")
    assert outcome.code == 1
    assert "also after it was fetched again: the manifest does not tell what the source has" in outcome.stdout
    assert "all sound" not in outcome.stdout


def test_a_digest_on_record_is_not_called_a_listing(work: Path, tmp_path: Path) -> None:
    damaged(tmp_path / "source" / FIRST)
    (work / "raw" / FIRST).unlink()
    outcome = lola("verify", work, "--repair")
    assert outcome.code == 1
    assert "not repaired" in outcome.stdout
    assert "checksum.sha256" not in outcome.stdout
