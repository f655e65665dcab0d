"""The hub as a source, with every fault of one, against a real HTTP server on this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from lola_data.errors import LolaError, StageError
from lola_data.sections import ExecutorSection
from pipelines import hub as hub_module
from pipelines import hub_errors
from pipelines.run import run_stage
from tests.pipelines.download_cases import corpus, fetch, manifest_of, read_tree, shard, stage_of
from tests.pipelines.fake_hub import COMMIT, REPO, TOKEN, FakeHub, Fault


@pytest.fixture(autouse=True)
def _quiet_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # No proxy, login or setting of the machine takes part; the waits of real life are cut short.
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_errors, "FIRST_WAIT_SECONDS", 0.01)


def use(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, *, token: str | None = TOKEN) -> list[str]:
    """Point the hub client at the server; overrides of the recipe."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    return ["download.source=hub", f"download.repo={REPO}"]


FIVE = corpus({"de": 5})
THIRD = sorted(FIVE)[2]
DIGESTS = {path: hashlib.sha256(content).hexdigest() for path, content in FIVE.items()}


def listing(digests: dict[str, str]) -> bytes:
    """What `sha256sum *` prints in the folder of the files."""
    return "".join(f"{digest}  {path.split('/')[1]}\n" for path, digest in digests.items()).encode()


class TestHub:
    def test_every_file_arrives_as_the_hub_has_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = corpus({"de": 3, "sw": 1})
        with FakeHub(files | {"README.md": b"hello"}) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            assert fetch(stage) == []
            assert read_tree(tmp_path / "w" / "raw") == files
            manifest = manifest_of(stage)
        source = manifest["source"]
        assert (source["kind"], source["repo"], source["revision"], source["commit"]) == ("hub", REPO, "main", COMMIT)
        assert {entry["path"]: entry["sha256"] for entry in source["shards"]} == {
            path: hashlib.sha256(content).hexdigest() for path, content in files.items()
        }
        assert source["shards"][0]["origin"] == f"hf://datasets/{REPO}@{COMMIT}/de/de_part_00000.parquet"

    def test_the_token_goes_to_the_hub_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(corpus({"de": 1}), gate="login") as hub:
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
            assert {request.token for request in hub.requests if not request.path.startswith("/store/")} == {TOKEN}
            assert [request.token for request in hub.gets()] == [None]
        kept = b"".join(read_tree(tmp_path / "w").values())
        assert TOKEN.encode() not in kept

    def test_only_the_folders_asked_for_are_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(corpus({"de": 1, "sw": 1, "yo": 1})) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch), "languages=[sw, yo]")
            assert fetch(stage) == []
            listed = [request.path for request in hub.requests if "/tree/" in request.path]
        assert [path.rpartition("/")[2] for path in listed] == ["sw", "yo"]
        assert sorted(path.name for path in (tmp_path / "w" / "raw").iterdir()) == ["sw", "yo"]

    def test_a_listing_of_many_pages_is_read_to_its_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(corpus({"de": 7, "sw": 4}), page=2) as hub:
            assert len(stage_of(tmp_path / "w", *use(hub, monkeypatch)).phases[0].plan()) == 11
            assert sum("/tree/" in request.path for request in hub.requests) == 7

    def test_a_branch_that_moves_changes_nothing_of_a_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = dict(FIVE)
        with FakeHub(files) as hub:
            hub.faults = [Fault("status", THIRD, status=404)]
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            assert len(fetch(stage)) == 1
            hub.commit = 40 * "1"
            assert fetch(stage) == []
            assert all(COMMIT in work.to_json()["origin"] for work in stage.phases[0].plan())
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_files_that_git_keeps_itself_are_checked_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = corpus({"de": 1})
        (path,) = files
        with FakeHub(files, plain=frozenset(files)) as hub:
            hub.faults = [Fault("flip", path)]
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
            assert len(hub.gets(path)) == 2
        assert read_tree(tmp_path / "w" / "raw") == files

    def test_a_missing_language_is_named_with_the_nearest_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FakeHub(corpus({"de": 1, "so": 1})) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch), "languages=[de, sw]")
            with pytest.raises(
                StageError, match=rf"{REPO} has no shards of `sw`; the nearest of its 2 folders is `so`"
            ):
                stage.phases[0].plan()

    def test_a_repository_of_another_shape_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with (
            FakeHub({"data/train-00000.parquet": shard("x")}) as hub,
            pytest.raises(StageError, match=r"data/train-00000.parquet does not lie in a folder named by a CulturaX"),
        ):
            stage_of(tmp_path / "w", *use(hub, monkeypatch)).phases[0].plan()

    def test_a_bad_footer_from_the_hub_fails_that_shard(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = corpus({"de": 2}) | {"de/x.parquet": shard("x", rows=9)[:-40]}
        with FakeHub(files) as hub:
            (message,) = fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch)))
        assert message.startswith(f"hf://datasets/{REPO}@{COMMIT}/de/x.parquet: not a complete Parquet file")
        assert sorted(read_tree(tmp_path / "w" / "raw")) == sorted(corpus({"de": 2}))


