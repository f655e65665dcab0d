"""datatrove's own blocks, set up as its users would, without their executor's processes: blocks run in a row, here.

Everything that departs from datatrove's defaults does so to make it faster or to make its output comparable, and says
so where it stands. All of it is imported inside functions, so that no other contender pays for it.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

from lola_data.unicode_tables import CONTINUOUS_RANGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILTER_NEEDS = ("fasteners", "regex")
"""Modules that datatrove's filters need beside its core."""
DEDUP_NEEDS = ("regex", "xxhash")
GIGATOKEN_NEEDS = ("gigatoken",)
# gigatoken converts the model.
TOKENIZER_NEEDS = ("tokenizers", *GIGATOKEN_NEEDS)


def quiet() -> None:
    """No log lines: they would cost time and say nothing."""
    from datatrove.utils.logging import logger

    logger.remove()


def run_blocks(*blocks: Any, rank: int = 0, world_size: int = 1) -> None:
    """Pass documents through blocks, as datatrove's executor does inside one task."""
    data: Any = None
    for block in blocks:
        data = block(data, rank, world_size)
    if data:
        deque(data, maxlen=0)


def reader(root: Path, **options: Any) -> Any:
    """All shards of a tree in the order of their paths."""
    from datatrove.pipeline.readers import ParquetReader

    return ParquetReader(str(root), **options)


def writer(folder: Path, schema: Any) -> Any:
    """One Parquet file, zstd as ours, a column per field as ours."""
    from datatrove.pipeline.writers import ParquetWriter

    return ParquetWriter(str(folder), compression="zstd", expand_metadata=True, schema=schema)


def language_filter(model: Path, **options: Any) -> Any:
    """``LanguageFilter`` with a model file in the place of the one it would download."""
    from datatrove.pipeline.filters import LanguageFilter
    from datatrove.utils.lid import FT176LID
    from fasttext.FastText import _FastText

    class LocalModel(FT176LID):
        """Loaded here and now: the file need not be copied into a cache."""

        @property
        def model(self) -> Any:
            if self._model is None:
                self._model = _FastText(str(model))
            return self._model

    block = LanguageFilter(**options)
    block.model = LocalModel(block.languages)
    assert block.model.model is not None
    return block


def regex_words() -> Any:
    """A word tokenizer for datatrove's hook ``language=``: runs of letters, marks and numbers, single characters in
    scripts without spaces. It stands in for spaCy and others, which take most of the time of MinHash."""
    import regex
    from datatrove.utils.word_tokenizers import WordTokenizer

    find = regex.compile(word_pattern()).findall

    class RegexWords(WordTokenizer):
        """Words by one pattern."""

        def word_tokenize(self, text: str) -> list[str]:
            """The words of a text."""
            return find(text)

        def sent_tokenize(self, text: str) -> list[str]:
            """Not used by MinHash."""
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            """Not used by MinHash."""
            raise NotImplementedError

    return RegexWords()


def text_hashing(signature: Any) -> Any:
    """Let a ``MinhashDedupSignature`` hash strings with xxhash 4, which takes bytes only; datatrove 0.10.1 hands it
    strings, as older releases allowed."""
    from xxhash import xxh64_intdigest

    signature._hash_func = lambda text: xxh64_intdigest(text.encode())
    return signature


def minhash(out: Path, *, ngram: int, bands: int, rows: int) -> Callable[[Any], Any]:
    """MinHash, loaded: called with a reader it runs stages 1 to 3 into ``out`` and returns the filter of stage 4."""
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    signatures, buckets, remove = (str(out / name) for name in ("signatures", "buckets", "remove"))
    config = MinhashConfig(n_grams=ngram, num_buckets=bands, hashes_per_bucket=rows)
    sign = text_hashing(MinhashDedupSignature(signatures, config=config, language=regex_words()))
    assert sign.get_signature(sign.get_shingles("to warm up a few words are enough"))

    def find(documents: Any) -> Any:
        run_blocks(documents, sign)
        for rank in range(bands):
            # One record at a time is the default; whole buckets are faster (its own documentation of the option).
            run_blocks(
                MinhashDedupBuckets(signatures, buckets, config=config, lines_to_buffer=-1),
                rank=rank,
                world_size=bands,
            )
        run_blocks(MinhashDedupCluster(buckets, remove, config=config, lines_to_buffer=-1))
        return MinhashDedupFilter(remove)

    return find


def tokenizer(out: Path, model: Path, *, eod: str, batch_size: int) -> Any:
    """Hugging Face's tokenizers, documents in order: shuffling them, the default, would write all tokens twice."""
    from datatrove.pipeline.tokens import DocumentTokenizer

    block = DocumentTokenizer(
        str(out),
        str(model),
        eos_token=eod,
        batch_size=batch_size,
        shuffle_documents=False,
        save_final_metadata=False,
    )
    assert block.tokenizer.encode("warm up").ids
    return block


def word_pattern() -> str:
    """The pattern of :func:`regex_words`, for the module ``regex``."""
    unspaced = "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last, _ in CONTINUOUS_RANGES)
    return rf"[{unspaced}]\p{{M}}*|[^\W_{unspaced}]+"
