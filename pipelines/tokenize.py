"""The stage tokenize: sampled/<lang>/ -> tokens/<split>/<lang>_00000.{bin,idx}, ready for the trainer and for Megatron.

A unit of work is a piece of one language's shards. Its documents are parted into ``train`` and ``valid`` by hash of
(seed, id), so that a language of two or more documents has some in both, encoded, each followed by the end-of-document
token, and written as one shard per split. Beside each shard
lies ``<lang>_00000.ids.parquet``, a row per document in the same order: its ``id``, from which the raw shard and row
can be read, and its ``tokens``, end-of-document included.

The manifest has, besides what every manifest has, ``tokenizer`` (path relative to the tree, digest, size, end of
document), ``shards`` (one entry per shard with counts and digests) and ``shares`` (of the sampling plan, if any).
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lola_data import storage
from lola_data.errors import ShardError
from lola_data.layout import TREES
from lola_data.manifest import Counts, OutputFile, UnitReport
from lola_data.sampling.methods import SamplingPlan
from lola_data.shards import ShardWriter, Unit, plan_units, read_batches
from lola_data.tokens import TokenShardWriter, token_dtype
from lola_data.unit_hash import unit_hash
from pipelines.stage import ShardStep, Stage
from tokenizer.encode import Encoder
from tokenizer.sample import DOCUMENT, check_utf8

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from lola_data.layout import Layout
    from lola_data.recipe import Recipe

STAGE = "tokenize"
TRAIN, VALID = "train", "valid"

IDS = pa.schema([pa.field("id", pa.string()), pa.field("tokens", pa.int32())])
"""Columns of ``.ids.parquet``. The running sum of ``tokens`` gives each document's place in the ``.bin`` file."""

SURE = 50
"""With so many documents expected in a part, it is empty once in e^50 languages."""


@dataclass(frozen=True, slots=True)
class TokenWork:
    """A piece of a language's shards.

    Attributes:
        unit: the piece.
        number: its number within the language, which names the token shards made of it.
        bound: documents with a hash below it are held out; None: a shard of the language cannot be read, so that its
            split is not known yet.
    """

    unit: Unit
    number: int
    bound: int | None

    @property
    def lang(self) -> str:
        """Folder of the shard."""
        return self.unit.lang

    @property
    def bytes(self) -> int:
        """Size that the sharing out goes by."""
        return self.unit.bytes

    @property
    def key(self) -> str:
        """``<lang>_<number>``, the name of the token shards."""
        return f"{self.unit.lang}_{self.number:05d}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"unit": self.unit.to_json(), "number": self.number, "bound": self.bound}


class TokenizeStep(ShardStep):
    """Token shards of each unit."""

    def __init__(
        self, layout: Layout, stage: str, *, valid_share: float, seed: int, languages: list[str] | None, unit_bytes: int
    ) -> None:
        super().__init__(layout, stage)
        self.valid_share = valid_share
        self.seed = seed
        self.languages = languages
        self.unit_bytes = unit_bytes

    def plan(self) -> list[TokenWork]:
        """The pieces of the sampled tree, numbered within each language."""
        units = plan_units(self.layout.tree("sample"), languages=self.languages, unit_bytes=self.unit_bytes)
        works: list[TokenWork] = []
        for _, group in groupby(units, key=lambda unit: unit.lang):
            pieces = list(group)
            bound: int | None = None
            # A broken shard must not keep other languages from being planned: it fails the units of its own, by name.
            with suppress(ShardError):
                bound = self.bound_of(pieces)
            works += (TokenWork(unit, number, bound) for number, unit in enumerate(pieces))
        return works

    def bound_of(self, pieces: list[Unit]) -> int:
        """Hash below which the documents of a language, whose units are ``pieces``, are held out.

        Raises:
            ShardError: a shard whose ids have to be read cannot be.
        """
        if self.valid_share * sum(unit.rows for unit in pieces) >= SURE:
            return share_bound(self.valid_share)
        tree = self.layout.tree("sample")
        batches = (batch for unit in pieces for batch in read_batches(tree, unit, DOCUMENT, columns=["id"]))
        return held_out_bound((batch["id"] for batch in batches), self.valid_share, self.seed)

    def work_from_json(self, value: dict[str, Any]) -> TokenWork:
        """The inverse of :meth:`TokenWork.to_json`."""
        return TokenWork(Unit(**value["unit"]), value["number"], value["bound"])

    def process(self, work: TokenWork) -> UnitReport:
        """Encode one unit and write its shards; a split without a document gets none."""
        bound = work.bound
        if bound is None:  # raises unless the shard has been mended since
            tree = self.layout.tree("sample")
            bound = self.bound_of(plan_units(tree, languages=[work.lang], unit_bytes=self.unit_bytes))
        encoder = load_encoder(model_path(self.layout))
        report = UnitReport(work.key)
        writers: dict[str, SplitWriter] = {}
        with ExitStack() as stack:
            for batch in read_batches(self.layout.tree("sample"), work.unit, DOCUMENT):
                check_utf8(batch["text"], batch["id"], work.lang)
                report.take(work.lang, Counts.of(batch["text"]))
                held_out = held_out_mask(batch["id"], bound, self.seed)
                for split, chosen in ((TRAIN, ~held_out), (VALID, held_out)):
                    if not chosen.any():
                        continue
                    if split not in writers:
                        writer = SplitWriter(self.layout.tree(STAGE), split, work.key, encoder)
                        writers[split] = stack.enter_context(writer)
                    counts = writers[split].write(batch if chosen.all() else batch.filter(pa.array(chosen)))
                    report.give(work.lang, counts)
        for split, writer in sorted(writers.items()):
            report.files += writer.files
            report.extra.setdefault("shards", []).append(
                {
                    "path": f"{split}/{work.key}",
                    "split": split,
                    "lang": work.lang,
                    "documents": writer.counts.documents,
                    "tokens": writer.counts.tokens,
                    "bytes": writer.counts.bytes,
                    "sha256": writer.digests,
                }
            )
        return report


