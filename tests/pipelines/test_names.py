"""File names that a hub, a server, a listing, a manifest or a plan chose: inside the tree, or refused in a line."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest

from lola_data.errors import LolaError, ShardError, StageError
from lola_data.foreign_names import escaped, why_unsafe
from lola_data.remote_objects import filesystem_of
from lola_data.remote_trees import objects_below
from pipelines import hub_errors
from pipelines.digests import listed_digests
from pipelines.sources import RawShard
from pipelines.verify import verify
from tests.console import lola
from tests.pipelines.download_cases import fetch, manifest_of, read_tree, shard, stage_of, write_tree
from tests.pipelines.fake_hub import REPO, FakeHub
from tests.pipelines.test_web_prefix import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = shard("de")
INSIDE = ("a\\..\\b", "a\nb", "..a..b", "%2e%2e%2fa", "<script>", "~", "$HOME", "-rf", "C:", "a;b|c")
"""Names that look like trouble and are files of a folder like any other."""
PASSED_OVER = ("../out", "de/../../out", "/etc/out", "de//out", "./de/out", "de/./out", "..\\x/../../out")
REFUSED = ("de/a\0b", "de/a\x1b[2Jb", "de/a\u202eb", "de/a\u2066b")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_errors, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder whose ``in/here`` is the work folder: whatever a test writes beside that one is found at its end."""
    (tmp_path / "in" / "here").mkdir(parents=True)
    yield tmp_path / "in" / "here"
    beside = [path for path in (*tmp_path.iterdir(), *(tmp_path / "in").iterdir()) if path.name not in ("in", "here")]
    assert [path.name for path in beside if path.name != "source"] == []


@pytest.mark.parametrize("path", [*PASSED_OVER, *REFUSED, "", "..", ".", "a/..", "a/", "\udc80"])
def test_paths_that_are_not_below_a_folder(path: str) -> None:
    assert why_unsafe(path)
    assert escaped(path).isprintable()


@pytest.mark.parametrize("name", INSIDE)
def test_paths_that_are(name: str) -> None:
    assert why_unsafe(f"de/{name}.parquet") is None
    assert Path(os.path.normpath(f"/w/de/{name}.parquet")).parent == Path("/w/de")


def _of_hub(workdir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, *more: str) -> Any:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    return stage_of(workdir, "download.source=hub", f"download.repo={REPO}", *more)


def test_odd_names_of_a_hub_stay_in_the_tree(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"de/{name}.parquet": shard(name) for name in INSIDE if not name.startswith(".")}
    with FakeHub(files) as hub:
        assert fetch(_of_hub(outside, hub, monkeypatch, "languages=[de]")) == []
    assert read_tree(outside / "raw") == files


@pytest.mark.parametrize("path", PASSED_OVER)
@pytest.mark.parametrize("pattern", ["{lang}/**", "**{lang}/**"])
def test_a_hub_does_not_write_outside(outside: Path, monkeypatch: pytest.MonkeyPatch, path: str, pattern: str) -> None:
    with FakeHub({"de/a.parquet": GOOD, f"{path}.parquet": GOOD}) as hub:
        stage = _of_hub(outside, hub, monkeypatch, f"download.files={json.dumps(pattern)}")
        # The hub's listing is refused where it has shards that are in no language's folder; else they are passed over.
        with suppress(StageError):
            assert fetch(stage) == []
    assert set(read_tree(outside / "raw")) <= {"de/a.parquet"}


