"""Section ``quality``: precision, recall and F1 of deduplication on documents with labels.

A side removes documents, and is right about one if a document it keeps is a duplicate of it by the rule: the same
normalised text, or a Jaccard similarity of the sets of five words of at least 0.8, exactly computed by words spelled
out in :mod:`benchmarks.alike`. Precision: the share of the removed documents that are so. Recall: of the documents that
are a duplicate of an earlier one, the share of which not both are kept. F1 is the harmonic mean of both.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.alike import NGRAM, all_pairs, grams_of, normalised
from benchmarks.graded import KINDS, TEMPLATES, Graded, make
from benchmarks.section import Bench, Section, Told
from benchmarks.summary import HELD, MET, MISSED, NOT_HELD, Entry
from benchmarks.tables import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

THRESHOLD = 0.8
BANDS, ROWS, SEED = 14, 8, 1
NAME = "quality"
GROUPS, WORDS = 8, 250
"""Originals for each script and edit, and their words."""
Kept = list[bool]


@dataclass(frozen=True)
class Score:
    """Of one side. ``recalls``: of each kind of edit, found and there."""

    removed: int
    right: int
    found: int
    there: int
    wrong: Mapping[str, int]
    recalls: Mapping[str, tuple[int, int]]

    @property
    def precision(self) -> float:
        """Share of the removed documents like one that is kept."""
        return self.right / self.removed if self.removed else 1.0

    @property
    def recall(self) -> float:
        """Share of the duplicates found."""
        return self.found / self.there if self.there else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


class Labels:
    """What is a duplicate of what in a collection."""

    def __init__(self, made: Graded, threshold: float = THRESHOLD) -> None:
        self.made = made
        pairs = all_pairs(grams_of(made.texts, NGRAM), threshold)
        self.like: dict[int, set[int]] = {}
        for one, other in zip(pairs.one.tolist(), pairs.other.tolist(), strict=True):
            self._add(one, other)
        first: dict[str, int] = {}
        for row, text in enumerate(made.texts):
            same = first.setdefault(normalised(text), row)
            if same != row:
                self._add(same, row)

    def _add(self, one: int, other: int) -> None:
        self.like.setdefault(one, set()).add(other)
        self.like.setdefault(other, set()).add(one)

    def score(self, kept: Kept) -> Score:
        """Judge what one side has kept."""
        removed = right = found = there = 0
        wrong: Counter[str] = Counter()
        recalls: dict[str, list[int]] = {kind: [0, 0] for kind in (*KINDS, TEMPLATES[1])}
        for row, stays in enumerate(kept):
            like = self.like.get(row, set())
            if not stays:
                removed += 1
                if any(kept[other] for other in like):
                    right += 1
                else:
                    wrong[self.made.kinds[row]] += 1
            earlier = [other for other in like if other < row]
            if earlier:
                hit = not stays or not any(kept[other] for other in earlier)
                there += 1
                found += hit
                if self.made.kinds[row] in recalls:
                    recalls[self.made.kinds[row]][0] += hit
                    recalls[self.made.kinds[row]][1] += 1
        return Score(removed, right, found, there, wrong, {kind: (a, b) for kind, (a, b) in recalls.items()})


def ours(made: Graded, folder: Path) -> Kept:
    """The stage, a folder a script."""
    from benchmarks.agreement import read_tree
    from benchmarks.ours import stages
    from benchmarks.stages.match_check import write_tree

    rows: dict[str, list[int]] = {}
    for row, script in enumerate(made.scripts):
        rows.setdefault(script, []).append(row)
    for script, numbers in rows.items():
        write_tree(folder / "tree", script.lower(), [made.texts[row] for row in numbers])
    recipe = {"dedup": {"url": False, "threshold": THRESHOLD, "bands": BANDS, "rows": ROWS, "max_removed_share": 1.0}}
    stages(folder / "work", ["dedup"], trees={"identify": str(folder / "tree")}, recipe=recipe)()
    kept = [False] * len(made.texts)
    by_name = {script.lower(): numbers for script, numbers in rows.items()}
    for one in read_tree(folder / "work" / "deduped", ["id"])["id"].to_pylist():
        script, _, row = one.split("/")
        kept[by_name[script][int(row)]] = True
    return kept


def datatrove(made: Graded, folder: Path) -> Kept:
    """Its four stages, as the stage ``dedup`` of the benchmark sets them up."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )

    from benchmarks.datatrove_peer import quiet, regex_words, run_blocks, text_hashing

    quiet()
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    sign = text_hashing(MinhashDedupSignature(str(folder / "signatures"), config=config, language=regex_words()))
    sign(iter([Document(text=text, id=str(row)) for row, text in enumerate(made.texts)]), 0, 1)
    for rank in range(BANDS):
        run_blocks(
            MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config),
            rank=rank,
            world_size=BANDS,
        )
    run_blocks(MinhashDedupCluster(str(folder / "buckets"), str(folder / "remove"), config=config))
    kept = [True] * len(made.texts)
    for path in (folder / "remove").rglob("*.remove"):
        for row in np.fromfile(path, "<u4").tolist():
            kept[row] = False
    return kept


