"""How much a stage will read: units, text, documents, counted where that is cheap and else guessed.

Of local Parquet the footers tell; of remote files only their sizes; of a stage that is complete its tree and manifest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lola_data import storage
from lola_data.shards import open_parquet, plan_units
from pipelines.corpus import build_stage
from pipelines.rates import TEXT_PER_DOCUMENT, TEXT_PER_FILE_BYTE
from pipelines.shard_pattern import PARQUET
from pipelines.state import StageState

if TYPE_CHECKING:
    from lola_data.layout import Layout
    from lola_data.recipe import Recipe
    from lola_data.shards import Unit
    from pipelines.sources import RawShard


@dataclass(frozen=True, slots=True)
class Size:
    """What a stage reads.

    Attributes:
        shards: files.
        units: pieces of work that are made of them.
        text: uncompressed bytes.
        files: bytes of the files.
        documents: rows.
        by_language: rows of each language.
    """

    shards: int
    units: int
    text: float
    files: float
    documents: float
    by_language: dict[str, float]

    def cut(self, share: float) -> Size:
        """The same shards with a share of their documents."""
        documents = {lang: rows * share for lang, rows in self.by_language.items()}
        return replace(self, text=self.text * share, documents=self.documents * share, by_language=documents)


def size_of_source(recipe: Recipe, layout: Layout) -> Size:
    """What download will bring in.

    Raises:
        LolaError: the source cannot be listed, or a language is not there.
    """
    stage: Any = build_stage("download", recipe, layout)
    works: list[RawShard] = stage.phases[0].plan()
    root = None
    if recipe.download.source not in ("hub", "url"):
        from pipelines.download import open_source

        root = open_source(recipe.download, layout).place
    units, text = 0, 0.0
    rows: dict[str, float] = defaultdict(float)
    for work in works:
        size, documents = _counted(root, work)
        units += max(1, round(size / recipe.unit_bytes))
        text += size
        rows[work.lang] += documents
    return Size(len(works), units, text, sum(work.bytes for work in works), sum(rows.values()), dict(rows))


def _counted(root: str | None, work: RawShard) -> tuple[float, float]:
    """Text and rows of a shard."""
    if root is None or not work.origin.endswith(PARQUET):
        text = work.bytes * TEXT_PER_FILE_BYTE
        return text, text / TEXT_PER_DOCUMENT
    with open_parquet(storage.join(root, work.origin)) as file:
        footer = file.metadata
        return sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups)), footer.num_rows


def size_of_tree(name: str, recipe: Recipe, layout: Layout) -> Size | None:
    """What the stage ``name`` has made; None if it is not complete."""
    if not StageState(layout, name).complete():
        return None
    units: list[Unit] = plan_units(layout.tree(name), languages=recipe.selected, unit_bytes=recipe.unit_bytes)
    files = dict(storage.list_files(layout.tree(name), PARQUET))
    read = {unit.path for unit in units}
    rows = Counter[str]()
    for unit in units:
        rows[unit.lang] += unit.rows
    text = float(sum(unit.bytes for unit in units))
    return Size(len(read), len(units), text, sum(files[path] for path in read), sum(rows.values()), dict(rows))
