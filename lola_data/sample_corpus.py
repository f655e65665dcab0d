"""The corpus that travels with the package: where it lies, and what was planted in it.

In: ``resources/sample/`` (its README says what it holds). Out: its folder, shaped like a tree of raw CulturaX shards,
and the list of planted copies, near-duplicates, decoys and misfiled documents that a stage can be judged by.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast, get_args

from lola_data.errors import ShardError

PlantKind = Literal[
    "exact_copy",
    "normalised_copy",
    "near_duplicate",
    "decoy",
    "same_url",
    "wrong_language",
    "wrong_language_short",
]


@dataclass(frozen=True, slots=True)
class Plant:
    """One document put into the sample on purpose.

    Attributes:
        kind: what it is; ``decoy`` alone is to be kept by every stage.
        lang: CulturaX code of the folder it lies in.
        file: name of its shard in that folder.
        row: its row in the shard, from 0.
        of_file: shard of the document it was made from, in the same folder and never after it; None for misfiled ones.
        of_row: row of that document.
        jaccard: similarity of the two texts' sets of word 5-grams in [0, 1]; None for misfiled documents.
        true_lang: CulturaX code of the language that a misfiled document is in, else None.
    """

    kind: PlantKind
    lang: str
    file: str
    row: int
    of_file: str | None
    of_row: int | None
    jaccard: float | None
    true_lang: str | None


def sample_root() -> Path:
    """Folder of the sample: ``<lang>/<lang>_part_0000N.parquet`` with columns text, timestamp, url, source.

    Raises:
        ShardError: the package was installed without its data, or inside a zip file.
    """
    root = Path(str(files("lola_data") / "resources" / "sample"))
    if not root.is_dir():
        raise ShardError(f"{root}: the sample corpus is missing; reinstall lola-data with its package data")
    return root


def planted() -> list[Plant]:
    """Everything planted in the sample, in the order of kind, language, shard and row.

    Raises:
        ShardError: the sample is missing, or ``planted.tsv`` names a kind of plant that is not known.
    """
    path = sample_root() / "planted.tsv"
    with path.open(encoding="utf-8", newline="") as lines:
        return [_plant(row, path, at) for at, row in enumerate(csv.DictReader(lines, delimiter="\t"), start=2)]


def _plant(row: dict[str, str], path: Path, line: int) -> Plant:
    if row["kind"] not in get_args(PlantKind):
        raise ShardError(
            f"{path}, line {line}: unknown kind {row['kind']!r}; rebuild the sample with its build_sample script"
        )
    return Plant(
        kind=cast("PlantKind", row["kind"]),
        lang=row["lang"],
        file=row["file"],
        row=int(row["row"]),
        of_file=row["of_file"] or None,
        of_row=int(row["of_row"]) if row["of_row"] else None,
        jaccard=float(row["jaccard"]) if row["jaccard"] else None,
        true_lang=row["true_lang"] or None,
    )
