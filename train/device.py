"""Where a run computes and in what precision, as its settings and the machine say."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch._dynamo.config

from lola_data.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lola_data.train_config import TrainConfig
    from train.ranks import Ranks


def device_kind(config: TrainConfig) -> str:
    """``cuda`` or ``cpu``.

    Raises:
        TrainingError: CUDA is asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: cuda, but torch sees no CUDA device; set device to auto or cpu")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def torch_settings(config: TrainConfig, kind: str, ranks: Ranks) -> Iterator[torch.device]:
    """Choose the device and set torch up for the run; all is as before afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    variants = torch._dynamo.config.recompile_limit
    try:
        # Of a compiled block there are more than torch's 8: dense or with experts, with gradients, without, evaluated,
        # and by the number of rows. Beyond the limit it is no longer compiled, without a word.
        torch._dynamo.config.recompile_limit = max(variants, 64)
        with torch.random.fork_rng():
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            torch.use_deterministic_algorithms(config.deterministic)
            if kind == "cuda":
                if config.deterministic:
                    # Without it torch refuses the first matrix product; it is read at that.
                    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.cuda.set_device(ranks.local)
            yield torch.device(kind, ranks.local) if kind == "cuda" else torch.device(kind)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch._dynamo.config.recompile_limit = variants


def autocasts(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type that forward passes compute in where that is safe, beside that of the weights; None: there is none.
    Without a word from the settings it is bfloat16 on CUDA devices that have it.

    Raises:
        TrainingError: the settings ask for bfloat16, and the device has none.
    """
    if config.precision == "fp16":
        return torch.float16
    if device.type != "cuda":
        return torch.bfloat16 if config.precision == "bf16" else None
    able = torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bf16" and not able:
        raise TrainingError(
            f"precision: bf16, but {torch.cuda.get_device_name(device)} has no bfloat16 arithmetic; set precision to "
            "fp32, to fp16, or to auto, which takes what the device has"
        )
    return torch.bfloat16 if config.precision != "fp32" and able else None
