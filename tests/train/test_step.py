from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import torch

from lola_data.train_config import PRESETS
from tests.train.conftest import EOD, write_tree
from train.loop import train
from train.metrics import read_metrics
from train.model import Block, Decoder
from train.moe import MixtureOfExperts
from train.optimizer import learning_rate_at, make_optimizer
from train.step import LossScale, StepResult, train_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig


def three_steps(config: TrainConfig, rows: int = 8) -> tuple[Decoder, list[StepResult]]:
    model = Decoder(config.model, 50, 1, config.moe_backend)
    model.initialise(0)
    model.train()
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(0)
    results = []
    for step in range(3):
        tokens = torch.randint(0, 50, (rows, 17), generator=generator)
        results.append(train_step(model, optimizer, tokens, config, step=step, autocast=None))
    return model, results


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_do_not_change_the_step(tiny: Callable[..., TrainConfig], micro_batch: int):
    # The balance loss is made large so that its gradient would show if it hung on the micro-batch.
    # With a large epsilon AdamW's update is in proportion to the gradient, not to its sign.
    model = {"balance_loss": 1.0, "z_loss": 0.1, "init_std": 0.3}
    changes: dict[str, Any] = {"batch_size": 8, "eps": 1.0, "learning_rate": 1.0, "model": model}
    whole, expected = three_steps(tiny(**changes))
    split, found = three_steps(tiny(**changes, micro_batch=micro_batch))
    for a, b in zip(expected, found, strict=True):
        for name in ("loss", "balance", "z", "grad_norm"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-5), name
        assert torch.equal(a.load_LE, b.load_LE)
    for x, y in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(y, x, rtol=1e-5, atol=1e-5)


def test_the_balance_gradient_of_a_micro_batch_is_deepspeeds_where_asked(tiny: Callable[..., TrainConfig]):
    changes: dict[str, Any] = {
        "batch_size": 8,
        "model": {"balance_loss": 1.0, "balance_over": "micro_batch", "init_std": 0.3},
    }
    _, whole = three_steps(tiny(**changes))
    _, split = three_steps(tiny(**changes, micro_batch=1))
    assert split[0].grad_norm != pytest.approx(whole[0].grad_norm, rel=1e-3)


@pytest.fixture(scope="module")
def demo_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of the demo, their bytes as tokens."""
    sample = resources.files("lola_data") / "resources" / "sample"
    trees: dict[str, list[list[list[int]]]] = {}
    for lang in ("de", "yo", "zh"):
        texts = pq.read_table(str(sample / lang), columns=["text"]).column("text").to_pylist()
        trees[lang] = [[[*text.encode(), EOD] for text in texts]]
    tokenizer = {"path": "", "sha256": "0" * 64, "vocab_size": 256, "eod_id": EOD}
    return write_tree(tmp_path_factory.mktemp("demo") / "tokens", {"train": trees}, tokenizer=tokenizer)


def losses_of_demo(tokens: Path, run: Path, backend: str, steps: int) -> list[float]:
    """Those of the demo's model, rate and batches."""
    changes = {"moe_backend": backend, "log_every": 1, "eval_every": 0, "checkpoint_every": 0, "tensorboard": False}
    train(PRESETS["demo"].replace({**changes, "threads": 1}), tokens, run, max_steps_this_run=steps)
    return [record["loss"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "train"]


def test_grouped_follows_the_curve_of_reference_on_the_demo(demo_tokens: Path, tmp_path: Path):
    """Two runs that differ in a rounding come apart by 0.01 within 100 steps of the demo, when a token goes to another
    expert; these have the same bits."""
    expected = losses_of_demo(demo_tokens, tmp_path / "reference", "reference", 40)
    assert losses_of_demo(demo_tokens, tmp_path / "grouped", "grouped", 40) == expected
    assert len(expected) == 40
    assert expected[-1] < expected[0] - 1


@pytest.fixture(scope="module")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that each test takes a step further: three steps of sixteen experts are too many programs for one."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_fused_does_the_steps_of_grouped_on_the_demo(
    demo_tokens: Path, demo_runs: Path, monkeypatch: pytest.MonkeyPatch, step: int
):
    pytest.importorskip("triton")
    from tests.train.kernels.programs import MOST, counted
    from tests.train.kernels.watch import mended
    from train.kernels.fused.configs import CONFIGS, Tile

    # The interpreter takes its time by the program, not by the row: few and large ones.
    wide = Tile(256, 512, 128, 4, 1)
    tiles = CONFIGS[torch.float32]._replace(
        up=wide, down=wide, down_grad=wide, up_grad=wide, weight_grad=wide, route=Tile(1024, 0, 128, 4, 1)
    )
    monkeypatch.setitem(CONFIGS, torch.float32, tiles)

    def steps_of(backend: str) -> list[float]:
        done: list[float] = []
        while len(done) < step:
            # A test that runs by itself does the steps before it, too.
            with mended(), counted() as programs:
                done = losses_of_demo(demo_tokens, demo_runs / backend, backend, 1)
            assert (96 if backend == "fused" else 0) <= programs.count < MOST
        return done

    expected, found = steps_of("grouped"), steps_of("fused")
    assert len(found) == step
    assert found == pytest.approx(expected, rel=1e-5)
    assert step < 3 or expected[2] < expected[0]


