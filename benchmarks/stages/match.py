"""Stage ``match``: signatures on disk to the decision on every document, pairs verified by their texts.

:mod:`benchmarks.stages.components` measures the same without verification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import DEDUP_NEEDS
from benchmarks.harness import Agreement, Contender, Stage, missing
from benchmarks.stages.signatures import BANDS, NGRAM, ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS, DATATROVE = "lola-data match: LSH, exact verification, decisions", "datatrove Buckets + Cluster, nothing verified"
THRESHOLD = 0.8
SEED = 1234
RECIPE: dict[str, Any] = {
    "seed": SEED,
    # Two texts under one URL: a rule that the others do not have.
    "dedup": {
        "url": False,
        "ngram": NGRAM,
        "threshold": THRESHOLD,
        "bands": BANDS,
        "rows": ROWS,
        "max_removed_share": 1.0,
    },
}
ROWS_OF_SHARD = 25_000


def made(corpus: Corpus) -> Path:
    """As many bytes as the corpus has of made documents of some 80 words, all in one folder: the work of this stage
    goes by documents and by folders, and CulturaX has a hundred thousand times as many a folder as the corpus."""
    from benchmarks.stages.match_check import made_texts, write_tree

    tree = corpus.inputs / "made"
    with inputs._whole(tree) as filling:
        if filling is not None:
            some = made_texts(1_000)
            count = round(corpus.bytes / (sum(len(text.encode()) for text in some) / len(some)))
            write_tree(filling, "en", made_texts(count), rows=ROWS_OF_SHARD)
    return tree


def prepare(corpus: Corpus) -> None:
    """The documents, and datatrove's signatures of them, which take it long."""
    tree = made(corpus)
    if missing(CONTENDERS[1]):
        return
    with inputs._whole(corpus.inputs / "made-signatures") as filling:
        if filling is not None:
            _sign_datatrove(tree, filling)


def signed_stage(out: Path, tree: Path, *, partitions: int | None = None) -> Any:
    """Our stage over a tree, its signatures made, and a function that runs phases of it by name."""
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from pipelines.corpus import build_stage
    from pipelines.executors import runner_of
    from pipelines.phases import do_phase
    from pipelines.run import fingerprint_of
    from pipelines.state import StageState

    dedup = {**RECIPE["dedup"], "partitions": partitions}
    values = {"workdir": str(out), "executor": {"tasks": 1, "workers": 1}, **RECIPE, "dedup": dedup}
    recipe = Recipe.model_validate(values)
    stage: Any = build_stage("dedup", recipe, Layout(str(out), {"identify": str(tree)}))
    StageState(stage.layout, "dedup").begin(fingerprint_of(stage), same_units=None)
    do_phase(stage, stage.phases[0], runner_of(recipe.executor), recipe.executor.workers)

    def run_phases(*names: str) -> None:
        for step in stage.phases:
            if step.phase in names:
                do_phase(stage, step, runner_of(recipe.executor), recipe.executor.workers)

    return stage, run_phases


def load_ours(task: Task) -> Work:
    """The phase ``match`` as a run of the stage does it, records and files of decisions included."""
    from benchmarks.ours import warm

    tree = made(task.corpus)
    warm(task.out, ["dedup"], raw=tree, trees={"identify": str(tree)}, recipe=RECIPE)
    _, run_phases = signed_stage(task.out, tree)
    return lambda: run_phases("match")


def _sign_datatrove(tree: Path, folder: Path) -> None:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    from benchmarks.datatrove_peer import quiet, reader, regex_words, run_blocks, text_hashing

    quiet()
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)
    sign = text_hashing(MinhashDedupSignature(str(folder), config=config, language=regex_words()))
    run_blocks(reader(tree, read_metadata=False), sign)


def load_datatrove(task: Task) -> Work:
    """Its stages two and three over its own signatures, all of one file a band."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster

    from benchmarks.datatrove_peer import quiet, run_blocks

    quiet()
    out = task.out
    signatures = str(task.inputs / "made-signatures")
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def work() -> None:
        for rank in range(BANDS):
            # One record at a time is the default; whole buckets are faster (its own documentation of the option).
            run_blocks(
                MinhashDedupBuckets(signatures, str(out / "buckets"), config=config, lines_to_buffer=-1),
                rank=rank,
                world_size=BANDS,
            )
        run_blocks(MinhashDedupCluster(str(out / "buckets"), str(out / "remove"), config=config, lines_to_buffer=-1))

    return work


def removed_by_datatrove(folder: Path) -> int:
    """Documents in its lists."""
    return sum(path.stat().st_size // 4 for path in (folder / "remove").rglob("*.remove"))


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Our removed set beside the rule played through on all pairs of the very documents."""
    from benchmarks.agreement import read_tree
    from benchmarks.stages.match_check import judge, row_of

    decisions = _decisions(outputs[OURS])
    ours = {
        row_of(one): row_of(kept)
        for one, kept in zip(decisions["id"].to_pylist(), decisions["kept_id"].to_pylist(), strict=True)
        if kept is not None
    }
    text, holds = judge(read_tree(made(corpus), ["text"])["text"].to_pylist(), ours, threshold=THRESHOLD, seed=SEED)
    found = [Agreement(OURS, text, holds)]
    if DATATROVE in outputs:
        found.append(Agreement(DATATROVE, f"{removed_by_datatrove(outputs[DATATROVE]):,} removed"))
    return found


def _decisions(work: Path) -> Any:
    import pyarrow as pa

    from lola_data.layout import Layout
    from pipelines.match import decision_places, read_decisions

    places = decision_places(Layout(str(work)))
    return pa.concat_tables([read_decisions(*place) for place in places.values()])


CONTENDERS = (
    Contender(OURS, load_ours),
    Contender(DATATROVE, load_datatrove, needs=DEDUP_NEEDS, goal=5),
)
STAGE = Stage(
    name="match",
    title="signatures of made documents to decisions, every pair verified by us",
    contenders=CONTENDERS,
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "xxhash"),
)
