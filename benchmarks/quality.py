"""The command ``python -m benchmarks.quality``: precision, recall and F1 of deduplication on documents with labels.

A side removes documents, and is right about one if a document it keeps is a duplicate of it by the rule: the same
normalised text, or a Jaccard similarity of the sets of five words of at least 0.8, exactly computed by words spelled
out in :mod:`benchmarks.alike`. Precision: the share of the removed documents that are so. Recall: of the documents that
are a duplicate of an earlier one, the share of which not both are kept. F1 is the harmonic mean of both.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks import report
from benchmarks.alike import NGRAM, all_pairs, grams_of, normalised
from benchmarks.graded import KINDS, TEMPLATES, Graded, make
from benchmarks.machine import this_machine, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

THRESHOLD = 0.8
BANDS, ROWS, SEED = 14, 8, 1
NAME = "quality"
RESULTS = Path(__file__).with_name("RESULTS.md")
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
PACKAGES = ("datatrove", "text-dedup", "rensa", "datasketch", "fast-dedup", "regex")


def measure(made: Graded, workdir: Path) -> dict[str, Score | str]:
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
        found[name] = labels.score(side(made, folder))
    return found


COLUMNS = ("side", "removed", "precision", "recall", "F1", *(f"recall: {kind}" for kind in (*KINDS, TEMPLATES[1])))


def markdown(scores: Mapping[str, Score | str]) -> str:
    """The table, and below it what was removed wrongly."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    wrong: list[str] = []
    for name, score in scores.items():
        if isinstance(score, str):
            lines.append(f"| {name} | {score} |" + " |" * (len(COLUMNS) - 2))
            continue
        cells = [name, f"{score.removed:,}", f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}"]
        cells += [f"{a / b:.3f} of {b:,}" if b else "none there" for a, b in score.recalls.values()]
        lines.append(f"| {' | '.join(cells)} |")
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(score.wrong.items()))
        wrong.append(f"- Removed by {name} though like none that it keeps: {kinds or 'none'}")
    return "\n".join([*lines, "", *wrong])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--groups", default=8, show_default=True, type=click.IntRange(1), help="Originals a script and edit.")
@click.option("--words", default=250, show_default=True, type=click.IntRange(50), help="Words of a document.")
@click.option("--seed", default=0, show_default=True, help="Decides the documents.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=RESULTS,
    help="File whose section is rewritten  [default: RESULTS.md here].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and write nothing.")
def main(groups: int, words: int, seed: int, results: Path, as_json: bool) -> None:
    """Score deduplication on documents with labels: copies with graded edits in 12 scripts, documents of one template,
    chains.

    Exit code 1: we removed a document that is like none we keep.
    """
    machine = this_machine()
    made = make(groups, words=words, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="quality-"))
    try:
        scores = measure(made, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = markdown(scores)
    if as_json:
        told = {
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
        print(json.dumps(told, indent=1))
    else:
        print(table)
        report.update(results, NAME, section(table, made, machine, groups, words, seed), _order())
    first = next(iter(scores.values()))
    sys.exit(0 if isinstance(first, Score) and not first.wrong else 1)


def _order() -> list[str]:
    from benchmarks.stages import MODULES

    return [*MODULES, NAME]


def section(table: str, made: Graded, machine: Any, groups: int, words: int, seed: int) -> str:
    """The section of RESULTS.md."""
    named = ", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items())
    command = f"python -m benchmarks.quality --groups {groups} --words {words} --seed {seed}"
    return f"""\
## {NAME}: precision and recall on documents with labels

- {machine.date}, `{command}`
- Python {machine.python}, {named}
- {len(made.texts):,} documents in {len(set(made.scripts))} scripts; {BANDS} bands of {ROWS}, sets of {NGRAM} words,
  threshold {THRESHOLD}

{table}
"""


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.quality")
