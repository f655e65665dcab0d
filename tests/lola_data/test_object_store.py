"""Few large reads, by a file whose every request is counted."""

from __future__ import annotations

import io
import random

import pytest

from lola_data import object_store
from lola_data.object_store import RemoteFile, coalesced

CONTENT = random.Random(1).randbytes(100_000)


class Counted(io.BytesIO):
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.requests: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.requests.append((self.tell() - len(data), self.tell()))
        return data


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(object_store, "HOLE_BYTES", 1_000)


def opened(*, ahead: int = 10_000) -> tuple[RemoteFile, Counted]:
    handle = Counted(CONTENT)
    return RemoteFile("s3://b/x", handle, len(CONTENT), ahead=ahead, tail=2_000), handle


@pytest.mark.parametrize("ahead", [0, 10_000])
@pytest.mark.parametrize("foreseen", [[], [(0, 30_000), (60_000, 61_000)]])
def test_reads_what_is_there_wherever_one_goes(ahead: int, foreseen: list[tuple[int, int]]) -> None:
    file, _ = opened(ahead=ahead)
    file.foresee(foreseen)
    plain = io.BytesIO(CONTENT)
    draw = random.Random(2)
    for _ in range(500):
        if draw.random() < 0.5:
            place = draw.choice([(draw.randrange(100_500), 0), (-draw.randrange(100_000), 2), (0, 1)])
            assert file.seek(*place) == plain.seek(*place)
        count = draw.choice([0, 1, 8, 500, 15_000, -1])
        assert file.read(count) == plain.read(count)
        assert file.tell() == plain.tell()


def test_read_from_start_to_end_in_blocks() -> None:
    file, handle = opened()
    while file.read(700):
        pass
    assert handle.requests == [(start, start + 10_000) for start in range(0, 100_000, 10_000)]


def test_nothing_ahead_where_it_is_not_wanted() -> None:
    file, handle = opened(ahead=0)
    file.seek(500)
    assert file.read(40) == CONTENT[500:540]
    assert handle.requests == [(500, 540)]


def test_the_end_of_a_file_is_read_once() -> None:
    file, handle = opened()
    for size in (8, 100, 2_000):
        file.seek(-size, io.SEEK_END)
        assert file.read(size) == CONTENT[-size:]
    assert handle.requests == [(98_000, 100_000)]


def test_a_small_file_is_one_request() -> None:
    handle = Counted(CONTENT[:1_500])
    file = RemoteFile("s3://b/x", handle, 1_500, ahead=10_000, tail=2_000)
    file.seek(-8, io.SEEK_END)
    file.read(8)
    file.seek(0)
    assert file.read() == CONTENT[:1_500]
    assert handle.requests == [(0, 1_500)]


def test_what_is_foreseen_comes_in_large_pieces() -> None:
    file, handle = opened()
    stretches = [(start, start + 90) for start in range(0, 20_000, 100)]
    file.foresee(stretches)
    assert handle.requests == []
    for start, end in stretches:
        file.seek(start)
        assert file.read(end - start) == CONTENT[start:end]
    assert len(handle.requests) == 2
    assert sum(end - start for start, end in handle.requests) == 19_990 - 10  # The hole between the two is not read.


@pytest.mark.parametrize("seed", range(20))
def test_pieces_cover_all_stretches_and_do_not_overlap(seed: int) -> None:
    draw = random.Random(seed)
    starts = [draw.randrange(90_000) for _ in range(draw.randrange(1, 40))]
    stretches = [(start, start + draw.choice([0, 5, 900, 25_000])) for start in starts]
    pieces = coalesced(stretches)
    covered = {at for start, end in pieces for at in range(start, end)}
    assert covered >= {at for start, end in stretches for at in range(start, end)}
    assert sum(end - start for start, end in pieces) == len(covered)
    assert pieces == sorted(pieces)
    assert all(0 < end - start <= 10_000 for start, end in pieces)


def test_a_store_that_gives_less_than_it_should_is_told_of() -> None:
    file = RemoteFile("s3://b/x", Counted(CONTENT[:50]), 100)
    with pytest.raises(OSError, match="the store gave 0 bytes where 50 more were asked for"):
        file.read()
