"""What should be seen of a run that goes wrong."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lola_data.errors import TrainingError
from train import loop
from train.clock import Clock
from train.loop import BAD_STEPS, train
from train.metrics import read_metrics
from train.watch import Watch, spread_of_load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lola_data.train_config import TrainConfig
    from train.model import Decoder


class Told:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, steps: int, done: int) -> None: ...

    def step(self, step: int) -> None: ...

    def record(self, record: object) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None: ...


def test_a_spike_is_measured_in_deviations_of_the_steps_before(tiny: Callable[..., TrainConfig]) -> None:
    watch = Watch(tiny(spike=4.0))
    load = np.full((1, 4), 0.25, np.float32)
    for step in range(19):
        assert watch.judge(1000.0, 1.0) == ""
        watch.saw(2.0 + 0.1 * (-1) ** step, load)
    watch.saw(1.9, load)
    # Twenty losses, ten of 2.1 and ten of 1.9: mean 2, deviation 0.1.
    assert watch.judge(2.39, 1.0) == ""
    assert watch.judge(2.41, 1.0) == "loss 2.4100 is above 2.0000 by more than 4 x 0.1000"
    assert watch.judge(math.nan, 1.0) == "loss is nan, gradient norm 1.0"
    assert watch.judge(2.0, math.inf) == "loss is 2.0, gradient norm inf"
    again = Watch(tiny(spike=4.0))
    again.restore(json.loads(json.dumps(watch.state())))
    assert again.judge(2.41, 1.0) == watch.judge(2.41, 1.0)


def test_dead_experts_and_collapse_are_told_once(tiny: Callable[..., TrainConfig]) -> None:
    watch = Watch(tiny(dead_steps=3))
    load = np.array([[0.95, 0.05, 0.0, 0.0]], np.float32)
    told = [watch.saw(2.0, load) for _ in range(5)]
    assert [len(one) for one in told] == [0, 0, 2, 0, 0]
    assert "block 1: no token has chosen expert 2, 3 for 3 steps" in told[2][0]
    assert "for 3 steps expert 0 took 95% of all choices" in told[2][1]
    assert watch.dead() == {"1": 2}
    watch.saw(2.0, np.array([[0.5, 0.0, 0.5, 0.0]], np.float32))
    assert watch.dead() == {"1": 1}


def test_spread_of_load_by_hand() -> None:
    found = spread_of_load(np.array([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]], np.float32))
    assert found["entropy"] == [1.0, 0.0, 0.5]
    assert found["max_load"] == [1.0, 4.0, 2.0]
    assert found["min_load"] == [1.0, 0.0, 0.0]


def make_one_step_bad(monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    import train.loop as loop

    real = loop.train_step

    def spoilt(model: Decoder, *arguments: object, step: int, **others: object) -> object:
        if step != bad:
            return real(model, *arguments, step=step, **others)  # type: ignore[arg-type]
        weight = model.norm.weight
        saved = weight.detach().clone()
        with torch.no_grad():
            weight.fill_(float("nan"))
        result = real(model, *arguments, step=step, **others)  # type: ignore[arg-type]
        with torch.no_grad():
            weight.copy_(saved)
        return result

    monkeypatch.setattr(loop, "train_step", spoilt)


def test_a_bad_step_stops_the_run_and_names_its_documents(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_one_step_bad(monkeypatch, 4)
    with pytest.raises(TrainingError, match=r"step 5: loss is nan.*bad_steps\.jsonl.*on_bad_step: skip"):
        train(tiny(), tree, tmp_path / "run")
    (record,) = [json.loads(line) for line in (tmp_path / "run" / BAD_STEPS).read_text().splitlines()]
    assert (record["step"], record["loss"]) == (5, None)
    assert {one["sample"] for one in record["documents"]} == {0, 1, 2, 3}
    assert {one["lang"] for one in record["documents"]} <= {"aa", "bb"}
    # It goes on from the checkpoint before it, and past it where the batch was not to blame.
    monkeypatch.undo()
    assert train(tiny(), tree, tmp_path / "run").finished


def test_a_bad_step_is_skipped_where_asked(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_one_step_bad(monkeypatch, 4)
    told = Told()
    assert train(tiny(on_bad_step="skip"), tree, tmp_path / "run", progress=told).finished
    assert any(note.startswith("step 5: loss is nan") and "left out" in note for note in told.notes)
    losses = {r["step"]: r["loss"] for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "train"}
    assert losses[5] is None
    assert all(losses[step] is not None for step in losses if step != 5)


def test_a_dead_expert_is_told_in_a_run(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig]) -> None:
    told = Told()
    model = {"balance_loss": 0.0, "experts": 64}
    train(tiny(model=model, dead_steps=2, batch_size=1, tokens=16 * 6), tree, tmp_path / "run", progress=told)
    assert any("no token has chosen expert" in note for note in told.notes)
    last = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "train"][-1]
    assert last["dead"]["1"] >= 64 - 2 * 16
    assert last["min_load"] == [0.0]


@pytest.mark.parametrize(("share", "told"), [(0.5, True), (0.1, False)])
def test_a_slow_loader_is_named(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch,
    share: float, told: bool,
) -> None:  # fmt: skip
    class Waiting(Clock):
        """Of all time, so much went to the loader."""

        def seconds(self) -> float:
            return 10.0

        @contextmanager
        def loading(self) -> Iterator[None]:
            yield
            self.waited = 10.0 * share

    monkeypatch.setattr(loop, "Clock", Waiting)
    progress = Told()
    train(tiny(), tree, tmp_path / "run", progress=progress)
    assert any("step 10: 50% of the time went to reading tokens" in note for note in progress.notes) == told
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "train"]
    assert {record["loader_share"] for record in records} == {share}