def text_dedup(made: Graded, folder: Path) -> Kept:
    """Its command ``minhash``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    minhash: Any = import_module("text_dedup.minhash")
    utils: Any = import_module("text_dedup.utils")
    datasets: Any = import_module("datasets")
    datasets.disable_progress_bars()
    table = pa.table({"id": [str(row) for row in range(len(made.texts))], "text": made.texts})
    pq.write_table(table, folder / "made.parquet")
    read = utils.IOArgs(
        path="parquet",
        output=str(folder / "kept"),
        data_files=[str(folder / "made.parquet")],
        split="train",
        cache_dir=str(folder / "cache"),
        num_proc=None,
    )
    how = utils.MinHashArgs(
        ngram=NGRAM, min_length=0, num_perm=BANDS * ROWS, b=BANDS, r=ROWS, hash_func="xxh3", hash_bits=32
    )
    minhash.main.callback(io_args=read, meta_args=utils.MetaArgs(column="text"), minhash_args=how)
    kept = [False] * len(made.texts)
    for one in datasets.load_from_disk(str(folder / "kept"))["id"]:
        kept[int(one)] = True
    return kept


def rensa(made: Graded, folder: Path) -> Kept:
    """Its deduplicator, which compares the sketches of pairs that share a band."""
    from benchmarks.stages.signatures import shingler

    module: Any = import_module("rensa")
    shingles = shingler()
    dedup = module.RMinHashDeduplicator(
        threshold=THRESHOLD, num_perm=BANDS * ROWS, use_lsh=True, num_bands=BANDS, seed=SEED
    )
    return list(dedup.add_pairs((str(row), shingles(text)) for row, text in enumerate(made.texts)))


def datasketch(made: Graded, folder: Path) -> Kept:
    """``MinHashLSH``: a document goes if one that stays shares a band with it."""
    from benchmarks.stages.signatures import shingler

    module: Any = import_module("datasketch")
    shingles = shingler()
    index = module.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sets = ([run.encode() for run in shingles(text)] for text in made.texts)
    kept: Kept = []
    for row, sketch in enumerate(module.MinHash.generator(sets, num_perm=BANDS * ROWS, seed=SEED)):
        stays = not index.query(sketch)
        if stays:
            index.insert(str(row), sketch)
        kept.append(stays)
    return kept


def fast_dedup(made: Graded, folder: Path) -> Kept:
    """Its sketches, each compared with those kept before it in the same script, for it has no buckets."""
    from benchmarks.stages.signatures import shingler

    module: Any = import_module("fast_dedup")
    shingles = shingler()
    kept_sketches: dict[str, list[Any]] = {}
    kept: Kept = []
    for script, text in zip(made.scripts, made.texts, strict=True):
        sketch = module.MinHash(BANDS * ROWS, SEED)
        for run in shingles(text):
            sketch.update(run)
        before = kept_sketches.setdefault(script, [])
        stays = all(sketch.jaccard(other) < THRESHOLD for other in before)
        if stays:
            before.append(sketch)
        kept.append(stays)
    return kept


SIDES: dict[str, tuple[Callable[[Graded, Path], Kept], tuple[str, ...]]] = {
    "lola-data stage dedup": (ours, ()),
    "datatrove MinHash": (datatrove, ("regex", "xxhash")),
    "text-dedup minhash": (text_dedup, ("text_dedup", "datasets", "click_option_group")),
    "rensa RMinHashDeduplicator": (rensa, ("rensa", "regex")),
    "datasketch MinHashLSH": (datasketch, ("datasketch", "regex")),
    "fast-dedup MinHash, all pairs": (fast_dedup, ("fast_dedup", "regex")),
}
"""Name -> what it keeps, and the modules it needs."""


def score_all(made: Graded, workdir: Path, say: Callable[[str], None]) -> dict[str, Score | str]:
    """Every side's score, or why there is none."""
    from benchmarks.harness import Contender, missing

    labels = Labels(made)
    found: dict[str, Score | str] = {}
    for number, (name, (side, needs)) in enumerate(SIDES.items()):
        lacking = missing(Contender(name, lambda task: lambda: None, needs=needs))
        if lacking:
            found[name] = f"not installed: {', '.join(lacking)}"
            continue
        folder = workdir / str(number)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        try:
            found[name] = labels.score(side(made, folder))
        except Exception as error:  # whatever a peer raises, the others are scored
            if side is ours:
                raise
            found[name] = f"failed: {type(error).__name__}: {error}"
        say(f"{NAME}: {name}: {time.perf_counter() - started:.1f} s")
    return found


