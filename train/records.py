"""What a run tells of itself: a record of a step, of a held-out loss, and the summary at the end, as plain values.

What each number is: docs/training.md, "Metrics".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from train.clock import peak_memory
from train.flops import flops_per_token, peak_flops
from train.model import count_parameters
from train.watch import spread_of_load

if TYPE_CHECKING:
    from lola_data.train_config import TrainConfig
    from train.clock import Clock
    from train.data import Loader
    from train.evaluate import HeldOut, HeldOutLoss
    from train.step import StepResult
    from train.token_tree import TokenTree


@dataclass(frozen=True)
class Records:
    """Makes the records of one run.

    Attributes:
        config: its settings.
        tree: the tokens it reads.
        loader: that reads them.
        held_out: what it is scored on.
        world: processes.
        device: of this one.
        autocast: type that it computes in, None: that of the weights.
    """

    config: TrainConfig
    tree: TokenTree
    loader: Loader
    held_out: HeldOut
    world: int
    device: torch.device
    autocast: torch.dtype | None

    def of_step(self, step: int, result: StepResult, dead: dict[str, int], clock: Clock) -> dict[str, Any]:
        """``kind: train``: the step that was done last, and the time since the record before.

        Args:
            step: steps done.
            result: of the last one.
            dead: experts that no token chooses, by MoE layer.
            clock: since the record before.
        """
        config = self.config
        speed = clock.steps * config.step_tokens / clock.seconds()
        peak = (
            peak_flops(torch.cuda.get_device_name(self.device), self.autocast) if self.device.type == "cuda" else None
        )
        flops = speed * flops_per_token(config.model, self.tree.tokenizer.vocab_size) / self.world
        load = {
            str(layer): [round(x, 6) for x in row]
            for layer, row in zip(config.model.moe_layers, result.load_LE.tolist(), strict=True)
        }
        return {
            "kind": "train",
            "step": step,
            "tokens": step * config.step_tokens,
            "loss": result.loss,
            "balance": result.balance,
            "z": result.z,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "dropped": result.dropped,
            "load": load,
            **spread_of_load(result.load_LE.numpy()),
            "dead": dead,
            "epochs": {name: round(epochs, 6) for name, epochs in self.loader.epochs(step).items()},
            "tokens_per_second": round(speed, 1),
            "mfu": round(flops / peak, 4) if peak else None,
            "memory_bytes": peak_memory(self.device),
            "loader_share": round(clock.waited / clock.seconds(), 4),
        }

    def of_held_out(self, step: int, held_out: HeldOutLoss) -> dict[str, Any]:
        """``kind: valid``: the held-out loss after ``step`` steps."""
        unigram = self._unigram()
        return {
            "kind": "valid",
            "step": step,
            "tokens": step * self.config.step_tokens,
            "mean": held_out.mean,
            "unigram_mean": _mean(unigram),
            "loss": held_out.loss,
            "unigram": unigram,
            "bits_per_byte": held_out.bits_per_byte,
        }

    def summary(self, step: int, held_out: HeldOutLoss) -> dict[str, Any]:
        """What the run came to; nothing in it depends on the clock or the machine's paths."""
        config, tree = self.config, self.tree
        parameters, active = count_parameters(config.model, tree.tokenizer.vocab_size)
        unigram = self._unigram()
        scored = dict(zip(self.held_out.languages, self.held_out.tokens.tolist(), strict=True))
        epochs = self.loader.epochs(step)
        languages = {
            name: {
                "train_documents": sum(shard.num_documents for shard in tree.train.get(name, ())),
                "train_tokens": sum(shard.num_tokens for shard in tree.train.get(name, ())),
                "epochs": epochs.get(name, 0.0),
                "held_out_tokens": scored.get(name, 0),
                "held_out_loss": finite(held_out.loss.get(name)),
                "unigram_loss": finite(unigram.get(name)),
                "bits_per_byte": finite(held_out.bits_per_byte.get(name)),
            }
            for name in sorted(tree.train.keys() | tree.valid.keys())
        }
        return {
            "steps": step,
            "tokens": step * config.step_tokens,
            "parameters": parameters,
            "active_parameters": active,
            "held_out_loss": finite(held_out.mean),
            "unigram_loss": finite(_mean(unigram)),
            "languages": languages,
        }

    def _unigram(self) -> dict[str, float]:
        return dict(zip(self.held_out.languages, self.held_out.unigram.tolist(), strict=True))


def finite(value: float | None) -> float | None:
    """The number, or None where there is none."""
    return None if value is None or not math.isfinite(value) else value


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan
