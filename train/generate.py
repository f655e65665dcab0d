"""Text from a trained run: a prompt in, its continuation out.

The document opens with an end-of-document token, as every document does in training; generation ends at the next one.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lola_data.errors import RecipeError, TrainingError
from lola_data.train_config import TrainConfig
from train.checkpoint import newest_checkpoint
from train.model import Decoder, KeyValues
from train.text import encode, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoadedRun:
    """A model as the newest whole checkpoint of a run has it, in evaluation mode, and its tokenizer."""

    model: Decoder
    tokenizer: Any
    step: int


def load_run(
    run_dir: str | Path, *, tokenizer: str | Path | None = None, device: str | torch.device = "cpu"
) -> LoadedRun:
    """Load a run for inference.

    Args:
        run_dir: a run's directory.
        tokenizer: SentencePiece model; default: the copy in the run directory.
        device: where the model goes.

    Raises:
        TrainingError: no run or no whole checkpoint there, no tokenizer, or one of another vocabulary.
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
    found = newest_checkpoint(run_dir / "checkpoints", map_location=device)
    if found is None:
        raise TrainingError(f"{run_dir / 'checkpoints'}: no whole checkpoint; train first")
    loaded = load_tokenizer(Path(tokenizer) if tokenizer else run_dir / "tokenizer.model")
    if loaded.get_piece_size() != facts["vocab_size"]:
        raise TrainingError(
            f"{tokenizer or run_dir / 'tokenizer.model'}: {loaded.get_piece_size():,} pieces, but the run was trained "
            f"with {facts['vocab_size']:,}; name its tokenizer with --tokenizer"
        )
    model = Decoder(config.model, facts["vocab_size"], facts["eod_id"], config.moe_backend).to(device)
    model.load_state_dict(found.state["model"])
    return LoadedRun(model.eval(), loaded, found.step)


def generate_text(
    run: LoadedRun,
    prompt: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Continue ``prompt``; the continuation alone. See :func:`generate_tokens`.

    Raises:
        TrainingError: the prompt is not valid Unicode, as an argument of foreign bytes is.
    """
    ids = [run.model.eod_id, *encode(run.tokenizer, prompt)]
    new = generate_tokens(run.model, ids, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed)
    return run.tokenizer.decode(ids[1:] + new)[len(run.tokenizer.decode(ids[1:])) :]


@torch.no_grad()
def generate_tokens(
    model: Decoder,
    prompt: list[int],
    *,
    max_tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Token ids that follow ``prompt``, without the end-of-document token that may end them early.

    The model sees the last ``seq_len`` tokens. What it has computed for a token is kept for the next, until the text is
    longer than that: then every token moves by one position, and all are computed again. Each token is drawn from the
    whole distribution, so the same arguments give the same tokens on one kind of machine.

    Args:
        model: in evaluation mode.
        prompt: at least one id; a document opens with the end-of-document token.
        max_tokens: most tokens made.
        temperature: divides the logits; 0 takes the likeliest token each time. A finite number.
        top_k: draw among the k likeliest tokens alone; None: among all.
        seed: of the draws, in [0, 2^64).

    Raises:
        ValueError: an empty prompt, or an argument out of its range.
    """
    if not prompt:
        raise ValueError("prompt: needs at least one token")
    if not 0 <= temperature < math.inf or (top_k is not None and top_k < 1):
        raise ValueError("temperature must be 0 or more and finite, top_k 1 or more")
    if not 0 <= seed < 2**64:
        raise ValueError("seed must be 0 or more and below 2^64")
    generator = torch.Generator().manual_seed(seed)
    device = model.tokens.weight.device
    ids = list(prompt)
    seen: list[KeyValues] = []
    for _ in range(max_tokens):
        window = _visible(ids, model)
        if seen and len(window) == len(seen[0]) + 1:
            window = window[-1:]
        else:
            seen = [KeyValues() for _ in model.blocks]
        logits_V = model.next_logits(torch.tensor([window], device=device), seen)[0]
        # Rows of the embedding beyond the vocabulary stand for nothing.
        token = _draw(logits_V[: model.vocab_size].float().cpu(), temperature, top_k, generator)
        if token == model.eod_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


def _visible(ids: list[int], model: Decoder) -> list[int]:
    """What the next token is predicted from: the last ``seq_len`` tokens, and of these the last document alone where
    documents do not see each other."""
    window = ids[-model.config.seq_len :]
    if model.config.reset_at_eod and model.eod_id in window:
        window = window[len(window) - 1 - window[::-1].index(model.eod_id) :]
    return window


def _draw(logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k is not None and top_k < logits_V.numel():
        kept = logits_V.topk(top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < kept, float("-inf"))
    # Less their maximum, and in doubles, no quotient overflows upwards however small the temperature is.
    scaled_V = (logits_V - logits_V.max()).double() / torch.tensor(temperature, dtype=torch.float64)
    return int(torch.multinomial(scaled_V.softmax(-1), 1, generator=generator))
