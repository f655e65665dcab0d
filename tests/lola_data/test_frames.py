"""Files of numbered tables: what is written comes back, alone; what is damaged is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from lola_data.errors import ShardError
from lola_data.frames import Frames, FrameWriter

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = pa.schema([pa.field("n", pa.int32()), pa.field("text", pa.string())])


def table(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int32()), "text": [f"t{value}" for value in values]}, schema=SCHEMA)


def write(path: Path, frames: dict[int, pa.Table], count: int, compression: str | None = None) -> None:
    with FrameWriter(str(path), count=count) as writer:
        for number, one in frames.items():
            writer.write(number, one, compression=compression)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_each_frame_is_read_alone(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.frames"
    write(path, {1: table(1, 2), 2: table(), 4: table(5)}, 6, compression)
    frames = Frames(str(path), SCHEMA)
    assert [frames.read(number)["n"].to_pylist() for number in range(6)] == [[], [1, 2], [], [], [5], []]
    assert frames.read(0).schema == frames.read(1).schema == SCHEMA
    assert [one["text"].to_pylist() for one in frames] == [["t1", "t2"], ["t5"]]


def test_a_file_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    write(path, {}, 0)
    assert list(Frames(str(path), SCHEMA)) == []
    with pytest.raises(IndexError, match="no frame 0 among 0"):
        Frames(str(path), SCHEMA).read(0)


@pytest.mark.parametrize("numbers", [[1, 1], [2, 1], [3], [-1]])
def test_frames_come_in_order(tmp_path: Path, numbers: list[int]) -> None:
    path = tmp_path / "a.frames"
    with pytest.raises(ValueError, match=f"frame {numbers[-1]} of 3"), FrameWriter(str(path), count=3) as writer:
        for number in numbers:
            writer.write(number, table(number))
    assert not list(tmp_path.iterdir())


def test_a_cut_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    write(path, {0: table(*range(100))}, 1)
    whole = path.read_bytes()
    for size in (0, 1, 15, 16, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ShardError, match=r"a\.frames: not a file of frames, or cut off"):
            Frames(str(path), SCHEMA).read(0)
    path.unlink()
    with pytest.raises(ShardError, match=r"a\.frames: is gone"):
        Frames(str(path), SCHEMA).read(0)


def test_damage_inside_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    write(path, {0: table(1)}, 1)
    path.write_bytes(b"\x00" * 24 + path.read_bytes()[24:])
    with pytest.raises(ShardError, match=r"a\.frames: damaged"):
        Frames(str(path), SCHEMA).read(0)
