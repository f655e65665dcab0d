"""The trainer: settings and a token tree in; a run directory with checkpoints, metrics and a summary out.

A run directory holds ``config.json`` (settings and tokenizer facts), ``tokenizer.model`` (a copy), ``checkpoints/``,
``metrics.jsonl``, ``tensorboard/`` and, when the run is complete, ``summary.json``. Calling :func:`train` again with
the same arguments goes on from the newest whole checkpoint and, on the CPU, gives the very weights and records of a run
that was never interrupted.
"""

from __future__ import annotations

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from lola_data.errors import TrainingError
from lola_data.storage import is_remote
from train.checkpoint import Checkpoint, Identity, Saver, check_identity, has_checkpoints, newest_checkpoint
from train.clock import Clock
from train.data import Loader
from train.device import autocasts, device_kind, torch_settings
from train.evaluate import HeldOut, HeldOutLoss, evaluate, make_held_out
from train.metrics import SLOW_LOADER, MetricsLog, NoLog
from train.model import Block, Decoder
from train.optimizer import make_optimizer, run_state, set_optimizer_state
from train.parallel import check_world, spread
from train.progress import Progress, Silent
from train.ranks import Ranks, joined
from train.records import Records, finite
from train.remote_run import RemoteRun, place_of_tokens
from train.run_dir import StopSignal, sole_writer, write_json
from train.shard_cache import ShardCache, cache_folder
from train.step import LossScale, StepResult, train_step
from train.text import load_tokenizer, token_bytes
from train.token_tree import TokenTree, check_ids, open_token_tree, training_weights
from train.trackers import check_tracker, open_tracker
from train.watch import Watch

if TYPE_CHECKING:
    from lola_data.train_config import TrainConfig