class TestListedDigests:
    """CulturaX has a `checksum.sha256` in the folder of each language, beside the digests of the hub."""

    def test_are_read_and_agree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE | {"de/checksum.sha256": listing(DIGESTS)}) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            works = [work.to_json() for work in stage.phases[0].plan()]
            assert {work["path"]: work["listed"] for work in works} == DIGESTS
            assert fetch(stage) == []
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_a_hub_that_contradicts_itself_is_told_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE | {"de/checksum.sha256": listing(DIGESTS | {THIRD: 64 * "a"})}) as hub:
            options = use(hub, monkeypatch)
            (message,) = fetch(stage_of(tmp_path / "w", *options))
            assert f"{THIRD}: the source contradicts itself" in message
            assert DIGESTS[THIRD] in message
            assert 64 * "a" in message
            assert "`checksums: false`" in message
            # Nothing is asked for in vain.
            assert hub.gets(THIRD) == []
            assert fetch(stage_of(tmp_path / "v", *options, "download.checksums=false")) == []
        assert read_tree(tmp_path / "v" / "raw") == FIVE

    def test_a_file_that_git_keeps_is_held_to_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {THIRD: FIVE[THIRD]}
        listed = listing({THIRD: 64 * "b"})
        with FakeHub(files | {"de/checksum.sha256": listed}, plain=frozenset(files)) as hub:
            (message,) = fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch)))
        assert "which checksum.sha256 lists" in message
        assert read_tree(tmp_path / "w" / "raw") == {}


