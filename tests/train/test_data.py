from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lola_data.errors import TrainingError
from lola_data.tokens import TokenShard, TokenShardWriter
from train.data import DocumentStream, Loader

if TYPE_CHECKING:
    from pathlib import Path

EOD = 1


def shard_of(folder: Path, name: str, docs: list[list[int]]) -> TokenShard:
    with TokenShardWriter(folder / name, np.uint16) as writer:
        writer.add_documents(
            np.array(list(chain.from_iterable(docs)), np.int64), np.array([len(doc) for doc in docs], np.int64)
        )
    return TokenShard(folder / name)


def numbered(count: int, first: int = 10, seed: int = 0) -> list[list[int]]:
    """Documents whose every token is the document's own number, so that a stream tells what it is made of."""
    rng = np.random.default_rng(seed)
    return [[first + number] * int(rng.integers(1, 9)) + [EOD] for number in range(count)]


def split_stream(tokens: np.ndarray) -> list[tuple[int, ...]]:
    ends = np.flatnonzero(tokens == EOD) + 1
    return [tuple(part.tolist()) for part in np.split(tokens, ends)[:-1]]


def test_each_pass_holds_every_document_once_in_a_fresh_order(tmp_path: Path):
    docs = numbered(50)
    stream = DocumentStream([shard_of(tmp_path, "a", docs[:20]), shard_of(tmp_path, "b", docs[20:])], key=3)
    passes = [split_stream(stream.read(n * stream.num_tokens, stream.num_tokens)) for n in range(3)]
    for documents in passes:
        assert sorted(documents) == sorted(tuple(doc) for doc in docs)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] != [tuple(doc) for doc in docs]


def test_a_stream_is_the_same_however_it_is_cut(tmp_path: Path):
    # 3,000 documents: several blocks of the index of a pass.
    shard = shard_of(tmp_path, "a", numbered(3000))
    whole = DocumentStream([shard], key=1).read(0, 2 * shard.num_tokens)
    rng = np.random.default_rng(0)
    fresh = DocumentStream([shard], key=1)
    for _ in range(100):
        start = int(rng.integers(0, 2 * shard.num_tokens - 50))
        count = int(rng.integers(1, 50))
        assert np.array_equal(fresh.read(start, count), whole[start : start + count])


def test_empty_documents_are_passed_over(tmp_path: Path):
    stream = DocumentStream([shard_of(tmp_path, "a", [[], [5, EOD], [], [6, EOD], []])], key=0)
    assert sorted(split_stream(stream.read(0, 4))) == [(5, EOD), (6, EOD)]
    assert stream.read(0, 12).size == 12


def test_spans_name_the_tokens_that_are_read(tmp_path: Path):
    shards = [shard_of(tmp_path, "a", numbered(10)), shard_of(tmp_path, "b", numbered(9, first=40))]
    stream = DocumentStream(shards, key=8)
    start, count = stream.num_tokens - 20, 60
    parts = [shards[span.shard].document(span.document)[span.start : span.stop] for span in stream.spans(start, count)]
    assert np.array_equal(np.concatenate(parts), stream.read(start, count))
    assert {span.epoch for span in stream.spans(start, count)} == {0, 1}


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, list[TokenShard]]:
    return {
        "de": [shard_of(tmp_path, "de", numbered(40))],
        "en": [shard_of(tmp_path, "en", numbered(60, first=100))],
        "sw": [shard_of(tmp_path, "sw", [[9, EOD]])],
        "xx": [shard_of(tmp_path, "xx", [])],
    }


def loader_of(shards: dict[str, list[TokenShard]], weights: dict[str, float], **changes: Any) -> Loader:
    return Loader(shards, weights, **{"seq_len": 16, "batch_size": 8, "seed": 0} | changes)


WEIGHTS = {"de": 0.6, "en": 0.35, "sw": 0.05, "xx": 0.2}


def test_a_batch_is_a_function_of_seed_and_step(shards: dict[str, list[TokenShard]]):
    in_order, jumping = loader_of(shards, WEIGHTS), loader_of(shards, WEIGHTS)
    expected = [in_order.batch(step) for step in range(40)]
    for step in (39, 0, 17, 17, 18, 3):
        batch = jumping.batch(step)
        assert np.array_equal(batch.tokens, expected[step].tokens)
        assert np.array_equal(batch.language, expected[step].language)
    other = loader_of(shards, WEIGHTS, seed=1)
    assert any(not np.array_equal(other.batch(step).tokens, expected[step].tokens) for step in range(3))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_any_number_of_processes_reads_the_same_global_batch(shards: dict[str, list[TokenShard]], world: int):
    whole = loader_of(shards, WEIGHTS).batch(5)
    rows = np.empty_like(whole.tokens)
    for rank in range(world):
        rows[rank::world] = loader_of(shards, WEIGHTS).batch(5, rank, world).tokens
    assert np.array_equal(rows, whole.tokens)


