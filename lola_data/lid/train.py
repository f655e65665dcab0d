"""Train a fastText classifier of languages from labelled text.

In: labelled text (:mod:`lola_data.lid.labelled`) and options. Out: a model file that ``identify.model`` takes, and
beside it a card, ``<model>.json``: what it was made from, how, and how it does on documents kept out of the training.

Part of the documents is held out by a hash of the text, so copies of a document are all on one side. The others are cut
into pieces, balanced over languages, mixed (:mod:`lola_data.lid.pieces`) and given to fastText in a process of its own.
With one thread the same input, options and build of fastText give the same bytes; fastText's several threads write to
one matrix without a lock, and then every run gives another model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lola_data import storage
from lola_data.errors import LolaError, RecipeError
from lola_data.lid.identifier import Identifier
from lola_data.lid.pieces import cut, piece_texts, training_text
from lola_data.lid.scores import Scores, score
from lola_data.unit_hash import unit_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from lola_data.lid.labelled import LabelledText

CARD_FORMAT = 1
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. docs/lid.md has what each does to accuracy and size.

    Attributes:
        epochs: times that fastText goes through the training text.
        dim: numbers in the vector of a word, an n-gram or a text.
        minn, maxn: shortest and longest n-grams of characters; maxn 0: none.
        word_ngrams: longest n-grams of words; 1: none.
        bucket: hashed n-grams share so many vectors.
        min_count: words that occur less often in the training text have no vector of their own.
        lr: learning rate at the start; it falls to 0.
        loss: ``softmax``, or ``hs``, hierarchical and faster with very many languages.
        seed: of the held-out split, the pieces and fastText.
        threads: more than one are faster, and give another model each time.
        alpha: languages share the training text in proportion to their characters to this power.
        repeats: a language's text is used at most so many times in an epoch.
        max_chars: characters of training text in an epoch at the most, and never more than there are.
        shortest, longest: characters of a piece.
        held_out: share of the documents that is kept out to measure on; 0: none.
        quantize: compress the vectors, keep only the most useful n-grams.
        cutoff: vectors that are kept where ``quantize`` is on.
    """

    epochs: int = 5
    dim: int = 32
    minn: int = 2
    maxn: int = 4
    word_ngrams: int = 1
    bucket: int = 200_000
    min_count: int = 1000
    lr: float = 1.0
    loss: str = "softmax"
    seed: int = 0
    threads: int = 1
    alpha: float = 0.3
    repeats: float = 10.0
    max_chars: int = 20_000_000
    shortest: int = 10
    longest: int = 150
    held_out: float = 0.05
    quantize: bool = False
    cutoff: int = 50_000

    def check(self) -> None:
        """Raise RecipeError for options that contradict one another."""
        if self.minn > self.maxn > 0:
            raise RecipeError(
                f"--minn {self.minn} is above --maxn {self.maxn}; n-grams of characters need minn <= maxn"
            )
        if self.shortest > self.longest:
            raise RecipeError(f"--shortest {self.shortest} is above --longest {self.longest}; swap them")


@dataclass(frozen=True)
class Trained:
    """A finished model: its file, its card as a dict, and the scores on held-out documents and on pieces of them (None
    where nothing was held out)."""

    path: Path
    card: dict[str, Any]
    documents: Scores | None
    pieces: Scores | None


