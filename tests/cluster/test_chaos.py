"""One run of every kind of fault comes out as a calm one; and what finds that out is itself tried with faults.

The same at length: ``python -m benchmarks chaos``.
"""

from __future__ import annotations

import http.client
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from benchmarks.chaos.places import Store
from benchmarks.chaos.play import Lane, Play
from benchmarks.chaos.proxy import KINDS as TROUBLES
from benchmarks.chaos.proxy import Trouble
from benchmarks.chaos.rows import wrong_rows
from benchmarks.chaos.scenes import KINDS
from benchmarks.chaos.section import tell
from benchmarks.chaos.seeds import Outcome, kind_of, run_seed
from benchmarks.chaos.within import Faults
from benchmarks.summary import HELD, NOT_HELD

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")


SEEDS = (0, 3, 6, 8, 110, 52, 13, 15, 117, 18)
"""One of every kind; of those on the store, which take longest, some that are started few times."""


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    lane = Lane(tmp_path_factory.mktemp("chaos"))
    try:
        yield lane
    finally:
        lane.close()


def test_seeds_go_through_all_kinds() -> None:
    counted = Counter(kind_of(seed) for seed in range(200))
    assert counted == {name: 10 * kind.share for name, kind in KINDS.items()}
    assert {*map(kind_of, SEEDS)} == {*KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS, ids=list(map(kind_of, SEEDS)))
def test_a_run_to_which_things_happen_comes_out_as_a_calm_one(lane: Lane, tmp_path: Path, seed: int) -> None:
    outcome = run_seed(lane, seed, tmp_path)
    assert not outcome.wrong
    assert outcome.starts > 1


@pytest.fixture
def done(lane: Lane, tmp_path: Path) -> Iterator[Play]:
    """A run that has come out well."""
    play = Play(0, lane, tmp_path / "play")
    assert play.end(play.begin()) == 0
    play.check()
    assert play.wrong == []
    yield play
    play.close()


def test_a_torn_file_is_found(done: Play) -> None:
    path = next(Path(done.workdir).glob("deduped/en/*.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    done.check()
    assert done.wrong[0] == f"trees: 1 different: deduped/en/{path.name}"
    assert {why.partition(":")[0] for why in done.wrong} == {"trees", "rows", "verify"}


def test_a_row_that_is_lost_or_doubled_is_found(done: Play) -> None:
    root, source = Path(done.workdir), done.calm.source
    assert wrong_rows(source, root) == []
    first, second = sorted(root.glob("identified/en/*.parquet"))[:2]
    table = pq.read_table(first)
    row = table["id"][0].as_py()
    pq.write_table(table.slice(1), first)
    told = wrong_rows(source, root)
    assert f"identify: 1 rows lost, {row} for one" in told
    pq.write_table(table, first)
    shutil.copy(first, second)
    told = wrong_rows(source, root)
    assert f"identify: {table.num_rows} rows doubled or made up, {row} for one" in told


def test_a_run_that_says_nothing_of_why_it_fails_is_found(done: Play) -> None:
    started = done.begin(None, "--set", "dedup.threshold=0.5")
    assert done.end(started) == 1
    assert done.wrong == []
    for text, word in (
        ("Traceback (most recent call last)\nlola-data: error: x", "traceback"),
        ("x", "message"),
        ("lola-data: error: work: in use by another process. Wait", "lock"),
    ):
        started.log.write_text(text)
        done.wrong.clear()
        done.end(started)
        assert [why.partition(":")[0] for why in done.wrong] == [word]


def test_a_driver_dies_before_its_nth_change_of_a_file(lane: Lane, tmp_path: Path) -> None:
    play = Play(1, lane, tmp_path / "play")
    play.tasks = 1
    made: list[int] = []
    for changes in (20, 40):
        shutil.rmtree(play.workdir, ignore_errors=True)
        assert play.end(play.begin(Faults(driver=changes))) == -9
        made.append(sum(1 for _ in Path(play.workdir).rglob("*")))
    assert 0 < made[0] < made[1] <= 40
    play.close()


def test_the_proxy_does_to_requests_what_was_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.log")
    try:
        place = urlsplit(store.proxy.address)

        def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes] | str:
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
            try:
                connection.request(method, path, body, {"Authorization": "AWS key:signature"})
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError) as error:
                return type(error).__name__
            finally:
                connection.close()

        content = b"0123456789"
        for kind in TROUBLES:
            store.proxy.trouble = Trouble(1, 1.0, (kind,))
            told = ask("PUT", f"/chaos/{kind}", content)
            store.proxy.trouble = None
            # What is dropped, or refused, was not done; what was lost, was.
            there = ask("GET", f"/chaos/{kind}") == (200, content)
            assert there == (kind in ("lose", "delay", "cut"))
            assert isinstance(told, str) == (kind in ("drop", "lose"))
            if kind in ("500", "503"):
                assert told[0] == int(kind)
        store.proxy.trouble = Trouble(1, 1.0, ("cut",))
        assert ask("GET", "/chaos/lose") == "IncompleteRead"
    finally:
        store.close()


def test_what_was_wrong_is_told() -> None:
    good = Outcome(0, "workers killed", 3, 4, (), 1.0)
    told = tell([good, Outcome(7, "started twice", 1, 3, (), 1.0)])
    assert told.sound
    assert [entry.verdict for entry in told.entries] == [HELD, HELD, HELD]
    bad = Outcome(7, "started twice", 1, 3, ("lock: two have written", "trees: 1 missing: x", "rows: 1 lost"), 1.0)
    told = tell([good, bad])
    assert not told.sound
    assert [entry.verdict for entry in told.entries] == [NOT_HELD, HELD, NOT_HELD]
    assert [entry.measured for entry in told.entries] == ["1 of 2 runs", "2 of 2 runs", "0 of 1 runs"]
    assert "- Seed 7, started twice: lock: two have written" in told.body