def test_windows_of_a_language_join_without_gap_or_overlap(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, WEIGHTS)
    rows: dict[int, list[np.ndarray]] = {}
    for step in range(60):
        batch = loader.batch(step)
        for row, language in zip(batch.tokens, batch.language, strict=True):
            rows.setdefault(int(language), []).append(row)
    for language, windows in rows.items():
        stream = loader.streams[language]
        inputs = np.concatenate([row[:-1] for row in windows])
        assert np.array_equal(inputs, stream.read(0, inputs.size))
        assert all(np.array_equal(a[-1:], b[:1]) for a, b in pairwise(windows))
        # The first whole pass, as the model met it, is every document once.
        if inputs.size >= stream.num_tokens:
            shard = stream.shards[0]
            assert sorted(split_stream(inputs[: stream.num_tokens])) == sorted(
                tuple(shard.document(n).tolist()) for n in range(shard.num_documents)
            )
    assert len(rows) == 3


def test_two_sources_of_ten_samples_for_three_epochs(tmp_path: Path):
    # Case T14: weights 0.9 and 0.1 over a small set; every pass a new order, all samples once, no index out of range.
    small = {
        "a": [shard_of(tmp_path, "a", [[10 + n, EOD] for n in range(10)])],
        "b": [shard_of(tmp_path, "b", [[30 + n, EOD] for n in range(10)])],
    }
    loader = loader_of(small, {"a": 0.9, "b": 0.1}, seq_len=2, batch_size=10)
    seen: dict[int, list[int]] = {0: [], 1: []}
    for step in range(34):
        batch = loader.batch(step)
        for row, language in zip(batch.tokens, batch.language, strict=True):
            seen[int(language)].append(int(row[0]))
    passes = [seen[0][n * 10 : n * 10 + 10] for n in range(30)]
    assert all(sorted(one) == list(range(10, 20)) for one in passes)
    assert all(passes[n] != passes[n + 1] for n in range(29))
    thrice = [seen[1][n * 10 : n * 10 + 10] for n in range(3)]
    assert all(sorted(one) == list(range(30, 40)) for one in thrice)
    assert loader.epochs(34)["a"] == pytest.approx(34 * 0.9, abs=0.5)


def test_a_language_shorter_than_a_window_repeats(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, {"sw": 1.0})
    assert loader.batch(0).tokens[0].tolist() == [9, EOD] * 8 + [9]
    assert loader.epochs(1) == {"sw": 8 * 16 / 2}


def test_a_language_without_tokens_is_left_out_and_named(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, WEIGHTS)
    assert loader.languages == ["de", "en", "sw"]
    assert loader.unused == ["xx"]


def test_epochs_count_what_was_read(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, WEIGHTS)
    read = np.zeros(3)
    for step in range(25):
        read += np.bincount(loader.batch(step).language, minlength=3) * 16
    tokens = [stream.num_tokens for stream in loader.streams]
    assert list(loader_of(shards, WEIGHTS).epochs(25).values()) == pytest.approx((read / tokens).tolist())


def test_documents_of_a_sample_are_traced(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, WEIGHTS)
    language, spans = loader.documents(7, 3)
    shard = shards[language][0]
    found = np.concatenate([shard.document(span.document)[span.start : span.stop] for span in spans])
    assert np.array_equal(found, loader.batch(7).tokens[3])


def test_the_share_of_a_language_without_a_shard_goes_to_the_others(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, {"am": 0.5, "de": 0.375, "en": 0.125, "xx": 0.2})
    assert loader.languages == ["de", "en"]
    assert loader.unused == ["am", "xx"]
    languages = np.concatenate([loader.batch(step).language for step in range(100)])
    assert (languages == 0).mean() == pytest.approx(0.75, abs=0.01)


def test_weights_of_nothing_are_refused(shards: dict[str, list[TokenShard]]):
    with pytest.raises(TrainingError, match="no language has both"):
        loader_of(shards, {"am": 1.0})
    with pytest.raises(TrainingError, match="no language has both"):
        loader_of(shards, {"xx": 1.0})


def of_numbers(folder: Path, name: str, first: int, count: int) -> list[TokenShard]:
    """``count`` documents of one token and EOD."""
    return [shard_of(folder, name, [[first + number, EOD] for number in range(count)])]


