"""A corpus so small that all its stages take a second, with something in it for every stage to remove.

In: the sample that travels with the package. Out: ``<lang>/<lang>_part_0000N.parquet`` with the columns of CulturaX,
and recipes over it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lola_data.sample_corpus import sample_root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOCUMENTS = {"en": 36, "th": 16, "sw": 18}
"""Language -> documents of it."""
SHARDS = 3
"""Of each language."""
STAGES = ("download", "identify", "dedup", "sample", "tokenizer", "tokenize")
ONLY = tuple(word for stage in STAGES for word in ("--only", stage))
"""Options of ``lola-data run``: no training and no pages, which take longer than all else."""
RECIPE: dict[str, Any] = {
    "unit_mb": 1,
    "dedup": {"max_removed_share": 1.0},
    "sample": {"method": "temperature", "alpha": 0.5},
    "tokenizer": {"vocab_size": 400, "train_bytes": 30_000, "threads": 1},
    "tokenize": {"valid_share": 0.1},
}


def make_source(root: Path, documents: Mapping[str, int] = DOCUMENTS, shards: int = SHARDS) -> None:
    """Write the corpus: each language's last shard repeats a document of its first, one of them nearly, and the address
    of another; and one language has a document of another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {lang: _rows(lang, count) for lang, count in documents.items()}
    rows["en"][7] = {**rows["sw"][9], "url": "https://example.org/misfiled"}
    for lang, texts in rows.items():
        texts[-1] = {**texts[0], "url": f"https://example.org/{lang}/copy"}
        texts[-2] = {**texts[-2], "url": texts[1]["url"]}
        texts[-3] = {**texts[2], "text": f"{texts[2]['text']} And so on.", "url": f"https://example.org/{lang}/near"}
        folder = root / lang
        folder.mkdir(parents=True)
        for number in range(shards):
            first, last = (len(texts) * edge // shards for edge in (number, number + 1))
            pq.write_table(pa.Table.from_pylist(texts[first:last]), folder / f"{lang}_part_{number:05d}.parquet")


def _rows(lang: str, count: int) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = sorted((sample_root() / lang).glob("*.parquet"))[0]
    rows = pq.read_table(path).to_pylist()
    return [{**row, "text": row["text"][:1_500]} for row in rows[:count]]


def write_recipe(path: Path, source: Path, workdir: str, tasks: int) -> Path:
    """A recipe for ``lola-data run``."""
    values = {
        **RECIPE,
        "workdir": workdir,
        "download": {"source": "local", "path": str(source)},
        "executor": {"tasks": tasks, "workers": max(tasks, 1)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path
