"""Stage ``identify-shards``: raw shards in, shards with language and score out, nothing removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.datatrove_peer import FILTER_NEEDS
from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.identify import MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS, DATATROVE = "lola-data stage identify", "datatrove ParquetReader + LanguageFilter + ParquetWriter"
RECIPE: dict[str, Any] = {"identify": {"model": MODEL, "policy": "keep"}}


def load_ours(task: Task) -> Work:
    """The whole stage: checks, ids, language, script, policy."""
    from benchmarks.ours import stages, warm

    trees = {"download": str(task.corpus.raw)}
    warm(task.out, ["identify"], raw=task.corpus.raw, trees=trees, recipe=RECIPE)
    return stages(task.out, ["identify"], trees=trees, recipe=RECIPE)


def load_datatrove(task: Task) -> Work:
    """Labels only: the filter drops nothing."""
    from benchmarks.datatrove_peer import language_filter, quiet, reader, run_blocks, writer
    from lola_data.lid.models import model_path

    quiet()
    blocks = [
        reader(task.corpus.raw),
        language_filter(model_path(MODEL), label_only=True),
        writer(task.out, identified_schema()),
    ]
    return lambda: run_blocks(*blocks)


def identified_schema() -> Any:
    """What datatrove writes of a document with a language."""
    import pyarrow as pa

    from lola_data.schemas import RAW

    return pa.schema([("id", pa.string()), *RAW, ("language", pa.string()), ("language_score", pa.float32())])


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Labels and scores of all documents, in the order of their shards."""
    from benchmarks.agreement import labels_agree, read_tree

    ours = read_tree(outputs[OURS] / "identified", ["lang", "lang_score"]).rename_columns(["lang", "score"])
    if DATATROVE not in outputs:
        return []
    other = read_tree(outputs[DATATROVE], ["language", "language_score"]).rename_columns(["lang", "score"])
    holds, text = labels_agree(ours, other)
    return [Agreement(DATATROVE, text, holds)]


STAGE = Stage(
    name="identify-shards",
    title=f"language of each document, shards in and out, {MODEL}",
    contenders=(Contender(OURS, load_ours), Contender(DATATROVE, load_datatrove, needs=FILTER_NEEDS, goal=10)),
    agree=agree,
    versions=("datatrove", "fasttext-numpy2-wheel"),
)
