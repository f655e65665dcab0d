"""Stage ``match-unverified``: signatures on disk to groups of documents that share a band, nothing verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.datatrove_peer import DEDUP_NEEDS
from benchmarks.harness import Agreement, Contender, Stage
from benchmarks.stages.match import DATATROVE, RECIPE, load_datatrove, made, prepare, removed_by_datatrove, signed_stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.corpus import Corpus
    from benchmarks.harness import Finish, Task, Work
    from lola_data.layout import Layout

OURS = "lola-data spread, tie, group"
PARTS = 16


def load_ours(task: Task) -> Work:
    """The phases that find out which documents hang together, as a run of the stage does them, in parts."""
    from benchmarks.ours import warm

    tree = made(task.corpus)
    recipe = {**RECIPE, "dedup": {**RECIPE["dedup"], "partitions": PARTS}}
    warm(task.out, ["dedup"], raw=tree, trees={"identify": str(tree)}, recipe=recipe)
    stage, run_phases = signed_stage(task.out, tree, partitions=PARTS)
    layout: Layout = stage.layout

    def work() -> Finish:
        run_phases("spread", "tie", "group")
        return lambda: _save_groups(layout, task.out)

    return work


def _save_groups(layout: Layout, out: Path) -> None:
    """Sizes of the groups, told from the ties."""
    import numpy as np

    from lola_data.shards import Unit
    from pipelines.partition import join_ties, ties_path
    from pipelines.state import StageState

    units = [Unit(**value) for value in StageState(layout, "dedup").plan("signatures") or []]
    groups = join_ties([ties_path(layout, "en", part) for part in range(PARTS)], sum(unit.rows for unit in units))
    groups.cut(1)
    np.save(out / GROUPS, np.array([groups.members, groups.groups()]))


GROUPS = "groups.npy"


def agree(corpus: Corpus, outputs: Mapping[str, Path]) -> list[Agreement]:
    """Documents that would go if one of each group stayed, and what a duplicate takes of memory."""
    import numpy as np

    from benchmarks.stages.match_check import memory_per_duplicate

    members, groups = np.load(outputs[OURS] / GROUPS).tolist()
    ours, theirs = memory_per_duplicate()
    texts = {OURS: f"{members - groups:,} beyond the first of a group"}
    if DATATROVE in outputs:
        texts[DATATROVE] = f"{removed_by_datatrove(outputs[DATATROVE]):,} removed"
    found: list[Agreement] = []
    for name, text in texts.items():
        taken = ours if name == OURS else theirs
        memory = "" if taken is None else f"; {taken:.1f} B of memory for each document that has a duplicate"
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