BAD_STEPS = "bad_steps.jsonl"
"""In a run's directory: steps whose update was left out, with the documents of their batches."""


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        run_dir: the run's directory; of one at a URL, the working copy.
        step: steps done in all.
        steps: steps of the whole run.
        stopped_by: name of the signal that ended it early, or empty.
        summary: content of ``summary.json``; None if the run is not complete.
        is_first: whether this process is the one that speaks to the user.
    """

    run_dir: Path
    step: int
    steps: int
    stopped_by: str
    summary: dict[str, Any] | None = field(repr=False)
    is_first: bool = True

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary is not None

    def told(self) -> str:
        """In a line, how a run that is not complete was stopped."""
        cause = f" by {self.stopped_by}" if self.stopped_by else ""
        # Before the first step there is nothing to save.
        where = "with a checkpoint" if self.step else "before its first step"
        return f"stopped{cause} at step {self.step:,} of {self.steps:,}, {where}"


def train(
    config: TrainConfig,
    tokens_dir: str | Path,
    run_dir: str | Path,
    *,
    resume: Literal["auto", "never"] = "auto",
    max_steps_this_run: int | None = None,
    progress: Progress | None = None,
    stop: StopSignal | None = None,
) -> TrainResult:
    """Train a model, or go on training it.

    A signal to stop ends the run after the step at hand, with a checkpoint; the call then returns as usual.

    Args:
        config: settings.
        tokens_dir: token tree, see :func:`train.token_tree.open_token_tree`; a folder or a URL.
        run_dir: the run's directory; made if it is not there. At a URL: see :mod:`train.remote_run`.
        resume: ``auto`` goes on from the newest whole checkpoint, if any; ``never`` refuses a directory that has one.
        max_steps_this_run: stop, with a checkpoint, after so many steps.
        progress: told what happens; nothing is shown by default.
        stop: listens to signals already; by default they are listened to from the first step on.

    Raises:
        TrainingError: shards that are missing or changed, a checkpoint of another run, a loss that is not finite, a
            full disk; the message says what to do.
    """
    kind = device_kind(config)
    with joined(kind) as ranks, torch_settings(config, kind, ranks) as device:
        check_world(config, ranks.world)
        check_tracker(config)
        progress = progress if progress is not None and ranks.is_first else Silent()
        # One process reads the shards whole; the others trust it.
        verify = config.verify if ranks.is_first else "size"
        cache = ShardCache(cache_folder(config), int(config.cache_gb * 10**9)) if is_remote(str(tokens_dir)) else None
        tree = open_token_tree(tokens_dir, verify, vocab_size=config.vocab_size, eod_id=config.eod_id, cache=cache)
        copy = RemoteRun(str(run_dir), cache_folder(config), ranks) if is_remote(str(run_dir)) else None
        place = Path(run_dir) if copy is None else copy.folder
        held = sole_writer(place) if copy is None else copy.held()
        with held if ranks.is_first else nullcontext():
            if copy is not None and ranks.is_first:
                copy.fetch()
            ranks.wait()
            run = _Run(config, tree, tokens_dir, place, device, progress, ranks)
            run.tokens_place, run.copy = place_of_tokens(tokens_dir, run_dir), copy
            try:
                return _go_on(run, resume, max_steps_this_run, stop)
            finally:
                if copy is not None and ranks.is_first:
                    copy.send()


def _go_on(run: _Run, resume: str, max_steps_this_run: int | None, listening: StopSignal | None) -> TrainResult:
    config, run_dir, progress = run.config, run.run_dir, run.progress
    done = run.restore(resume)
    summary = _read_summary(run_dir / "summary.json") if done == config.steps else None
    if summary is not None:
        progress.note(f"{run_dir}: complete at step {done:,}; nothing to do")
        return TrainResult(run_dir, done, config.steps, "", summary, run.ranks.is_first)
    run.ranks.wait()
    if run.ranks.is_first:
        (run_dir / "summary.json").unlink(missing_ok=True)
    last = config.steps if max_steps_this_run is None else min(config.steps, done + max_steps_this_run)
    try:
        with nullcontext(listening) if listening is not None else StopSignal() as stop:
            reached, held_out_loss = run.train_to(last, stop)
    finally:
        progress.close()
    if reached == config.steps:
        summary = run.records.summary(reached, held_out_loss or run.held_out_loss())
        if run.ranks.is_first:
            write_json(run_dir / "summary.json", summary)
    return TrainResult(run_dir, reached, config.steps, stop.name, summary, run.ranks.is_first)


class _Run:
    """Everything a run holds between its steps."""

    def __init__(
        self,
        config: TrainConfig,
        tree: TokenTree,
        tokens_dir: str | Path,
        run_dir: Path,
        device: torch.device,
        progress: Progress,
        ranks: Ranks,
    ) -> None:
        self.config, self.tree, self.run_dir, self.device, self.progress = config, tree, run_dir, device, progress
        self.tokens_dir, self.ranks, self.watch = tokens_dir, ranks, Watch(config)
        self.tokens_place = place_of_tokens(tokens_dir, run_dir)
        self.copy: RemoteRun | None = None
        tokenizer = tree.tokenizer
        for notice in tree.notices:
            progress.note(notice)
        self.loader = Loader(
            tree.train, training_weights(config, tree), seq_len=config.model.seq_len, batch_size=config.batch_size,
            seed=config.seed, max_epochs=config.max_epochs or None,
        )  # fmt: skip
        if self.loader.steps is not None and config.steps > self.loader.steps:
            raise TrainingError(
                f"max_epochs: all languages are used up after {self.loader.steps:,} of {config.steps:,} steps; raise "
                "the caps or lower tokens"
            )
        if self.loader.unused:
            progress.note(f"languages without training tokens, left out: {', '.join(self.loader.unused)}")
        self.identity = Identity(
            config.to_dict(), tree.digests,
            {"vocab_size": tokenizer.vocab_size, "eod_id": tokenizer.eod_id, "sha256": tokenizer.sha256},
        )  # fmt: skip
        # Without memory until it is spread, so that no process ever holds all of it.
        with torch.device("meta"):
            self.model = Decoder(config.model, tokenizer.vocab_size, tokenizer.eod_id, config.moe_backend)
        self.model.train()
        for block in self.model.blocks:
            assert isinstance(block, Block)
            if config.recompute:
                block.recompute_activations()
            if config.compile:
                block.compile()
        spread(self.model, config, ranks, device.type)
        self.model.to_empty(device=device)
        self.model.initialise(config.seed)
        self.optimizer = make_optimizer(self.model, config)
        self.autocast = autocasts(config, device)
        self.scale = LossScale() if self.autocast == torch.float16 else None
        self.step = 0
        self.held_out = self._make_held_out()
        self.records = Records(config, tree, self.loader, self.held_out, ranks.world, device, self.autocast)

    def restore(self, resume: str) -> int:
        """Take over the newest checkpoint, if there is one; the number of steps it has done."""
        folder = self.run_dir / "checkpoints"
        if resume == "never" and has_checkpoints(folder):
            raise TrainingError(f"{folder}: holds checkpoints; resume from them, or train into a new run directory")
        # Only one looks: a checkpoint is read whole to see whether it is.
        found = cast(
            "Checkpoint | None", self.ranks.first_says(newest_checkpoint(folder) if self.ranks.is_first else None)
        )
        if found is not None:
            check_identity(found.identity, self.identity, found.path)
            state = run_state(self.model, self.optimizer)
            found.load_into(state, self.ranks)
            set_optimizer_state(self.model, self.optimizer, state)
            self.step = found.step
            self.watch.restore(found.extra["watch"])
            if self.scale is not None and found.extra.get("loss_scale"):
                self.scale = LossScale(*found.extra["loss_scale"])
        elif has_checkpoints(folder):
            self.progress.note(f"{folder}: no checkpoint is whole; beginning anew")
        if self.ranks.is_first:
            self._write_settings()
        return self.step

    def train_to(self, last: int, stop: StopSignal) -> tuple[int, HeldOutLoss | None]:
        """Train until ``last`` steps are done or ``stop`` says so; the steps done, and the held-out loss if the last
        thing done was to measure it."""
        config, held_out_loss = self.config, None
        self.progress.start(config.steps, self.step)
        saver = Saver(
            self.run_dir / "checkpoints", self.identity, keep=config.keep_checkpoints, keep_best=config.keep_best,
            ranks=self.ranks, asynchronous=config.async_checkpoints,
            written=(lambda: None) if self.copy is None else self.copy.send,
        )  # fmt: skip
        with self._open_log() as log, saver:
            stopping = self.ranks.any(bool(stop.name))
            if self.step == 0 and not stopping:
                self._record_held_out(log)
                stopping = self.ranks.any(bool(stop.name))
            clock = Clock()
            while self.step < last and not stopping:
                with clock.loading():
                    tokens = self._batch(self.step)
                result = train_step(
                    self.model, self.optimizer, tokens, config, step=self.step, autocast=self.autocast,
                    ranks=self.ranks, scale=self.scale, judge=self.watch.judge,
                )  # fmt: skip
                self.step += 1
                clock.steps += 1
                self._look_at(result)
                self.progress.step(self.step)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    self._record_step(log, result, clock)
                    clock.restart()
                finished = self.step == config.steps
                held_out_loss = None
                if finished or (config.eval_every and self.step % config.eval_every == 0):
                    with clock.paused():
                        held_out_loss = self._record_held_out(log)
                due = config.checkpoint_every and self.step % config.checkpoint_every == 0
                stopping = self.ranks.any(bool(stop.name))
                if due or self.step == last or stopping:
                    with clock.paused():
                        self._save(saver, log, held_out_loss)
        return self.step, held_out_loss

    def _open_log(self) -> MetricsLog | NoLog:
        if not self.ranks.is_first:
            return NoLog()
        tracker = open_tracker(self.config, self.run_dir, step=self.step, note=self.progress.note)
        log = MetricsLog(self.run_dir, step=self.step, tensorboard=self.config.tensorboard, tracker=tracker)
        if log.notice:
            self.progress.note(log.notice)
        return log

    def _batch(self, step: int) -> torch.Tensor:
        """This process's rows of the batch of a step, int64[rows, seq_len + 1], on its device."""
        batch = self.loader.batch(step, self.ranks.rank, self.ranks.world).tokens
        check_ids(batch, self.model.vocab_size, f"step {step + 1}")
        return torch.from_numpy(batch).to(self.device)

    def _look_at(self, result: StepResult) -> None:
        """What is wrong with a step is written down and told.

        Raises:
            TrainingError: its update was left out, and the settings say to stop then.
        """
        for warning in self.watch.saw(math.nan if result.fault else result.loss, result.load_LE.numpy()):
            self.progress.note(f"step {self.step:,}: {warning}")
        if not result.fault:
            return
        if result.fault.startswith("loss scale"):
            self.progress.note(f"step {self.step:,}: {result.fault}; its update was left out")
            return
        if self.ranks.is_first:
            self._write_bad_step(result)
        said = f"step {self.step}: {result.fault}; the documents of its batch are in {self.run_dir / BAD_STEPS}"
        if self.config.on_bad_step == "stop":
            raise TrainingError(
                f"{said}. Training stopped before the update. Look at them, lower learning_rate or raise "
                "warmup_share, or go on without such steps (on_bad_step: skip)"
            )
        self.progress.note(f"{said}; its update was left out")

    def _write_bad_step(self, result: StepResult) -> None:
        from train.trace import batch_documents, name_documents

        documents = batch_documents(
            self.loader, self.tree.train, self.tokens_dir, self.step - 1, range(self.config.batch_size)
        )
        named, _ = name_documents(documents, self.tokens_dir)
        record = {
            "step": self.step, "fault": result.fault, "loss": finite(result.loss),
            "grad_norm": finite(result.grad_norm), "documents": [asdict(one) for one in named],
        }  # fmt: skip
        with (self.run_dir / BAD_STEPS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")

    def held_out_loss(self) -> HeldOutLoss:
        """Measure the held-out loss of the weights as they are."""
        rows = max(1, self.config.forward_rows)
        return evaluate(
            self.model, self.held_out, rows=rows, device=self.device, autocast=self.autocast, ranks=self.ranks
        )

    def _make_held_out(self) -> HeldOut:
        tokenizer, sizes = self.tree.tokenizer, None
        if tokenizer.path is not None:
            try:
                sizes = token_bytes(load_tokenizer(tokenizer.path), tokenizer.vocab_size)
            except TrainingError as error:
                self.progress.note(f"no bits per byte: {error}")
        return make_held_out(
            self.tree.valid, self.tree.train, seq_len=self.config.model.seq_len, eod_id=tokenizer.eod_id,
            vocab_size=tokenizer.vocab_size, max_tokens=self.config.eval_tokens, token_bytes=sizes,
        )  # fmt: skip

    def _write_settings(self) -> None:
        record = {"config": self.identity.config, "tokenizer": self.identity.tokenizer}
        write_json(self.run_dir / "config.json", record | {"tokens": self.tokens_place})
        if self.tree.tokenizer.path is not None:
            temporary = self.run_dir / ".tokenizer.model.tmp"
            try:
                shutil.copyfile(self.tree.tokenizer.path, temporary)
                temporary.replace(self.run_dir / "tokenizer.model")
            except OSError as error:
                raise TrainingError(f"{self.run_dir}: cannot be written: {error.strerror or error}") from error

    def _record_step(self, log: MetricsLog | NoLog, result: StepResult, clock: Clock) -> None:
        record = self.records.of_step(self.step, result, self.watch.dead(), clock)
        if record["loader_share"] > SLOW_LOADER and self.step > self.config.log_every:
            self.progress.note(
                f"step {self.step:,}: {record['loader_share']:.0%} of the time went to reading tokens; put them on a "
                "faster disk"
            )
        self._record(log, record)

    def _record_held_out(self, log: MetricsLog | NoLog) -> HeldOutLoss:
        held_out = self.held_out_loss()
        self._record(log, self.records.of_held_out(self.step, held_out))
        return held_out

    def _record(self, log: MetricsLog | NoLog, record: dict[str, Any]) -> None:
        log.write(record)
        self.progress.record({key: finite(x) if isinstance(x, float) else x for key, x in record.items()})

    def _save(self, saver: Saver, log: MetricsLog | NoLog, held_out: HeldOutLoss | None) -> None:
        # Records first: a checkpoint must never know of a step that metrics.jsonl has lost.
        log.sync()
        scale = None if self.scale is None else [self.scale.scale, self.scale.steps]
        saver.save(
            run_state(self.model, self.optimizer), step=self.step, tokens=self.step * self.config.step_tokens,
            held_out=None if held_out is None else finite(held_out.mean),
            extra={"watch": self.watch.state(), "loss_scale": scale},
        )  # fmt: skip


def _read_summary(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