class TestOtherRepositories:
    """Any dataset repository of Parquet with a text column."""

    def test_a_pattern_and_names_find_the_languages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {
            f"data/{name}/{split}/000_{number}.parquet": shard(f"{name}{split}{number}")
            for name in ("deu_Latn", "swh_Latn")
            for split in ("train", "test")
            for number in (0, 1)
        }
        with FakeHub(files | {"README.md": b"x"}) as hub:
            options = [
                *use(hub, monkeypatch),
                'download.files="data/{lang}/train/*"',
                "download.names={de: deu_Latn, sw: swh_Latn}",
            ]
            assert fetch(stage_of(tmp_path / "w", *options, "languages=[de, sw]")) == []
            # Only the folders of the languages are listed.
            listed = [request.path for request in hub.requests if "/tree/" in request.path]
            assert all(path.endswith(("data/deu_Latn/train", "data/swh_Latn/train")) for path in listed)
            assert fetch(stage_of(tmp_path / "all", *options)) == []
        expected = {
            f"{code}/000_{number}.parquet": files[f"data/{name}/train/000_{number}.parquet"]
            for code, name in (("de", "deu_Latn"), ("sw", "swh_Latn"))
            for number in (0, 1)
        }
        assert read_tree(tmp_path / "w" / "raw") == read_tree(tmp_path / "all" / "raw") == expected

    def test_row_counts_are_read_from_footers_by_range(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Shards of some 200 kB, of which a footer's read takes a third.
        files = {path: shard(path, rows=100 + number) for number, path in enumerate(sorted(FIVE))}
        with FakeHub(files) as hub:
            options = [*use(hub, monkeypatch), "download.max_documents=250"]
            assert len(stage_of(tmp_path / "w", *options).phases[0].plan()) == 2
            ranges = [request.range for request in hub.gets()]
            assert ranges
            spans = [[int(end) for end in (one or "").removeprefix("bytes=").split("-")] for one in ranges]
            assert sum(last - first + 1 for first, last in spans) < sum(map(len, files.values())) / 2

    def test_more_of_the_same_is_of_the_same_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = ExecutorSection(tasks=1, workers=1)
        with FakeHub(corpus({"de": 1, "sw": 1})) as hub:
            options = use(hub, monkeypatch)
            run_stage(stage_of(tmp_path / "w", *options, "languages=[sw]"), alone)
            hub.commit = 40 * "2"
            with pytest.raises(StageError, match=f"no revision `{COMMIT}`"):
                run_stage(stage_of(tmp_path / "w", *options, "languages=[sw, de]"), alone)
            hub.commit = COMMIT
            run_stage(stage_of(tmp_path / "w", *options, "languages=[sw, de]"), alone)
        assert set(read_tree(tmp_path / "w" / "raw")) == {*corpus({"de": 1, "sw": 1}), "manifest.json"}


class TestHttp:
    """A web server without directory pages; the digests beside the shards name them."""

    def test_shards_named_in_the_listing_come_by_range(self, tmp_path: Path) -> None:
        with FakeHub(FIVE | {"de/checksum.sha256": listing(DIGESTS)}) as hub:
            options = ["download.source=url", f"download.path={hub.url}/store", "languages=[de]"]
            stage = stage_of(tmp_path / "w", *options)
            work: Any = stage.phases[0].plan()[0]
            partial = tmp_path / "w/scratch/download/partial" / f"{work.path}.{work.label}"
            partial.parent.mkdir(parents=True)
            partial.write_bytes(FIVE[work.path][:500])
            assert fetch(stage) == []
            ranges = [request.range for request in hub.gets(work.path)]
            assert any(one and one.startswith("bytes=500-") for one in ranges)
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_without_a_listing_it_says_so(self, tmp_path: Path) -> None:
        with FakeHub(FIVE) as hub:
            stage = stage_of(tmp_path / "w", "download.source=url", f"download.path={hub.url}/store", "languages=[de]")
            with pytest.raises(StageError, match=r"directory pages, which this server does not seem to have"):
                stage.phases[0].plan()


class TestFaults:
    """T16, and every other way in which a transfer goes wrong."""

    def test_429_then_503_after_the_third_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        waits: list[float] = []
        monkeypatch.setattr(hub_errors.time, "sleep", waits.append)
        with FakeHub(FIVE) as hub:
            hub.faults = [
                Fault("status", skip=3, status=429, headers={"Retry-After": "17"}),
                Fault("status", skip=3, status=503),
            ]
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
            assert len(hub.gets()) == 7
        assert read_tree(tmp_path / "w" / "raw") == FIVE
        # What the server asked for, and a back-off of its own for the 503.
        assert waits[0] == 17
        assert 0 < waits[1] <= 0.02

    def test_a_server_that_stays_down_fails_and_a_restart_asks_for_the_rest_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("status", skip=3, status=503, times=10**6)]
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            messages = fetch(stage)
            assert len(messages) == 2
            assert all("answers 503" in message for message in messages)
            arrived = read_tree(tmp_path / "w" / "raw")
            assert len(arrived) == 3
            assert arrived.items() <= FIVE.items()
            hub.faults, before = [], len(hub.gets())
            assert fetch(stage) == []
            asked = {request.path.removeprefix("/store/") for request in hub.gets()[before:]}
            assert asked == FIVE.keys() - arrived.keys()
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_a_dropped_connection_is_gone_on_with_by_range(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("cut", THIRD, after=1000, times=3)]
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
            assert [request.range for request in hub.gets(THIRD)] == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_progress_resets_the_count_of_attempts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("cut", THIRD, after=100, times=3 * hub_errors.ATTEMPTS)]
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_a_later_run_asks_for_the_missing_bytes_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            # Some bytes come, then the server is down for good.
            hub.faults = [Fault("cut", THIRD, after=1234), Fault("status", THIRD, status=503, times=10**6)]
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            assert len(fetch(stage)) == 1
            hub.faults = []
            before = len(hub.gets())
            assert fetch(stage) == []
            assert [(one.path, one.range) for one in hub.gets()[before:]] == [(f"/store/{THIRD}", "bytes=1234-")]
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_killed_in_the_middle_of_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = (
            "import json, sys\nfrom tests.pipelines.download_cases import fetch, stage_of\nfrom pathlib import Path\n"
            "fetch(stage_of(Path(sys.argv[1]), *sys.argv[2:]))\n"
        )
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("stall", THIRD, after=2000)]
            options = use(hub, monkeypatch)
            root = Path(__file__).parents[2]
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / "w"), *options],
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            partial = tmp_path / "w" / "scratch" / "download" / "partial"
            deadline = time.monotonic() + 60
            while sum(path.stat().st_size for path in partial.glob(f"{THIRD}.*")) < 2000:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            before = len(hub.gets())
            assert fetch(stage_of(tmp_path / "w", *options)) == []
            again = [request.range for request in hub.gets()[before:] if request.path == f"/store/{THIRD}"]
            assert again == ["bytes=2000-"]
        assert read_tree(tmp_path / "w" / "raw") == FIVE
        assert read_tree(tmp_path / "w" / "scratch") == {}

    def test_a_server_without_ranges_begins_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("cut", THIRD, after=1000), Fault("no-range", THIRD)]
            assert fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch))) == []
        assert read_tree(tmp_path / "w" / "raw") == FIVE

    def test_a_flipped_byte_is_set_aside_and_fetched_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [Fault("flip", THIRD)]
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            assert fetch(stage) == []
            assert len(hub.gets(THIRD)) == 2
            manifest_of(stage)
        # It is named, and stays when the stage is finished.
        assert f"what came wrong at first is kept in {tmp_path}/w/scratch/download/rejected" in capsys.readouterr().err
        tree = read_tree(tmp_path / "w" / "raw")
        assert {path: tree[path] for path in FIVE} == FIVE
        (rejected,) = (tmp_path / "w" / "scratch" / "download" / "rejected" / "de").iterdir()
        assert len(rejected.read_bytes()) == len(FIVE[THIRD])
        assert rejected.read_bytes() != FIVE[THIRD]
        assert [path.name for path in (tmp_path / "w" / "scratch" / "download").iterdir()] == ["rejected"]

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (Fault("flip", THIRD, times=10**6), r"sha256 \w{64} instead of \w{64}"),
            (Fault("short", THIRD, after=777, times=10**6), rf"777 bytes instead of {len(FIVE[THIRD]):,}"),
        ],
        ids=["flipped", "short"],
    )
    def test_a_file_that_stays_wrong_never_enters(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, said: str
    ) -> None:
        with FakeHub(FIVE) as hub:
            hub.faults = [fault]
            (message,) = fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch)))
        assert THIRD in message
        assert f"{tmp_path}/w/scratch/download/rejected/{THIRD}.1: " in message
        assert re.search(said, message)
        assert read_tree(tmp_path / "w" / "raw") == {path: FIVE[path] for path in FIVE if path != THIRD}

    def test_a_full_disk_fails_the_shard_and_keeps_the_rest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written: list[int] = []
        write = hub_module._write_stream

        def full(response: Any, handle: Any, expected: int) -> None:
            written.append(expected)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(response, handle, expected)

        monkeypatch.setattr(hub_module, "_write_stream", full)
        with FakeHub(FIVE) as hub:
            messages = fetch(stage_of(tmp_path / "w", *use(hub, monkeypatch)))
        assert len(messages) == 3
        assert all("No space left on device. Free some space" in message for message in messages)
        arrived = read_tree(tmp_path / "w" / "raw")
        assert len(arrived) == 2
        assert arrived.items() <= FIVE.items()

    def test_what_is_in_place_is_not_fetched_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            fetch(stage)
            for path in FIVE:
                stage.phases[0].state.forget("fetch", path.removesuffix(".parquet"))
            (tmp_path / "w" / "raw" / THIRD).write_bytes(b"damaged")
            before = len(hub.gets())
            assert fetch(stage) == []
            assert [request.path for request in hub.gets()[before:]] == [f"/store/{THIRD}"]
        assert read_tree(tmp_path / "w" / "raw") == FIVE


