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
    from pathlib import Path

FILTER_NEEDS = ("fasteners", "regex")
"""Modules that datatrove's filters need beside its core."""
DEDUP_NEEDS = ("regex", "xxhash")
TOKENIZER_NEEDS = ("tokenizers",)


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


def word_pattern() -> str:
    """The pattern of :func:`regex_words`, for the module ``regex``."""
    unspaced = "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last, _ in CONTINUOUS_RANGES)
    return rf"[{unspaced}]\p{{M}}*|[^\W_{unspaced}]+"
