"""Token shards read from an object store through a folder here, by several processes and with little room."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lola_data import storage
from lola_data.errors import ShardError, TrainingError
from lola_data.remote_tokens import RemoteTokenShard
from lola_data.remote_trees import objects_below
from lola_data.tokens import TokenShard, TokenShardWriter
from lola_data.train_config import TrainConfig
from tests.moto_store import Store, moto_store
from train.data import Loader
from train.remote_run import RemoteRun, place_of_tokens
from train.shard_cache import CachedFile, CachedShard, ShardCache, cache_folder
from train.token_tree import open_token_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIECE = 1000


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with moto_store(monkeypatch) as found:
        yield found


def token_tree(root: Path, sizes: dict[str, list[int]]) -> dict[str, Any]:
    """A token tree with a shard of each language whose documents have the given lengths; its manifest."""
    shards: list[dict[str, Any]] = []
    draw = np.random.default_rng(7)
    for lang, lengths in sizes.items():
        for split, part in (("train", lengths[1:]), ("valid", lengths[:1])):
            path = f"{split}/{lang}_00000"
            ids = draw.integers(3, 300, sum(part)).astype(np.uint16)
            ids[np.cumsum(part) - 1] = 2
            with TokenShardWriter(root / path, np.uint16) as writer:
                writer.add_documents(ids, np.array(part))
            shards.append(
                {"path": path, "split": split, "lang": lang, "documents": len(part), "tokens": sum(part),
                 "bytes": sum(part), "sha256": writer.digests}
            )  # fmt: skip
    manifest = {"tokenizer": {"vocab_size": 300, "eod_id": 2, "path": "../m.model"}, "shards": shards, "shares": {}}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return manifest


def sent(store: Store, root: Path, to: str = "bucket/w/tokens") -> str:
    for path in root.rglob("*"):
        if path.is_file():
            store.filesystem.pipe_file(f"{to}/{path.relative_to(root).as_posix()}", path.read_bytes())
    store.requests.clear()
    return f"s3://{to}"


def put(store: Store, name: str, content: bytes) -> CachedFile:
    store.filesystem.pipe_file(f"bucket/f/{name}", content)
    return CachedFile(None, f"s3://bucket/f/{name}", objects_below("s3://bucket/f")[name])  # pyright: ignore[reportArgumentType]


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".piece")


def test_a_file_comes_in_pieces_of_one_request_each_and_once(store: Store, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3 * PIECE + 10)
    file = put(store, "a", content)
    file.cache = ShardCache(tmp_path, 10 * PIECE, piece_bytes=PIECE)
    assert file.content() == content
    assert [one.bytes for one in store.reads()] == [PIECE, PIECE, PIECE, 10]
    again = CachedFile(ShardCache(tmp_path, 10 * PIECE, piece_bytes=PIECE), file.url, file.listed)
    assert again.content() == content
    assert len(store.reads()) == 4
    assert kept(tmp_path) == len(content)


def test_what_has_not_been_read_for_longest_goes_first(store: Store, tmp_path: Path) -> None:
    files = [put(store, name, name.encode() * PIECE) for name in "abcd"]
    cache = ShardCache(tmp_path, 3 * PIECE, piece_bytes=PIECE)
    for number, file in enumerate(files[:3]):
        cache.piece(file.url, file.listed, 0)
        os.utime(tmp_path / cache._name(file.url, file.listed, 0), (number, number))
    # Read again, though by another process: `a` is now the newest.
    ShardCache(tmp_path, 3 * PIECE, piece_bytes=PIECE).piece(files[0].url, files[0].listed, 0)
    cache.piece(files[3].url, files[3].listed, 0)
    there = {
        name
        for name, file in zip("abcd", files, strict=True)
        if (tmp_path / cache._name(file.url, file.listed, 0)).exists()
    }
    assert there == {"a", "c", "d"}
    assert kept(tmp_path) == 3 * PIECE


def test_an_object_that_has_changed_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, 10 * PIECE, piece_bytes=PIECE)
    old = put(store, "a", b"1" * PIECE)
    old.cache = cache
    assert old.content() == b"1" * PIECE
    new = put(store, "a", b"2" * PIECE)
    new.cache = cache
    assert new.listed.size == old.listed.size
    assert new.content() == b"2" * PIECE
    (tmp_path / cache._name(old.url, old.listed, 0)).unlink()
    with pytest.raises(ShardError, match="s3://bucket/f/a: has changed since the run was started"):
        old.content()
    store.filesystem.rm_file("bucket/f/a")
    with pytest.raises(ShardError, match="s3://bucket/f/a: is gone"):
        old.content()


def test_what_a_killed_process_left_is_neither_read_nor_kept(store: Store, tmp_path: Path) -> None:
    file = put(store, "a", b"1" * PIECE)
    file.cache = cache = ShardCache(tmp_path, 2 * PIECE, piece_bytes=PIECE)
    name = cache._name(file.url, file.listed, 0)
    (tmp_path / f".{name}.1-aa.part").write_bytes(bytes(2 * PIECE))
    (tmp_path / name).write_bytes(b"torn")
    assert file.content() == b"1" * PIECE
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == [name]


def test_a_limit_that_holds_no_piece_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cache_gb: 999 bytes do not hold a piece of 1,000 bytes"):
        ShardCache(tmp_path, PIECE - 1, piece_bytes=PIECE)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be made"):
        ShardCache(tmp_path / "file" / "x", PIECE, piece_bytes=PIECE)


def _reader(folder: str, names: list[str], seed: int, told: Any) -> None:
    from pathlib import Path

    cache = ShardCache(Path(folder), 4 * PIECE, piece_bytes=PIECE)
    listed = objects_below("s3://bucket/f")
    draw = random.Random(seed)
    for _ in range(20):
        name = draw.choice(names)
        number = draw.randrange(3)
        piece = cache.piece(f"s3://bucket/f/{name}", listed[name], number)
        # Each byte says which file and piece it is of.
        if piece.size != PIECE or set(piece.tolist()) != {ord(name) + number}:
            told.put(f"{name} {number}: {piece[:5]}")
            return
    told.put("")


def test_several_processes_share_a_folder_that_is_too_small_for_them(store: Store, tmp_path: Path) -> None:
    names = list("ADGJ")
    for name in names:
        put(store, name, b"".join(bytes([ord(name) + number]) * PIECE for number in range(3)))
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    processes = [context.Process(target=_reader, args=(str(tmp_path), names, seed, told)) for seed in range(2)]
    for process in processes:
        process.start()
    assert [told.get(timeout=60) for _ in processes] == ["", ""]
    for process in processes:
        process.join()
    assert kept(tmp_path) <= 4 * PIECE
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("room", [2 * PIECE, 20 * PIECE])
def test_a_file_that_is_being_made_is_not_taken_for_one_left_behind(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    mine, other = put(store, "a", b"1" * PIECE), put(store, "b", b"2" * PIECE)
    mine.cache = ShardCache(tmp_path, room, piece_bytes=PIECE)
    other.cache = ShardCache(tmp_path, room, piece_bytes=PIECE)
    lock = fcntl.flock
    makers: list[threading.Thread] = []

    def first_the_other(stream: Any, operation: int) -> None:
        """When the first part has been opened and is about to be held, another user of the folder makes room."""
        if str(stream.name).endswith(".part") and not makers:
            makers.append(threading.Thread(target=other.content))
            makers[0].start()
            makers[0].join(0.5)
        lock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", first_the_other)
    assert mine.content() == b"1" * PIECE
    makers[0].join()
    assert other.content() == b"2" * PIECE
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("limit", [PIECE, 100 * PIECE])
def test_a_shard_is_what_it_is_on_a_disk(store: Store, tmp_path: Path, limit: int) -> None:
    token_tree(tmp_path / "tokens", {"de": [40, 700, 0, 1, 900, 3]})
    root = sent(store, tmp_path / "tokens")
    local = TokenShard(tmp_path / "tokens/train/de_00000")
    shard = CachedShard(
        ShardCache(tmp_path / "cache", limit, piece_bytes=PIECE), root, "train/de_00000", objects_below(root)
    )
    assert shard.lengths.tolist() == local.lengths.tolist() == [700, 0, 1, 900, 3]
    draw = random.Random(4)
    for _ in range(40):
        start, stop = draw.randrange(1700), draw.randrange(1700)
        assert np.array_equal(shard.tokens[start:stop], local.tokens[start:stop])
    assert (shard.tokens.max(), shard.tokens.min()) == (local.tokens.max(), local.tokens.min())
    assert [shard.document(number).tolist() for number in range(5)] == [
        local.document(number).tolist() for number in range(5)
    ]
    remote = RemoteTokenShard(f"{root}/train/de_00000")
    store.requests.clear()
    assert remote.document(3).tolist() == local.document(3).tolist()
    assert [one.bytes for one in store.reads()] == [1800]
    assert kept(tmp_path / "cache") <= limit


def test_batches_from_a_store_are_those_from_a_disk(store: Store, tmp_path: Path) -> None:
    draw = random.Random(6)
    token_tree(tmp_path / "tokens", {lang: [draw.randrange(1, 90) for _ in range(60)] for lang in ("de", "sw")})
    root = sent(store, tmp_path / "tokens")
    cache = ShardCache(tmp_path / "cache", 4 * PIECE, piece_bytes=PIECE)
    trees = open_token_tree(tmp_path / "tokens"), open_token_tree(root, cache=cache)
    assert trees[0].digests == trees[1].digests
    loaders = [Loader(tree.train, {"de": 1, "sw": 2}, seq_len=32, batch_size=4, seed=1) for tree in trees]
    for step in range(12):
        one, other = (loader.batch(step) for loader in loaders)
        assert np.array_equal(one.tokens, other.tokens)


def test_opening_a_tree_lists_once_and_reads_each_file_once(store: Store, tmp_path: Path) -> None:
    token_tree(tmp_path / "tokens", {"de": [9, 200], "sw": [5, 30]})
    root = sent(store, tmp_path / "tokens")
    cache = ShardCache(tmp_path / "cache", 10**6, piece_bytes=10**5)
    open_token_tree(root, "sha256", cache=cache)
    assert len(store.reads()) == 1 + 8
    assert sum("list-type" in one.query and one.status == 200 for one in store.requests) == 1
    store.requests.clear()
    open_token_tree(root, "sha256", cache=cache)
    assert len(store.reads()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fs: fs.rm_file("bucket/w/tokens/train/de_00000.bin"), r"train/de_00000\.bin: is not there"),
        (lambda fs: fs.pipe_file("bucket/w/tokens/train/xx.bin", b"12"), r"train/xx\.bin: is not in manifest\.json"),
        (lambda fs: fs.pipe_file("bucket/w/tokens/train/de_00000.bin", b"12"), "is truncated: 2 bytes where"),
        (lambda fs: fs.pipe_file("bucket/w/tokens/train/de_00000.bin", bytes(400)), "SHA-256 is not the manifest's"),
        (lambda fs: fs.rm_file("bucket/w/tokens/manifest.json"), r"manifest\.json: is not there; make token shards"),
    ],
)
def test_a_tree_that_is_not_whole_is_refused(store: Store, tmp_path: Path, change: Any, said: str) -> None:
    token_tree(tmp_path / "tokens", {"de": [9, 200]})
    root = sent(store, tmp_path / "tokens")
    change(store.filesystem)
    with pytest.raises(TrainingError, match=said):
        open_token_tree(root, cache=ShardCache(tmp_path / "cache", 10**6, piece_bytes=PIECE))


def test_the_folder_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOLA_DATA_CACHE", str(tmp_path))
    assert cache_folder(TrainConfig()) == tmp_path / "tokens"
    assert cache_folder(TrainConfig(cache_dir="/fast/x")).as_posix() == "/fast/x"


def test_how_a_run_names_its_tokens() -> None:
    assert place_of_tokens("w/tokens", "w/runs/moe") == "../../tokens"
    assert place_of_tokens("s3://b/w/tokens", "s3://b/w/runs/moe") == "../../tokens"
    assert place_of_tokens("s3://b/w/tokens", "runs/moe") == "s3://b/w/tokens"
    assert place_of_tokens("s3://b/w/tokens", "s3://c/runs/moe") == "s3://b/w/tokens"


def test_a_run_is_sent_with_its_records_last_and_fetched_where_it_is_ahead(store: Store, tmp_path: Path) -> None:
    from train.ranks import ALONE

    run = RemoteRun("s3://bucket/w/runs/moe", tmp_path / "one", ALONE)
    first, second = (f"checkpoints/step_{step:08d}" for step in (10, 20))
    files = {f"{first}/.metadata": b"m", f"{first}/__0_0.distcp": b"d", f"{first}/checkpoint.json": b"{}"}
    files |= {"config.json": b"{}", "metrics.jsonl": b"1\n", ".lock": b"", "checkpoints/.step_20.tmp/x": b"half"}
    for path, content in files.items():
        (run.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / path).write_bytes(content)
    store.requests.clear()
    run.send()
    puts = [one.path.partition("/moe/")[2] for one in store.requests if one.method == "PUT"]
    assert puts[2] == f"{first}/checkpoint.json"
    assert sorted(puts) == sorted(set(files) - {".lock", "checkpoints/.step_20.tmp/x"})
    store.requests.clear()
    run.send()
    assert not [one for one in store.requests if one.method == "PUT"]
    # Another machine takes it up, and gets ahead.
    other = RemoteRun("s3://bucket/w/runs/moe", tmp_path / "two", ALONE)
    other.fetch()
    assert (other.folder / first / ".metadata").read_bytes() == b"m"
    (other.folder / first).rename(other.folder / second)
    other.send()
    assert {path.split("/")[1] for path in store.tree("w/runs/moe") if "/" in path} == {"step_00000020"}
    run.fetch()
    assert (run.folder / second / "checkpoint.json").exists()
    assert not (run.folder / first).exists()
    (run.folder / "metrics.jsonl").write_bytes(b"ahead")
    run.fetch()
    assert (run.folder / "metrics.jsonl").read_bytes() == b"ahead"
    assert storage.read_bytes("s3://bucket/w/runs/moe/metrics.jsonl") == b"1\n"
