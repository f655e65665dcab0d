"""Arithmetic that a token costs, and how much of a device's peak a run reaches (MFU).

FLOPs of a token, forward and backward, with the attention over the whole window as is usual (PaLM, arXiv 2204.02311,
appendix B): 6 N + 12 L d s, where N counts the parameters of the matrix products that work on a token: those of
attention, of the feed-forward block or of ``top_k`` experts and the router, and of the output layer (the tied
embedding). Learned positions, biases and norms are left out. Activations that are made again are not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lola_data.train_config import ModelConfig

PEAK_FLOPS = {
    ("B200", "bfloat16"): 2250e12, ("H200", "bfloat16"): 989e12, ("H100 PCIe", "bfloat16"): 756e12,
    ("H100", "bfloat16"): 989e12, ("A100", "bfloat16"): 312e12, ("L40S", "bfloat16"): 362e12,
    ("A10", "bfloat16"): 125e12, ("V100", "float16"): 125e12, ("T4", "float16"): 65e12,
}  # fmt: skip
"""Dense products a second of a device whose name has the first part, as its maker states; the longest name goes first.
bfloat16 figures hold for float16 too."""


def flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """FLOPs of one token in training."""
    width, hidden = config.d_model, config.hidden
    sparse = len(config.moe_layers)
    dense = config.layers - sparse
    weights = config.layers * 4 * width * width + dense * 2 * width * hidden
    weights += sparse * (config.top_k * 2 * width * hidden + width * config.experts)
    weights += config.vocab_rows(vocab_size) * width
    return 6 * weights + 12 * config.layers * width * config.seq_len


def peak_flops(name: str, dtype: torch.dtype | None) -> float | None:
    """Peak of the device ``name`` in products of ``dtype``; None if it is not known."""
    wanted = str(dtype).removeprefix("torch.")
    found = [
        (len(part), peak)
        for (part, kind), peak in PEAK_FLOPS.items()
        if part in name and (wanted == kind or (kind == "bfloat16" and wanted == "float16"))
    ]
    return max(found)[1] if found else None
