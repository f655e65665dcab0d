"""Text from a trained run: prompts in, their continuations out.

A document opens with an end-of-document token, as every document does in training; generation ends at the next one.
Prompts of several lengths run in one batch. Each text has a generator of its own, keyed by (seed, number of the prompt,
number of the sample), so what is drawn for one does not hang on what else is in the batch. No expert drops a token.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from lola_data.errors import RecipeError, TrainingError
from lola_data.train_config import TrainConfig
from train.checkpoint import checkpoint_of, newest_checkpoint
from train.device import autocasts
from train.metrics import read_metrics
from train.model import Decoder, KeyValues
from train.text import encode, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from train.checkpoint import Checkpoint

Step = int | Literal["newest", "best"]
"""A checkpoint: that of a step, the newest, or the one whose evaluation had the least mean held-out loss."""


@dataclass(frozen=True)
class LoadedRun:
    """A model as one whole checkpoint of a run has it, in evaluation mode, and its tokenizer.

    Attributes:
        model: the weights.
        tokenizer: ``SentencePieceProcessor``.
        step: of the checkpoint.
        tokenizer_path: the model file of ``tokenizer``.
        tokenizer_sha256: digest of the tokenizer that the token shards of the run were made with.
        autocast: type that a forward pass computes in where that is safe, the router not among it; None: that of the
            weights, float32.
    """

    model: Decoder
    tokenizer: Any
    step: int
    tokenizer_path: Path
    tokenizer_sha256: str = ""
    autocast: torch.dtype | None = None

    def computing(self) -> torch.autocast:
        """The context for forward passes of the model."""
        dtype = self.autocast or torch.bfloat16
        return torch.autocast(self.model.tokens.weight.device.type, dtype, enabled=self.autocast is not None)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_tokens: most tokens made.
        temperature: divides the logits; 0 takes the likeliest token each time. A finite number.
        top_k: draw among the k likeliest tokens alone; None: among all.
        top_p: draw among the fewest likeliest tokens whose probabilities, after temperature and ``top_k``, add up to
            this at least (arXiv 1904.09751, section 3.1); None: among all.

    Raises:
        ValueError: a value out of its range.
    """

    max_tokens: int = 64
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or (self.top_k is not None and self.top_k < 1):
            raise ValueError("temperature must be 0 or more and finite, top_k 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError("top_p must be above 0 and at most 1")


@dataclass(frozen=True)
class Continuation:
    """What a model wrote behind a prompt.

    Attributes:
        number: of the prompt, from 0.
        sample: number of the text among those of its prompt, from 0.
        text: the continuation alone; bytes that are not UTF-8 (a character cut by the end) as U+FFFD.
        tokens: made, without the end-of-document token.
        ended: whether an end-of-document token came, rather than the limit.
    """

    number: int
    sample: int
    text: str
    tokens: int
    ended: bool


def load_run(
    run_dir: str | Path,
    *,
    tokenizer: str | Path | None = None,
    device: str | torch.device = "cpu",
    step: Step = "newest",
    precision: Literal["auto", "fp32", "bf16"] = "fp32",
) -> LoadedRun:
    """Load a run for inference.

    Args:
        run_dir: a run's directory.
        tokenizer: SentencePiece model; default: the copy in the run directory.
        device: where the model goes.
        step: which checkpoint.
        precision: of the computation; the weights are float32 in any case. ``auto`` is bfloat16 on CUDA devices that
            have its arithmetic.

    Raises:
        TrainingError: no run or no such whole checkpoint there, no tokenizer, or one of another vocabulary; bfloat16
            on a CUDA device without it.
    """
    run_dir = Path(run_dir)
    try:
        settings = json.loads((run_dir / "config.json").read_text("utf-8"))
        config, facts = TrainConfig.from_dict(settings["config"]), settings["tokenizer"]
    except OSError as error:
        raise TrainingError(
            f"{run_dir / 'config.json'}: {error.strerror or error}; name the directory of a run (`lola-data train`)"
        ) from error
    except (ValueError, KeyError, TypeError, RecipeError) as error:
        raise TrainingError(f"{run_dir / 'config.json'}: not the settings of a run ({error})") from error
    autocast = autocasts(config.replace({"precision": precision}), torch.device(device))
    found = _checkpoint(run_dir, step)
    path = Path(tokenizer) if tokenizer else run_dir / "tokenizer.model"
    loaded = load_tokenizer(path)
    if loaded.get_piece_size() != facts["vocab_size"]:
        raise TrainingError(
            f"{path}: {loaded.get_piece_size():,} pieces, but the run was trained "
            f"with {facts['vocab_size']:,}; name its tokenizer with --tokenizer"
        )
    model = Decoder(config.model, facts["vocab_size"], facts["eod_id"], config.moe_backend).to(device)
    model.load_state_dict(found.part("model"))
    return LoadedRun(model.eval(), loaded, found.step, path, str(facts.get("sha256", "")), autocast)


def _checkpoint(run_dir: Path, step: Step) -> Checkpoint:
    folder = run_dir / "checkpoints"
    wanted = best_step(run_dir) if step == "best" else step
    if wanted == "newest":
        found = newest_checkpoint(folder)
        if found is None:
            raise TrainingError(f"{folder}: no whole checkpoint; train first")
        return found
    found = checkpoint_of(folder, wanted)
    if found is not None:
        return found
    there = ", ".join(f"{kept:,}" for kept in _kept_steps(run_dir)) or "none"
    raise TrainingError(f"{folder}: no whole checkpoint of step {wanted:,}; there are: {there}")


def _kept_steps(run_dir: Path) -> list[int]:
    names = (path.name.removeprefix("step_") for path in (run_dir / "checkpoints").glob("step_*"))
    return sorted(int(name) for name in names if name.isdecimal())


def best_step(run_dir: Path) -> int:
    """The step, of those with a checkpoint, whose evaluation had the least mean held-out loss; the later of equals.

    Raises:
        TrainingError: no step has both.
    """
    kept = set(_kept_steps(run_dir))
    records = (record for record in read_metrics(run_dir / "metrics.jsonl") if record.get("kind") == "valid")
    losses = {record["step"]: record["mean"] for record in records if record.get("mean") is not None}
    judged = kept & losses.keys()
    if not judged:
        raise TrainingError(
            f"{run_dir}: no checkpoint of a step that was evaluated, so none is best; name a step, or take the newest"
        )
    return min(judged, key=lambda step: (losses[step], -step))


def generate_text(
    run: LoadedRun,
    prompt: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> str:
    """Continue ``prompt``; the continuation alone. See :func:`generate_texts`.

    Raises:
        TrainingError: the prompt is not valid Unicode, as an argument of foreign bytes is.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    ids = encode(run.tokenizer, prompt)
    return next(generate_texts(run, [ids], sampling, seed=seed)).text


def generate_texts(
    run: LoadedRun,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    num: int = 1,
    batch_size: int = 8,
    seed: int = 0,
) -> Iterator[Continuation]:
    """Continue each prompt ``num`` times, in order; a batch is handed out when all of it is done.

    Args:
        run: model and tokenizer.
        prompts: ids of each, without the end-of-document token that opens a document. An empty one begins a document.
        sampling: how tokens are chosen.
        num: texts for each prompt.
        batch_size: texts made at a time. Up to the rounding of sums it changes none of them.
        seed: in [0, 2^64).
    """
    jobs = [(number, sample) for number in range(len(prompts)) for sample in range(num)]
    for first in range(0, len(jobs), batch_size):
        batch = jobs[first : first + batch_size]
        opened = [[run.model.eod_id, *prompts[number]] for number, _ in batch]
        seeds = [draw_seed(seed, number, sample) for number, sample in batch]
        with run.computing():
            made = generate_batch(run.model, opened, sampling, seeds=seeds)
        for (number, sample), ids, (new, ended) in zip(batch, opened, made, strict=True):
            before = len(run.tokenizer.decode(ids[1:]))
            text = run.tokenizer.decode(ids[1:] + new)[before:]
            yield Continuation(number, sample, text, len(new), ended)


def draw_seed(seed: int, number: int, sample: int) -> int:
    """Seed, in [0, 2^64), of the draws for one text: ``numpy.random.SeedSequence`` of the three numbers.

    Raises:
        ValueError: ``seed`` outside [0, 2^64).
    """
    _check_seed(seed)
    return int(np.random.SeedSequence((seed, number, sample)).generate_state(1, np.uint64)[0])


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise ValueError("seed must be 0 or more and below 2^64")


def generate_tokens(
    model: Decoder,
    prompt: list[int],
    *,
    max_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> list[int]:
    """Token ids that follow ``prompt``: :func:`generate_batch` of one, with ``seed`` for its draws."""
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    return generate_batch(model, [prompt], sampling, seeds=[seed])[0][0]


@dataclass
class _Text:
    """A text in the making."""

    ids: list[int]
    generator: torch.Generator
    start: int
    """Where what the model sees begins, until that is ``seq_len`` tokens long."""
    made: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def length(self) -> int:
        return len(self.ids) - self.start


@torch.no_grad()
def generate_batch(
    model: Decoder, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seeds: Sequence[int]
) -> list[tuple[list[int], bool]]:
    """Token ids that follow each prompt, and whether the end-of-document token, which is not among them, ended them.

    The model sees the last ``seq_len`` tokens. What it has computed for a token is kept for the next, until the text is
    longer than that: then every token moves by one position, and all are computed again. Each token is drawn from the
    whole distribution, so the same arguments give the same tokens on one kind of machine.

    Args:
        model: in evaluation mode.
        prompts: at least one id each; a document opens with the end-of-document token.
        sampling: how tokens are chosen.
        seeds: of the draws of each text, in [0, 2^64).

    Raises:
        ValueError: an empty prompt, or an argument out of its range.
    """
    texts = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        if not prompt:
            raise ValueError("prompt: needs at least one token")
        _check_seed(seed)
        start = len(prompt) - len(_visible(list(prompt), model))
        texts.append(_Text(list(prompt), torch.Generator().manual_seed(seed), start))
    growing, sliding = texts, list[_Text]()
    seen = [KeyValues() for _ in model.blocks]
    for _ in range(sampling.max_tokens):
        if not growing and not sliding:
            break
        parts = []
        if growing:
            # At first all they have is new, and later only the last token.
            width = max(text.length for text in growing)
            new = [text.ids[text.start :] if not len(seen[0]) else text.ids[-1:] for text in growing]
            parts.append((growing, _next_logits(model, new, [text.length for text in growing], width, seen)))
        if sliding:
            windows = [text.ids[-model.config.seq_len :] for text in sliding]
            lengths = [len(window) for window in windows]
            unkept = [KeyValues() for _ in model.blocks]
            parts.append((sliding, _next_logits(model, windows, lengths, model.config.seq_len, unkept)))
        for group, logits_BV in parts:
            for text, logits_V in zip(group, logits_BV, strict=True):
                token = _draw(logits_V, sampling, text.generator)
                text.ended = token == model.eod_id
                if not text.ended:
                    text.ids.append(token)
                    text.made.append(token)
        sliding = [text for text in sliding if not text.ended]
        rows = []
        for row, text in enumerate(growing):
            if not text.ended and text.length > model.config.seq_len:
                sliding.append(text)
            elif not text.ended:
                rows.append(row)
        if rows and len(rows) < len(growing):
            kept = max(growing[row].length for row in rows) - 1
            for keys_and_values in seen:
                keys_and_values.keep(torch.tensor(rows, device=model.tokens.weight.device), kept)
        growing = [growing[row] for row in rows]
    return [(text.made, text.ended) for text in texts]


def _next_logits(model: Decoder, new: list[list[int]], lengths: list[int], width: int, seen: list[KeyValues]) -> Tensor:
    """float32[B, vocabulary] on the CPU; ``new`` are filled up at the left, for ``width`` tokens with those seen."""
    device = model.tokens.weight.device
    columns = max(map(len, new))
    tokens_BS = torch.tensor([[model.eod_id] * (columns - len(ids)) + ids for ids in new], device=device)
    lengths_B = None if min(lengths) == width else torch.tensor(lengths, device=device)
    logits_BV = model.next_logits(tokens_BS, seen, lengths_B)
    # Rows of the embedding beyond the vocabulary stand for nothing.
    return logits_BV[:, : model.vocab_size].float().cpu()


def _visible(ids: list[int], model: Decoder) -> list[int]:
    """What the next token is predicted from: the last ``seq_len`` tokens, and of these the last document alone where
    documents do not see each other."""
    window = ids[-model.config.seq_len :]
    if model.config.reset_at_eod and model.eod_id in window:
        window = window[len(window) - 1 - window[::-1].index(model.eod_id) :]
    return window


def _draw(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = kept_probabilities(logits_V, sampling)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def kept_probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """What a token is drawn from, float64[V]: softmax of ``logits_V`` over a temperature above 0, then 0 for all but
    the ``top_k`` likeliest (and those as likely as the last), then 0 outside the nucleus of ``top_p``; sums to 1."""
    if sampling.top_k is not None and sampling.top_k < logits_V.numel():
        kept = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < kept, float("-inf"))
    # Less their maximum, and in doubles, no quotient overflows upwards however small the temperature is.
    scaled_V = (logits_V - logits_V.max()).double() / torch.tensor(sampling.temperature, dtype=torch.float64)
    probabilities_V = scaled_V.softmax(-1)
    if sampling.top_p is None or sampling.top_p == 1:
        return probabilities_V
    likeliest_V, order_V = probabilities_V.sort(descending=True, stable=True)
    outside_V = likeliest_V.cumsum(-1) - likeliest_V >= sampling.top_p
    probabilities_V = probabilities_V.index_fill(-1, order_V[outside_V], 0.0)
    return probabilities_V / probabilities_V.sum()