class TestAccess:
    """401 and 403 are explained before any file is asked for, in one line, without the token."""

    @pytest.mark.parametrize(
        ("gate", "token", "said"),
        [
            ("login", None, ["you are not logged in", "hf auth login", "HF_TOKEN"]),
            ("token", TOKEN, ["refuses your access token", "hf auth login", "HF_TOKEN"]),
            ("terms", TOKEN, ["terms are not accepted", f"/datasets/{REPO}", "accept them"]),
            ("scope", TOKEN, ["lacks the scope", "/settings/tokens"]),
        ],
    )
    def test_is_explained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str, token: str | None, said: list[str]
    ) -> None:
        with FakeHub(FIVE, gate=gate) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch, token=token))
            with pytest.raises(LolaError) as error:
                stage.phases[0].plan()
            assert hub.gets() == []
        message = str(error.value)
        assert error.value.exit_code == 1
        assert all(part in message for part in [hub.url, *said])
        assert "\n" not in message
        assert TOKEN not in message

    def test_lost_in_the_middle_is_explained_for_each_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FakeHub(FIVE) as hub:
            stage = stage_of(tmp_path / "w", *use(hub, monkeypatch))
            plan = stage.phases[0].plan()
            stage.phases[0].state.write_plan("fetch", [work.to_json() for work in plan])
            hub.gate = "terms"
            messages = fetch(stage)
        assert len(messages) == 5
        assert all("terms are not accepted" in message and TOKEN not in message for message in messages)
        assert TOKEN.encode() not in b"".join(read_tree(tmp_path / "w").values())

    def test_a_wrong_repository_or_revision_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            options = use(hub, monkeypatch)
            with pytest.raises(StageError, match="no revision `v9`"):
                stage_of(tmp_path / "w", *options, "download.revision=v9").phases[0].plan()
            with pytest.raises(StageError, match=r"people/other: not found"):
                stage_of(tmp_path / "w", *options, "download.repo=people/other").phases[0].plan()

            with pytest.raises(StageError, match=r"`repo: a/b/c` is no repository name"):
                stage_of(tmp_path / "w", *options, "download.repo=a/b/c").phases[0].plan()
            monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/portal")
            with pytest.raises(StageError, match="not a Hugging Face hub; check HF_ENDPOINT"):
                stage_of(tmp_path / "w", *options).phases[0].plan()

    def test_offline_mode_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(StageError, match="HF_HUB_OFFLINE is set"):
            stage_of(tmp_path / "w", "download.source=hub").phases[0].plan()

    def test_a_hub_out_of_reach_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeHub(FIVE) as hub:
            options = use(hub, monkeypatch)
        with pytest.raises(StageError, match=r"cannot be reached .*HF_ENDPOINT"):
            stage_of(tmp_path / "w", *options).phases[0].plan()

    def test_too_little_disk_is_said_before_anything_is_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Full:
            free = 1000

        monkeypatch.setattr("pipelines.download.shutil.disk_usage", lambda _: Full)
        with FakeHub(FIVE) as hub:
            with pytest.raises(StageError, match=r"5 shards need .* kB, but .* has 1.00 kB free.*max_shards"):
                stage_of(tmp_path / "w", *use(hub, monkeypatch)).phases[0].plan()
            assert hub.gets() == []
