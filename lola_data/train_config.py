"""Settings of a training run: plain values (a recipe's ``train:`` section, a ``config.json``) in, dataclasses out.

Only the standard library is imported, so the trainer needs no pydantic; the same classes are embedded in the recipe,
where pydantic reads their descriptions and bounds from the field metadata and refuses unknown keys.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lola_data.errors import RecipeError
from lola_data.plain_settings import check_bounds, from_plain

_CLOSED: dict[str, Any] = {"extra": "forbid"}


def _option(default: Any, description: str, **bounds: float) -> Any:
    # Pydantic: closed choices (the fields with a string default) take no "strict", they are strict already.
    strict = {} if isinstance(default, str) else {"strict": True}
    return field(default=default, metadata={"description": description, **strict, **bounds})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the decoder and of its experts.

    Raises:
        ValueError: a value out of bounds, or values that do not fit together; the message names the field.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    layers: int = _option(4, "Transformer blocks.", ge=1, le=512)
    d_model: int = _option(128, "Width of the residual stream.", ge=1)
    heads: int = _option(4, "Attention heads; they divide d_model.", ge=1)
    d_ff: int | None = _option(None, "Hidden width of each feed-forward block and expert (default: 4 * d_model).", ge=1)
    seq_len: int = _option(128, "Tokens in a training sequence, and learned positions.", ge=2)
    vocab_multiple: int = _option(128, "Embedding rows are the vocabulary size rounded up to this multiple.", ge=1)
    moe_every: int = _option(
        2, "Every n-th block has experts: 2 puts them in blocks 1, 3, 5, ... counted from 0; 0 is a dense model.", ge=0
    )
    experts: int = _option(16, "Experts in each MoE block.", ge=1, le=4096)
    top_k: int = _option(1, "Experts each token is sent to, weighted by their raw softmax probabilities.", ge=1)
    capacity_factor: float | None = _option(
        None,
        "None: no token is dropped. A factor c: in training an expert takes at most ceil(T * top_k / experts * c) of a "
        "micro-batch's T tokens, in order of position, and the rest skip it (LOLA: 1.0).",
        gt=0.0,
    )
    capacity_order: Literal["position", "random"] = _option(
        "position",
        "Which choices of an overfull expert are kept: the first by position (LOLA), or a random draw that hangs on "
        "the seed, the step and the layer alone.",
    )
    min_capacity: int = _option(4, "Least capacity of an expert under capacity_factor.", ge=0)
    balance_loss: float = _option(0.01, "Coefficient of the balance loss, summed over MoE blocks.", ge=0.0)
    balance_over: Literal["step", "micro_batch"] = _option(
        "step",
        "Whose expert load the balance loss uses. `step`: that of the whole batch, so that the gradient does not hang "
        "on how it is split; with more than one micro-batch that takes a forward pass more. `micro_batch`: each one's "
        "own, as DeepSpeed and LOLA do.",
    )
    z_loss: float = _option(
        0.0, "Coefficient of the router z-loss, mean of logsumexp(logits)^2 (arXiv 2202.08906).", ge=0
    )
    router_bias_rate: float = _option(
        0.0,
        "Balancing without a loss (arXiv 2408.15664): by how much the bias that an expert has in the router's choice "
        "moves each step, down where it took more than its share, up where less (there: 0.001). Set balance_loss to 0 "
        "or to little with it.",
        ge=0.0,
    )
    dropout: float = _option(0.0, "Dropout of embeddings, attention and residual branches (LOLA: 0.1).", ge=0.0, lt=1.0)
    init_std: float = _option(
        0.02, "Standard deviation of initial weights; projections into the residual stream: / sqrt(2 * layers).", gt=0.0
    )
    reset_at_eod: bool = _option(
        True, "Attention and positions start anew at each document; false lets them run through, as LOLA does."
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.d_model % self.heads:
            raise ValueError(f"heads: {self.heads} heads do not divide d_model {self.d_model}")
        if self.top_k > self.experts:
            raise ValueError(f"top_k: {self.top_k} is more than the {self.experts} experts")

    @property
    def hidden(self) -> int:
        """Hidden width of a feed-forward block or expert."""
        return self.d_ff if self.d_ff is not None else 4 * self.d_model

    @property
    def moe_layers(self) -> list[int]:
        """Indices of the blocks with experts, from 0."""
        return [layer for layer in range(self.layers) if self.moe_every and (layer + 1) % self.moe_every == 0]

    def vocab_rows(self, vocab_size: int) -> int:
        """Rows of the embedding table for a vocabulary of ``vocab_size`` pieces."""
        return -(-vocab_size // self.vocab_multiple) * self.vocab_multiple


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run: the model, the data order, the optimiser, and how often to look and to save.

    Raises:
        ValueError: a value out of bounds, or values that do not fit together; the message names the field.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _CLOSED

    model: ModelConfig = field(
        default_factory=ModelConfig, metadata={"description": "Shape of the decoder and of its experts."}
    )
    tokens: int = _option(1_500_000, "Tokens to train on; rounded up to whole steps.", ge=1)
    batch_size: int = _option(32, "Sequences in an optimiser step, over all processes.", ge=1)
    micro_batch: int | None = _option(
        None, "Sequences in one forward pass; gradients are summed up to batch_size (default: batch_size).", ge=1
    )
    weights: dict[str, float] = field(
        default_factory=dict,
        metadata={"description": "Share of the samples each language gets (default: as in the token manifest)."},
    )
    max_epochs: dict[str, float] = field(
        default_factory=dict,
        metadata={"description": "Most passes over a language, by language; the others then share what is left."},
    )
    vocab_size: int | None = _option(
        None, "Pieces of the vocabulary, for token files without a manifest (Megatron-Core's, datatrove's).", ge=1
    )
    eod_id: int | None = _option(None, "Id of the end-of-document token, likewise.", ge=0)
    seed: int = _option(0, "Seed of the data order, the initial weights and dropout.", ge=0, lt=2**63)
    learning_rate: float = _option(3e-3, "Peak learning rate.", gt=0.0)
    min_learning_rate: float = _option(3e-4, "Learning rate the schedule ends at.", ge=0.0)
    schedule: Literal["cosine", "wsd", "constant"] = _option(
        "cosine", "After warm-up: half a cosine, warm-up/stable/decay with a linear end, or constant."
    )
    warmup_share: float = _option(0.05, "Share of `tokens` over which the rate rises linearly.", ge=0.0, le=1.0)
    decay_share: float = _option(
        1.0,
        "Cosine: share of `tokens` at which it reaches its end (LOLA: 0.8).",
        gt=0.0,
        le=1.0,
    )
    cooldown_share: float = _option(0.2, "WSD: last share of `tokens`, over which the rate falls.", ge=0.0, le=1.0)
    beta1: float = _option(0.9, "AdamW: decay of the first moment.", ge=0.0, lt=1.0)
    beta2: float = _option(0.95, "AdamW: decay of the second moment.", ge=0.0, lt=1.0)
    eps: float = _option(1e-8, "AdamW: epsilon.", gt=0.0)
    weight_decay: float = _option(0.1, "AdamW: decay of matrices and embeddings, not of biases and norms.", ge=0.0)
    grad_clip: float = _option(1.0, "Largest norm of the gradient; 0 does not clip.", ge=0.0)
    device: Literal["auto", "cpu", "cuda"] = _option("auto", "Where to train; auto takes CUDA if there is one.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = _option(
        "auto",
        "bf16 is autocast with fp32 weights; auto takes it on CUDA devices that have it, fp32 elsewhere. fp16, for "
        "older cards: the same with a loss scale that finds its own size.",
    )
    shard: int = _option(
        1,
        "Processes over which each parameter and its optimiser state are cut (FSDP2). 1: every process holds all (data "
        "parallel).",
        ge=1,
    )
    expert_parallel: int = _option(
        1, "Processes over which the experts of a layer are spread; tokens travel to them.", ge=1
    )
    recompute: bool = _option(
        False, "Make activations again in the backward pass rather than keep them; the routing is kept."
    )
    compile: bool = _option(False, "Compile each block with torch.compile.")
    threads: int | None = _option(None, "Threads of torch on the CPU (default: torch's own choice).", ge=1, le=1024)
    deterministic: bool = _option(
        False,
        "On CUDA: only kernels that give the same bits each time. The CPU always does.",
    )
    moe_backend: Literal["auto", "reference", "grouped", "fused"] = _option(
        "auto",
        "How experts are computed: reference is a loop, grouped takes grouped matrix products, fused a set of Triton "
        "kernels for the whole layer. auto takes grouped on CUDA and reference on the CPU.",
    )
    on_bad_step: Literal["stop", "skip"] = _option(
        "stop",
        "A loss or gradient that is not finite, or a spike: stop before the update, or leave the update out and go on. "
        "Either way bad_steps.jsonl in the run's folder names the documents of the batch.",
    )
    spike: float | None = _option(
        None,
        "A step is bad, too, whose loss is above the mean of the last 100 by so many of their standard deviations.",
        gt=0.0,
    )
    dead_steps: int = _option(200, "Warn of an expert that no token has chosen for so many steps; 0 does not.", ge=0)
    log_every: int = _option(10, "Steps between records in metrics.jsonl.", ge=1)
    eval_every: int = _option(100, "Steps between evaluations of the held-out split; 0: only at the end.", ge=0)
    eval_tokens: int = _option(2048, "Held-out tokens scored in each language, at most.", ge=1)
    checkpoint_every: int = _option(100, "Steps between checkpoints; 0: only at the end or when interrupted.", ge=0)
    keep_checkpoints: int = _option(2, "Newest checkpoints that are kept.", ge=1)
    keep_best: bool = _option(True, "Keep the checkpoint of the lowest held-out loss, too.")
    async_checkpoints: bool = _option(True, "Write checkpoints while training goes on.")
    tensorboard: bool = _option(True, "Write TensorBoard events beside metrics.jsonl.")
    tracker: Literal["none", "wandb", "trackio"] = _option(
        "none", "Send the records to Weights & Biases or trackio, too (pip install lola-data[wandb] or [trackio])."
    )
    project: str = _option("lola-data", "Project of the tracker that the run belongs to.")
    run_name: str | None = _option(None, "Name of the run in the tracker (default: the run folder's name).")
    verify: Literal["sha256", "size"] = _option(
        "sha256",
        "How token shards are checked before step 0: by digest (reads them all once), or by the digest of the indexes "
        "and the size of the rest.",
    )
    cache_dir: str | None = _option(
        None,
        "Folder on this machine for token shards that lie on an object store (default: $LOLA_DATA_CACHE/tokens, else "
        "~/.cache/lola-data/tokens); processes and runs share it.",
    )
    cache_gb: float = _option(
        100.0,
        "Most gigabytes (10^9 bytes) in it; what has not been read for longest goes first. Best is room for all shards "
        "of the run.",
        ge=0.1,
        le=1e6,
    )

    RESUME_FREE: ClassVar[frozenset[str]] = frozenset(
        {
            "device", "threads", "deterministic", "moe_backend", "shard", "expert_parallel", "recompute", "compile",
            "on_bad_step", "spike", "dead_steps", "keep_best", "async_checkpoints", "log_every", "eval_every",
            "checkpoint_every", "keep_checkpoints", "tensorboard", "tracker", "project", "run_name", "verify",
            "cache_dir", "cache_gb",
        }
    )  # fmt: skip
    """Fields that may differ when a run is resumed: they change neither the data nor the arithmetic asked for."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.batch_size % self.forward_rows:
            raise ValueError(f"micro_batch: {self.micro_batch} does not divide batch_size {self.batch_size}")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate: {self.min_learning_rate} is above learning_rate {self.learning_rate}")
        if self.schedule == "cosine" and self.warmup_share > self.decay_share:
            raise ValueError(f"warmup_share: {self.warmup_share} is above decay_share {self.decay_share}")
        if self.schedule == "wsd" and self.warmup_share + self.cooldown_share > 1:
            raise ValueError("cooldown_share: warmup_share + cooldown_share is above 1")
        bad = [name for name, weight in self.weights.items() if not (math.isfinite(weight) and weight >= 0)]
        if bad:
            raise ValueError(f"weights: the weight of {bad[0]!r} is {self.weights[bad[0]]}; weights are >= 0")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights: every weight is 0")

    @property
    def forward_rows(self) -> int:
        """Sequences in one forward pass."""
        return self.micro_batch if self.micro_batch is not None else self.batch_size

    @property
    def step_tokens(self) -> int:
        """Tokens in one optimiser step."""
        return self.batch_size * self.model.seq_len

    @property
    def steps(self) -> int:
        """Optimiser steps: ``tokens`` rounded up to whole steps."""
        return -(-self.tokens // self.step_tokens)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build a configuration from plain values, as read from JSON or YAML.

        Raises:
            RecipeError: an unknown key (the nearest valid one is named), a wrong type, a value out of bounds or values
                that do not fit together.
        """
        return from_plain(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_dict` takes back."""
        return dataclasses.asdict(self)

    def replace(self, changes: dict[str, Any]) -> TrainConfig:
        """A copy with some values changed, ``model`` by its own keys: ``{"seed": 1, "model": {"layers": 6}}``.

        Raises:
            RecipeError: as :meth:`from_dict`.
        """
        values = self.to_dict()
        model = changes.get("model", {})
        if not isinstance(model, dict):
            raise RecipeError(f"model: expected keys and values, got {model!r}")
        return self.from_dict(values | changes | {"model": values["model"] | model})


PRESETS: dict[str, TrainConfig] = {
    "demo": TrainConfig(
        model=ModelConfig(layers=2, d_model=96, heads=4, seq_len=128, init_std=0.04),
        tokens=1_200_000,
        batch_size=8,
        learning_rate=1e-2,
        min_learning_rate=1e-3,
        log_every=50,
        eval_every=400,
        eval_tokens=1024,
        checkpoint_every=200,
    ),
    "small": TrainConfig(
        model=ModelConfig(layers=12, d_model=512, heads=8, seq_len=1024, balance_over="micro_batch"),
        tokens=1_000_000_000,
        batch_size=256,
        micro_batch=32,
        learning_rate=6e-4,
        min_learning_rate=6e-5,
        warmup_share=0.02,
        eval_every=500,
        eval_tokens=65_536,
        checkpoint_every=500,
    ),
    "lola-1b": TrainConfig(
        model=ModelConfig(
            layers=24, d_model=2048, heads=16, seq_len=2048, dropout=0.1, init_std=0.01, balance_over="micro_batch"
        ),
        tokens=465_567_744_000,
        batch_size=768,
        micro_batch=8,
        learning_rate=2e-4,
        min_learning_rate=2e-5,
        warmup_share=0.1,
        decay_share=0.8,
        eval_every=500,
        eval_tokens=1_000_000,
        checkpoint_every=500,
        verify="size",
    ),
}
"""Named runs. ``demo``: minutes on two CPU cores. ``small``: an hour or so on one GPU. ``lola-1b``: shape, optimiser
and length of LOLA (arXiv 2409.11272); set ``model.capacity_factor=1.0`` and ``model.reset_at_eod=false`` to
follow it also where this project does better by default."""