class SplitWriter:
    """Writes the token shard of one unit and split, and the ids of its documents; a context manager.

    Args:
        root: the token tree, local or a URL. A shard for a URL is written to a temporary folder and then uploaded.
        split: ``train`` or ``valid``.
        name: of the shard.
        encoder: of the texts.
    """

    def __init__(self, root: str, split: str, name: str, encoder: Encoder) -> None:
        self.counts = Counts()
        self.files: list[OutputFile] = []
        self.digests: dict[str, str] = {}
        self._root, self._split, self._name = root, split, name
        self._encoder = encoder
        self._stack = ExitStack()

    def __enter__(self) -> SplitWriter:
        with ExitStack() as opening:
            folder = opening.enter_context(_folder(storage.join(self._root, self._split)))
            opening.push(lambda kind, *_: None if kind else self._note_files(folder))
            prefix = folder / self._name
            # The ids are closed before the index of the shard appears, and with it the shard.
            dtype = token_dtype(self._encoder.vocab_size)
            self._tokens = opening.enter_context(TokenShardWriter(prefix, dtype, durable=False))
            self._ids = opening.enter_context(ShardWriter(f"{prefix}.ids.parquet", IDS))
            self._stack = opening.pop_all()
        return self

    def write(self, batch: pa.RecordBatch) -> Counts:
        """Encode and add documents (columns ``id`` and ``text``, valid UTF-8); returns their sizes."""
        ids, lengths = self._encoder.encode(batch["text"], checked=True)
        ids = np.insert(ids, np.cumsum(lengths), self._encoder.eod_id)
        lengths = lengths + 1
        self._tokens.add_documents(ids, lengths)
        self._ids.write(pa.RecordBatch.from_arrays([batch["id"], pa.array(lengths.astype(np.int32))], schema=IDS))
        counts = Counts.of(batch["text"], tokens=int(ids.size))
        self.counts += counts
        return counts

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stack.__exit__(kind, error, trace)

    def _note_files(self, folder: Path) -> None:
        self.digests = dict(self._tokens.digests)
        for suffix in ("bin", "idx", "ids.parquet"):
            path = folder / f"{self._name}.{suffix}"
            if path.exists():
                relative = storage.join(TREES[STAGE], self._split, path.name)
                self.files.append(OutputFile(relative, path.stat().st_size, self.counts.documents))


@contextmanager
def _folder(target: str) -> Iterator[Path]:
    """A local folder to write to: ``target`` itself, or a temporary one that is uploaded to ``target`` at the end."""
    if not storage.is_remote(target):
        folder = storage.local_path(target)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        # In this order the index, which says that a shard is whole, comes last.
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".idx", path.name)):
            with path.open("rb") as source, storage.atomic_output(storage.join(target, path.name)) as handle:
                shutil.copyfileobj(source, handle, 2**23)


