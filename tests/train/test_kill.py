"""Training that is killed: started again it ends with the weights and records of a run that nobody touched."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from lola_data.train_config import TrainConfig
from tests.train.conftest import documents, write_tree
from tests.train.parallel_worker import TrainCall, call_train, results_of, started
from tests.train.test_loop import assert_same_run
from train.checkpoint import newest_checkpoint
from train.loop import train
from train.metrics import read_metrics

if TYPE_CHECKING:
    from pathlib import Path

STEPS, ROWS, SEQ_LEN = 120, 4, 16


def settings(**changes: Any) -> dict[str, Any]:
    """A checkpoint every third step, written while training goes on, so that many kills meet one half-written; dropout
    and a random dropping order, whose draws have to come back; a watch that remembers losses."""
    base = {
        "model": {
            "layers": 2, "d_model": 16, "heads": 2, "seq_len": SEQ_LEN, "experts": 4, "vocab_multiple": 4,
            "dropout": 0.1, "capacity_factor": 1.0, "capacity_order": "random", "router_bias_rate": 0.01,
        },
        "tokens": STEPS * ROWS * SEQ_LEN, "batch_size": ROWS, "micro_batch": 2, "log_every": 1, "eval_every": 10,
        "checkpoint_every": 3, "tensorboard": False, "threads": 1, "spike": 6.0, "on_bad_step": "skip",
    }  # fmt: skip
    return TrainConfig.from_dict(base).replace(changes).to_dict()


@pytest.fixture(scope="module")
def token_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 250 tokens of one language and 1,100 of another: of 7,680 tokens read, both come round several times."""
    return write_tree(
        tmp_path_factory.mktemp("trees") / "tokens",
        {
            "train": {"aa": [documents(1, 12, 2, 20)], "bb": [documents(3, 30, 30, 60), documents(6, 25, 30, 60)]},
            "valid": {"aa": [documents(4, 4, 2, 20)], "bb": [documents(5, 4, 30, 60)]},
        },
    )


def last_step(run: Path) -> int:
    return max((record["step"] for record in read_metrics(run / "metrics.jsonl")), default=0)


def kill_after(world: int, tree: Path, call: TrainCall, steps: int, delay: float, whom: list[int]) -> int:
    """Start training, let it get ``steps`` steps beyond where it was and ``delay`` seconds on, then kill the processes
    ``whom``; how many of them were alive until then. The others are given up, as a scheduler would."""
    target = last_step(call.run) + steps
    with started(world, call_train, tree, [call]) as begun:
        while last_step(call.run) < target and all(process.is_alive() for process, _ in begun):
            time.sleep(0.002)
        time.sleep(delay)
        for rank in whom:
            assert begun[rank][0].pid is not None
            os.kill(begun[rank][0].pid or 0, signal.SIGKILL)
        for rank in whom:
            begun[rank][0].join()
        killed = sum(begun[rank][0].exitcode == -signal.SIGKILL for rank in whom)
        for process, _ in begun:
            process.kill()
    return killed


def test_killed_at_ten_random_moments_it_ends_the_same(token_tree: Path, tmp_path: Path):
    call = TrainCall(tmp_path / "cut", settings())
    results_of(1, call_train, token_tree, [TrainCall(tmp_path / "whole", settings())])
    rng, kills, reached = random.Random(0), 0, []
    # The first kill comes before the first step; twice in a row a resumed run gets no further than its checkpoint.
    for steps in [0, *rng.sample(range(2, 16), 6), 0, 0, 5]:
        kills += kill_after(1, token_tree, call, steps, rng.random() * 0.05, [0])
        reached.append(last_step(call.run))
    assert kills == 10
    assert reached[-1] < STEPS
    results_of(1, call_train, token_tree, [call])
    assert_same_run(call.run, tmp_path / "whole")
    epochs = read_metrics(call.run / "metrics.jsonl")[-2]["epochs"]
    assert min(epochs.values()) > 3
    # Kills came in several passes over each language.
    assert len({step * ROWS * SEQ_LEN // 2500 for step in reached}) > 1
    assert not [path for path in call.run.rglob(".*") if path.name.endswith(".tmp")]


def test_several_processes_killed_at_random_moments_end_the_same(token_tree: Path, tmp_path: Path):
    spread = settings(shard=2, expert_parallel=2, model={"capacity_factor": None})
    call = TrainCall(tmp_path / "cut", spread)
    results_of(2, call_train, token_tree, [TrainCall(tmp_path / "whole", spread)])
    rng, kills = random.Random(1), 0
    for steps, whom in [(0, [0]), (8, [0, 1]), (7, [1]), (0, [0, 1]), (9, [0])]:
        kills += kill_after(2, token_tree, call, steps, rng.random() * 0.05, whom)
    assert kills == 7
    assert last_step(call.run) < STEPS
    results_of(2, call_train, token_tree, [call])
    assert_same_run(call.run, tmp_path / "whole")


def test_a_run_resumed_twice_without_a_step_stays_what_it_is(token_tree: Path, tmp_path: Path):
    config = TrainConfig.from_dict(settings())
    run = tmp_path / "run"
    train(config, token_tree, run, max_steps_this_run=7)
    before = (run / "metrics.jsonl").read_bytes()
    for _ in range(2):
        assert train(config, token_tree, run, max_steps_this_run=0).step == 7
        assert (run / "metrics.jsonl").read_bytes() == before
        found = newest_checkpoint(run / "checkpoints")
        assert found is not None
        assert found.step == 7
    assert json.loads((run / "config.json").read_text())["config"] == settings()
