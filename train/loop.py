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
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lola_data.errors import TrainingError
from lola_data.train_config import nearest
from train.checkpoint import Checkpoint, Identity, check_identity, has_checkpoints, newest_checkpoint, save_checkpoint
from train.data import Loader
from train.evaluate import HeldOut, HeldOutLoss, evaluate, make_held_out
from train.metrics import MetricsLog
from train.model import Decoder, count_parameters
from train.optimizer import make_optimizer
from train.progress import Progress, Silent
from train.run_dir import StopSignal, sole_writer, write_json
from train.step import StepResult, train_step
from train.text import load_tokenizer, token_bytes
from train.token_tree import TokenTree, check_ids, open_token_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.train_config import TrainConfig


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        run_dir: the run's directory.
        step: steps done in all.
        steps: steps of the whole run.
        stopped_by: name of the signal that ended it early, or empty.
        summary: content of ``summary.json``; None if the run is not complete.
    """

    run_dir: Path
    step: int
    steps: int
    stopped_by: str
    summary: dict[str, Any] | None = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return self.summary is not None


def train(
    config: TrainConfig,
    tokens_dir: str | Path,
    run_dir: str | Path,
    *,
    resume: Literal["auto", "never"] = "auto",
    max_steps_this_run: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a model, or go on training it.

    SIGTERM and SIGINT end the run after the step at hand, with a checkpoint; the call then returns as usual.

    Args:
        config: settings.
        tokens_dir: token tree, see :func:`train.token_tree.open_token_tree`.
        run_dir: the run's directory; made if it is not there.
        resume: ``auto`` goes on from the newest whole checkpoint, if any; ``never`` refuses a directory that has one.
        max_steps_this_run: stop, with a checkpoint, after so many steps.
        progress: told what happens; nothing is shown by default.

    Raises:
        TrainingError: shards that are missing or changed, a checkpoint of another run, a loss that is not finite, a
            full disk; the message says what to do.
    """
    run_dir, progress = Path(run_dir), progress or Silent()
    tree = open_token_tree(tokens_dir, config.verify)
    with sole_writer(run_dir), _torch_settings(config) as device:
        run = _Run(config, tree, run_dir, device, progress)
        done = run.restore(resume)
        summary = _read_summary(run_dir / "summary.json") if done == config.steps else None
        if summary is not None:
            progress.note(f"{run_dir}: complete at step {done:,}; nothing to do")
            return TrainResult(run_dir, done, config.steps, "", summary)
        (run_dir / "summary.json").unlink(missing_ok=True)
        last = config.steps if max_steps_this_run is None else min(config.steps, done + max_steps_this_run)
        try:
            with StopSignal() as stop:
                reached, held_out_loss = run.train_to(last, stop)
        finally:
            progress.close()
        if reached == config.steps:
            summary = run.summary(held_out_loss or run.held_out_loss())
            write_json(run_dir / "summary.json", summary)
        return TrainResult(run_dir, reached, config.steps, stop.name, summary)


