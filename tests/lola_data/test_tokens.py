"""Token shards: the layout byte for byte, Megatron-Core as the other reader and writer, every kind of broken file."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lola_data.errors import ShardError
from lola_data.tokens import (
    TokenShard,
    TokenShardWriter,
    bin_path,
    idx_path,
    index_bytes,
    sequence_pointers,
    shard_digests,
    token_dtype,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def megatron() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Megatron-Core warns that Transformer Engine and Apex are absent
        from megatron.core.datasets import indexed_dataset
    return indexed_dataset


def write(prefix: Path, documents: list[list[int]], dtype: str = "uint16") -> TokenShardWriter:
    with TokenShardWriter(prefix, dtype) as writer:
        flat = np.array([token for document in documents for token in document], np.int64)
        writer.add_documents(flat, np.array([len(document) for document in documents], np.int64))
    return writer


def test_the_files_byte_for_byte(tmp_path: Path) -> None:
    write(tmp_path / "de_00000", [[1, 2, 3], [], [65535]])
    assert bin_path(tmp_path / "de_00000").read_bytes() == bytes.fromhex("0100 0200 0300 ffff")
    expected = (
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 8, 3, 4)
        + struct.pack("<3i", 3, 0, 1)
        + struct.pack("<3q", 0, 6, 6)
        + struct.pack("<4q", 0, 1, 2, 3)
    )
    assert idx_path(tmp_path / "de_00000").read_bytes() == expected


@pytest.mark.parametrize("size", [300, 32_000, 65_499, 65_500, 65_536, 250_000, 1_000_000])
def test_token_dtype_is_that_of_megatron(megatron: Any, size: int) -> None:
    assert token_dtype(size) == megatron.DType.optimal_dtype(size)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "int64"])
def test_megatron_reads_what_we_write(megatron: Any, tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(3)
    high = min(int(np.iinfo(dtype).max), 2**40)
    documents = [rng.integers(0, high, n, endpoint=True).tolist() for n in (5, 1, 0, 300, 2)]
    write(tmp_path / "shard", documents, dtype)
    for mmap in (True, False):
        theirs = megatron.IndexedDataset(str(tmp_path / "shard"), mmap=mmap)
        assert len(theirs) == len(documents)
        assert theirs.index.dtype == np.dtype(dtype)
        assert theirs.document_indices.tolist() == list(range(len(documents) + 1))
        assert [theirs[i].tolist() for i in range(len(documents))] == documents
        assert theirs.get(3, offset=10, length=4).tolist() == documents[3][10:14]


def test_we_read_what_megatron_writes_byte_for_byte_the_same(megatron: Any, tmp_path: Path) -> None:
    documents = [[7, 8, 9], [1], list(range(1000))]
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.int32)
    for document in documents:
        builder.add_document(np.array(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    shard = TokenShard(tmp_path / "theirs")
    assert [shard.document(i).tolist() for i in range(len(shard))] == documents
    write(tmp_path / "ours", documents, "int32")
    assert bin_path(tmp_path / "ours").read_bytes() == bin_path(tmp_path / "theirs").read_bytes()
    assert idx_path(tmp_path / "ours").read_bytes() == idx_path(tmp_path / "theirs").read_bytes()


def test_documents_of_several_sequences_are_joined(megatron: Any, tmp_path: Path) -> None:
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "s.bin"), dtype=np.uint16)
    builder.add_document(np.array([1, 2, 3, 4, 5]), [2, 3])
    builder.add_document(np.array([6]), [1])
    builder.finalize(str(tmp_path / "s.idx"))
    shard = TokenShard(tmp_path / "s")
    assert [shard.document(i).tolist() for i in range(len(shard))] == [[1, 2, 3, 4, 5], [6]]
    assert shard.lengths.tolist() == [5, 1]
    assert shard.pointers.tolist() == [0, 10]


def test_pointers_do_not_wrap_at_32_bits() -> None:
    lengths = np.array([2**31 - 100, 123], np.int32)
    assert sequence_pointers(lengths, 4).tolist() == [0, 8_589_934_192]
    index = index_bytes(lengths, np.int32)
    assert np.frombuffer(index, "<i8", 2, offset=34 + 8).tolist() == [0, 8_589_934_192]


def test_sparse_shard_above_four_gigabytes(megatron: Any, tmp_path: Path) -> None:
    lengths = np.array([2**31 - 100, 123], np.int32)
    with bin_path(tmp_path / "huge").open("wb") as stream:
        os.truncate(stream.fileno(), 4 * int(lengths.sum(dtype=np.int64)))
        stream.seek(8_589_934_192)
        stream.write(np.arange(1, 124, dtype="<i4").tobytes())
    idx_path(tmp_path / "huge").write_bytes(index_bytes(lengths, np.int32))
    shard = TokenShard(tmp_path / "huge")
    assert shard.num_tokens == 2_147_483_671
    assert shard.document(1).tolist() == list(range(1, 124))
    theirs = megatron.IndexedDataset(str(tmp_path / "huge"))  # named: its views die with it
    assert theirs[1].tolist() == list(range(1, 124))


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(st.lists(st.integers(0, 65_535), max_size=8), max_size=6), max_size=4),
)
def test_round_trip_whatever_the_batches(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[list[int]]]
) -> None:
    prefix = tmp_path_factory.mktemp("shard") / "x"
    with TokenShardWriter(prefix, np.uint16) as writer:
        for batch in batches:
            flat = np.array([token for document in batch for token in document], np.int32)
            writer.add_documents(flat, np.array([len(document) for document in batch], np.int64))
    documents = [document for batch in batches for document in batch]
    shard = TokenShard(prefix)
    assert [shard.document(i).tolist() for i in range(shard.num_documents)] == documents
    assert shard.tokens.tolist() == [token for document in documents for token in document]
    assert (shard.num_documents, shard.num_tokens) == (writer.documents, writer.tokens)


def test_types_that_a_loader_relies_on(tmp_path: Path) -> None:
    write(tmp_path / "x", [[1, 2], [3]])
    shard = TokenShard(tmp_path / "x")
    assert shard.lengths.dtype == np.int32
    assert shard.pointers.dtype == np.int64
    assert shard.dtype == shard.tokens.dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        shard.tokens[0] = 5
    for index in (-1, 2):
        with pytest.raises(IndexError):
            shard.document(index)


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    writer = write(tmp_path / "x", [[1, 2], [3]])
    expected = {kind: hashlib.sha256((tmp_path / f"x.{kind}").read_bytes()).hexdigest() for kind in ("bin", "idx")}
    assert writer.digests == shard_digests(tmp_path / "x") == expected
    bin_path(tmp_path / "x").unlink()
    with pytest.raises(ShardError, match=r"x\.bin"):
        shard_digests(tmp_path / "x")


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with TokenShardWriter(tmp_path / "x", np.uint16) as writer:
            writer.add_documents(np.array([1, 2]), np.array([2]))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_shard_that_was_there(tmp_path: Path) -> None:
    write(tmp_path / "x", [[1, 2]])
    with pytest.raises(ShardError), TokenShardWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_documents(np.array([70_000]), np.array([1]))
    assert TokenShard(tmp_path / "x").document(0).tolist() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bin", "x.idx"]


def test_the_index_appears_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path as RealPath

    write(tmp_path / "x", [[9, 9, 9]])
    order: list[tuple[str, bool]] = []
    replace = RealPath.replace

    def spy(self: RealPath, target: RealPath) -> RealPath:
        order.append((target.name, idx_path(tmp_path / "x").exists()))
        return replace(self, target)

    monkeypatch.setattr(RealPath, "replace", spy)
    write(tmp_path / "x", [[1]])
    assert order == [("x.bin", False), ("x.idx", False)]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from lola_data.errors import ShardError\n"
        "from lola_data.tokens import TokenShardWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with TokenShardWriter(sys.argv[1], np.uint16) as writer:\n"
        "        writer.add_documents(np.zeros(100_000, np.int32), np.array([100_000]))\n"
        "except ShardError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert "x.bin: cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flat", "lengths", "message"),
    [
        ([1, 2, 3], [2], "add up to 2"),
        ([1, 2], [3, -1], "add up to 2"),
        ([65_536], [1], "65536 does not fit uint16"),
        ([-1], [1], "-1 does not fit uint16"),
    ],
)
def test_refused_documents(tmp_path: Path, flat: list[int], lengths: list[int], message: str) -> None:
    with pytest.raises(ShardError, match=message), TokenShardWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_documents(np.array(flat), np.array(lengths))
    assert list(tmp_path.iterdir()) == []


def test_a_float_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="float32"):
        TokenShardWriter(tmp_path / "x", np.float32)


def test_every_truncation_of_either_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x", [[1, 2, 3], [4], []])
    for path in (idx_path(tmp_path / "x"), bin_path(tmp_path / "x")):
        whole = path.read_bytes()
        for size in range(len(whole)):
            path.write_bytes(whole[:size])
            with pytest.raises(ShardError, match=rf"x\{path.suffix}.*write the shard again"):
                TokenShard(tmp_path / "x")
        path.write_bytes(whole)
    assert TokenShard(tmp_path / "x").num_tokens == 4


@pytest.mark.parametrize(
    ("offset", "patch", "message"),
    [
        (0, b"TNTIDX", "not the index of an indexed dataset"),
        (9, struct.pack("<Q", 2), "version 2"),
        (17, struct.pack("<B", 7), "dtype code 7"),
        (17, struct.pack("<B", 4), r"is truncated: 8 bytes where x\.idx names 12"),
        (34, struct.pack("<i", -3), "negative"),
        (34 + 8, struct.pack("<q", 1 << 40), "is truncated"),
        (34 + 8, struct.pack("<q", -400), "negative"),
        (34 + 8, struct.pack("<q", 2), "overlap or leave gaps"),
        (34 + 8 + 16, struct.pack("<q", 1), "boundaries"),
        (34 + 8 + 16 + 8, struct.pack("<q", 5), "boundaries"),
    ],
)
def test_damaged_index(tmp_path: Path, offset: int, patch: bytes, message: str) -> None:
    write(tmp_path / "x", [[1, 2, 3], [4]])
    index = bytearray(idx_path(tmp_path / "x").read_bytes())
    index[offset : offset + len(patch)] = patch
    idx_path(tmp_path / "x").write_bytes(index)
    with pytest.raises(ShardError, match=message):
        TokenShard(tmp_path / "x")


def test_files_that_are_not_there_or_not_each_others(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"absent\.idx: No such file"):
        TokenShard(tmp_path / "absent")
    write(tmp_path / "x", [[1, 2, 3]])
    bin_path(tmp_path / "x").write_bytes(bytes(8))
    with pytest.raises(ShardError, match="does not belong to its index"):
        TokenShard(tmp_path / "x")
    bin_path(tmp_path / "x").unlink()
    with pytest.raises(ShardError, match=r"x\.bin: No such file"):
        TokenShard(tmp_path / "x")


def test_an_empty_shard(tmp_path: Path) -> None:
    write(tmp_path / "x", [])
    shard = TokenShard(tmp_path / "x")
    assert (shard.num_documents, shard.num_tokens, shard.tokens.size) == (0, 0, 0)


def test_a_shard_that_need_not_last_has_the_same_bytes_and_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "x", [[1, 2], [], [3]])
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waited for the disk"))
    with TokenShardWriter(tmp_path / "y", np.uint16, durable=False) as writer:
        writer.add_documents(np.array([1, 2, 3]), np.array([2, 0, 1]))
    for kind in ("bin", "idx"):
        assert (tmp_path / f"y.{kind}").read_bytes() == (tmp_path / f"x.{kind}").read_bytes()