def test_the_balance_loss_spreads_the_load(tiny: Callable[..., TrainConfig]):
    def mean_of_the_most_loaded(coefficient: float) -> float:
        config = tiny(batch_size=8, tokens=100 * 8 * 16, warmup_share=0.0, model={"balance_loss": coefficient})
        model = Decoder(config.model, 50, 1)
        model.initialise(0)
        optimizer = make_optimizer(model, config)
        loads = []
        for step in range(100):
            tokens = torch.randint(0, 50, (8, 17), generator=torch.Generator().manual_seed(step))
            loads.append(train_step(model, optimizer, tokens, config, step=step, autocast=None).load_LE.max())
        return float(torch.stack(loads[50:]).mean())

    # Of four experts: a quarter each is balance, 1 is collapse.
    assert mean_of_the_most_loaded(0.1) < 0.4
    assert mean_of_the_most_loaded(0.0) > 0.8


def test_load_dropped_and_balance_are_those_of_the_routing(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8, model={"capacity_factor": 1.0, "min_capacity": 0})
    model = Decoder(config.model, 50, 1)
    model.initialise(0)
    tokens = torch.randint(0, 50, (8, 17), generator=torch.Generator().manual_seed(0))
    stats = model(tokens[:, :-1]).routing[0]
    load = stats.counts_E / 128
    result = three_steps(config)[1][0]
    assert result.load_LE[0].tolist() == pytest.approx(load.tolist())
    assert result.dropped == pytest.approx(float((load - 0.25).clamp(min=0).sum()), abs=1e-6)
    assert result.balance == pytest.approx(float(4 * (load * stats.importance_E).sum()), rel=1e-5)


def test_dropout_is_a_function_of_seed_and_step(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8, model={"dropout": 0.3})
    torch.manual_seed(1)
    _, a = three_steps(config)
    torch.manual_seed(2)
    _, b = three_steps(config)
    assert [result.loss for result in a] == [result.loss for result in b]
    _, c = three_steps(tiny(batch_size=8, seed=1, model={"dropout": 0.3}))
    assert c[1].loss != a[1].loss


def test_clip_and_rate(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8, grad_clip=1e-9, eps=1.0)
    model, results = three_steps(config)
    fresh = Decoder(config.model, 50, 1)
    fresh.initialise(0)
    # A gradient clipped to nothing leaves decay alone; biases and norms have none, so they stand still.
    moved = dict(model.named_parameters())["norm.weight"] - dict(fresh.named_parameters())["norm.weight"]
    assert moved.abs().max() < 1e-8
    assert [result.lr for result in results] == [learning_rate_at((n + 1) * 8 * 16, config) for n in range(3)]
    assert results[0].grad_norm > 0.1


def test_a_loss_that_is_not_finite_makes_no_update(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8)
    model = Decoder(config.model, 50, 1)
    model.initialise(0)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    before = [parameter.clone() for parameter in model.parameters()]
    tokens = torch.zeros(8, 17, dtype=torch.int64)
    result = train_step(model, make_optimizer(model, config), tokens, config, step=7, autocast=None)
    assert result.fault.startswith("loss is nan, gradient norm")
    for x, y in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)


def test_a_dense_model_has_no_routing_to_report(tiny: Callable[..., TrainConfig]):
    _, results = three_steps(tiny(batch_size=8, model={"moe_every": 0}))
    assert results[0].load_LE.shape == (0, 4)
    assert results[0].balance != results[0].balance
    assert results[0].dropped == 0


def test_a_judge_may_leave_an_update_out(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8)
    model = Decoder(config.model, 50, 1)
    model.initialise(0)
    before = [parameter.clone() for parameter in model.parameters()]
    told: list[tuple[float, float]] = []

    def judge(loss: float, norm: float) -> str:
        told.append((loss, norm))
        return "enough"

    tokens = torch.zeros(8, 17, dtype=torch.int64)
    optimizer = make_optimizer(model, config)
    result = train_step(model, optimizer, tokens, config, step=0, autocast=None, judge=judge)
    assert result.fault == "enough"
    assert told == [(result.loss, result.grad_norm)]
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), before, strict=True))
    assert not optimizer.state


