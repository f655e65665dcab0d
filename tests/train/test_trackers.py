"""Stand-ins have the signatures of wandb 0.31 and trackio 0.43; the libraries themselves are tried where installed."""

from __future__ import annotations

import importlib.util
import json
import math
import sqlite3
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lola_data.cli import cli
from lola_data.errors import TrainingError
from lola_data.plain_settings import flat_settings
from tests.train.test_loop import assert_same_run
from train.loop import train
from train.metrics import read_metrics
from train.trackers import open_tracker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lola_data.train_config import TrainConfig

KEY = "0123456789abcdef0123456789abcdef01234567"


class Run:
    """Of either library; ``broken`` is raised by every log."""

    def __init__(self, first: int, offline: bool, broken: Exception | None) -> None:
        self.starting_step, self.offline, self.broken = first, offline, broken
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.ended: list[int | None] = []
        self.tries = 0


class WandbRun(Run):
    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.tries += 1
        if self.broken is not None:
            raise self.broken
        self.logged.append((step, data))

    def finish(self, exit_code: int | None = None) -> None:
        self.ended.append(exit_code)


class TrackioRun(Run):
    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.tries += 1
        if self.broken is not None:
            raise self.broken
        self.logged.append((step, metrics))


class Library(ModuleType):
    """Either library; keeps what it was begun with, and its runs."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="stand-in")
        self.begun: list[dict[str, Any]] = []
        self.runs: list[Any] = []
        self.first, self.offline = 0, False
        self.broken: Exception | None = None
        self.closed: Exception | None = None

    def begin(self, kind: type[Run], arguments: dict[str, Any]) -> Any:
        if self.closed is not None:
            raise self.closed
        self.begun.append(arguments)
        self.runs.append(kind(self.first, self.offline, self.broken))
        return self.runs[-1]


class Wandb(Library):
    def init(
        self, entity: Any = None, project: Any = None, dir: Any = None, id: Any = None, name: Any = None,
        notes: Any = None, tags: Any = None, config: Any = None, config_exclude_keys: Any = None,
        config_include_keys: Any = None, allow_val_change: Any = None, group: Any = None, job_type: Any = None,
        mode: Any = None, force: Any = None, reinit: Any = None, resume: Any = None, resume_from: Any = None,
        fork_from: Any = None, save_code: Any = None, tensorboard: Any = None, sync_tensorboard: Any = None,
        monitor_gym: Any = None, settings: Any = None,
    ) -> WandbRun:  # fmt: skip
        return self.begin(
            WandbRun, {"project": project, "id": id, "name": name, "config": config, "resume": resume, "dir": dir}
        )


class Trackio(Library):
    def init(
        self, project: str, name: str | None = None, group: Any = None, space_id: Any = None, server_url: Any = None,
        dataset_id: Any = None, bucket_id: Any = None, config: Any = None, resume: str = "never", settings: Any = None,
        private: Any = None, embed: bool = True, auto_log_gpu: Any = None, gpu_log_interval: float = 10.0,
        auto_log_cpu: Any = None, cpu_log_interval: float = 10.0, webhook_url: Any = None,
        webhook_min_level: Any = None,
    ) -> TrackioRun:  # fmt: skip
        print(f"* Trackio project initialized: {project}")
        return self.begin(TrackioRun, {"project": project, "name": name, "config": config, "resume": resume})

    def finish(self) -> None:
        print("* Run finished. Uploading logs to Trackio (please wait...)")
        self.runs[-1].ended.append(0)


@pytest.fixture(params=[Wandb, Trackio])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    found = request.param(request.param.__name__.lower())
    monkeypatch.setitem(sys.modules, found.__name__, found)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "5")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    return found


class Heard:
    """A progress that keeps its notes on trackers; others, as on a slow disk, come or not as the machine is."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        if text.startswith("tracker:"):
            self.notes.append(text)

    def start(self, steps: int, done: int) -> None: ...
    def step(self, step: int) -> None: ...
    def record(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def values(run: Run) -> dict[str, dict[int | None, float]]:
    """What was logged, by tag and step."""
    found: dict[str, dict[int | None, float]] = {}
    for step, scalars in run.logged:
        for tag, value in scalars.items():
            found.setdefault(tag, {})[step] = value
    return found


def test_the_tracker_gets_what_tensorboard_gets(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(tensorboard=True, tracker=library.__name__, project="ours")
    train(config, tree, tmp_path / "first")
    events = EventAccumulator(str(tmp_path / "first" / "tensorboard"))
    events.Reload()
    (run,) = library.runs
    found = values(run)
    assert found.keys() == set(events.Tags()["scalars"])
    for tag, by_step in found.items():
        assert by_step == pytest.approx({event.step: event.value for event in events.Scalars(tag)}), tag
    assert all(math.isfinite(value) for _, scalars in run.logged for value in scalars.values())
    assert run.ended == [0]
    begun = library.begun[0]
    assert begun["project"] == "ours"
    assert begun["config"] == flat_settings(config.to_dict())
    assert begun["config"]["model.layers"] == 2
    id = json.loads((tmp_path / "first" / "tracker.json").read_text())[library.__name__]
    if library.__name__ == "wandb":
        assert (begun["id"], begun["name"], begun["dir"]) == (id, "first", str(tmp_path / "first"))
    else:
        assert begun["name"] == f"first-{id}"


def test_with_a_tracker_and_without_a_run_is_the_same(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    train(tiny(), tree, tmp_path / "without")
    train(tiny(tracker=library.__name__), tree, tmp_path / "with", max_steps_this_run=5)
    train(tiny(tracker=library.__name__), tree, tmp_path / "with")
    for file in ("tracker.json", "config.json"):
        (tmp_path / "without" / file).write_bytes((tmp_path / "with" / file).read_bytes())
    assert_same_run(tmp_path / "with", tmp_path / "without")


def test_a_resumed_run_goes_on_in_its_place(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    config = tiny(tracker=library.__name__, run_name="mine")
    train(config, tree, tmp_path / "run", max_steps_this_run=5)
    written = (tmp_path / "run" / "tracker.json").read_bytes()
    library.first = 6  # W&B's server holds steps 0 to 5
    train(config.replace({"log_every": 2}), tree, tmp_path / "run")
    assert (tmp_path / "run" / "tracker.json").read_bytes() == written
    first, second = library.begun
    assert (first.get("id"), first["name"]) == (second.get("id"), second["name"])
    assert second["resume"] == "allow"
    assert [{step for step, _ in run.logged} for run in library.runs] == [{0, 1, 2, 3, 4, 5}, {6, 8, 10}]
    assert [run.ended for run in library.runs] == [[0], [0]]


def test_a_run_begun_anew_is_another_one(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    config = tiny(tracker=library.__name__, checkpoint_every=0)
    for seed in (1, 2):
        train(config.replace({"seed": seed}), tree, tmp_path / "run", max_steps_this_run=0)
    first, second = library.begun
    assert (first.get("id"), first["name"]) != (second.get("id"), second["name"])


@pytest.mark.parametrize(
    ("held", "offline", "expected"),
    [
        # Killed after step 5 was written down: W&B holds less than that, or steps that will be done again.
        (4, False, [4, 5, 6, 7]),
        (0, False, [0, 1, 2, 3, 4, 5, 6, 7]),
        (7, False, [7]),
        # Offline nobody knows; the earlier session has them in a file of its own.
        (0, True, [6, 7]),
    ],
)
def test_wandb_gets_every_step_once(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch,
    held: int, offline: bool, expected: list[int],
):  # fmt: skip
    wandb = Wandb("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = tiny(tracker="wandb", eval_every=0)
    train(config, tree, tmp_path / "run", max_steps_this_run=5)
    wandb.first, wandb.offline = held, offline
    train(config, tree, tmp_path / "run", max_steps_this_run=2)
    assert [step for step, _ in wandb.runs[1].logged] == expected


def test_a_tracker_named_later_gets_what_was_before(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    train(tiny(), tree, tmp_path / "run", max_steps_this_run=5)
    train(tiny(tracker=library.__name__), tree, tmp_path / "run")
    losses = {r["step"]: r["loss"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"}
    assert values(library.runs[0])["train/loss"] == losses
    assert len(losses) == 10


def test_an_error_of_the_tracker_is_told_once_and_training_goes_on(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    library.broken = RuntimeError(f"the service\nis gone; key {KEY}")
    heard = Heard()
    train(tiny(), tree, tmp_path / "without")
    assert train(tiny(tracker=library.__name__), tree, tmp_path / "run", progress=heard).finished
    assert heard.notes == [
        f"tracker: {library.__name__}: the service is gone; key ***; training goes on, metrics.jsonl has all records"
    ]
    assert library.runs[0].tries == 1
    assert library.runs[0].ended == [0]
    (tmp_path / "without" / "config.json").write_bytes((tmp_path / "run" / "config.json").read_bytes())
    assert_same_run(tmp_path / "run", tmp_path / "without")


def test_a_tracker_that_cannot_be_reached(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library
):
    library.closed = OSError("No API key configured. Use `wandb login` to log in.")
    config, heard = tiny(tracker=library.__name__), Heard()
    with pytest.raises(TrainingError, match=rf"{library.__name__} did not start: No API key configured.*tracker: none"):
        train(config, tree, tmp_path / "run")
    assert not read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert not (tmp_path / "run" / "tracker.json").exists()
    # Before step 0 a person is there to mend it; a job that is started again at night goes on.
    library.closed = None
    train(config, tree, tmp_path / "run", max_steps_this_run=4)
    library.closed = OSError("no route to host")
    assert train(config, tree, tmp_path / "run", progress=heard).finished
    assert heard.notes == [f"tracker: {library.__name__} did not start: no route to host; training goes on without it"]


def test_the_run_is_ended_however_training_ends(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], library: Library, monkeypatch: pytest.MonkeyPatch
):
    import train.loop as loop

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(ZeroDivisionError):
        train(tiny(tracker=library.__name__), tree, tmp_path / "run")
    assert library.runs[0].ended == [1 if library.__name__ == "wandb" else 0]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_package_that_is_not_there_is_one_clear_error(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    # As offline runs leave it: a folder of the same name where Python looks.
    (tmp_path / "here" / name).mkdir(parents=True)
    monkeypatch.delitem(sys.modules, name, raising=False)
    elsewhere = [path for path in sys.path if not importlib.util.find_spec(name) or "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "here"), *elsewhere])
    importlib.invalidate_caches()
    result = CliRunner().invoke(cli, ["train", str(tree), str(tmp_path / "run"), "--tracker", name])
    assert result.exit_code == 1
    assert f"error: tracker: {name} is not installed; pip install lola-data[{name}], or" in result.output
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_trackio_says_is_not_among_the_results(
    tmp_path: Path,
    tiny: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, "trackio", Trackio("trackio"))
    tracker = open_tracker(tiny(tracker="trackio"), tmp_path, step=0, note=print)
    assert tracker is not None
    tracker.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert "Run finished" in said.err


def test_a_choice_that_is_none_is_refused(tree: Path, tmp_path: Path):
    result = CliRunner().invoke(cli, ["train", str(tree), str(tmp_path / "run"), "--tracker", "mlflow"])
    assert result.exit_code == 2
    assert "'mlflow' is not one of 'none', 'wandb', 'trackio'" in result.output


def test_trackio_itself(tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch):
    # Read at import, so first of all.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    config = tiny(tracker="trackio", project="ours")
    train(config, tree, tmp_path / "run", max_steps_this_run=5)
    train(config, tree, tmp_path / "run")
    with sqlite3.connect(tmp_path / "trackio" / "ours.db") as base:
        rows = base.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        (settings,) = base.execute("select distinct config from configs").fetchone()
    id = json.loads((tmp_path / "run" / "tracker.json").read_text())["trackio"]
    assert {row[1] for row in rows} == {f"run-{id}"}
    assert len({row[0] for row in rows}) == 1
    losses = {step: json.loads(scalars).get("train/loss") for _, _, step, scalars in rows if b"train/loss" in scalars}
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"]
    assert losses == {record["step"]: record["loss"] for record in records}
    assert json.loads(settings)["model.d_model"] == 16


def test_wandb_itself_offline(
    tree: Path, tmp_path: Path, tiny: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    config = tiny(tracker="wandb", project="ours")
    train(config, tree, tmp_path / "run", max_steps_this_run=5)
    train(config, tree, tmp_path / "run")
    losses: dict[int, float] = {}
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    for file in files:
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "run" and record.run.project:
                id = json.loads((tmp_path / "run" / "tracker.json").read_text())["wandb"]
                assert (record.run.run_id, record.run.project, record.run.display_name) == (id, "ours", "run")
                settings = {item.key or item.nested_key[0]: item.value_json for item in record.run.config.update}
                assert settings["model.d_model"] == "16"
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                if "train/loss" in row:
                    assert int(row["_step"]) not in losses
                    losses[int(row["_step"])] = json.loads(row["train/loss"])
    records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"]
    assert losses == {record["step"]: record["loss"] for record in records}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def wandb_records(path: Path) -> list[Any]:
    """The records in a ``.wandb`` file: seven bytes, then LevelDB's log (blocks of 32 KiB; CRC, length, kind)."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[import-not-found]

    data, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found
