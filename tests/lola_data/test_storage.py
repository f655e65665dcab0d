from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from lola_data import storage
from lola_data.errors import ShardError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with storage.atomic_output(str(target)) as handle:
        handle.write(b"half")
        assert not target.exists()
    assert target.read_bytes() == b"half"
    assert os.listdir(target.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), storage.atomic_output(str(target)) as handle:
        handle.write(b"new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_disk_errors_name_the_file_and_what_to_do(tmp_path: Path, code: int) -> None:
    target = tmp_path / "file"
    with pytest.raises(ShardError, match=str(target)) as caught, storage.atomic_output(str(target)):
        raise OSError(code, os.strerror(code))
    assert "again" in str(caught.value) or "rights" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_other_errors_are_not_dressed_up(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, storage.atomic_output(str(tmp_path / "file")):
        raise OSError(errno.EIO, "input/output error")
    assert not isinstance(caught.value, ShardError)


def test_listing_is_sorted_and_passes_over_hidden_and_temporary_files(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a/1.parquet", ".hidden/3.parquet", "a/.4.parquet.x.tmp", "a/.5.parquet", "a/6.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert storage.list_files(str(tmp_path), ".parquet") == [("a/1.parquet", 5), ("b/2.parquet", 5)]
    storage.remove_temporaries(str(tmp_path))
    assert not (tmp_path / "a/.4.parquet.x.tmp").exists()
    assert (tmp_path / "a/.5.parquet").exists()


def test_same_interface_on_another_file_system() -> None:
    root = "memory://test_storage/tree"
    storage.write_json(storage.join(root, "de", "x.json"), {"b": 1, "a": "ü"})
    assert storage.list_files(root, ".json") == [("de/x.json", storage.size(f"{root}/de/x.json"))]
    assert storage.read_json(f"{root}/de/x.json") == {"a": "ü", "b": 1}
    assert storage.exists(f"{root}/de/x.json")
    assert not storage.exists(f"{root}/de/y.json")


def test_json_bytes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "1"), {"x": 1, "a": [1, 2]})
    storage.write_json(str(tmp_path / "2"), {"a": [1, 2], "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ShardError, match=r"x\.json"):
        storage.read_json(str(tmp_path / "x.json"))