@pytest.mark.parametrize("path", REFUSED)
def test_names_that_no_tree_should_have_are_refused(outside: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    with (
        FakeHub({"de/a.parquet": GOOD, f"{path}.parquet": GOOD}) as hub,
        pytest.raises(StageError, match=r"is not taken in, as it has the character U\+") as caught,
    ):
        _of_hub(outside, hub, monkeypatch, "languages=[de]").phases[0].plan()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("folder", ["..%2f", "<script>alert(1)<", "a\\b", "%2e%2e", "de\n"])
def test_folders_are_languages_only_by_their_name(tmp_path: Path, folder: str) -> None:
    source = write_tree(tmp_path / "source", {f"{folder}/a.parquet": GOOD, "de/a.parquet": GOOD})
    assert fetch(stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")) == []
    expected = {"de/a.parquet"} | ({f"{folder}/a.parquet"} if not folder.startswith(".") else set())
    assert set(read_tree(tmp_path / "w" / "raw")) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"source", "w"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "source").mkdir()
    server = Server(tmp_path / "source")
    yield server
    server.stop()


@pytest.mark.parametrize(
    "link",
    ["../out.parquet", "%2e%2e/out.parquet", "..%2fout.parquet", "x/../../out.parquet", "/out.parquet", "de/../"],
)
def test_a_web_page_does_not_lead_outside(outside: Path, server: Server, link: str) -> None:
    write_tree(server.root, {"in/de/a.parquet": GOOD, "out.parquet": GOOD, "in/out.parquet": GOOD})
    page = f'<a href="de/">de/</a> <a href="{link}">x</a>'
    (server.root / "in" / "index.html").write_text(page, "utf-8")
    stage = stage_of(outside, "download.source=url", f"download.path={server.address}/in")
    assert fetch(stage) == []
    assert list(read_tree(outside / "raw")) == ["de/a.parquet"]


def test_a_server_with_one_page_everywhere_is_not_followed_for_ever(tmp_path: Path, server: Server) -> None:
    write_tree(server.root, {"de/a.parquet": GOOD})
    for depth in range(40):
        place = server.root.joinpath(*["x"] * depth)
        place.mkdir(exist_ok=True)
        (place / "index.html").write_text('<a href="x/">x</a>', "utf-8")
    with pytest.raises(StageError, match="directory pages more than 32 deep"):
        stage_of(tmp_path / "w", "download.source=url", f"download.path={server.address}").phases[0].plan()


def test_a_listing_names_files_of_its_folder_alone(outside: Path, server: Server) -> None:
    digest = hashlib.sha256(GOOD).hexdigest()
    names = ("a.parquet", "..", ".", "../../b.parquet", "/etc/c.parquet", "x/..", "d\0.parquet")
    listing = "".join(f"{digest}  {name}\n" for name in names)
    assert sorted(listed_digests(listing)) == ["a.parquet", "b.parquet", "c.parquet"]
    files = {f"de/{name}.parquet": GOOD for name in "abc"}
    write_tree(server.root, {**files, "b.parquet": GOOD, "de/checksum.sha256": listing.encode()})
    server.answers.update({"/": 403, "/de/": 403})
    stage = stage_of(outside, "download.source=url", f"download.path={server.address}", "languages=[de]")
    assert fetch(stage) == []
    assert read_tree(outside / "raw") == files


def test_a_link_is_taken_in_as_the_file_it_leads_to(outside: Path, tmp_path: Path) -> None:
    """Links lead out of the folder where a hub's cache keeps shards; what is made of one is a file of its name."""
    source = write_tree(tmp_path / "source", {"blobs/0a1b": GOOD, "shards/de/b.parquet": GOOD})
    (source / "shards" / "de" / "a.parquet").symlink_to(source / "blobs" / "0a1b")
    assert fetch(stage_of(outside, "download.source=local", f"download.path={source / 'shards'}")) == []
    taken = outside / "raw" / "de" / "a.parquet"
    assert not taken.is_symlink()
    assert taken.read_bytes() == GOOD


@pytest.mark.parametrize("target", ["/etc/passwd", "/proc/self/environ", "nowhere", ".", "/dev/zero"])
def test_a_link_to_what_is_no_shard_takes_nothing_in(outside: Path, tmp_path: Path, target: str) -> None:
    source = write_tree(tmp_path / "source", {"de/b.parquet": GOOD})
    (source / "de" / "a.parquet").symlink_to(target)
    stage = stage_of(outside, "download.source=local", f"download.path={source}")
    try:
        faults = fetch(stage)
    except LolaError as error:
        faults = [str(error)]
    assert len(faults) == 1
    assert "\n" not in faults[0]
    assert set(read_tree(outside / "raw")) <= {"de/b.parquet"}


@pytest.mark.parametrize("path", ["../../x.parquet", "/etc/x.parquet", "de/../x.parquet", "de/a\0.parquet"])
@pytest.mark.parametrize("field", ["path", "origin"])
def test_a_plan_does_not_lead_outside(path: str, field: str) -> None:
    value: dict[str, Any] = RawShard("de", "de/a.parquet", "de/a.parquet", 1).to_json()
    value[field] = path
    with pytest.raises(StageError, match="is not taken in"):
        RawShard(**value)
    with pytest.raises(StageError, match="is not taken in"):
        RawShard(**{**value, "origin": f"hf://datasets/me/mine@c0ffee/{path}"})


@pytest.mark.parametrize("field", ["files", "shards"])
@pytest.mark.parametrize("repair", [(), ("--repair",)])
def test_a_manifest_does_not_lead_outside(tmp_path: Path, field: str, repair: tuple[str, ...]) -> None:
    source = write_tree(tmp_path / "source", {"de/a.parquet": GOOD})
    stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
    assert fetch(stage) == []
    manifest = manifest_of(stage)
    rows = manifest["files"] if field == "files" else manifest["source"]["shards"]
    rows[0]["path"] = "../secret.parquet"
    (tmp_path / "w" / "raw" / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    secret = tmp_path / "secret.parquet"
    secret.write_bytes(b"mine")
    with pytest.raises(ShardError, match=r"\.path` \(\.\./secret\.parquet\) has a part `\.\.`"):
        verify(str(tmp_path / "w"))
    outcome = lola("verify", tmp_path / "w", *repair)
    assert outcome.code == 1
    assert "has a part `..`" in outcome.message
    assert secret.read_bytes() == b"mine"


def test_keys_of_a_store_do_not_lead_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem, _ = filesystem_of("memory://bucket")
    found = {f"/bucket/run/{path}": {"size": 1, "name": path} for path in ("a", "dir/", ".metadata")}
    monkeypatch.setattr(type(filesystem), "find", lambda *_, **__: found)
    assert set(objects_below("memory://bucket/run", hidden=True)) == {"a", ".metadata"}
    found["/bucket/run/../../x"] = {"size": 1, "name": "x"}
    with pytest.raises(ShardError, match=r"the object \.\./\.\./x has a part `\.\.`; delete or rename it there"):
        objects_below("memory://bucket/run", hidden=True)
