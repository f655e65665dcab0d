"""Our stages as ``lola-data run`` runs them: fingerprint, plan, units, records, manifest, files flushed to disk.

One task, which the engine runs in this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def stages(out: Path, names: list[str], *, trees: dict[str, str], recipe: dict[str, Any]) -> Callable[[], None]:
    """The stages ``names``, in order, in the work folder ``out``.

    Args:
        trees: stage -> tree that is there already.
        recipe: sections as a recipe has them.
    """
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from pipelines.corpus import build_stage
    from pipelines.run import run_stage

    made = Recipe.model_validate({"workdir": str(out), "executor": {"tasks": 1, "workers": 1}, **recipe})
    layout = Layout(str(out), trees)

    def work() -> None:
        for name in names:
            run_stage(build_stage(name, made, layout), made.executor)

    return work


def warm(out: Path, names: list[str], *, raw: Path, trees: dict[str, str], recipe: dict[str, Any]) -> None:
    """Run the same stages over one small shard, so that imports, models and compiled kernels are there.

    ``trees`` as for :func:`stages`; a tree of shards among them is replaced by the one of that shard.
    """
    import shutil

    shard = min(sorted(raw.rglob("*.parquet")), key=lambda path: path.stat().st_size)
    work = out.with_name(out.name + "-warm")
    shutil.rmtree(work, ignore_errors=True)
    small = work / "small"
    (small / shard.parent.name).mkdir(parents=True)
    shutil.copy(shard, small / shard.parent.name / shard.name)
    first = min(trees, key=lambda stage: stage == "tokenizer")
    # Left where it is: a file system may be slow to make files just after many were deleted.
    stages(work / "run", names, trees={**trees, first: str(small)}, recipe=recipe)()
