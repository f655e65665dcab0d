from __future__ import annotations

import errno
import os
import subprocess
import sys
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


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE]
)
def test_disk_errors_name_the_file_and_what_to_do(tmp_path: Path, code: int) -> None:
    target = tmp_path / "file"
    with pytest.raises(ShardError, match=str(target)) as caught, storage.atomic_output(str(target)):
        raise OSError(code, os.strerror(code))
    assert "again" in str(caught.value) or "rights" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_system_without_the_error_numbers_of_linux_imports_it() -> None:
    program = "import errno; del errno.EREMOTEIO, errno.EUCLEAN; import lola_data.storage as s; print(s.STORAGE_FAULTS)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert str(errno.ESTALE) in done.stdout


def test_other_errors_are_not_dressed_up(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, storage.atomic_output(str(tmp_path / "file")):
        raise OSError(errno.EBADF, "bad file descriptor")
    assert not isinstance(caught.value, ShardError)


@pytest.mark.parametrize("failing", [None, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_copy_has_all_bytes_whoever_copies(
    tmp_path: Path, failing: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 20_000
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(content)
    if failing is not None:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: (_ for _ in ()).throw(OSError(failing, "no")))
    storage.copy(str(source), str(target))
    assert target.read_bytes() == content
    source.write_bytes(b"")
    assert target.read_bytes() == content
    assert os.listdir(target.parent) == ["target"]


def test_a_copy_for_which_there_is_no_room_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 1000)

    def fill(read: int, write: int, count: int) -> int:
        if os.lseek(write, 0, os.SEEK_END):
            raise OSError(errno.ENOSPC, "no space left")
        return os.write(write, os.read(read, 100))

    monkeypatch.setattr(os, "copy_file_range", fill)
    with pytest.raises(ShardError, match="no space left on the device"):
        storage.copy(str(source), str(target))
    assert os.listdir(tmp_path) == ["source"]


def test_a_file_is_readable_for_all_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with storage.atomic_output(str(tmp_path / "file")):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


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


@pytest.mark.parametrize("place", ["de/a.parquet", "de"])
@pytest.mark.parametrize("target", ["gone", "itself"])
def test_links_that_lead_nowhere_are_named(tmp_path: Path, place: str, target: str) -> None:
    link = tmp_path / "tree" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "gone" if target == "gone" else link)
    (tmp_path / "tree" / "notes.txt").symlink_to("nowhere")
    with pytest.raises(ShardError, match=rf"{link}: a symbolic link that leads nowhere \("):
        storage.list_files(str(tmp_path / "tree"), ".parquet")
    link.unlink()
    assert storage.list_files(str(tmp_path / "tree"), ".parquet") == []


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("target", ["tree/de", "tree", ".", "/"])
def test_links_that_lead_in_a_circle_are_named(
    tmp_path: Path, target: str, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree" / "de").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "tree")
    (tmp_path / "tree" / "de" / "a.parquet").write_bytes(b"1")
    (tmp_path / "tree" / "de" / "loop").symlink_to(tmp_path / target)
    with pytest.raises(ShardError, match=r"de/loop: a symbolic link to a folder that it lies in"):
        storage.list_files("." if relative else str(tmp_path / "tree"), ".parquet")


def test_links_to_each_other_s_folders_are_named(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "loop").symlink_to(tmp_path / other)
    with pytest.raises(ShardError, match=r"loop: a symbolic link to a folder that it lies in"):
        storage.list_files(str(tmp_path), ".parquet")


def test_links_to_shards_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0815").write_bytes(b"123")
    (tmp_path / "tree" / "de").mkdir(parents=True)
    (tmp_path / "tree" / "de" / "a.parquet").symlink_to(tmp_path / "blobs" / "0815")
    (tmp_path / "tree" / "nl").symlink_to("de")
    assert storage.list_files(str(tmp_path / "tree"), ".parquet") == [("de/a.parquet", 3), ("nl/a.parquet", 3)]


@pytest.mark.parametrize("name", [b"de/a\xff.parquet", b"d\xe9/a.parquet"])
def test_names_that_are_no_text_are_told(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    os.makedirs(os.path.dirname(path))  # noqa: PTH103, PTH120
    with open(path, "wb"):  # noqa: PTH123
        pass
    with pytest.raises(ShardError, match=r"\\x(ff|e9).*not valid UTF-8; rename"):
        storage.list_files(str(tmp_path), ".parquet")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://bucket/x", "Protocol not known: nosuch; give a folder, or a URL such as s3://"),
        ("s3://bucket/x", r"Install s3fs to access S3; it comes with `pip install 'lola-data\[s3\]'`"),
        ("gs://bucket/x", "gcsfs"),
    ],
)
def test_file_systems_that_are_not_there(url: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for use in (storage.exists, storage.size, storage.read_json, lambda path: storage.list_files(path, ".parquet")):
        with pytest.raises(ShardError, match=words) as caught:
            use(url)
        assert str(caught.value).startswith(f"{url}: ")


def test_a_name_that_is_too_long_is_told_from_one_that_is_taken(tmp_path: Path) -> None:
    for name in ("漢" * 81 + ".parquet", "x" * 255):
        with storage.atomic_output(str(tmp_path / name)) as handle:
            handle.write(b"1")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()
    with (
        pytest.raises(ShardError, match=r"a name of 278 bytes, where file systems take 255.*rename the shard"),
        storage.atomic_output(str(tmp_path / ("漢" * 90 + ".parquet"))) as handle,
    ):
        handle.write(b"1")
    assert os.listdir(tmp_path) == []


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / ".step_00000010.tmp"
    (folder / ".inner.tmp").mkdir(parents=True)
    (folder / ".inner.tmp" / ".a.tmp").write_bytes(b"half")
    (tmp_path / ".b.parquet.tmp").write_bytes(b"half")
    (tmp_path / "kept.tmp").write_bytes(b"whole")
    storage.remove_temporaries(str(tmp_path))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["kept.tmp", "runs"]