COLUMNS = ("side", "removed", "precision", "recall", "F1", *(f"recall: {kind}" for kind in (*KINDS, TEMPLATES[1])))


def markdown(scores: Mapping[str, Score | str]) -> str:
    """The table, and below it what was removed wrongly."""
    lines: list[Sequence[str]] = [COLUMNS]
    wrong: list[str] = []
    for name, score in scores.items():
        if isinstance(score, str):
            lines.append([name, score, *[""] * (len(COLUMNS) - 2)])
            continue
        cells = [name, f"{score.removed:,}", f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}"]
        cells += [f"{a / b:.3f} of {b:,}" if b else "none there" for a, b in score.recalls.values()]
        lines.append(cells)
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(score.wrong.items()))
        wrong.append(f"- Removed by {name} though like none that it keeps: {kinds or 'none'}")
    return "\n".join([markdown_table(lines), "", *wrong])


def measure(bench: Bench) -> Told:
    """The collection, scored for every side."""
    made = make(GROUPS, words=WORDS, seed=SEED)
    scores = score_all(made, bench.work, bench.say)
    body = (
        f"{len(made.texts):,} documents of {WORDS} words in {len(set(made.scripts))} scripts; {BANDS} bands of {ROWS}, "
        f"sets of {NGRAM} words, threshold {THRESHOLD}. What each removes is judged by the exact similarities.\n\n"
        f"{markdown(scores)}"
    )
    values = {
        name: score
        if isinstance(score, str)
        else {
            "precision": score.precision,
            "recall": score.recall,
            "f1": score.f1,
            "removed": score.removed,
            "wrong": dict(score.wrong),
            "recalls": dict(score.recalls),
        }
        for name, score in scores.items()
    }
    mine, *others = scores.values()
    assert isinstance(mine, Score)
    best = max((score.f1 for score in others if isinstance(score, Score)), default=0.0)
    entries = [
        Entry(NAME, "the labels", "nothing removed wrongly", f"precision {mine.precision:.4f}", _held(not mine.wrong)),
        Entry(NAME, "the best peer", f"F1 {best:.4f}", f"{mine.f1:.4f}", MET if mine.f1 >= best else MISSED),
    ]
    return Told(body, entries, values, not mine.wrong)


def _held(holds: bool) -> str:
    return HELD if holds else NOT_HELD


SECTION = Section(
    name=NAME,
    title="precision and recall of deduplication on documents with labels",
    measure=measure,
    versions=("datatrove", "text-dedup", "rensa", "datasketch", "fast-dedup", "regex"),
)