@pytest.mark.parametrize("max_epochs", [1, 2.5, {"aa": 2, "bb": 1}])
def test_no_language_is_read_more_often_than_its_cap(tmp_path: Path, max_epochs: float | dict[str, float]):
    sets = {"aa": of_numbers(tmp_path, "aa", 100, 10), "bb": of_numbers(tmp_path, "bb", 300, 30)}
    loader = loader_of(sets, {"aa": 0.7, "bb": 0.3}, seq_len=2, batch_size=5, max_epochs=max_epochs)
    caps = max_epochs if isinstance(max_epochs, dict) else {"aa": max_epochs, "bb": max_epochs}
    windows = {"aa": int(caps["aa"] * 10), "bb": int(caps["bb"] * 30)}
    assert loader.steps is not None
    assert loader.steps == sum(windows.values()) // 5
    first = np.concatenate([loader.batch(step).tokens[:, 0] for step in range(loader.steps)])
    # A window is a document, so these are the documents read, in passes without a repetition.
    for lang, low, size in (("aa", 100, 10), ("bb", 300, 30)):
        mine = first[(first >= low) & (first < low + size)]
        assert mine.size <= windows[lang]
        for start in range(0, mine.size - size + 1, size):
            assert sorted(mine[start : start + size]) == list(range(low, low + size))
    assert first.size > sum(windows.values()) - 5
    assert all(epochs <= caps[lang] for lang, epochs in loader.epochs(loader.steps).items())
    with pytest.raises(TrainingError, match=rf"used up after {loader.steps} steps"):
        loader.batch(loader.steps)


def test_a_capped_language_leaves_its_share_to_the_others(tmp_path: Path):
    sets = {"aa": of_numbers(tmp_path, "aa", 100, 10), "bb": of_numbers(tmp_path, "bb", 300, 500)}
    loader = loader_of(sets, {"aa": 0.5, "bb": 0.5}, seq_len=2, batch_size=4, max_epochs={"aa": 2.0})
    assert loader.steps is None
    languages = np.concatenate([loader.batch(step).language for step in range(30)])
    spent = np.flatnonzero(languages == 0)
    # 20 windows of `aa`, every other sample as its share is a half; behind them `bb` alone.
    assert spent.size == 20
    assert 37 <= spent[-1] <= 42


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_at_a_cap_any_number_of_processes_reads_the_same(tmp_path: Path, world: int):
    sets = {
        "aa": of_numbers(tmp_path, "aa", 100, 13), "bb": of_numbers(tmp_path, "bb", 300, 30),
        "cc": of_numbers(tmp_path, "cc", 500, 90),
    }  # fmt: skip
    weights = {"aa": 0.5, "bb": 0.4, "cc": 0.1}

    def make() -> Loader:
        return loader_of(sets, weights, seq_len=2, batch_size=8, max_epochs=1)

    whole = make()
    assert whole.steps == 133 // 8
    expected = [whole.batch(step).tokens for step in range(whole.steps)]
    for step in (15, 3, 9, 4):  # as after a resume: nothing before it has been read
        rows = np.empty_like(expected[step])
        for rank in range(world):
            rows[rank::world] = make().batch(step, rank, world).tokens
        assert np.array_equal(rows, expected[step])


def test_a_language_with_no_window_under_its_cap_is_left_out_and_named(shards: dict[str, list[TokenShard]]):
    loader = loader_of(shards, WEIGHTS, max_epochs=2)
    assert loader.languages == ["de", "en"]  # `sw` has two tokens, a window has 16
    assert loader.unused == ["sw", "xx"]


@pytest.mark.parametrize(
    ("max_epochs", "message"),
    [({"ed": 1.0}, "'ed'; did you mean"), (0, "'de' is 0"), ({"en": -1.0}, "'en' is -1"), (float("nan"), "is nan"),
     (1e-6, "no language has one sequence")],
)  # fmt: skip
def test_caps_that_make_no_sense_are_refused(
    shards: dict[str, list[TokenShard]], max_epochs: float | dict[str, float], message: str
):
    with pytest.raises(TrainingError, match=message):
        loader_of(shards, WEIGHTS, max_epochs=max_epochs)


def test_shards_of_one_language_may_differ_in_dtype(tmp_path: Path):
    docs = numbered(40)
    with TokenShardWriter(tmp_path / "wide", np.int32) as writer:
        writer.add_documents(np.array([70_000, 70_001, EOD]), np.array([3]))
    stream = DocumentStream([shard_of(tmp_path, "a", docs), TokenShard(tmp_path / "wide")], key=3)
    documents = split_stream(stream.read(0, stream.num_tokens))
    assert sorted(documents) == sorted([*(tuple(doc) for doc in docs), (70_000, 70_001, EOD)])