class _Run:
    """Everything a run holds between its steps."""

    def __init__(
        self, config: TrainConfig, tree: TokenTree, run_dir: Path, device: torch.device, progress: Progress
    ) -> None:
        self.config, self.tree, self.run_dir, self.device, self.progress = config, tree, run_dir, device, progress
        tokenizer = tree.tokenizer
        self.loader = Loader(
            tree.train, training_weights(config, tree), seq_len=config.model.seq_len, batch_size=config.batch_size,
            seed=config.seed,
        )  # fmt: skip
        if self.loader.unused:
            progress.note(f"languages without training tokens, left out: {', '.join(self.loader.unused)}")
        self.identity = Identity(
            config.to_dict(), tree.digests,
            {"vocab_size": tokenizer.vocab_size, "eod_id": tokenizer.eod_id, "sha256": tokenizer.sha256},
        )  # fmt: skip
        self.model = Decoder(config.model, tokenizer.vocab_size, tokenizer.eod_id, config.moe_backend)
        self.model.initialise(config.seed)
        self.model.to(device).train()
        self.optimizer = make_optimizer(self.model, config)
        self.autocast = autocasts(config, device)
        self.step = 0
        self.held_out = self._make_held_out()

    def restore(self, resume: str) -> int:
        """Take over the newest checkpoint, if there is one; the number of steps it has done."""
        folder = self.run_dir / "checkpoints"
        if resume == "never" and has_checkpoints(folder):
            raise TrainingError(f"{folder}: holds checkpoints; resume from them, or train into a new run directory")
        found: Checkpoint | None = newest_checkpoint(folder, map_location=self.device)
        if found is not None:
            check_identity(found.identity, self.identity, found.path)
            self.model.load_state_dict(found.state["model"])
            self.optimizer.load_state_dict(found.state["optimizer"])
            self.step = found.step
        elif has_checkpoints(folder):
            self.progress.note(f"{folder}: no checkpoint is whole; beginning anew")
        self._write_settings()
        return self.step

    def train_to(self, last: int, stop: StopSignal) -> tuple[int, HeldOutLoss | None]:
        """Train until ``last`` steps are done or ``stop`` says so; the steps done, and the held-out loss if the last
        thing done was to measure it."""
        config, held_out_loss = self.config, None
        self.progress.start(config.steps, self.step)
        with MetricsLog(self.run_dir, step=self.step, tensorboard=config.tensorboard) as log:
            if log.notice:
                self.progress.note(log.notice)
            if self.step == 0:
                self._record_held_out(log)
            clock, clock_step = time.perf_counter(), self.step
            while self.step < last and not stop.name:
                batch = self.loader.batch(self.step).tokens
                check_ids(batch, self.model.vocab_size, f"step {self.step + 1}")
                tokens = torch.from_numpy(batch).to(self.device)
                result = train_step(
                    self.model, self.optimizer, tokens, config, step=self.step, autocast=self.autocast
                )  # fmt: skip
                self.step += 1
                self.progress.step(self.step)
                if self.step % config.log_every == 0 or self.step == config.steps:
                    seconds = time.perf_counter() - clock
                    speed = (self.step - clock_step) * config.step_tokens / seconds
                    self._record(log, self._train_record(result, speed))
                    clock, clock_step = time.perf_counter(), self.step
                finished = self.step == config.steps
                held_out_loss = None
                if finished or (config.eval_every and self.step % config.eval_every == 0):
                    pause = time.perf_counter()
                    held_out_loss = self._record_held_out(log)
                    clock += time.perf_counter() - pause
                due = config.checkpoint_every and self.step % config.checkpoint_every == 0
                if due or self.step == last or stop.name:
                    self._save(log)
        return self.step, held_out_loss

    def held_out_loss(self) -> HeldOutLoss:
        """Measure the held-out loss of the weights as they are."""
        rows = max(1, self.config.forward_rows)
        return evaluate(self.model, self.held_out, rows=rows, device=self.device, autocast=self.autocast)

    def summary(self, held_out: HeldOutLoss) -> dict[str, Any]:
        """What the run came to; nothing in it depends on the clock or the machine's paths."""
        config = self.config
        parameters, active = count_parameters(config.model, self.tree.tokenizer.vocab_size)
        unigram = self._unigram()
        scored = dict(zip(self.held_out.languages, self.held_out.tokens.tolist(), strict=True))
        epochs = self.loader.epochs(self.step)
        languages = {
            name: {
                "train_documents": sum(shard.num_documents for shard in self.tree.train.get(name, ())),
                "train_tokens": sum(shard.num_tokens for shard in self.tree.train.get(name, ())),
                "epochs": epochs.get(name, 0.0),
                "held_out_tokens": scored.get(name, 0),
                "held_out_loss": _number(held_out.loss.get(name)),
                "unigram_loss": _number(unigram.get(name)),
                "bits_per_byte": _number(held_out.bits_per_byte.get(name)),
            }
            for name in sorted(self.tree.train.keys() | self.tree.valid.keys())
        }
        return {
            "steps": self.step,
            "tokens": self.step * config.step_tokens,
            "parameters": parameters,
            "active_parameters": active,
            "held_out_loss": _number(held_out.mean),
            "unigram_loss": _number(_mean(unigram)),
            "languages": languages,
        }

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
        write_json(self.run_dir / "config.json", {"config": self.identity.config, "tokenizer": self.identity.tokenizer})
        if self.tree.tokenizer.path is not None:
            temporary = self.run_dir / ".tokenizer.model.tmp"
            try:
                shutil.copyfile(self.tree.tokenizer.path, temporary)
                temporary.replace(self.run_dir / "tokenizer.model")
            except OSError as error:
                raise TrainingError(f"{self.run_dir}: cannot be written: {error.strerror or error}") from error

    def _train_record(self, result: StepResult, speed: float) -> dict[str, Any]:
        layers = self.config.model.moe_layers
        load = {
            str(layer): [round(x, 6) for x in row] for layer, row in zip(layers, result.load_LE.tolist(), strict=True)
        }
        return {
            "kind": "train",
            "step": self.step,
            "tokens": self.step * self.config.step_tokens,
            "loss": result.loss,
            "balance": result.balance,
            "z": result.z,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "dropped": result.dropped,
            "load": load,
            "epochs": {name: round(epochs, 6) for name, epochs in self.loader.epochs(self.step).items()},
            "tokens_per_second": round(speed, 1),
        }

    def _record_held_out(self, log: MetricsLog) -> HeldOutLoss:
        held_out, unigram = self.held_out_loss(), self._unigram()
        self._record(
            log,
            {
                "kind": "valid",
                "step": self.step,
                "tokens": self.step * self.config.step_tokens,
                "mean": held_out.mean,
                "unigram_mean": _mean(unigram),
                "loss": held_out.loss,
                "unigram": unigram,
                "bits_per_byte": held_out.bits_per_byte,
            },
        )
        return held_out

    def _record(self, log: MetricsLog, record: dict[str, Any]) -> None:
        log.write(record)
        self.progress.record({key: _number(x) if isinstance(x, float) else x for key, x in record.items()})

    def _unigram(self) -> dict[str, float]:
        return dict(zip(self.held_out.languages, self.held_out.unigram.tolist(), strict=True))

    def _save(self, log: MetricsLog) -> None:
        # Records first: a checkpoint must never know of a step that metrics.jsonl has lost.
        log.sync()
        save_checkpoint(
            self.run_dir / "checkpoints", step=self.step, tokens=self.step * self.config.step_tokens,
            identity=self.identity, keep=self.config.keep_checkpoints,
            state={"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()},
        )  # fmt: skip


@contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[torch.device]:
    """Choose the device and set torch up for the run; all is as before afterwards.

    Raises:
        TrainingError: CUDA is asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: cuda, but torch sees no CUDA device; set device to auto or cpu")
    name = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        with torch.random.fork_rng():
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            torch.use_deterministic_algorithms(config.deterministic)
            yield torch.device(name)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def training_weights(config: TrainConfig, tree: TokenTree) -> dict[str, float]:
    """Weight of each language: of the settings, else of the manifest, else its tokens.

    The manifest may give a share to a language of which nothing is left to train on: the sampling plan is made before
    the documents are chosen. The settings are a person's words, so there such a name is taken for a mistake.

    Raises:
        TrainingError: the settings give weight to a language without a training shard.
    """
    for name, weight in config.weights.items():
        if weight > 0 and name not in tree.train:
            raise TrainingError(f"weights: no training shard of language {name!r}; {nearest(name, list(tree.train))}")
    return config.weights or tree.shares or _sizes(tree)


def autocasts(config: TrainConfig, device: torch.device) -> bool:
    """Whether forward passes run in bfloat16: if the settings say so, by default on CUDA devices that can.

    Raises:
        TrainingError: the settings say so, and the device cannot.
    """
    if device.type != "cuda":
        return config.precision == "bf16"
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bf16" and not able:
        raise TrainingError(
            f"precision: bf16, but {torch.cuda.get_device_name(device)} has no bfloat16 arithmetic; set precision to "
            "fp32, or to auto, which takes what the device has"
        )
    return config.precision != "fp32" and able


def _sizes(tree: TokenTree) -> dict[str, float]:
    """Tokens of each language: the weights where neither settings nor manifest give any."""
    return {name: float(sum(shard.num_tokens for shard in shards)) for name, shards in tree.train.items()}


def _read_summary(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
