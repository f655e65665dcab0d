from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lola_data.tokens import TokenShard
from tests.train import test_cli
from train import data
from train.loop import train
from train.trace import trace_batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig


def lola_data(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of the console script."""
    return test_cli.lola_data(capsys, *map(str, arguments))


@pytest.fixture
def work(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]) -> Path:
    """A work folder: tokens with their ids, the sampled text they were made of, and a run of 4 of 10 steps.

    Document n of a shard is row 3 n of the raw shard; every fifth has no address."""
    for prefix, raw in (("aa_00000", "aa_part_0"), ("aa_00001", "aa_part_1"), ("bb_00000", "bb_part_0")):
        shard, lang = TokenShard(tree / "train" / prefix), prefix[:2]
        ids = [f"{lang}/{raw}/{3 * number}" for number in range(shard.num_documents)]
        urls = [None if number % 5 == 4 else f"https://{raw}.example/{number}" for number in range(len(ids))]
        pq.write_table(
            pa.table({"id": ids, "tokens": pa.array(shard.lengths)}), tree / "train" / f"{prefix}.ids.parquet"
        )
        (tmp_path / "sampled" / lang).mkdir(parents=True, exist_ok=True)
        text = pa.table({"id": ids, "text": ["x"] * len(ids), "url": pa.array(urls, pa.string())})
        pq.write_table(text, tmp_path / "sampled" / lang / f"{raw}.parquet", row_group_size=7)
    train(tiny(), tree, tmp_path / "runs" / "moe", max_steps_this_run=4)
    return tmp_path


def test_the_documents_named_are_those_of_the_batch(work: Path, tiny: Callable[..., TrainConfig]):
    for step in (1, 3, 10):  # done and not done yet
        found = trace_batch(work / "runs" / "moe", step)
        loader = data.Loader(
            {lang: [TokenShard(work / "tokens" / "train" / name) for name in names] for lang, names in
             (("aa", ["aa_00000", "aa_00001"]), ("bb", ["bb_00000"]))},
            {"aa": 0.5, "bb": 0.5}, seq_len=16, batch_size=4, seed=0,
        )  # fmt: skip
        batch = loader.batch(step - 1)
        for sample in range(4):
            mine = [one for one in found.documents if one.sample == sample]
            parts = [
                TokenShard(work / "tokens" / one.shard).document(one.document)[one.start : one.stop] for one in mine
            ]
            assert np.array_equal(np.concatenate(parts), batch.tokens[sample])
            assert [one.at for one in mine] == [sum(map(len, parts[:n])) for n in range(len(parts))]
            assert {one.lang for one in mine} == {loader.languages[batch.language[sample]]}
        for one in found.documents:
            raw = f"{one.lang}_part_{int(one.shard[-1])}"
            assert one.id == f"{one.lang}/{raw}/{3 * one.document}"
            assert one.url == (None if one.document % 5 == 4 else f"https://{raw}.example/{one.document}")


def test_steps_are_numbered_as_in_the_metrics(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig],
                                              monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    asked: list[int] = []
    batch = data.Loader.batch

    def seen(self: data.Loader, step: int, rank: int = 0, world: int = 1) -> data.Batch:
        asked.append(step)
        return batch(self, step, rank, world)

    monkeypatch.setattr(data.Loader, "batch", seen)
    train(tiny(), tree, tmp_path / "run", max_steps_this_run=1)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(record["step"] for record in records if record["kind"] == "train") == 1
    assert asked[0] == 0


def test_the_command(work: Path, capsys: pytest.CaptureFixture[str]):
    run = work / "runs" / "moe"
    code, output, errors = lola_data(capsys, "trace", run, "--step", 2, "--json")
    assert (code, errors) == (0, "")
    told = json.loads(output)
    assert (told["step"], told["steps"]) == (2, 10)
    assert {one["sample"] for one in told["documents"]} == {0, 1, 2, 3}
    code, output, _ = lola_data(capsys, "trace", run, "--step", 2, "--sample", 3)
    assert code == 0
    head, *lines = output.splitlines()
    assert head.split() == ["sample", "language", "epoch", "tokens", "shard", "document", "id", "url"]
    expected = [one for one in told["documents"] if one["sample"] == 3]
    for line, one in zip(lines, expected, strict=True):
        span = f"{one['start']}-{one['stop']} of {one['length']}"
        cells = [one["sample"], one["lang"], one["epoch"], span, one["shard"], one["document"], one["id"]]
        assert line.split() == " ".join(map(str, [*cells, one["url"] or "-"])).split()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--step", 0], 2, "the run has the steps 1 to 10"),
        (["--step", 11], 2, "the run has the steps 1 to 10"),
        (["--step", 1, "--sample", 4], 2, "the samples 0 to 3"),
        (["--step", 1, "--sample", -1], 2, "the samples 0 to 3"),
        ([], 2, "Missing option '--step'"),
        (["--step", "x"], 2, "not a valid integer"),
    ],
)
def test_words_that_make_no_sense(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[object], code: int, message: str
):
    found, output, errors = lola_data(capsys, "trace", work / "runs" / "moe", *arguments)
    assert (found, output) == (code, "")
    assert message in errors


@pytest.mark.parametrize("fault", ["no shard", "cut", "no run", "other tokens", "broken settings"])
def test_what_cannot_be_traced_is_one_line(work: Path, capsys: pytest.CaptureFixture[str], fault: str):
    run, tokens = work / "runs" / "moe", work / "tokens"
    if fault == "no shard":
        (tokens / "train" / "bb_00000.bin").unlink()
        message = "bb_00000.bin"
    elif fault == "cut":
        (tokens / "train" / "bb_00000.bin").write_bytes(b"12")
        message = "bb_00000.bin: is truncated"
    elif fault == "no run":
        run, message = work / "runs" / "none", "config.json"
    elif fault == "broken settings":
        (run / "config.json").write_text("[]")
        message = "not the settings of a run"
    else:
        manifest = json.loads((tokens / "manifest.json").read_text())
        manifest["tokenizer"]["vocab_size"] += 1
        (tokens / "manifest.json").write_text(json.dumps(manifest))
        message = "tokenizer vocab_size is 61, the run has 60"
    code, output, errors = lola_data(capsys, "trace", run, "--step", 1)
    assert (code, output) == (1, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_shards_that_the_run_was_not_trained_on_are_refused(work: Path, capsys: pytest.CaptureFixture[str]):
    manifest = json.loads((work / "tokens" / "manifest.json").read_text())
    dropped = next(one for one in manifest["shards"] if one["path"] == "train/aa_00001")
    manifest["shards"].remove(dropped)
    (work / "tokens" / "manifest.json").write_text(json.dumps(manifest))
    for suffix in ("bin", "idx"):
        (work / "tokens" / "train" / f"aa_00001.{suffix}").unlink()
    code, _, errors = lola_data(capsys, "trace", work / "runs" / "moe", "--step", 1)
    assert code == 1
    assert "train/aa_00001.bin is None" in errors


def test_the_token_tree_may_lie_elsewhere(work: Path, capsys: pytest.CaptureFixture[str]):
    run = work / "runs" / "moe"
    expected = trace_batch(run, 1).documents
    shutil.move(work / "tokens", work / "away")
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | {"tokens": None}))
    code, _, errors = lola_data(capsys, "trace", run, "--step", 1)
    assert code == 2
    assert "name it with --tokens" in errors
    assert trace_batch(run, 1, tokens_dir=work / "away").documents == expected
    (run / "config.json").write_text(json.dumps(record | {"tokens": "../../away"}))
    assert trace_batch(run, 1).documents == expected


def test_ids_and_addresses_that_are_not_there_are_told(work: Path, capsys: pytest.CaptureFixture[str]):
    run = work / "runs" / "moe"
    shutil.rmtree(work / "sampled")
    code, output, errors = lola_data(capsys, "trace", run, "--step", 1)
    assert code == 0
    assert "aa/aa_part_" in output
    assert "no addresses: there is no tree of text at" in errors
    for path in (work / "tokens" / "train").glob("*.ids.parquet"):
        path.unlink()
    code, output, errors = lola_data(capsys, "trace", run, "--step", 1)
    assert code == 0
    assert "train/aa_0000" in output
    assert "no ids for aa_0000" in errors
