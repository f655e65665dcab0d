"""How well a model foretells text: documents by language in, nats per token, perplexity and bits per byte out.

The documents of a language stand one after the other, an end-of-document token behind each, and are cut in windows of
``seq_len`` tokens that do not overlap. Every token, the end-of-document tokens among them, is scored once: it is
predicted from the tokens before it in its window (of its own document alone, where the model was trained so), and the
first of all from an end-of-document token. This is what :mod:`train.evaluate` does with the held-out tokens of a run.

    loss          = sum of -ln p(token) / tokens                         nats per token
    perplexity    = exp(loss)
    bits per byte = sum of -ln p(token) / ln 2 / UTF-8 bytes of the text

Both sums run over all scored tokens, those of end of document too; these add to the numerator and have no byte. Nothing
is drawn and no expert drops a token, so the same weights and text give the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from train.model import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from train.model import Decoder


@dataclass(frozen=True)
class Document:
    """A document to score, or a piece of one.

    Attributes:
        lang: its language.
        ids: its tokens, int[N], with the end-of-document token where it ends.
        bytes: UTF-8 bytes of its text.
        documents: how many documents begin with it: 1, or 0 for a piece that goes on with one, or more for a whole
            stretch of a token shard.
    """

    lang: str
    ids: NDArray[np.integer]
    bytes: int
    documents: int = 1


@dataclass
class Score:
    """What was scored of a language.

    Attributes:
        documents: begun.
        tokens: scored.
        bytes: UTF-8 bytes of the text these stand for.
        nll: sum of -ln p over these tokens.
    """

    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    nll: float = 0.0

    @property
    def loss(self) -> float:
        """Nats per token; NaN of nothing."""
        return self.nll / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss), infinite beyond the range of floats."""
        return math.exp(self.loss) if not self.loss > 709 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """NaN where the text has no byte."""
        return self.nll / math.log(2) / self.bytes if self.bytes else math.nan


@dataclass
class _Language:
    score: Score = field(default_factory=Score)
    last: int = 0
    """The token before the next one."""
    waiting: list[NDArray[np.integer]] = field(default_factory=list)
    """Tokens that do not fill a window yet."""
    count: int = 0


@torch.no_grad()
def score_documents(
    model: Decoder,
    documents: Iterable[Document],
    *,
    rows: int,
    autocast: torch.dtype | None = None,
    told: Callable[[str, Score], None] | None = None,
) -> dict[str, Score]:
    """Score documents, languages in any order; they are read as they come, and ``rows`` windows kept at a time.

    Args:
        model: in evaluation mode.
        documents: those of a language in order.
        rows: windows in one forward pass. Up to the rounding of sums it does not change the result.
        autocast: type that a forward pass computes in where that is safe; None: that of the weights.
        told: called behind each document with its language and what of that was read so far.

    Returns:
        The score of each language, sorted by name.
    """
    width, device = model.config.seq_len, model.tokens.weight.device
    languages: dict[str, _Language] = {}
    windows: list[tuple[str, NDArray[np.int64], NDArray[np.int64]]] = []

    def run() -> None:
        if not windows:
            return
        inputs = torch.from_numpy(np.stack([inputs for _, inputs, _ in windows])).to(device)
        targets = torch.from_numpy(np.stack([targets for _, _, targets in windows])).to(device)
        with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            nll_BS = model(inputs, targets).nll_BS
        for (lang, _, _), nll in zip(windows, nll_BS.double().sum(1).tolist(), strict=True):
            languages[lang].score.nll += nll
        windows.clear()

    def cut(lang: str, *, rest: bool) -> None:
        state = languages[lang]
        ids = np.concatenate([np.zeros(0, np.int64), *state.waiting]).astype(np.int64)
        whole = ids.size if rest else ids.size // width * width
        for first in range(0, whole, width):
            target = ids[first : first + width]
            inputs, targets = np.full(width, model.eod_id), np.full(width, IGNORE)
            targets[: target.size] = target
            inputs[0] = state.last
            inputs[1 : target.size + 1] = target[: width - 1]
            state.last = int(target[-1])
            windows.append((lang, inputs, targets))
            if len(windows) == rows:
                run()
        state.waiting, state.count = [ids[whole:]], ids.size - whole

    for document in documents:
        state = languages.setdefault(document.lang, _Language(last=model.eod_id))
        state.score.documents += document.documents
        state.score.tokens += document.ids.size
        state.score.bytes += document.bytes
        state.waiting.append(document.ids)
        state.count += document.ids.size
        if state.count >= width:
            cut(document.lang, rest=False)
        if told is not None:
            told(document.lang, state.score)
    for lang in sorted(languages):
        cut(lang, rest=True)
    run()
    return {lang: languages[lang].score for lang in sorted(languages) if languages[lang].score.tokens}


def mean_score(scores: dict[str, Score]) -> dict[str, float]:
    """``loss``, ``perplexity`` (exp of that loss) and ``bits_per_byte``, means over languages that count the same."""
    if not scores:
        return {"loss": math.nan, "perplexity": math.nan, "bits_per_byte": math.nan}
    loss = math.fsum(score.loss for score in scores.values()) / len(scores)
    bits = [score.bits_per_byte for score in scores.values() if score.bytes]
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if not loss > 709 else math.inf,
        "bits_per_byte": math.fsum(bits) / len(bits) if bits else math.nan,
    }