def held_out_mask(ids: pa.Array, bound: int, seed: int) -> NDArray[np.bool_]:
    """Which documents are held out, bool[N]: those whose hash of (seed, id) lies below ``bound``."""
    return unit_hash(seed, ids, "valid") < np.uint64(bound)


def held_out_bound(ids: Iterable[pa.Array], valid_share: float, seed: int) -> int:
    """The bound for :func:`held_out_mask` of a language whose documents are ``ids``, in any order and pieces.

    It is ``valid_share`` of the range of the hashes, but moved, where need be, so that of two or more documents one at
    least is held out and one is left to train on: the one with the lowest and the one with the highest hash.
    """
    if not valid_share:
        return 0
    lowest, highest = 2**64, -1
    for part in ids:
        hashes = unit_hash(seed, part, "valid")
        if hashes.size:
            lowest, highest = min(lowest, int(hashes.min())), max(highest, int(hashes.max()))
    if lowest >= highest:  # one document, or none
        return 0
    return min(max(share_bound(valid_share), lowest + 1), highest)


def share_bound(valid_share: float) -> int:
    """``valid_share`` of the range of the hashes."""
    return int(valid_share * 2**64)


def model_path(layout: Layout) -> str:
    """The tokenizer of a corpus."""
    return storage.join(layout.tree("tokenizer"), "tokenizer.model")


def load_encoder(path: str) -> Encoder:
    """The encoder of a model file, loaded once per process and version of the file."""
    try:
        sha256 = hashlib.sha256(storage.read_bytes(path)).hexdigest()
    except OSError:
        sha256 = ""  # the encoder says what is wrong
    return _load_encoder(path, sha256)


@lru_cache(maxsize=1)
def _load_encoder(path: str, sha256: str) -> Encoder:
    return Encoder(path)


def sampling_shares(layout: Layout) -> dict[str, float]:
    """Share of each language in training, of the sampling plan beside the sampled shards; empty without one."""
    path = storage.join(layout.tree("sample"), "plan.json")
    if not storage.exists(path):
        return {}
    plan = SamplingPlan.from_json(storage.read_json(path))
    return {lang: budget.share for lang, budget in sorted(plan.languages.items())}


@dataclass
class TokenizeStage(Stage):
    """The stage, with the tokenizer, the shards and the shares in its manifest."""

    def finish(self, reports: list[UnitReport], fingerprint: dict[str, Any]) -> dict[str, Any]:
        """The manifest with the keys ``tokenizer``, ``shards`` and ``shares``."""
        path = model_path(self.layout)
        encoder = load_encoder(path)
        tree = self.layout.tree(STAGE)
        if storage.is_remote(path) and storage.is_remote(tree):
            if path.split("/")[:3] == tree.split("/")[:3]:  # On the same store: the protocol, and the bucket.
                path = posixpath.relpath(path.partition("://")[2], tree.partition("://")[2])
        elif not (storage.is_remote(path) or storage.is_remote(tree)):
            path = Path(os.path.relpath(storage.local_path(path), storage.local_path(tree))).as_posix()
        shards = [shard for report in reports for shard in report.extra.get("shards", [])]
        self.extra = {
            "tokenizer": {
                "path": path,
                "sha256": encoder.sha256,
                "vocab_size": encoder.vocab_size,
                "eod_id": encoder.eod_id,
            },
            "shards": sorted(shards, key=lambda shard: shard["path"]),
            "shares": sampling_shares(self.layout),
        }
        return super().finish(reports, fingerprint)


def build(recipe: Recipe, layout: Layout) -> Stage:
    """The stage as the recipe sets it up."""
    section = recipe.tokenize
    step = TokenizeStep(
        layout,
        STAGE,
        valid_share=section.valid_share,
        seed=recipe.seed,
        languages=recipe.selected,
        unit_bytes=recipe.unit_bytes,
    )
    settings = {
        **section.model_dump(),
        "seed": recipe.seed,
        "languages": recipe.languages,
        "unit_mb": recipe.unit_mb,
    }
    return TokenizeStage(STAGE, layout, [step], settings, ["sample", "tokenizer"])
