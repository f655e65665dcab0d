"""Held-out loss per language, and what it has to beat: a unigram model of the language's own training tokens.

The held-out tokens of a language are its validation shards in file order, from the first on, up to a cap. Each of them,
end-of-document tokens included, is scored once: it is predicted from the tokens before it in its window of ``seq_len``,
and the first of all from an end-of-document token. Nothing is drawn, and no expert drops a token, so the same weights
give the same numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from train.model import IGNORE
from train.ranks import ALONE, Ranks
from train.token_tree import check_ids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lola_data.tokens import TokenShard
    from train.model import Decoder

_COUNTED_TOKENS = 2**26
"""Training tokens, at most, that a unigram model is made from (a gigabyte's worth is read in seconds)."""
SMOOTHING = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Pseudo-counts tried for the unigram model. The one that suits the held-out tokens best is taken, which no real
unigram model could know: the bar is rather too high than too low."""


class HeldOut(NamedTuple):
    """Held-out windows of all languages.

    Attributes:
        languages: those with held-out tokens.
        inputs: int32[W, seq_len].
        targets: int32[W, seq_len]; -100 behind the end of a language's tokens.
        owner: int64[W], index into ``languages``.
        tokens: int64[languages], tokens scored in each.
        bytes: int64[languages], UTF-8 bytes these tokens stand for; None if the tokenizer model is not at hand.
        unigram: float64[languages], loss of the unigram model in nats per token; NaN without training tokens.
    """

    languages: list[str]
    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    owner: NDArray[np.int64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64] | None
    unigram: NDArray[np.float64]


class HeldOutLoss(NamedTuple):
    """Losses on the held-out tokens.

    Attributes:
        loss: nats per token by language.
        bits_per_byte: by language; empty if bytes are not known. It can be compared between tokenizers.
        mean: mean of ``loss`` over languages, each counting the same; NaN if there is no held-out token at all.
    """

    loss: dict[str, float]
    bits_per_byte: dict[str, float]
    mean: float


def make_held_out(
    valid: Mapping[str, Sequence[TokenShard]],
    train: Mapping[str, Sequence[TokenShard]],
    *,
    seq_len: int,
    eod_id: int,
    vocab_size: int,
    max_tokens: int,
    token_bytes: NDArray[np.int64] | None = None,
) -> HeldOut:
    """Cut the held-out windows and score the unigram models. Languages without held-out tokens are left out.

    Args:
        valid: validation shards by language.
        train: training shards by language.
        seq_len: tokens in a window.
        eod_id: what the first token of a language is predicted from.
        vocab_size: pieces of the tokenizer.
        max_tokens: most tokens scored in a language.
        token_bytes: int64[vocab_size], UTF-8 bytes of each piece.
    """
    languages, inputs, targets, owner, counts, sizes, unigram = [], [], [], [], [], [], []
    for language, shards in valid.items():
        held = _first_tokens(shards, max_tokens)
        if not held.size:
            continue
        check_ids(held, vocab_size, f"held-out tokens of {language}")
        rows = -(-held.size // seq_len)
        padded = np.full(rows * seq_len + 1, eod_id, np.int32)
        padded[1 : held.size + 1] = held
        target = np.full(rows * seq_len, IGNORE, np.int32)
        target[: held.size] = held
        inputs.append(padded[:-1].reshape(rows, seq_len))
        targets.append(target.reshape(rows, seq_len))
        owner.append(np.full(rows, len(languages), np.int64))
        languages.append(language)
        counts.append(held.size)
        sizes.append(0 if token_bytes is None else int(token_bytes[held].sum()))
        unigram.append(unigram_loss(token_counts(train.get(language, ()), vocab_size), held))
    empty = np.zeros((0, seq_len), np.int32)
    return HeldOut(
        languages,
        np.concatenate([empty, *inputs]),
        np.concatenate([empty, *targets]),
        np.concatenate([np.zeros(0, np.int64), *owner]),
        np.array(counts, np.int64),
        None if token_bytes is None else np.array(sizes, np.int64),
        np.array(unigram, np.float64),
    )


@torch.no_grad()
def evaluate(
    model: Decoder,
    held_out: HeldOut,
    *,
    rows: int,
    device: torch.device,
    autocast: torch.dtype | None,
    ranks: Ranks = ALONE,
) -> HeldOutLoss:
    """Loss of ``model`` on ``held_out``, ``rows`` windows in one forward pass, the processes of ``ranks`` taking turns.
    Leaves the model in training mode if it was in it."""
    was_training = model.training
    model.eval()
    sums = torch.zeros(len(held_out.languages), dtype=torch.float64)
    for first in range(0, len(held_out.inputs), rows * ranks.world):
        mine = slice(first + rows * ranks.rank, first + rows * (ranks.rank + 1))
        inputs, targets, owner = held_out.inputs[mine], held_out.targets[mine], held_out.owner[mine]
        if not len(inputs):
            # All processes take part in each forward pass; this one has nothing to score.
            inputs, targets, owner = held_out.inputs[:1], np.full_like(held_out.targets[:1], IGNORE), owner[:0]
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            nll_BS = model(
                torch.from_numpy(inputs.astype(np.int64)).to(device),
                torch.from_numpy(targets.astype(np.int64)).to(device),
            ).nll_BS
        sums.index_add_(0, torch.from_numpy(owner), nll_BS.double().sum(1).cpu()[: len(owner)])
    model.train(was_training)
    sums = ranks.sum(sums.to(device)).cpu().numpy()
    loss = dict(zip(held_out.languages, (sums / held_out.tokens).tolist(), strict=True))
    bits = {}
    if held_out.bytes is not None:
        pairs = zip(held_out.languages, sums, held_out.bytes, strict=True)
        bits = {name: float(total / math.log(2) / size) for name, total, size in pairs if size}
    return HeldOutLoss(loss, bits, float(np.mean(list(loss.values()))) if loss else math.nan)


def token_counts(shards: Sequence[TokenShard], vocab_size: int) -> NDArray[np.int64]:
    """How often each token stands in ``shards`` (the first 2^26 tokens of them), int64[vocab_size]."""
    counts = np.zeros(vocab_size, np.int64)
    left = _COUNTED_TOKENS
    for shard in shards:
        for first in range(0, min(shard.num_tokens, left), 2**22):
            tokens = shard.tokens[first : min(first + 2**22, left)]
            check_ids(tokens, vocab_size, shard.prefix)
            counts += np.bincount(tokens, minlength=vocab_size)
        left -= min(left, shard.num_tokens)
    return counts


def unigram_loss(counts: NDArray[np.int64], tokens: NDArray[np.integer]) -> float:
    """Nats per token of p(t) = (counts[t] + a) / (sum(counts) + a * vocabulary) on ``tokens``, for the best a of
    :data:`SMOOTHING`; NaN if ``counts`` are all 0 or there is no token."""
    if not counts.any() or not tokens.size:
        return math.nan
    seen = counts[tokens]
    return min(float(-np.log((seen + a) / (counts.sum() + a * counts.size)).mean(dtype=np.float64)) for a in SMOOTHING)


def _first_tokens(shards: Sequence[TokenShard], count: int) -> NDArray[np.int32]:
    parts: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
    for shard in shards:
        parts.append(np.asarray(shard.tokens[:count], np.int32))
        count -= parts[-1].size
    return np.concatenate(parts)
