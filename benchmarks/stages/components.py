"""Stage ``match-unverified``: signatures on disk to groups of documents that share a band, nothing verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.datatrove_peer import DEDUP_NEEDS
from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.match import DATATROVE, RECIPE, load_datatrove, made, prepare, removed_by_datatrove, signed_stage
from benchmarks.stages.signatures import BANDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Finish, Task, Work

OURS = "lola-data find_components"
GROUPS = "groups.npy"


def load_ours(task: Task) -> Work:
    """What the phase ``match`` does up to the comparison of texts: columns read, buckets joined, a language each."""
    import numpy as np

    from benchmarks.ours import warm
    from lola_data.components import find_components
    from lola_data.shards import plan_units
    from pipelines.match import SignatureColumns

    tree = made(task.corpus)
    warm(task.out, ["dedup"], raw=tree, trees={"identify": str(tree)}, recipe=RECIPE)
    stage, _ = signed_stage(task.out, tree)
    units: dict[str, list] = {}
    for unit in plan_units(str(tree)):
        units.setdefault(unit.lang, []).append(unit)

    def work() -> Finish:
        sizes: list[np.ndarray] = []
        for of_language in units.values():
            columns = SignatureColumns(stage.layout, of_language)
            shingles = columns.column("shingles")
            ties = find_components(
                digests=columns.pair("digest"),
                urls=None,
                has_url=np.zeros(shingles.size, dtype=bool),
                shingled=shingles > 0,
                band_keys=lambda band, columns=columns: columns.column(f"band_{band}"),
                bands=BANDS,
            )
            sizes.append(np.diff(ties.starts))
        return lambda: np.save(task.out / GROUPS, np.concatenate(sizes))

    return work


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Documents that would go if one of each group stayed, and what a duplicate takes of memory."""
    import numpy as np

    from benchmarks.stages.match_check import memory_per_duplicate

    groups = np.load(outputs[OURS] / GROUPS)
    ours, theirs = memory_per_duplicate()
    texts = {OURS: f"{int(groups.sum() - groups.size):,} beyond the first of a group"}
    if DATATROVE in outputs:
        texts[DATATROVE] = f"{removed_by_datatrove(outputs[DATATROVE]):,} removed"
    found: list[Agreement] = []
    for name, text in texts.items():
        taken = ours if name == OURS else theirs
        memory = "" if taken is None else f"; {taken:.0f} B of memory for each document that has a duplicate"
        found.append(Agreement(name, text + memory))
    return found


STAGE = Stage(
    name="match-unverified",
    title="signatures of made documents to groups, nothing verified by either",
    contenders=(
        Contender(OURS, load_ours),
        Contender(DATATROVE, load_datatrove, needs=DEDUP_NEEDS, goal=10),
    ),
    agree=agree,
    prepare=prepare,
    versions=("datatrove", "xxhash"),
)