def train(
    data: LabelledText,
    out: Path,
    options: TrainOptions,
    *,
    licence: str = "",
    progress: Callable[[str, float | None], None] | None = None,
) -> Trained:
    """Train a model, measure it, and write it and its card; both appear whole or not at all.

    Args:
        data: with two languages or more.
        out: the model file.
        options: see there.
        licence: a note for the card: under which terms the model may be used, given what it was made from.
        progress: told the name of a step and the share of it that is done (None: unknown).

    Raises:
        RecipeError: fewer than two languages, or options that contradict one another or the data.
        LolaError: fastText could not train; the message says why.
        ShardError: the model cannot be written.
    """
    options.check()
    tell = progress or (lambda step, share: None)
    text, codes = data.text.combine_chunks(), data.label.combine_chunks()
    names = sorted(cast("list[str]", codes.unique().to_pylist()))
    if len(names) < 2:
        raise RecipeError(f"{names[0]!r} is the only language of the data; a classifier needs two or more")
    tell("cutting documents", None)
    held = _held_out(text, codes, options)
    kept = pa.array(~held)
    content, lines = training_text(
        text.filter(kept), codes.filter(kept),
        shortest=options.shortest, longest=options.longest, alpha=options.alpha, total=options.max_chars,
        repeats=options.repeats, seed=options.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lola-lid-") as folder:
        source, target = Path(folder) / "train.txt", Path(folder) / "model"
        _write(source, content)
        del content
        _fasttext(source, target, options, tell)
        tell("measuring on held-out documents", None)
        # Loads the model as `identify` will.
        answers = Identifier(str(target))
        answers.load()
        documents = pieces = None
        if held.any():
            documents = _measure(answers, text.filter(pa.array(held)), codes.filter(pa.array(held)))
            keys = unit_hash(options.seed, text, "lid-held-out-pieces")
            short = cut(text, np.flatnonzero(held), keys, shortest=options.shortest, longest=options.longest)
            pieces = _measure(answers, piece_texts(text, short), codes.take(pa.array(short.document)))
        card = _card(data, target, options, licence, names, held, lines, documents, pieces)
        with storage.atomic_output(os.path.realpath(out)) as handle, target.open("rb") as read:
            shutil.copyfileobj(read, handle, 2**20)
    card["model"]["file"] = out.name
    storage.write_json(os.path.realpath(card_path(out)), card)
    return Trained(out, card, documents, pieces)


def card_path(model: Path) -> Path:
    """Where the card of a model lies."""
    return model.with_name(model.name + ".json")


def _held_out(text: pa.Array, codes: pa.Array, options: TrainOptions) -> npt.NDArray[np.bool_]:
    """Which documents are held out: (n,). At least one text of each language is not."""
    hashes = unit_hash(options.seed, text, "lid-held-out")
    held = hashes < np.uint64(min(int(options.held_out * 2**64), 2**64 - 1))
    names = codes.unique()
    label = cast("Any", pc).index_in(codes, value_set=names).to_numpy()
    last = np.zeros(len(names), np.uint64)
    np.maximum.at(last, label, hashes)
    return held & (hashes < last[label])


def _measure(model: Identifier, text: pa.Array, codes: pa.Array) -> Scores:
    lang, chance = model.identify(text)
    truth, answers = cast("list[str]", codes.to_pylist()), cast("list[str]", lang.to_pylist())
    return score(truth, answers, chance.to_numpy(zero_copy_only=False), named=model.codes)


def _write(path: Path, content: pa.Buffer) -> None:
    try:
        with path.open("wb") as handle:
            handle.write(content)
    except OSError as error:
        if error.errno in storage.DISK_ERRORS:
            raise LolaError(
                f"{path}: {storage.DISK_ERRORS[error.errno]}; the training text needs {content.size:,} bytes: free "
                "some, set TMPDIR to a larger disk, or give --max-chars"
            ) from error
        raise


def _fasttext(source: Path, target: Path, options: TrainOptions, tell: Callable[[str, float | None], None]) -> None:
    """Let fastText train on ``source`` and write ``target``."""
    arguments = {
        "input": str(source), "epoch": options.epochs, "dim": options.dim, "minn": options.minn, "maxn": options.maxn,
        "wordNgrams": options.word_ngrams, "bucket": options.bucket, "minCount": options.min_count, "lr": options.lr,
        "loss": options.loss, "seed": options.seed, "thread": options.threads, "verbose": 0,
    }  # fmt: skip
    # Trained again after the rare n-grams are gone, with the same text and rate.
    quantize = {"input": str(source), "qnorm": True, "retrain": True, "cutoff": options.cutoff}
    told = {"train": arguments, "quantize": quantize if options.quantize else None, "output": str(target)}
    # glibc fills what it gives out with the complement of this byte. Without it the part of the matrix that fastText
    # does not set would hold whatever was there, and now and then a NaN.
    environment = {**os.environ, "MALLOC_PERTURB_": "255"}
    command = [sys.executable, "-m", "lola_data.lid.trainer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps(told).encode())
            process.stdin.close()
            reading = _Reading(process.pid, source, passes=options.epochs * (2 if options.quantize else 1) + 1)
            while process.poll() is None:
                time.sleep(_POLL_S)
                tell("training", reading.share())
            said = process.stderr.read().decode("utf-8", "replace").strip()
        finally:
            process.kill()
    if process.returncode:
        raise _failure(said, process.returncode, options)


def _failure(said: str, code: int, options: TrainOptions) -> LolaError:
    last = said.splitlines()[-1] if said else f"it ended with exit code {code}"
    if "NaN" in last:
        return RecipeError(f"--lr {options.lr:g}: training diverged (fastText: {last}); try {options.lr / 2:g}")
    if "at least 256 rows" in last:
        return RecipeError(f"--quantize: too few words and n-grams for it (fastText: {last}); train without it")
    if code < 0:
        return LolaError(
            f"fastText was ended by signal {-code}; if memory ran out, give a smaller --bucket, --dim or --max-chars"
        )
    return LolaError(f"fastText could not train: {last}")


class _Reading:
    """How far a process has come with reading a file several times over, from what Linux tells of its open files."""

    def __init__(self, process: int, path: Path, *, passes: int) -> None:
        self._folder = f"/proc/{process}"
        self._path = os.path.realpath(path)
        self._total = passes * path.stat().st_size
        self._size = path.stat().st_size
        self._places: dict[str, int] = {}
        self._read = 0

    def share(self) -> float | None:
        """Share of all passes; None where nothing is told. Passes that end between two calls go unseen."""
        try:
            names = os.listdir(f"{self._folder}/fd")
            here = [name for name in names if os.path.realpath(f"{self._folder}/fd/{name}") == self._path]
            for name in here:
                with open(f"{self._folder}/fdinfo/{name}", encoding="ascii") as lines:  # noqa: PTH123
                    place = int(next(lines).split()[1])
                self._read += (place - self._places.get(name, 0)) % self._size
                self._places[name] = place
        except (OSError, StopIteration):
            return None if not self._read else min(1.0, self._read / self._total)
        return min(1.0, self._read / self._total)


def _card(
    data: LabelledText,
    model: Path,
    options: TrainOptions,
    licence: str,
    names: list[str],
    held: npt.NDArray[np.bool_],
    lines: dict[str, tuple[int, int]],
    documents: Scores | None,
    pieces: Scores | None,
) -> dict[str, Any]:
    """Nothing in it depends on the hour or the machine."""
    with model.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    card: dict[str, Any] = {
        "format": CARD_FORMAT,
        "model": {"bytes": model.stat().st_size, "sha256": digest, "languages": names},
        "licence": licence,
        "made_by": {"lola-data": version("lola-data"), "fasttext-numpy2-wheel": _fasttext_version()},
        "deterministic": options.threads == 1,
        "data": data.described() | {"held_out": int(held.sum())},
        "options": asdict(options),
        "training": {
            "lines": sum(count for count, _ in lines.values()),
            "characters": sum(count for _, count in lines.values()),
            "by_language": {code: {"lines": count, "characters": size} for code, (count, size) in lines.items()},
        },
        "held_out": None,
    }
    if documents is not None and pieces is not None:
        card["held_out"] = {
            "note": "documents of the same sources as the training text: text of other kinds will be harder",
            "documents": _summary(documents),
            "pieces": _summary(pieces),
            "f1_of_pieces": {code.code: round(code.f1, 4) for code in pieces.codes},
        }
    return card


def _summary(scores: Scores) -> dict[str, Any]:
    return {
        "texts": scores.texts,
        "languages": len(scores.codes),
        "macro_f1": round(scores.macro_f1, 4),
        "accuracy": round(scores.accuracy, 4),
        "group_accuracy": round(scores.group_accuracy, 4),
        "calibration_error": round(scores.calibration_error, 4),
    }


def _fasttext_version() -> str | None:
    try:
        return version("fasttext-numpy2-wheel")
    except PackageNotFoundError:
        return None