@pytest.mark.parametrize("top_k", [1, 2])
def test_recomputed_activations_change_nothing(
    tiny: Callable[..., TrainConfig], top_k: int, monkeypatch: pytest.MonkeyPatch
):
    changes: dict[str, Any] = {
        "batch_size": 8,
        "model": {"init_std": 0.3, "dropout": 0.2, "top_k": top_k, "capacity_factor": 1.0, "capacity_order": "random"},
    }
    kept, expected = three_steps(tiny(**changes))
    config = tiny(**changes)
    model = Decoder(config.model, 50, 1)
    model.initialise(0)
    routed: list[int] = []
    route = MixtureOfExperts.route
    monkeypatch.setattr(MixtureOfExperts, "route", lambda self, x: routed.append(1) or route(self, x))
    for block in model.blocks:
        assert isinstance(block, Block)
        block.recompute_activations()
    optimizer = make_optimizer(model, config)
    generator = torch.Generator().manual_seed(0)
    for step, one in enumerate(expected):
        tokens = torch.randint(0, 50, (8, 17), generator=generator)
        found = train_step(model, optimizer, tokens, config, step=step, autocast=None)
        assert (found.loss, found.grad_norm, found.dropped) == (one.loss, one.grad_norm, one.dropped)
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), kept.parameters(), strict=True))
    # The routing was not made again: once a step, in the one layer with experts.
    assert len(routed) == len(expected)


def test_float16_finds_its_scale_and_leaves_out_what_overflows(tiny: Callable[..., TrainConfig]):
    config = tiny(batch_size=8, precision="fp16")
    model = Decoder(config.model, 50, 1)
    model.initialise(0)
    optimizer = make_optimizer(model, config)
    tokens = torch.randint(0, 50, (8, 17), generator=torch.Generator().manual_seed(0))
    scale = LossScale(2.0**60)
    before = [parameter.clone() for parameter in model.parameters()]
    result = train_step(model, optimizer, tokens, config, step=0, autocast=torch.float16, scale=scale)
    assert result.fault == f"loss scale halved to {2.0**59:g}"
    assert scale.scale == 2.0**59
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), before, strict=True))
    exact = train_step(model, optimizer, tokens, tiny(batch_size=8, learning_rate=1e-9, min_learning_rate=0.0),
                       step=0, autocast=None)  # fmt: skip
    scale = LossScale(1024.0, patience=2)
    for step in range(2):
        result = train_step(model, optimizer, tokens, config, step=step, autocast=torch.float16, scale=scale)
        assert result.fault == ""
        if step == 0:
            assert result.loss == pytest.approx(exact.loss, rel=1e-2)
            assert result.grad_norm == pytest.approx(exact.grad_norm, rel=2e-2)
    assert (scale.scale, scale.steps) == (2048.0, 0)


def test_a_bias_spreads_the_load_without_a_loss(tiny: Callable[..., TrainConfig]):
    """arXiv 2408.15664, algorithm 1: the bias moves by the sign of the violation, and gets no gradient."""

    def mean_of_the_most_loaded(rate: float) -> float:
        model_config = {"balance_loss": 0.0, "router_bias_rate": rate}
        config = tiny(batch_size=8, tokens=100 * 8 * 16, warmup_share=0.0, learning_rate=1e-3, model=model_config)
        model = Decoder(config.model, 50, 1)
        model.initialise(0)
        layer = model.blocks[1].feed_forward
        assert isinstance(layer, MixtureOfExperts)
        assert (layer.bias_E is None) == (rate == 0)
        optimizer = make_optimizer(model, config)
        loads, bias = [], torch.zeros(4)
        for step in range(100):
            tokens = torch.randint(0, 50, (8, 17), generator=torch.Generator().manual_seed(step))
            load = train_step(model, optimizer, tokens, config, step=step, autocast=None).load_LE
            bias += rate * torch.sign(0.25 - load[0])
            if layer.bias_E is not None:
                torch.testing.assert_close(layer.bias_E, bias)
            loads.append(load.max())
        return float(torch.stack(loads[50:]).mean())

    # Of four experts: a quarter each is balance, 1 is collapse. The rate is that of the paper.
    assert mean_of_the_most_loaded(0.001) < 0.45
    assert mean_of_the_most_loaded(0.0) > 0.9
