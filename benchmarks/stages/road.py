"""Stage ``road``: raw shards in, tokens out, with language, deduplicated text and everything removed on the way.

Both keep the documents of which the model is at least 0.65 sure of any one language (datatrove's default), both look
for near-duplicates by 14 bands of 8 over sets of 5 words, both write the identified and the deduplicated tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import inputs
from benchmarks.datatrove_peer import DEDUP_NEEDS, FILTER_NEEDS, TOKENIZER_NEEDS
from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.identify import MODEL
from benchmarks.stages.identify_shards import identified_schema
from benchmarks.stages.tokenise import BATCH, prepare, read_datatrove, read_ours

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Task, Work

OURS, DATATROVE = "lola-data identify, dedup, sample, tokenize", "datatrove, the same road"
SURE = 0.65
"""Score from which a document is kept."""
THRESHOLD = 0.8
BANDS, ROWS = 14, 8
NAMES = ["identify", "dedup", "sample", "tokenize"]
RECIPE: dict[str, Any] = {
    # Whichever language it is: what datatrove's filter does where it is given no languages.
    "identify": {
        "model": MODEL,
        "policy": "keep",
        "min_score": SURE,
        "mismatch_score": SURE,
        "accept_confusable": False,
    },
    # Two texts under one URL: a rule that datatrove's MinHash does not have.
    "dedup": {"url": False, "threshold": THRESHOLD, "bands": BANDS, "rows": ROWS, "max_removed_share": 1.0},
    "sample": {"method": "all"},
    "tokenize": {"valid_share": 0.0},
}


def load_ours(task: Task) -> Work:
    """Four stages, as a recipe runs them."""
    from benchmarks.ours import stages, warm

    trees = {"download": str(task.corpus.raw), "tokenizer": str(inputs.tokenizer(task.corpus))}
    warm(task.out, NAMES, raw=task.corpus.raw, trees=trees, recipe=RECIPE)
    return stages(task.out, NAMES, trees=trees, recipe=RECIPE)


def load_datatrove(task: Task) -> Work:
    """Five passes; the last filters, writes and tokenises at once."""
    from benchmarks.datatrove_peer import language_filter, minhash, quiet, reader, run_blocks, tokenizer, writer
    from lola_data.lid.models import model_path

    quiet()
    out = task.out
    keep_sure = language_filter(model_path(MODEL), language_threshold=SURE)
    find = minhash(out, ngram=5, bands=BANDS, rows=ROWS)
    tokenise = tokenizer(out / "tokens", inputs.tokenizer_json(task.corpus), eod=inputs.EOD, batch_size=BATCH)
    schema = identified_schema()

    def work() -> None:
        run_blocks(reader(task.corpus.raw), keep_sure, writer(out / "identified", schema))
        drop = find(reader(out / "identified"))
        run_blocks(reader(out / "identified"), drop, writer(out / "deduped", schema), tokenise)

    return work


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Documents kept by language, planted pairs found, and what only one side removed."""
    from benchmarks.agreement import read_tree

    ours, theirs = outputs[OURS], outputs.get(DATATROVE)
    kept = {
        OURS: [set(read_tree(ours / tree, ["id"])["id"].to_pylist()) for tree in ("identified", "deduped")],
    }
    tokens = {OURS: read_ours(ours / "tokens" / "train")[0].size}
    if theirs is not None:
        kept[DATATROVE] = [
            {one.replace(".parquet/", "/") for one in read_tree(theirs / tree, ["id"])["id"].to_pylist()}
            for tree in ("identified", "deduped")
        ]
        tokens[DATATROVE] = read_datatrove(theirs / "tokens")[0].size
    found: list[Agreement] = []
    for name, (identified, deduped) in kept.items():
        text, holds = _told(corpus, identified, deduped, verifies=name == OURS)
        same = "" if name == OURS else f" ({len(identified ^ kept[OURS][0])} otherwise than ours)"
        found.append(
            Agreement(
                name, f"{len(identified):,} documents kept by language{same}; {text}; {tokens[name]:,} tokens", holds
            )
        )
    return found


def _told(corpus: Corpus, identified: set[str], deduped: set[str], *, verifies: bool) -> tuple[str, bool | None]:
    """What became of the planted pairs; whether it is what the S-curve and the threshold say."""
    removed = identified - deduped
    sure: list[tuple[float, bool]] = []
    below = below_found = 0
    touched: set[str] = set()
    for plant in corpus.planted():
        ids = [
            f"{plant.lang}/{file.removesuffix('.parquet')}/{row}"
            for file, row in ((plant.file, plant.row), (plant.of_file, plant.of_row))
        ]
        if plant.kind == "url" or not identified.issuperset(ids):
            continue
        touched.update(ids)
        joined = not removed.isdisjoint(ids)
        if plant.jaccard >= THRESHOLD:
            sure.append((plant.jaccard, joined))
        else:
            below += 1
            below_found += joined
    chances = [1.0 - (1.0 - similarity**ROWS) ** BANDS for similarity, _ in sure]
    expected = sum(chances)
    spread = sum(chance * (1.0 - chance) for chance in chances) ** 0.5
    hits = sum(joined for _, joined in sure)
    text = (
        f"{len(removed):,} removed as duplicates; of {len(sure):,} planted pairs at or above {THRESHOLD} {hits:,} "
        f"(S-curve: {expected:.0f} +- {spread:.0f}), of {below:,} below it {below_found:,}, of documents not planted "
        f"{len(removed - touched):,}"
    )
    # Another way to cut words measures other similarities, so the other side is told of and not judged.
    return text, (abs(hits - expected) <= 4 * max(spread, 1.0) and not below_found) if verifies else None


STAGE = Stage(
    name="road",
    title="raw shards to tokens",
    contenders=(
        Contender(OURS, load_ours, rate_goal=10),
        Contender(DATATROVE, load_datatrove, needs=(*FILTER_NEEDS, *DEDUP_NEEDS, *TOKENIZER_NEEDS), goal=15),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "fasttext-numpy2-wheel", "sentencepiece", "gigatoken", "tokenizers", "regex", "xxhash"),
    times=2,
)
