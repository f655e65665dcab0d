"""The download stage: sources other than the hub, shapes of shards, the choice of shards."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pytest

from lola_data.errors import LolaError, StageError
from lola_data.schemas import RAW
from lola_data.sections import ExecutorSection
from lola_data.shards import plan_units, read_batches
from pipelines import sources, url_source
from pipelines.run import run_stage
from pipelines.selection import pick
from pipelines.sources import LocalSource, RawShard
from tests.pipelines.download_cases import corpus, fetch, manifest_of, read_tree, shard, stage_of, write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_source, "FIRST_WAIT_SECONDS", 0.01)


class TestLocal:
    def test_links_the_files_and_leaves_the_source_as_it_was(self, tmp_path: Path) -> None:
        files = corpus({"de": 2, "sw": 1})
        source = write_tree(tmp_path / "source", files)
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")
        assert fetch(stage) == []
        assert read_tree(tmp_path / "work" / "raw") == files
        assert read_tree(source) == files
        for path in files:
            assert (source / path).samefile(tmp_path / "work" / "raw" / path)

    def test_manifest_counts_rows_per_language(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 2, "sw": 1}))
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")
        fetch(stage)
        manifest = manifest_of(stage)
        assert {lang: counts["out"]["documents"] for lang, counts in manifest["languages"].items()} == {
            "de": 7,
            "sw": 3,
        }
        assert manifest["totals"]["in"] == manifest["totals"]["out"]
        assert [file["path"] for file in manifest["files"]] == [
            f"raw/{path}" for path in sorted(corpus({"de": 2, "sw": 1}))
        ]
        assert not (tmp_path / "work" / "scratch" / "download").exists()

    def test_copies_where_the_file_system_cannot_link(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(sources.os, "link", refuse)
        files = corpus({"de": 1})
        source = write_tree(tmp_path / "source", files)
        assert fetch(stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")) == []
        assert read_tree(tmp_path / "work" / "raw") == files
        (path,) = files
        assert not (source / path).samefile(tmp_path / "work" / "raw" / path)

    def test_symbolic_links_of_a_hub_cache_are_followed(self, tmp_path: Path) -> None:
        ((path, content),) = corpus({"de": 1}).items()
        blob = write_tree(tmp_path, {"blobs/0123": content}) / "blobs/0123"
        (tmp_path / "source" / "de").mkdir(parents=True)
        (tmp_path / "source" / path).symlink_to(blob)
        assert fetch(stage_of(tmp_path / "work", "download.source=local", f"download.path={tmp_path}/source")) == []
        raw = tmp_path / "work" / "raw" / path
        assert not raw.is_symlink()
        assert raw.read_bytes() == content

    def test_inner_folders_become_part_of_the_name(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", {"de/2020/a.parquet": shard("a"), "de/2021/a.parquet": shard("b")})
        assert fetch(stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")) == []
        assert sorted(read_tree(tmp_path / "work" / "raw")) == ["de/2020-a.parquet", "de/2021-a.parquet"]

    def test_a_rerun_gives_the_same_tree_and_leaves_nothing_over(self, tmp_path: Path) -> None:
        files = corpus({"de": 2})
        source = write_tree(tmp_path / "source", files)
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")
        fetch(stage)
        # As after a kill between the move into place and the record of it.
        stage.phases[0].state.forget("fetch", "de/de_part_00000")
        assert fetch(stage) == []
        assert read_tree(tmp_path / "work" / "raw") == files
        assert read_tree(tmp_path / "work" / "scratch") == {}

    def test_only_the_languages_asked_for(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 1, "sw": 1, "yo": 1}))
        fetch(stage_of(tmp_path / "w", "download.source=local", f"download.path={source}", "languages=[sw, yo]"))
        assert sorted(path.name for path in (tmp_path / "w" / "raw").iterdir()) == ["sw", "yo"]

    def test_a_missing_language_is_named_with_the_nearest_folder(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 1, "swa": 1}))
        stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}", "languages=[de, sw]")
        with pytest.raises(
            StageError, match=r"source has no shards of `sw`; the nearest .* is `swa`.*`languages`"
        ) as error:
            stage.phases[0].plan()
        assert error.value.exit_code == 1

    def test_taking_all_tells_of_languages_that_have_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = write_tree(tmp_path / "source", {**corpus({"de": 2}), "yo/empty.parquet": shard("yo", 0)})
        for folder in ("sw", "so/inner", "notes"):
            (source / folder).mkdir(parents=True)
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}", "languages=all")
        run_stage(stage, ExecutorSection())
        said = capsys.readouterr().err
        assert "folders of languages without a shard, passed over: so, sw\n" in said
        assert "the shards of `yo` hold no documents at all" in said
        manifest = json.loads((tmp_path / "work/raw/manifest.json").read_text())
        assert {lang: sizes["out"]["documents"] for lang, sizes in manifest["languages"].items()} == {"de": 7, "yo": 0}

    def test_json_lines_beside_parquet_are_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 2}))
        (source / "de/more.jsonl").write_text('{"text": "Guten Tag"}\n')
        (source / "de/stats.json").write_text("{}")
        stage_of(tmp_path / "one", "download.source=local", f"download.path={source}").phases[0].plan()
        said = capsys.readouterr().err
        assert "left out, 1 in all (de/more.jsonl); to take these instead, name them with `files`" in said

    def test_what_is_copied_from_another_disk_must_fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 2}))
        options = ("download.source=local", f"download.path={source}")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        # Links take no room.
        stage_of(tmp_path / "one", *options).phases[0].plan()
        monkeypatch.setattr(LocalSource, "copies_to", lambda *_: True)
        with pytest.raises(StageError, match=r"2 shards need .* kB, but .* has 1.00 kB free"):
            stage_of(tmp_path / "two", *options).phases[0].plan()

    @pytest.mark.parametrize("other", ["/dev/shm", "/proc"])
    def test_another_disk_is_seen(self, tmp_path: Path, other: str) -> None:
        if not Path(other).is_dir() or Path(other).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip(f"{other} is no other disk here")
        source = LocalSource(str(tmp_path))
        assert source.copies_to(Path(other) / "not" / "there")
        assert not source.copies_to(tmp_path / "not" / "there")

    def test_two_files_of_one_name_are_both_named(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", {"de/x-a.parquet": shard("de"), "de/x/a.parquet": shard("de")})
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")
        with pytest.raises(
            StageError, match=r"x-a\.parquet and .*x/a\.parquet would both be written as de/x-a\.parquet"
        ):
            stage.phases[0].plan()

    def test_names_of_every_kind(self, tmp_path: Path) -> None:
        names = ("a b", "a\nb", "ünï-日本", "q&a+'x'#1", '"', "%20", "-r", "a\\b", "a\tb")
        files = {f"de/{name}.parquet": shard(name) for name in names}
        source = write_tree(tmp_path / "source", files)
        stage = stage_of(tmp_path / "work", "download.source=local", f"download.path={source}")
        assert fetch(stage) == []
        assert read_tree(tmp_path / "work" / "raw") == files

    def test_a_language_without_documents_stops_the_stage(self, tmp_path: Path) -> None:
        files = corpus({"de": 1}) | {"sw/a.parquet": shard("sw", rows=0, columns={"text": pa.array([], pa.string())})}
        source = write_tree(tmp_path / "source", files)
        options = ["download.source=local", f"download.path={source}"]
        stage = stage_of(tmp_path / "one", *options, "languages=[de, sw]")
        assert fetch(stage) == []
        with pytest.raises(StageError, match=r"`sw`.* no documents at all.*out of `languages`"):
            manifest_of(stage)
        everything = stage_of(tmp_path / "two", *options)
        fetch(everything)
        assert manifest_of(everything)["languages"]["sw"]["out"]["documents"] == 0

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"notes.txt": b"x"}, r"no shards there; it must hold <lang>/\*\.parquet"),
            ({"a.parquet": b"x"}, r"a\.parquet: shards lie in a folder of their language"),
        ],
    )
    def test_a_folder_of_another_shape_is_refused(self, tmp_path: Path, files: dict[str, bytes], said: str) -> None:
        source = write_tree(tmp_path / "source", files)
        with pytest.raises(StageError, match=said):
            stage_of(tmp_path / "w", "download.source=local", f"download.path={source}").phases[0].plan()

    def test_a_file_beside_the_folders_asked_for_is_something_else(self, tmp_path: Path) -> None:
        files = corpus({"de": 1, "sw": 1})
        source = write_tree(tmp_path / "source", files | {"provenance.parquet": shard("x")})
        options = ["download.source=local", f"download.path={source}"]
        assert fetch(stage_of(tmp_path / "w", *options, "languages=[de, sw]")) == []
        assert read_tree(tmp_path / "w" / "raw") == files
        for asked in ("languages=all", "languages=[de, yo]"):
            with pytest.raises(StageError, match=r"provenance\.parquet: shards lie in a folder of their language"):
                stage_of(tmp_path / "v", *options, asked).phases[0].plan()

    def test_a_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StageError, match=r"nowhere: no such folder; set `path`"):
            stage_of(tmp_path / "w", "download.source=local", f"download.path={tmp_path}/nowhere").phases[0].plan()

    def test_a_failed_shard_may_be_mended_but_a_finished_one_may_not_change(self, tmp_path: Path) -> None:
        files = corpus({"de": 2})
        first, second = sorted(files)
        source = write_tree(tmp_path / "source", files | {second: files[second][:-100]})
        stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
        assert len(fetch(stage)) == 1
        recorded = stage.phases[0].state.plan("fetch")
        write_tree(source, {second: files[second]})
        assert [work.to_json() for work in stage.phases[0].plan()] == recorded
        assert fetch(stage) == []
        assert read_tree(tmp_path / "w" / "raw") == files
        (source / first).unlink()
        write_tree(source, {first: shard("other", rows=9)})
        assert [work.to_json() for work in stage.phases[0].plan()] != recorded


class TestShapes:
    """T17: other columns, other string types, an all-null column; a damaged shard is named and the others finish."""

    def test_columns_go_by_name_and_a_truncated_shard_fails_alone(self, tmp_path: Path) -> None:
        text = ["eins", "zwei"]
        good = {
            "de/a.parquet": shard("", columns={"text": text, "url": ["u", "v"]}),
            "de/b.parquet": shard("", columns={"url": ["u", "v"], "text": text, "extra": [1, 2]}),
            "de/c.parquet": shard("", columns={"text": text, "url": pa.nulls(2)}),
            "de/e.parquet": shard("", columns={"text": pa.array(text, pa.large_string())}),
        }
        cut = shard("de", rows=50)[:-1000]
        files = good | {"de/d.parquet": cut, "de/f.parquet": shard("", columns={"body": text})}
        source = write_tree(tmp_path / "source", files | {"de/g.parquet": b"", "de/h.parquet": b"not parquet at all"})
        failures = fetch(stage_of(tmp_path / "w", "download.source=local", f"download.path={source}"))
        assert read_tree(tmp_path / "w" / "raw") == good
        raw = str(tmp_path / "w" / "raw")
        read = [batch for unit in plan_units(raw) for batch in read_batches(raw, unit, RAW)]
        assert [batch.column("text").to_pylist() for batch in read] == [text] * 4
        told = dict(zip("dfgh", failures, strict=True))
        assert told["d"].startswith(f"{source}/de/d.parquet: ")
        assert f"ends at byte {len(cut):,} without the footer" in told["d"]
        assert f"{source}/de/f.parquet: no column `text`; its columns are body" in told["f"]
        assert f"{source}/de/g.parquet: an empty file" in told["g"]
        assert f"{source}/de/h.parquet: not a complete Parquet file" in told["h"]

    def test_a_run_with_a_damaged_shard_ends_with_an_error_that_names_it(self, tmp_path: Path) -> None:
        files = corpus({"de": 2})
        source = write_tree(tmp_path / "source", files | {"de/d.parquet": shard("de", rows=50)[:-1000]})
        stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}")
        with pytest.raises(StageError, match=r"1 of 3 units failed(.|\n)*de/d\.parquet") as error:
            run_stage(stage, ExecutorSection(tasks=1, workers=1))
        assert error.value.exit_code == 1
        assert read_tree(tmp_path / "w" / "raw") == files


class TestPick:
    SHARDS = tuple(RawShard("de", f"de/{number:04d}.parquet", "", 1) for number in range(200))

    def test_is_stable_nested_and_not_the_first_ones(self) -> None:
        shards = list(self.SHARDS)
        ten, twenty = pick(shards, 7, max_shards=10), pick(shards, 7, max_shards=20)
        assert ten == pick(list(reversed(shards)), 7, max_shards=10)[::-1]
        assert len(ten) == 10
        assert set(ten) < set(twenty)
        assert ten != shards[:10]
        assert ten != pick(shards, 8, max_shards=10)

    def test_every_shard_is_as_likely(self) -> None:
        # 2,000 seeds x 10 of 200: each shard is expected 100 times, with a standard deviation of 9.7.
        counts = dict.fromkeys(self.SHARDS, 0)
        for seed in range(2000):
            for one in pick(list(self.SHARDS), seed, max_shards=10):
                counts[one] += 1
        assert all(100 - 5 * 9.7 < count < 100 + 5 * 9.7 for count in counts.values())

    def test_is_per_language(self, tmp_path: Path) -> None:
        source = write_tree(tmp_path / "source", corpus({"de": 6, "sw": 1}))
        stage = stage_of(tmp_path / "w", "download.source=local", f"download.path={source}", "download.max_shards=2")
        assert [work.to_json()["lang"] for work in stage.phases[0].plan()] == ["de", "de", "sw"]


class TestSample:
    def test_brings_in_the_embedded_corpus(self, tmp_path: Path) -> None:
        from lola_data.sample_corpus import sample_root

        stage = stage_of(tmp_path / "w", "download.source=sample", "languages=[de, en]")
        assert fetch(stage) == []
        root = Path(str(sample_root()))
        expected = {
            path.relative_to(root).as_posix() for lang in ("de", "en") for path in (root / lang).glob("*.parquet")
        }
        assert set(read_tree(tmp_path / "w" / "raw")) == expected
        assert not any((root / path).samefile(tmp_path / "w" / "raw" / path) for path in expected)
        assert str(root) not in json.dumps(manifest_of(stage))


class TestUrl:
    def test_copies_from_any_prefix(self, tmp_path: Path) -> None:
        files = corpus({"de": 2, "sw": 1})
        memory = fsspec.filesystem("memory")
        for path, content in files.items():
            memory.pipe(f"/bucket-{tmp_path.name}/{path}", content)
        prefix = f"memory://bucket-{tmp_path.name}"
        stage = stage_of(tmp_path / "w", "download.source=url", f"download.path={prefix}", "languages=[de]")
        assert fetch(stage) == []
        assert read_tree(tmp_path / "w" / "raw") == {path: files[path] for path in files if path.startswith("de/")}

    def test_a_short_read_is_tried_again_and_never_enters(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory = fsspec.filesystem("memory")
        memory.pipe(f"/short-{tmp_path.name}/de/a.parquet", shard("de"))
        stage = stage_of(tmp_path / "w", "download.source=url", f"download.path=memory://short-{tmp_path.name}")
        opened: list[str] = []
        opened_at = url_source._opened_at

        @contextmanager
        def cut(place: str, have: int) -> Iterator[tuple[IO[bytes], int]]:
            opened.append("read")
            with opened_at(place, 0) as (handle, _):
                yield (io.BytesIO(handle.read(100)) if len(opened) < limit else handle), 0

        monkeypatch.setattr(url_source, "_opened_at", cut)
        limit = 3
        assert fetch(stage) == []
        assert len(opened) == 3
        stage.phases[0].state.forget("fetch", "de/a")
        (tmp_path / "w" / "raw" / "de" / "a.parquet").unlink()
        limit = 99
        (message,) = fetch(stage)
        assert "5 times over" in message
        assert "100 of" in message
        assert read_tree(tmp_path / "w" / "raw") == {}

    @pytest.mark.parametrize("prefix", ["memory://nothing-there", "nosuchkind://bucket/x"])
    def test_a_prefix_that_cannot_be_listed_is_refused(self, tmp_path: Path, prefix: str) -> None:
        with pytest.raises(LolaError, match=prefix):
            stage_of(tmp_path / "w", "download.source=url", f"download.path={prefix}").phases[0].plan()

    def test_http_without_directory_pages_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(url_source, "_list_prefix", lambda _: [])
        with pytest.raises(StageError, match=r"directory pages, which this server does not seem to have"):
            stage_of(tmp_path / "w", "download.source=url", "download.path=https://host/x").phases[0].plan()
