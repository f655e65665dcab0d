"""What is to be scored: paths of text or tokens in, documents as token ids out.

Text is a tree ``<lang>/*.parquet`` with a column ``text``, one .parquet file, a file with one JSON object a line
(``text``, and ``lang`` if it has several languages), or a .txt file. Tokens are a token tree or shards of one. Text is
encoded as :mod:`lola_data.tokens` shards are, so that the same documents give the same ids either way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lola_data import storage
from lola_data.errors import RecipeError, ShardError, TrainingError
from lola_data.object_store import BLOCK_BYTES
from lola_data.remote_tokens import RemoteTokenShard, open_token_shard
from train.score import Document
from train.text import encode, token_bytes
from train.token_tree import check_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lola_data.balance.trees import Shard
    from lola_data.tokens import TokenShard
    from train.generate import LoadedRun

_JSON = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2")
_TOKENS_AT_A_TIME = 2**20


@dataclass
class Skipped:
    """Documents of a language that were not scored."""

    invalid: int = 0
    """Not valid UTF-8."""
    empty: int = 0

    def __str__(self) -> str:
        parts = ((self.invalid, "not valid UTF-8"), (self.empty, "empty"))
        return ", ".join(f"{count:,} {reason}" for count, reason in parts if count)


@dataclass
class ScoreInput:
    """The documents under some paths, as an iterable of :class:`train.score.Document`.

    Args:
        paths: see above.
        run: whose tokenizer encodes text and is that of the tokens.
        languages: only these; none: all.
        split: of token trees; None: ``valid`` where a tree has it, else all there is.
        max_tokens: most tokens of a language; the last document may be cut.
        documents: most documents of a language.
        per_line: each line of a .txt file is a document, rather than the file.

    Attributes:
        skipped: by language, complete when the iteration is.

    Raises:
        ShardError: a path that is not there or holds nothing to score, or a file that cannot be read.
        RecipeError: a path with more than one tree, or a language that is not there.
        TrainingError: tokens of another tokenizer than that of the run.
    """

    paths: Sequence[str]
    run: LoadedRun
    languages: Sequence[str] = ()
    split: str | None = None
    max_tokens: int | None = None
    documents: int | None = None
    per_line: bool = False
    skipped: dict[str, Skipped] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bytes = token_bytes(self.run.tokenizer, self.run.model.vocab_size)
        self._taken: dict[str, list[int]] = {}
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[Document]:
        self.skipped.clear()
        self._taken.clear()
        self._seen.clear()
        for path in self.paths:
            if path.endswith(".txt"):
                yield from self._encoded(self._text_file(path))
            elif path.endswith(_JSON):
                yield from self._encoded(self._json_file(path), one_language=False)
            else:
                yield from self._tree(path)
        for lang in self.languages:
            if lang not in self._seen:
                from lola_data.inspect.places import check_language_names

                check_language_names(sorted(self._seen) or ["nothing"], [lang], ", ".join(self.paths))

    def _wanted(self, lang: str) -> bool:
        self._seen.add(lang)
        return not self.languages or lang in self.languages

    def _left(self, lang: str) -> tuple[int, int]:
        """Tokens and documents that may still be taken."""
        tokens, documents = self._taken.setdefault(lang, [0, 0])
        most = 2**62
        return (self.max_tokens or most) - tokens, (self.documents or most) - documents

    def _encoded(self, texts: Iterator[tuple[str, bytes]], *, one_language: bool = True) -> Iterator[Document]:
        eod = self.run.model.eod_id
        for lang, data in texts:
            if not self._wanted(lang) or min(self._left(lang)) <= 0:
                if one_language:
                    return
                continue
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                self.skipped.setdefault(lang, Skipped()).invalid += 1
                continue
            if not text:
                self.skipped.setdefault(lang, Skipped()).empty += 1
                continue
            ids = np.array([*encode(self.run.tokenizer, text), eod], np.int64)
            size, (left, _) = len(data), self._left(lang)
            if ids.size > left:
                ids = ids[:left]
                size = int(self._bytes[ids].sum())
            self._take(lang, ids.size, 1)
            yield Document(lang, ids, size)

    def _take(self, lang: str, tokens: int, documents: int) -> None:
        taken = self._taken[lang]
        taken[0] += tokens
        taken[1] += documents

    def _text_file(self, path: str) -> Iterator[tuple[str, bytes]]:
        data = _read(path)
        lang = path.rpartition("/")[2].removesuffix(".txt")
        for part in data.removesuffix(b"\n").split(b"\n") if self.per_line else [data]:
            yield lang, part.removesuffix(b"\r") if self.per_line else part

    def _json_file(self, given: str) -> Iterator[tuple[str, bytes]]:
        import pyarrow as pa

        from lola_data.json_lines import read_json_lines

        if storage.is_remote(given):
            raise ShardError(f"{given}: JSON lines are read from this machine only; copy the file here")
        path = Path(given)
        if not path.is_file():
            raise ShardError(f"{path}: no such file")
        stem = path.name.partition(".json")[0].partition(".ndjson")[0]
        for batch in read_json_lines(path, {"text": "text", "lang": "lang"}, shown=str(path)):
            names = batch.column("lang").view(pa.binary()).to_pylist()
            texts = batch.column("text").view(pa.binary()).to_pylist()
            for name, text in zip(names, texts, strict=True):
                yield (name.decode("utf-8", "replace") if name else stem), text or b""

    def _tree(self, path: str) -> Iterator[Document]:
        from lola_data.balance.trees import find_trees

        trees = [tree for tree in find_trees([path]).trees if tree.shards]
        if len(trees) != 1:
            names = ", ".join(f"{path.rstrip('/')}/{tree.name}" for tree in trees) or "none"
            raise RecipeError(f"{path}: holds several trees; name the one to score: {names}")
        (tree,) = trees
        shards = sorted(tree.shards, key=lambda shard: shard.path)
        if tree.kind == "tokens":
            self._check_tokenizer(path)
            splits = {shard.split for shard in shards}
            split = self.split or ("valid" if "valid" in splits else None)
            if self.split and self.split not in splits:
                raise RecipeError(f"--split {self.split}: {path} has {', '.join(sorted(splits))}")
            for shard in shards:
                if (split is None or shard.split == split) and self._wanted(shard.lang):
                    yield from self._tokens(shard)
        else:
            for shard in shards:
                if self._wanted(shard.lang) and min(self._left(shard.lang)) > 0:
                    yield from self._encoded(_parquet_texts(shard))

    def _check_tokenizer(self, path: str) -> None:
        """Compare the tokenizer of a token tree, if its manifest is there, with that of the run."""
        above = storage.parent(path)
        places = [storage.join(folder, "manifest.json") for folder in (path, above, storage.parent(above))]
        source = next((place for place in places if storage.exists(place)), None)
        vocab_size = digest = None
        with suppress(OSError, ShardError, AttributeError):
            facts: Any = storage.read_json(source).get("tokenizer", {}) if source else {}
            vocab_size, digest = facts.get("vocab_size"), facts.get("sha256")
        size, known = self.run.model.vocab_size, self.run.tokenizer_sha256
        if vocab_size not in (None, size):
            raise TrainingError(
                f"{source}: tokens of a tokenizer of {vocab_size:,} pieces, but the run has {size:,}; score the text"
            )
        if digest and known and digest != known:
            raise TrainingError(f"{source}: tokens of another tokenizer than that of the run; score the text instead")

    def _tokens(self, shard: Shard) -> Iterator[Document]:
        opened = open_token_shard(shard.path.removesuffix(".idx").removesuffix(".bin"))
        left, documents = self._left(shard.lang)
        documents = min(documents, opened.num_documents)
        ends = np.cumsum(opened.lengths, dtype=np.int64)
        tokens = min(left, int(ends[documents - 1])) if documents > 0 else 0
        first = 0
        for ids in _stretches(opened, tokens):
            check_ids(ids, self.run.model.vocab_size, f"{opened.prefix}.bin")
            if ids.size and ids.min() < 0:
                raise TrainingError(f"{opened.prefix}.bin: token id {ids.min()} is negative; write the tokens again")
            # Those that begin in this stretch.
            begun = int(np.searchsorted(ends - opened.lengths, first + ids.size)) - int(
                np.searchsorted(ends - opened.lengths, first)
            )
            self._take(shard.lang, ids.size, begun)
            yield Document(shard.lang, ids, int(self._bytes[ids].sum()), begun)
            first += ids.size


def _stretches(shard: TokenShard, tokens: int) -> Iterator[NDArray[np.int64]]:
    """The first so many tokens of a shard, a piece after the other."""
    counts = [min(_TOKENS_AT_A_TIME, tokens - first) for first in range(0, tokens, _TOKENS_AT_A_TIME)]
    if not isinstance(shard, RemoteTokenShard):
        for number, count in enumerate(counts):
            yield np.asarray(shard.tokens[number * _TOKENS_AT_A_TIME :][:count], np.int64)
        return
    size = shard.dtype.itemsize
    with storage.open_input(f"{shard.url}.bin", ahead=min(BLOCK_BYTES, tokens * size)) as handle:
        for count in counts:
            yield np.frombuffer(handle.read(count * size), shard.dtype.newbyteorder("<")).astype(np.int64)


def _read(path: str) -> bytes:
    try:
        return storage.read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; name a text file") from error


def _parquet_texts(shard: Shard) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa

    from lola_data.shards import Unit, open_parquet, read_batches

    schema = pa.schema([pa.field("text", pa.string())])
    with open_parquet(shard.path) as file:
        groups, rows = file.metadata.num_row_groups, file.metadata.num_rows
    folder, _, name = shard.path.rpartition("/")
    unit = Unit(shard.lang, name, name, 0, groups, 0, rows, shard.size)
    for batch in read_batches(folder or ".", unit, schema):
        for text in batch.column("text").view(pa.binary()).to_pylist():
            yield shard.lang, text or b""
