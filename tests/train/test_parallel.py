"""Runs of one, two and four processes: whatever they share, they come to the same."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lola_data.errors import TrainingError
from lola_data.train_config import TrainConfig
from tests.train.conftest import documents, write_tree
from tests.train.parallel_worker import (
    ROWS,
    STEPS,
    Case,
    Seen,
    TrainCall,
    call_cli,
    call_train,
    make_many_steps,
    make_steps,
    results_of,
    run_all,
    use_ranks,
)
from train.checkpoint import newest_checkpoint
from train.loop import train
from train.metrics import read_metrics
from train.parallel import check_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPREADS = {2: [(1, 1), (2, 1), (1, 2), (2, 2)], 4: [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (4, 2), (4, 4)]}
"""(shard, expert_parallel) tried with each number of processes."""

VARIANTS: dict[str, dict[str, Any]] = {
    "micro_batch_1": {"micro_batch": 1},
    "micro_batch_2": {"micro_batch": 2},
    "recompute": {"micro_batch": 2, "recompute": True},
    "grouped": {"moe_backend": "grouped", "model": {"top_k": 2}},
    # AdamW as it is used hides the scale of a gradient, and makes noise of one that is 0: only losses are compared.
    "adamw": {"eps": 1e-8, "learning_rate": 3e-3},
    "one_expert": {"moe_backend": "reference"},
    "one_expert_grouped": {"moe_backend": "grouped"},
    "fused": {"moe_backend": "fused", "micro_batch": 2, "recompute": True},
}
EVERYWHERE = ("micro_batch_1", "micro_batch_2")
"""Variants tried in every spread; the others where experts lie in several processes, ``fused`` in all of two."""


def settings(**changes: Any) -> dict[str, Any]:
    """Settings in which a fault of the gradient shows: losses of the router that count, a clip that bites, and an
    update that, for its large epsilon, is in proportion to the gradient and not to its sign."""
    base = TrainConfig.from_dict(
        {
            "model": {
                "layers": 2, "d_model": 16, "heads": 2, "seq_len": 16, "experts": 4, "vocab_multiple": 4,
                "init_std": 0.3, "balance_loss": 1.0, "z_loss": 0.1, "router_bias_rate": 0.01,
            },
            "tokens": STEPS * ROWS * 16, "batch_size": ROWS, "grad_clip": 0.5, "eps": 1.0, "learning_rate": 1.0,
        }
    )  # fmt: skip
    return base.replace(changes).to_dict()


def case_of(variant: str, shard: int = 1, expert_parallel: int = 1) -> Case:
    changes = {**VARIANTS[variant], "shard": shard, "expert_parallel": expert_parallel}
    return Case(settings(**changes), one_expert=variant.startswith("one_expert"))


def variants_of(world: int, shard: int, expert_parallel: int) -> tuple[str, ...]:
    if world == 2:
        return tuple(VARIANTS) if expert_parallel > 1 else (*EVERYWHERE, "fused")
    return (*EVERYWHERE, "recompute", "one_expert") if (shard, expert_parallel) == (4, 2) else EVERYWHERE


TRIED = [
    (world, shard, parts, variant)
    for world, spreads in SPREADS.items()
    for shard, parts in spreads
    for variant in variants_of(world, shard, parts)
]


@pytest.fixture(scope="module")
def of_world() -> Callable[[int], list[dict[str, Seen]]]:
    """What the processes of a group saw, by rank; one group goes through all that is tried with it."""
    seen: dict[int, list[dict[str, Seen]]] = {}

    def of(world: int) -> list[dict[str, Seen]]:
        if world not in seen:
            cases = {
                f"{shard}x{parts}-{variant}": case_of(variant, shard, parts)
                for tried, shard, parts, variant in TRIED
                if tried == world
            }
            seen[world] = results_of(world, make_many_steps, cases)
        return seen[world]

    return of


@pytest.fixture(scope="module")
def alone() -> Callable[[str], Seen]:
    """What one process sees, by variant."""
    seen: dict[str, Seen] = {}

    def of(variant: str) -> Seen:
        if variant not in seen:
            seen[variant] = make_steps(case_of(variant))
        return seen[variant]

    return of


@pytest.mark.parametrize(("world", "shard", "parts", "variant"), TRIED)
def test_many_processes_do_the_steps_of_one(
    of_world: Callable[[int], list[dict[str, Seen]]],
    alone: Callable[[str], Seen],
    world: int,
    shard: int,
    parts: int,
    variant: str,
):
    """An expert's gradient off by the number of processes, or one that counts twice in the norm, would show here."""
    expected = alone(variant)
    for rank, seen in enumerate(of_world(world)):
        found = seen[f"{shard}x{parts}-{variant}"]
        assert found.loads == expected.loads
        for name in ("loss", "grad_norm", "balance", "z"):
            a, b = ([step[name] for step in one.steps] for one in (found, expected))
            assert a == pytest.approx(b, rel=1e-5), f"{name} in process {rank}"
        if variant == "adamw":
            continue
        assert found.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            np.testing.assert_allclose(found.tensors[name], tensor, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_clip_bites_and_the_experts_count(alone: Callable[[str], Seen]):
    """Else what is compared above would say nothing about the norm."""
    assert min(step["grad_norm"] for step in alone("micro_batch_2").steps) > 0.5
    moved = alone("micro_batch_2").tensors["blocks.1.feed_forward.experts.w_up"]
    assert np.abs(moved - make_steps(case_of("adamw")).tensors["blocks.1.feed_forward.experts.w_up"]).max() > 1e-2


@pytest.mark.parametrize("variant", ["one_expert", "one_expert_grouped"])
def test_a_process_that_no_token_reaches_goes_along(of_world: Callable[[int], list[dict[str, Seen]]], variant: str):
    """All tokens go to expert 0, so no row comes to the second process; that both come to the weights of one process is
    among the cases above."""
    for seen in of_world(2):
        assert seen[f"1x2-{variant}"].loads == [[[1.0, 0.0, 0.0, 0.0]]] * STEPS


def test_sum_vote_and_the_word_of_the_first():
    found = results_of(2, use_ranks)
    assert found == [([2.0, 10.0], [False, True, True], "said by 0", first) for first in (True, False)]


@pytest.mark.parametrize(
    ("world", "changes", "message"),
    [
        (2, {"shard": 4}, "shard: 4 does not divide the 2 processes"),
        (6, {"shard": 4, "batch_size": 12}, "shard: 4 does not divide the 6 processes"),
        (2, {"expert_parallel": 4}, "expert_parallel: 4 does not divide the 2 processes"),
        (4, {"shard": 2, "expert_parallel": 4}, "expert_parallel: 4 does not divide shard 2"),
        (2, {"expert_parallel": 2, "model": {"moe_every": 0}}, "expert_parallel: 2, but the model has no experts"),
        (2, {"expert_parallel": 2, "model": {"experts": 3}}, "expert_parallel: 2 does not divide the 3 experts"),
        (3, {}, "batch_size: 8 sequences cannot be shared by 3 processes"),
        (16, {}, "batch_size: 8 sequences cannot be shared by 16 processes"),
        (2, {"batch_size": 12, "micro_batch": 4}, "micro_batch: 4 does not divide the 6 sequences"),
    ],
)
def test_settings_that_do_not_fit_the_processes_are_refused(world: int, changes: dict[str, Any], message: str):
    with pytest.raises(TrainingError, match=f"^{message}"):
        check_world(TrainConfig.from_dict(settings(**changes)), world)


def test_settings_that_fit_the_processes_are_not_refused():
    for world, spreads in SPREADS.items():
        for shard, parts in spreads:
            check_world(TrainConfig.from_dict(settings(shard=shard, expert_parallel=parts)), world)
    # More rows asked for in a forward pass than a process has: it takes those it has.
    check_world(TrainConfig.from_dict(settings(micro_batch=4)), 4)


def losses_of(run: Path) -> list[tuple[str, int, Any]]:
    """Kind, step and loss of each record; a held-out loss is that of each language."""
    return [
        (record["kind"], record["step"], record["mean"] if record["kind"] == "valid" else record["loss"])
        for record in read_metrics(run / "metrics.jsonl")
    ]


def assert_same_run(found: Path, expected: Path) -> None:
    """Each step stands in the records once, with the loss of the expected run."""
    a, b = losses_of(found), losses_of(expected)
    assert [record[:2] for record in a] == [record[:2] for record in b]
    assert [record[2] for record in a] == pytest.approx([record[2] for record in b], rel=1e-5)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (found, expected)]
    held_out = [[row["held_out_loss"] for row in one["languages"].values()] for one in summaries]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-5)
    tensors = []
    for run in (found, expected):
        checkpoint = newest_checkpoint(run / "checkpoints")
        assert checkpoint is not None
        tensors.append(checkpoint.part("model"))
    for name, tensor in tensors[1].items():
        np.testing.assert_allclose(tensors[0][name], tensor, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def token_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(
        tmp_path_factory.mktemp("trees") / "tokens",
        {
            "train": {"aa": [documents(1, 30, 2, 20), documents(2, 10, 2, 20)], "bb": [documents(3, 25, 30, 60)]},
            "valid": {"aa": [documents(4, 4, 2, 20)], "bb": [documents(5, 4, 30, 60)]},
        },
    )


def run_settings(**changes: Any) -> dict[str, Any]:
    base = {
        "tokens": 10 * ROWS * 16, "learning_rate": 0.1, "eps": 0.01, "log_every": 1, "eval_every": 4,
        "checkpoint_every": 3, "tensorboard": False, "threads": 1, "micro_batch": 2,
    }  # fmt: skip
    return settings(**{**base, **changes})


def test_a_run_goes_on_with_other_processes(token_tree: Path, tmp_path: Path):
    whole = tmp_path / "whole"
    assert train(TrainConfig.from_dict(run_settings()), token_tree, whole).finished
    # Begun by one process, to go on with two.
    from_one = tmp_path / "from_one"
    train(TrainConfig.from_dict(run_settings()), token_tree, from_one, max_steps_this_run=4)

    begun, expert, stopped = (tmp_path / name for name in ("begun", "expert", "stopped"))
    calls = [
        TrainCall(begun, run_settings(shard=2), max_steps=5),
        TrainCall(expert, run_settings(shard=2), max_steps=4),
        TrainCall(expert, run_settings(expert_parallel=2)),
        TrainCall(from_one, run_settings(shard=2, expert_parallel=2)),
        # The signal reaches one process, and not the first; all stop after the step at hand.
        TrainCall(stopped, run_settings(), signal_rank=1, signal_step=6),
    ]
    found = results_of(2, call_train, token_tree, calls)
    assert [[step for step, _ in one] for one in found] == [[5, 4, 10, 10, 7]] * 2
    assert json.loads((expert / "summary.json").read_text()) == found[0][2][1]

    for run, step in ((begun, 5), (stopped, 7)):
        checkpoint = newest_checkpoint(run / "checkpoints")
        assert checkpoint is not None
        assert checkpoint.step == step
        assert train(TrainConfig.from_dict(run_settings()), token_tree, run).finished
    for run in (begun, expert, from_one, stopped):
        assert_same_run(run, whole)
        assert not list(run.rglob("*.tmp"))


def test_a_run_directory_in_use_is_refused_by_all(token_tree: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run_all(2, call_train, token_tree, [TrainCall(run, run_settings())], False)
    assert isinstance(ended[0].error, TrainingError)
    assert "another process is training there" in str(ended[0].error)
    # The other one is told, rather than left to wait.
    assert isinstance(ended[1].error, TrainingError)
    assert "process 1: another process of this run has ended" in str(ended[1].error)
    assert not (run / "metrics.jsonl").exists()


def test_the_command_under_torchrun(token_tree: Path, tmp_path: Path):
    """With the variables that torchrun sets: one process speaks, both end well."""
    run, config = tmp_path / "run", tmp_path / "settings.json"
    config.write_text(json.dumps(run_settings(tokens=2 * ROWS * 16)))
    command = ["train", str(token_tree), str(run), "--config", str(config), "--shard", "2"]
    (code, output, _), second = results_of(2, call_cli, command)
    assert code == 0
    assert output.count("next: lola-data generate") == 1
    assert second == (0, "", "")
    assert [record[1] for record in losses_of(run)] == [0, 1, 2, 2]
