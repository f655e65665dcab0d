"""The loader: token shards and weights in, the batch of any step out.

Sample k of step s is a pure function of (seed, s, k): :class:`train.mixture.LanguageMixture` names its language and how
many samples of that language came before, and :class:`DocumentStream` cuts the window of that number out of the
language's tokens. The loader has no state to save; any number of processes reads the same global batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lola_data.errors import TrainingError
from train.mixture import LanguageMixture
from train.permutation import Permutation, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from lola_data.tokens import TokenShard

_BLOCK = 1024
"""Documents between two entries of the index of a pass."""


class Span(NamedTuple):
    """A stretch of one document inside a stream: tokens ``start`` to ``stop`` of ``document`` of shard ``shard``."""

    shard: int
    document: int
    start: int
    stop: int
    epoch: int


class Batch(NamedTuple):
    """Rows of a global batch.

    Attributes:
        tokens: int64[rows, seq_len + 1]; inputs are all but the last, targets all but the first.
        language: int64[rows], index into ``Loader.languages``.
    """

    tokens: NDArray[np.int64]
    language: NDArray[np.int64]


class DocumentStream:
    """The endless token stream of one language: pass after pass over its documents, each pass in a fresh random order
    that holds every document once, document after document without a gap.

    To find the document at a position, a pass keeps the running number of tokens at every 1,024th place of its order: 8
    bytes for 1,024 documents (60 million documents: 0.5 MB), built in one sweep over the lengths when the pass is
    entered. The documents between two entries are shuffled and summed again when a window falls among them. That sweep,
    a few seconds for tens of millions of documents, is the price for packing whole documents; a permutation of fixed
    windows would need none, but would cut the same documents at the same places in every pass.

    Args:
        shards: the shards of the language.
        key: what the order hangs on beside the number of the pass.
    """

    def __init__(self, shards: Sequence[TokenShard], key: int) -> None:
        self.shards = list(shards)
        self.key = key
        self.num_tokens = sum(shard.num_tokens for shard in shards)
        self.num_documents = sum(shard.num_documents for shard in shards)
        # Plain arrays on the mapped memory: slicing an np.memmap costs several times as much.
        self._tokens = [np.asarray(shard.tokens) for shard in shards]
        self._first_document = np.cumsum([0, *(shard.num_documents for shard in shards)])
        self._passes: dict[int, tuple[Permutation, NDArray[np.int64]]] = {}
        self._block: tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64]] | None = None

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Tokens ``start`` to ``start + count`` of the stream, int64[count]."""
        out = np.empty(count, np.int64)
        filled = 0
        for span in self.spans(start, count):
            shard = self.shards[span.shard]
            first = int(shard.pointers[span.document]) // shard.dtype.itemsize
            width = span.stop - span.start
            out[filled : filled + width] = self._tokens[span.shard][first + span.start : first + span.stop]
            filled += width
        return out

    def spans(self, start: int, count: int) -> Iterator[Span]:
        """The stretches of documents that tokens ``start`` to ``start + count`` of the stream are made of."""
        end = start + count
        while start < end:
            epoch, offset = divmod(start, self.num_tokens)
            documents, starts = self._documents_at(epoch, offset)
            place = int(starts.searchsorted(offset, side="right")) - 1
            while start < end and place < documents.size:
                inside = offset - int(starts[place])
                width = min(int(starts[place + 1]) - offset, end - start)
                if width:
                    shard = int(self._first_document.searchsorted(documents[place], side="right")) - 1
                    document = int(documents[place] - self._first_document[shard])
                    yield Span(shard, document, inside, inside + width, epoch)
                start, offset, place = start + width, offset + width, place + 1

    def _documents_at(self, epoch: int, offset: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Documents of the index block that holds ``offset``, int64[n], and their starts in the pass, int64[n+1]."""
        order, index = self._pass(epoch)
        block = int(index.searchsorted(offset, side="right")) - 1
        if self._block is None or self._block[0] != (epoch, block):
            documents = order(np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.num_documents)))
            starts = np.concatenate([[index[block]], index[block] + np.cumsum(self._lengths(documents))])
            self._block = ((epoch, block), documents, starts)
        return self._block[1], self._block[2]

    def _pass(self, epoch: int) -> tuple[Permutation, NDArray[np.int64]]:
        if epoch not in self._passes:
            order = Permutation(self.num_documents, key_of(self.key, epoch))
            sums = [0]
            sweep = 64 * _BLOCK  # small enough for the shuffle to stay in the cache
            for first in range(0, self.num_documents, sweep):
                places = np.arange(first, min(first + sweep, self.num_documents))
                lengths = self._lengths(order(places))
                sums.extend(np.add.reduceat(lengths, np.arange(0, places.size, _BLOCK)).tolist())
            self._passes = {key: value for key, value in self._passes.items() if key == epoch - 1}
            self._passes[epoch] = (order, np.cumsum(np.array(sums, np.int64))[:-1])
        return self._passes[epoch]

    def _lengths(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(self.shards) == 1:
            return self.shards[0].lengths[documents].astype(np.int64)
        lengths = np.empty(documents.size, np.int64)
        owner = np.searchsorted(self._first_document, documents, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            lengths[mine] = self.shards[number].lengths[documents[mine] - self._first_document[number]]
        return lengths


class Loader:
    """Batches of a run.

    Window j of a language is tokens j * seq_len to (j + 1) * seq_len of its stream, and one more as the last target, so
    a pass shows each token once as a target. A language with fewer tokens than a window repeats within it; one with
    none, or without a shard, takes no part, and the others share its weight.

    Args:
        shards: training shards by language.
        weights: share of the samples by language, in any scale.
        seq_len: tokens in a sequence.
        batch_size: sequences in a global batch.
        seed: of everything random here.

    Raises:
        TrainingError: no language has both tokens and weight.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[TokenShard]],
        weights: Mapping[str, float],
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
    ) -> None:
        streams = {name: DocumentStream(parts, key_of("stream", seed, name)) for name, parts in shards.items()}
        used = {name: weights.get(name, 0.0) for name, stream in streams.items() if stream.num_tokens}
        if not any(used.values()):
            raise TrainingError("no language has both training tokens and a weight above 0; check the token manifest")
        self.mixture = LanguageMixture(used, seed)
        self.languages = self.mixture.languages
        self.unused = sorted(name for name in weights if weights[name] > 0 and name not in self.languages)
        self.streams = [streams[name] for name in self.languages]
        self.seq_len, self.batch_size = seq_len, batch_size
        self._next: tuple[int, NDArray[np.int64]] = (0, np.zeros(len(self.languages), np.int64))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Rows rank, rank + world, rank + 2 * world, ... of the global batch of ``step``."""
        language_B, window_B = self._plan(step)
        mine = range(rank, self.batch_size, world)
        tokens = np.empty((len(mine), self.seq_len + 1), np.int64)
        for row, sample in enumerate(mine):
            stream = self.streams[language_B[sample]]
            tokens[row] = stream.read(int(window_B[sample]) * self.seq_len, self.seq_len + 1)
        return Batch(tokens, language_B[rank::world])

    def documents(self, step: int, sample: int) -> tuple[str, list[Span]]:
        """Language of sample ``sample`` of ``step``, and the stretches of documents it is made of."""
        language_B, window_B = self._plan(step)
        language = int(language_B[sample])
        spans = self.streams[language].spans(int(window_B[sample]) * self.seq_len, self.seq_len + 1)
        return self.languages[language], list(spans)

    def epochs(self, step: int) -> dict[str, float]:
        """Passes over each language that the first ``step`` steps made."""
        counts = self._counts(step)
        return {
            name: float(count) * self.seq_len / stream.num_tokens
            for name, count, stream in zip(self.languages, counts, self.streams, strict=True)
        }

    def _plan(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Language int64[batch_size] and number of the window inside it, int64[batch_size], of each sample."""
        language_B = self.mixture.of_samples(step * self.batch_size, self.batch_size)
        before = self._counts(step)
        order = np.argsort(language_B, kind="stable")
        counts = np.bincount(language_B, minlength=len(self.languages))
        rank_B = np.empty_like(order)
        rank_B[order] = np.arange(self.batch_size) - np.repeat(np.cumsum(counts) - counts, counts)
        self._next = (step + 1, before + counts)
        return language_B, before[language_B] + rank_B

    def _counts(self, step: int) -> NDArray[np.int64]:
        # Steps mostly come in order: then the sums of floors, some microseconds a language, need not be computed.
        return self._next[1] if step == self._next[0] else self.mixture.counts_before(step * self.batch_size)
