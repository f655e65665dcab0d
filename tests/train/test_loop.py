from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

from lola_data.errors import TrainingError
from tests.train.conftest import documents, write_tree
from train.checkpoint import newest_checkpoint
from train.loop import train
from train.metrics import MACHINE, read_metrics
from train.model import Block
from train.progress import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.train_config import TrainConfig


def weights_of(run: Path) -> dict[str, Any]:
    found = newest_checkpoint(run / "checkpoints")
    assert found is not None
    return found.tensors


def records_of(run: Path) -> list[dict[str, Any]]:
    """The records, without what is the machine's and the clock's."""
    return [
        {key: value for key, value in record.items() if key not in MACHINE}
        for record in read_metrics(run / "metrics.jsonl")
    ]


def assert_same_run(found: Path, expected: Path) -> None:
    a, b = weights_of(found), weights_of(expected)
    assert a.keys() == b.keys()
    for name, tensor in b.items():
        assert torch.equal(a[name], tensor), name
    assert records_of(found) == records_of(expected)
    assert (found / "summary.json").read_bytes() == (expected / "summary.json").read_bytes()
    assert (found / "config.json").read_bytes() == (expected / "config.json").read_bytes()


def test_a_run_is_complete_and_learns(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    config = tiny(tokens=60 * 64, learning_rate=0.01, eval_every=20, log_every=10)
    result = train(config, tree, tmp_path / "run")
    assert result.finished
    assert (result.step, result.steps, result.stopped_by) == (60, 60, "")
    assert result.summary is not None
    assert result.summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    records = records_of(tmp_path / "run")
    assert [(r["kind"], r["step"]) for r in records] == [
        ("valid", 0), ("train", 10), ("train", 20), ("valid", 20), ("train", 30), ("train", 40), ("valid", 40),
        ("train", 50), ("train", 60), ("valid", 60),
    ]  # fmt: skip
    assert records[-1]["mean"] < records[0]["mean"] - 0.5
    trained = records[-2]
    assert trained["tokens"] == 60 * 64
    assert sum(trained["load"]["1"]) == pytest.approx(1.0, abs=1e-5)
    assert set(trained["epochs"]) == {"aa", "bb"}
    assert trained["dropped"] == 0
    assert set(records[-1]["loss"]) == set(records[-1]["unigram"]) == {"aa", "bb"}
    languages = result.summary["languages"]
    assert languages["aa"]["train_documents"] == 40
    assert languages["aa"]["held_out_loss"] == records[-1]["loss"]["aa"]
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.parametrize("cuts", [[5], [1, 1, 4], [3, 3, 3], [9]])
def test_a_resumed_run_is_the_unbroken_one(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], cuts: list[int]
):
    config = tiny(model={"dropout": 0.1}, micro_batch=2)
    train(config, tree, tmp_path / "whole")
    for steps in cuts:
        assert not train(config, tree, tmp_path / "cut", max_steps_this_run=steps).finished
    assert train(config, tree, tmp_path / "cut").finished
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_steps_after_the_last_checkpoint_are_done_again(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
):
    config = tiny()
    train(config, tree, tmp_path / "whole")

    def die(*_: object, step: int, **arguments: object) -> object:
        if step == 8:
            raise KeyboardInterrupt
        return real(*_, step=step, **arguments)  # type: ignore[arg-type]

    import train.loop as loop

    real = loop.train_step
    monkeypatch.setattr(loop, "train_step", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, tree, tmp_path / "cut")
    monkeypatch.undo()
    assert records_of(tmp_path / "cut")[-1]["step"] == 8
    # The newest checkpoint lost a byte on top: the one before it takes its place.
    newest = max((tmp_path / "cut" / "checkpoints").iterdir())
    assert newest.name == "step_00000006"
    os.truncate(newest / "__0_0.distcp", 100)
    train(config, tree, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


SCRIPT = """
import sys
from lola_data.train_config import TrainConfig
from train.loop import train
import functools
import json
train(TrainConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3])
"""


def start(config: TrainConfig, tree: Path, run: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(config.to_dict()), str(tree), str(run)],
        cwd=root, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        if any(record["step"] >= step for record in read_metrics(run / "metrics.jsonl")):
            return
        time.sleep(0.005)


def test_sigterm_saves_and_returns(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    config = tiny(tokens=100_000 * 64, checkpoint_every=0, eval_every=0)
    process = start(config, tree, tmp_path / "run")
    wait_for_step(tmp_path / "run", 5, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    found = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.step == read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] >= 5


def test_a_signal_before_the_first_step_is_told_as_it_is(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
):
    import train.loop as loop

    real = loop.evaluate

    def evaluate(*given: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*given, **more)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    first = train(tiny(), tree, tmp_path / "run")
    assert (first.step, first.told()) == (0, "stopped by SIGUSR1 at step 0 of 10, before its first step")
    assert not (tmp_path / "run" / "checkpoints").exists()
    monkeypatch.undo()
    train(tiny(), tree, tmp_path / "run")
    train(tiny(), tree, tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_complete_run_is_left_alone(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    config = tiny()
    first = train(config, tree, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").rglob("*")}
    assert train(config, tree, tmp_path / "run").summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").rglob("*")} == before


def test_a_summary_lost_is_written_again(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    train(tiny(), tree, tmp_path / "run")
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    (tmp_path / "run" / "summary.json").unlink()
    train(tiny(), tree, tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary


def test_resume_never_and_changed_settings_are_refused(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    train(tiny(), tree, tmp_path / "run", max_steps_this_run=3)
    with pytest.raises(TrainingError, match="holds checkpoints"):
        train(tiny(), tree, tmp_path / "run", resume="never")
    with pytest.raises(TrainingError, match=r"learning_rate = 0\.003, this run has 0\.01"):
        train(tiny(learning_rate=0.01), tree, tmp_path / "run")


@pytest.mark.parametrize("fault", ["missing", "truncated", "changed", "replaced"])
def test_a_shard_that_is_not_the_manifests_is_refused_by_name(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], fault: str
):
    shard = tree / "train" / "bb_00000.bin"
    if fault == "missing":
        shard.unlink()
    elif fault == "truncated":
        os.truncate(shard, shard.stat().st_size - 2)
    elif fault == "changed":
        data = bytearray(shard.read_bytes())
        data[10] ^= 1
        shard.write_bytes(data)
    else:
        write_tree(tmp_path / "other", {"train": {"bb": [documents(9, 5, 2, 20)]}})
        for kind in ("bin", "idx"):
            (tmp_path / "other" / "train" / f"bb_00000.{kind}").replace(shard.with_suffix(f".{kind}"))
    with pytest.raises(TrainingError, match="bb_00000"):
        train(tiny(), tree, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shards_changed_between_two_calls_are_refused(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    train(tiny(), tree, tmp_path / "run", max_steps_this_run=3)
    manifest = json.loads((tree / "manifest.json").read_text())
    write_tree(tree, {"train": {"bb": [documents(9, 5, 30, 60)]}})
    changed = {shard["path"]: shard for shard in json.loads((tree / "manifest.json").read_text())["shards"]}
    manifest["shards"] = [changed.get(shard["path"], shard) for shard in manifest["shards"]]
    (tree / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainingError, match=r"token shard train/bb_00000\.(bin|idx)"):
        train(tiny(), tree, tmp_path / "run")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [(None, "make token shards first"), ("{", "not JSON"), ("[]", "not a token manifest"), ("{}", "tokenizer"),
     ('{"tokenizer": {"vocab_size": 5, "eod_id": 5}, "shards": []}', "eod_id 5 is not below")],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(
    tmp_path: Path, tiny: Callable[..., TrainConfig], manifest: str | None, message: str
):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(TrainingError, match=message) as error:
        train(tiny(), tmp_path, tmp_path / "run")
    assert "manifest.json" in str(error.value)


def test_token_ids_beyond_the_vocabulary_are_refused(tmp_path: Path, tiny: Callable[..., TrainConfig]):
    root = write_tree(tmp_path / "tokens", {"train": {"aa": [[[3, 4, 70, 1]]]}, "valid": {"aa": [[[3, 1]]]}})
    with pytest.raises(TrainingError, match=r"aa_00000.*70.*60"):
        train(tiny(), root, tmp_path / "run")


def test_two_processes_do_not_share_a_run(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    from train.run_dir import sole_writer

    with sole_writer(tmp_path / "run"), pytest.raises(TrainingError, match="another process"):
        train(tiny(), tree, tmp_path / "run")


def test_languages_without_held_out_or_training_tokens(tmp_path: Path, tiny: Callable[..., TrainConfig]):
    root = write_tree(
        tmp_path / "tokens",
        {
            "train": {"aa": [documents(1, 20, 2, 20)], "bb": [[[30, 1]]], "cc": [[]]},
            "valid": {"aa": [documents(2, 3, 2, 20)], "bb": [[]], "dd": [documents(3, 2, 30, 60)]},
        },
    )
    result = train(tiny(), root, tmp_path / "run")
    assert result.summary is not None
    languages = result.summary["languages"]
    assert languages["bb"]["held_out_loss"] is None
    assert languages["bb"]["epochs"] > 1
    assert languages["cc"]["epochs"] == 0
    assert languages["dd"]["unigram_loss"] is None
    assert languages["dd"]["held_out_loss"] > 0


def test_shares_of_languages_without_a_training_document_are_spread(
    tmp_path: Path, tiny: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
):
    # A budget of nothing, and a language whose only document is held out: the plan has a share for both.
    splits = {
        "train": {"aa": [documents(1, 30, 2, 20)], "bb": [documents(3, 25, 30, 60)]},
        "valid": {"am": [documents(4, 1, 2, 20)], "bb": [documents(5, 4, 30, 60)]},
    }
    shares = {"aa": 0.45, "am": 0.2, "bb": 0.15, "cc": 0.2}
    root = write_tree(tmp_path / "tokens", splits, shares=shares)
    result = train(tiny(tokens=100 * 64, log_every=100, eval_every=0), root, tmp_path / "run", progress=Lines())
    assert result.summary is not None
    languages = result.summary["languages"]
    seen = {name: languages[name]["epochs"] * languages[name]["train_tokens"] for name in ("aa", "bb")}
    assert seen["aa"] / (seen["aa"] + seen["bb"]) == pytest.approx(0.75, abs=0.01)
    assert languages["am"]["held_out_tokens"] > 0
    assert "left out: am, cc" in capsys.readouterr().err


def test_weights_override_the_manifests_shares(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    train(tiny(weights={"aa": 1.0}), tree, tmp_path / "run")
    assert set(records_of(tmp_path / "run")[-2]["epochs"]) == {"aa"}
    with pytest.raises(TrainingError, match="'ab'; did you mean"):
        train(tiny(weights={"ab": 1.0}), tree, tmp_path / "other")


def test_cuda_where_there_is_none(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="device: cuda"):
        train(tiny(device="cuda"), tree, tmp_path / "run")


def test_tensorboard_events_hold_the_records(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(tensorboard=True), tree, tmp_path / "run", max_steps_this_run=4)
    train(tiny(tensorboard=True), tree, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    records = [record for record in records_of(tmp_path / "run") if record["kind"] == "train"]
    assert losses == pytest.approx({record["step"]: record["loss"] for record in records})
    assert {"valid/loss/aa", "load/layer1/expert03", "train/epochs/bb"} <= set(events.Tags()["scalars"])


def test_the_process_is_left_as_it_was(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads, handlers = torch.get_num_threads(), [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    train(tiny(), tree, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize(
    "changes",
    [
        {"moe_backend": "grouped", "micro_batch": 2},
        {"recompute": True, "model": {"capacity_factor": 1.0}},
    ],
)
def test_compiled_blocks_give_the_same_run(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, changes: dict
):
    # All of torch.compile but its last part, which writes machine code and takes minutes.
    monkeypatch.setattr(Block, "compile", functools.partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    config = tiny(tokens=5 * 64, eval_every=2, **changes)
    train(config, tree, tmp_path / "plain")
    assert not counters["stats"]
    train(config.replace({"compile": True}), tree, tmp_path / "compiled")
    assert counters["stats"]["unique_graphs"] >= 4
    assert counters["frames"]["ok"] == counters["frames"]["total"]
    assert all("_by_plan" in why for why in counters["graph_break"])
    plain, compiled = (records_of(tmp_path / name) for name in ("plain", "compiled"))
    for a, b in zip(plain, compiled, strict=True):
        assert (a["kind"], a["step"]) == (b["kind"], b["step"])
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    torch._dynamo.reset()
