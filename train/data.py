"""The loader: token shards and weights in, the batch of any step out.

Sample k of step s is a pure function of (seed, s, k): :class:`train.mixture.LanguageMixture` names its language and how
many samples of that language came before, and :class:`DocumentStream` cuts the window of that number out of the
language's tokens. The loader has no state to save; any number of processes reads the same global batch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lola_data.errors import TrainingError
from lola_data.plain_settings import nearest
from train.mixture import CappedMixture
from train.permutation import Permutation, key_of
from train.shard_cache import CachedShard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


class _Block(NamedTuple):
    """Documents of one block of the index of a pass. Lists, for single items of arrays are slow to get at.

    Attributes:
        documents: in the order of the pass, numbered over all shards.
        starts: where each begins in the pass, in tokens; one more: where the block ends.
        shards: of each.
        firsts: where each begins in its shard, in tokens.
    """

    documents: list[int]
    starts: list[int]
    shards: list[int]
    firsts: list[int]


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
        self._tokens = [
            shard.tokens if isinstance(shard, CachedShard) else np.asarray(shard.tokens) for shard in shards
        ]
        self._first_document = np.cumsum([0, *(shard.num_documents for shard in shards)])
        self._passes: dict[int, tuple[Permutation, NDArray[np.int64]]] = {}
        self._block: tuple[tuple[int, int], _Block] | None = None

    def read(self, start: int, count: int) -> NDArray[np.int64]:
        """Tokens ``start`` to ``start + count`` of the stream, int64[count]."""
        out = np.empty(count, np.int64)
        self.read_into(out, start)
        return out

    def read_into(self, out: NDArray[np.int64], start: int) -> None:
        """Fill ``out``, int64[count], with the tokens from ``start`` on."""
        filled, count, sources = 0, out.size, self._tokens
        while filled < count:
            epoch, offset = divmod(start + filled, self.num_tokens)
            block = self._block_at(epoch, offset)
            starts = block.starts
            place = bisect_right(starts, offset) - 1
            # The loop of :meth:`spans` once more, without its tuples: this is what the speed of the loader hangs on.
            while filled < count and place < len(block.firsts):
                width = min(starts[place + 1] - offset, count - filled)
                first = block.firsts[place] + offset - starts[place]
                out[filled : filled + width] = sources[block.shards[place]][first : first + width]
                filled, offset, place = filled + width, offset + width, place + 1

    def spans(self, start: int, count: int) -> Iterator[Span]:
        """The stretches of documents that tokens ``start`` to ``start + count`` of the stream are made of."""
        end = start + count
        while start < end:
            epoch, offset = divmod(start, self.num_tokens)
            block = self._block_at(epoch, offset)
            place = bisect_right(block.starts, offset) - 1
            while start < end and place < len(block.documents):
                inside = offset - block.starts[place]
                width = min(block.starts[place + 1] - offset, end - start)
                if width:
                    shard = block.shards[place]
                    document = block.documents[place] - int(self._first_document[shard])
                    yield Span(shard, document, inside, inside + width, epoch)
                start, offset, place = start + width, offset + width, place + 1

    def _block_at(self, epoch: int, offset: int) -> _Block:
        """The block of the index that holds ``offset`` of a pass."""
        order, index = self._pass(epoch)
        number = int(index.searchsorted(offset, side="right")) - 1
        if self._block is None or self._block[0] != (epoch, number):
            documents = order(np.arange(number * _BLOCK, min((number + 1) * _BLOCK, self.num_documents)))
            first = int(index[number])
            starts = [first, *(first + np.cumsum(self._lengths(documents))).tolist()]
            firsts = np.empty(documents.size, np.int64)
            owners = [0] * documents.size if len(self.shards) == 1 else self._owners(documents).tolist()
            for shard, mine, own in self._by_shard(documents):
                firsts[mine] = self.shards[shard].pointers[own] // self.shards[shard].dtype.itemsize
            self._block = ((epoch, number), _Block(documents.tolist(), starts, owners, firsts.tolist()))
        return self._block[1]

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
        lengths = np.empty(documents.size, np.int64)
        for shard, mine, own in self._by_shard(documents):
            lengths[mine] = self.shards[shard].lengths[own]
        return lengths

    def _by_shard(
        self, documents: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.bool_] | slice, NDArray[np.int64]]]:
        """Each shard that has some of ``documents``, which ones, and their numbers in it."""
        if len(self.shards) == 1:
            yield 0, slice(None), documents
            return
        owners = self._owners(documents)
        for shard in np.unique(owners):
            mine = owners == shard
            yield int(shard), mine, documents[mine] - self._first_document[shard]

    def _owners(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._first_document, documents, side="right") - 1


class Loader:
    """Batches of a run.

    Window j of a language is tokens j * seq_len to (j + 1) * seq_len of its stream, and one more as the last target, so
    a pass shows each token once as a target. A language with fewer tokens than a window repeats within it; one with
    none, or without a shard, takes no part, and the others share its weight.

    Under a cap of E epochs a language of N tokens has floor(E * N / seq_len) windows. With the sample of its last one
    it is used up, and from the next sample on the others share its weight; a language with no window at all takes no
    part. Which sample that is hangs on seed, weights and sizes alone, never on who reads.

    Args:
        shards: training shards by language.
        weights: share of the samples by language, in any scale.
        seq_len: tokens in a sequence.
        batch_size: sequences in a global batch.
        seed: of everything random here.
        max_epochs: most passes over a language: one number for all, or by language, where one that is not named has no
            cap; None: no cap.

    Attributes:
        languages: those that take part, in order.
        unused: languages with a weight that take no part: no tokens, or no whole window under their cap.
        steps: batches that there are before all languages are used up; None: there is no end.

    Raises:
        TrainingError: no language has both tokens and weight, a cap that is not above 0, or one for a language that is
            not there.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[TokenShard]],
        weights: Mapping[str, float],
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        max_epochs: Mapping[str, float] | float | None = None,
    ) -> None:
        streams = {name: DocumentStream(parts, key_of("stream", seed, name)) for name, parts in shards.items()}
        used = {name: weights.get(name, 0.0) for name, stream in streams.items() if stream.num_tokens}
        if not any(used.values()):
            raise TrainingError("no language has both training tokens and a weight above 0; check the token manifest")
        most = {
            name: int(Fraction(cap) * streams[name].num_tokens / seq_len)
            for name, cap in _caps(max_epochs, list(streams)).items()
        }
        self.mixture = CappedMixture(used, seed, most)
        if not self.mixture.languages:
            raise TrainingError(
                f"max_epochs: no language has one sequence of {seq_len:,} tokens under its cap; raise the caps"
            )
        self.languages = self.mixture.languages
        self.unused = sorted(name for name in weights if weights[name] > 0 and name not in self.languages)
        self.streams = [streams[name] for name in self.languages]
        self.seq_len, self.batch_size = seq_len, batch_size
        self.steps = None if self.mixture.end is None else self.mixture.end // batch_size
        self._next: tuple[int, NDArray[np.int64]] = (0, np.zeros(len(self.languages), np.int64))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Rows rank, rank + world, rank + 2 * world, ... of the global batch of ``step``.

        Raises:
            TrainingError: the languages are used up before the end of that batch.
        """
        language_B, window_B = self._plan(step)
        language_R, window_R = language_B[rank::world].tolist(), window_B[rank::world].tolist()
        tokens = np.empty((len(language_R), self.seq_len + 1), np.int64)
        for row, language, window in zip(tokens, language_R, window_R, strict=True):
            self.streams[language].read_into(row, window * self.seq_len)
        return Batch(tokens, language_B[rank::world])

    def documents(self, step: int, sample: int) -> tuple[str, list[Span]]:
        """Language of sample ``sample`` of ``step``, and the stretches of documents it is made of.

        Raises:
            TrainingError: as :meth:`batch`.
        """
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
        if self.steps is not None and step >= self.steps:
            raise TrainingError(
                f"step {step + 1:,}: under max_epochs the languages are used up after {self.steps:,} steps of "
                f"{self.batch_size * self.seq_len:,} tokens; raise max_epochs or train on fewer tokens"
            )
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


def _caps(max_epochs: Mapping[str, float] | float | None, languages: list[str]) -> dict[str, float]:
    """The cap of each language that has one."""
    if max_epochs is None:
        return {}
    caps = dict(max_epochs) if isinstance(max_epochs, Mapping) else {name: float(max_epochs) for name in languages}
    for name, cap in caps.items():
        if name not in languages:
            raise TrainingError(f"max_epochs: no training shard of language {name!r}; {nearest(name, languages)}")
        if not (math.isfinite(cap) and cap > 0):
            raise TrainingError(f"max_epochs: the cap of {name!r} is {cap}; caps are above 0 (weight 0 leaves one out)")
    return caps
